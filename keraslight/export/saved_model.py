"""Servables: versioned SavedModel directories for TensorFlow Serving and for keraslight's own server.

<path>/<version>/
    saved_model.pb, variables/          signatures serving_default, serving_uint8, encoded, classify, decode,
                                        decode_examples, embed if asked for
    model.tflite                        serving_default again, for LiteRT; labels inside, for Android
    assets/labels.txt                   one label a line
    assets.extra/keraslight.json        where the version comes from, and how well it agrees with that
    assets.extra/tf_serving_warmup_requests
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.export._inference import (
    DTYPES,
    check_quantization_aware,
    gives_probabilities,
    inference_graph,
    normalized,
    predictor,
    quantized_with_logits,
    quantized_with_softmax,
    raw_pixels,
    shapes,
    with_softmax,
)
from keraslight.export._repository import batch_sizes, check_config, update_config
from keraslight.export._signatures import PIPELINES, write_saved_model
from keraslight.export._verify import sample_images, verify, weights_hash
from keraslight.export._versions import INFO, atomic_version, check_number, list_versions
from keraslight.export._warmup import write_warmup
from keraslight.export.litert import to_litert
from keraslight.export.litert.convert import convert_graph
from keraslight.graph import Ends, Graph, build, read, read_ends
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import halved

log = logging.getLogger(__name__)


def save_servable(
    model: Any,
    path: str | Path,
    *,
    labels: Sequence[str],
    preprocessing: Preprocessing | None = None,
    version: int | None = None,
    overwrite: bool = False,
    quantization: str | None = None,
    dtype: str = "float32",
    embed: bool = False,
    max_pixels: int = 2**26,
    samples: np.ndarray | None = None,
    metrics: dict[str, float] | None = None,
) -> Path:
    """Writes the next version of a servable, whole or not at all.

    The version is written under a hidden name, compared with the model, flushed to disk and renamed, so that a server
    that polls the directory never sees half of it, and a run that is killed leaves no version behind. The folder that
    holds `path` is the model repository, whose models.config names the servable afterwards.

    Batch norms are folded and parallel branches fused. Signatures, all with an open batch size (H, W and C are the
    model's, K its number of classes):

    - `serving_default`: `images` float32 (B, H, W, C), raw pixels 0..255 -> `probabilities` and `logits`, float32
      (B, K).
    - `serving_uint8`: the same for `images` uint8. TensorFlow Serving never casts, and an input has one dtype.
    - `encoded`: `image_bytes` string (B,), JPEG, PNG, WebP, BMP or GIF files -> `probabilities` (B, K), and best first
      `classes` string, `scores` float32 and `indices` int32, each (B, K). JPEG files are turned upright. A file that
      can't be decoded is an error that names its index.
    - `classify`: `inputs` string (B,), tf.Examples with either `image/encoded`, a file, or `image/pixels`, a string of
      H * W * C bytes -> `classes` and `scores` as above.
    - `decode`: `image_bytes` as for `encoded`, and `decode_examples`: `inputs` as for `classify`, -> `images` float32
      (B, H, W, C), as `serving_default` takes them. The string signatures in two steps: keraslight's server runs the
      second one in model.tflite, and reads in keraslight.json which are to be joined.
    - `embed`: `images` float32 (B, H, W, C) -> `embedding` float32 (B, D), the features that the classifier reads.

    Args:
        model: A classifier (B, H, W, C) -> (B, K): a functional or sequential `keras.Model`, or a quantization-aware
            model. Outputs that are logits get a softmax.
        path: The servable's directory; its last part is the model's usual name.
        labels: K names, in the order of the outputs.
        preprocessing: How the model's images are resized, cropped and normalized. None takes what the model itself
            carries (built with `preprocessing=`); one that carries nothing gets raw pixels 0..255, said in a warning.
            For a model that takes normalized images pass it, and the normalization goes into the servable's graph.
        version: Version number, at least 1; None is one more than the highest there.
        overwrite: Replace a version that exists.
        quantization: Of the `model.tflite` beside the SavedModel: as in `to_litert`, for forms that need no
            representative data. That of a quantization-aware model is always `"int8"`.
        dtype: What the SavedModel's weights are and what it computes in: `"float32"`, `"float16"` or `"bfloat16"`.
            Sixteen bits are for GPUs and for CPUs with such instructions; elsewhere they are slower. Inputs, outputs,
            normalizations and model.tflite stay as they are.
        embed: Write the signature `embed`.
        max_pixels: Height times width of the largest file that is decoded, at least 1; a few bytes may claim to be
            gigabytes of pixels. Larger ones are an error that names their index.
        samples: uint8 or whole-numbered (N, H, W, C), raw pixels on which the files are compared with the model. None
            takes four random pictures.
        metrics: Figures to write down in `assets.extra/keraslight.json`.

    Returns:
        The version's directory.

    Raises:
        InvalidArgumentError: labels, preprocessing, samples, version or dtype don't fit the model, or the model has no
            graph (it is subclassed) or is no classifier.
        ExportError: the version exists already, can't be written, or does not give the model's probabilities (within
            1e-4; float16 1e-2, bfloat16 5e-2); or a file of the repository can't be read. What was there is untouched.
        CompressionError: a model nested in it is subclassed, or a layer's configuration does not make it again.
        MissingDependencyError: the extra `export` is not installed.
    """
    path, labels = Path(path), [str(label) for label in labels]
    input_shape, classes = shapes(model)
    ends = read_ends(model)
    if quantization is None and ends.quantization_aware:
        quantization = "int8"
    spec = preprocessing or ends.preprocessing or raw_pixels(input_shape)
    _check(labels, classes, spec, input_shape, dtype, max_pixels)
    images = _samples(samples, input_shape)
    number = max(list_versions(path), default=0) + 1 if version is None else check_number(version)
    check_config(path)
    sizes = batch_sizes(path)

    before = None if ends.preprocessing or ends.quantization_aware else preprocessing
    softmax = not gives_probabilities(model, ends, before, images)
    forms = _forms(model, ends, before, softmax=softmax, dtype=dtype, embed=embed)
    with atomic_version(path, number, overwrite=overwrite) as directory:
        write_saved_model(forms.served, directory, labels, spec, embed=embed, max_pixels=max_pixels)
        file = directory / "model.tflite"
        if isinstance(forms.lite, Graph):
            convert_graph(forms.lite, file, quantization=quantization, batch_size=None, labels=labels)
        else:
            forms.lite.preprocessing = spec  # it takes pixels; where that is a guess, the warning was given above
            to_litert(forms.lite, file, quantization=quantization, batch_size=None, labels=labels)
        predict = predictor(model, before, softmax=softmax)
        parity = verify(predict, directory, images, spec, dtype=dtype, quantization=quantization)
        (directory / INFO).parent.mkdir()
        write_warmup(
            directory / INFO.parent / "tf_serving_warmup_requests",
            path.absolute().name,
            input_shape,
            embed=embed,
            batch_sizes=sizes,
        )
        origin = {
            "model": model.name,
            "weights_sha256": weights_hash(model),
            "classes": len(labels),
            "preprocessing": spec.to_dict(),
            "dtype": dtype,
            "quantization": quantization,
            "max_pixels": max_pixels,
            "batch_sizes": sizes,
            "pipelines": PIPELINES,
            "metrics": metrics or {},
            "parity": parity,
            "versions": {name: metadata.version(name) for name in ("keraslight", "keras", "tensorflow")},
            "python": platform.python_version(),
        }
        (directory / INFO).write_text(json.dumps(origin, indent=2) + "\n")
    update_config(path)
    return path / str(number)


class _Forms(NamedTuple):
    """What is served, and what the .tflite file is made from: a graph, or the quantization-aware model itself."""

    served: Any
    lite: Any


def _forms(model: Any, ends: Ends, before: Preprocessing | None, *, softmax: bool, dtype: str, embed: bool) -> _Forms:
    """Reads a model once and builds it once."""
    if ends.quantization_aware:
        check_quantization_aware(dtype, embed)
        served = quantized_with_logits(quantized_with_softmax(model) if softmax else model)
        return _Forms(served, served)
    graph = read(model) if before is None else normalized(read(model), before)
    graph = with_softmax(graph) if softmax else graph
    lite = inference_graph(graph)
    served = inference_graph(graph, embed=True) if embed else lite
    return _Forms(build(served if dtype == "float32" else halved(served, dtype)), lite)


def _check(
    labels: list[str], classes: int, spec: Preprocessing, shape: tuple[int, int, int], dtype: str, max_pixels: int
) -> None:
    if len(labels) != classes:
        raise InvalidArgumentError(
            f"`labels` must name every class once. Received: {len(labels)} labels for {classes} classes."
        )
    if any("\n" in label for label in labels):
        raise InvalidArgumentError("`labels` are written one a line. Received: a label with a line break.")
    if (*spec.size, spec.channels) != shape:
        raise InvalidArgumentError(
            "`preprocessing` must give images of the model's input shape. Received: "
            f"size={spec.size} with {spec.channels} channels for a model input of {shape}."
        )
    if dtype not in DTYPES:
        raise InvalidArgumentError(f"`dtype` must be one of {DTYPES}. Received: {dtype!r}.")
    if max_pixels < 1:
        raise InvalidArgumentError(f"`max_pixels` must be at least 1. Received: max_pixels={max_pixels}.")


def _samples(samples: Any, shape: tuple[int, int, int]) -> np.ndarray:
    if samples is None:
        return sample_images(shape, seed=0)
    images = np.asarray(samples)
    if images.shape[1:] != shape or not len(images) or not (images == images.astype(np.uint8)).all():
        raise InvalidArgumentError(
            f"`samples` must be at least one image of shape {shape} with whole pixels from 0 to 255. Received: shape "
            f"{images.shape}, dtype {images.dtype}."
        )
    return images.astype(np.uint8)
