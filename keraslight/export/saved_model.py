"""Servables: versioned SavedModel directories for TensorFlow Serving and for keraslight's own server.

<path>/<version>/
    saved_model.pb, variables/          signatures serving_default, serving_uint8, encoded, classify, decode,
                                        decode_examples, and embed on request
    model.tflite                        serving_default for LiteRT, with the labels for Android
    assets/labels.txt                   one label per line
    assets.extra/keraslight.json        origin of the version, and differences from the source model
    assets.extra/tf_serving_warmup_requests
"""

import json
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.export._inference import (
    DTYPES,
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
from keraslight.labels import check_labels
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
    """Writes the next version of a servable atomically.

    The version is written under a hidden name, compared with the model, flushed to disk and renamed, so that a server
    that polls the directory never sees an incomplete version, and a killed run leaves none behind. The parent folder of
    `path` is the model repository, whose models.config then lists the servable.

    Batch norms are folded and parallel branches fused. Signatures, all with an open batch size (H, W and C are the
    model's, K its number of classes):

    - `serving_default`: `images` float32 (B, H, W, C), raw pixels 0..255 -> `probabilities` and `logits`, float32
      (B, K).
    - `serving_uint8`: the same for `images` uint8. TensorFlow Serving never casts inputs.
    - `encoded`: `image_bytes` string (B,), JPEG, PNG, WebP, BMP or GIF files -> `probabilities` (B, K), and best first
      `classes` string, `scores` float32 and `indices` int32, each (B, K). JPEG files are rotated upright. A file that
      can't be decoded raises an error with its index.
    - `classify`: `inputs` string (B,), tf.Examples with either `image/encoded`, a file, or `image/pixels`, a string of
      H * W * C bytes -> `classes` and `scores` as above.
    - `decode`: `image_bytes` as for `encoded`, and `decode_examples`: `inputs` as for `classify`, -> `images` float32
      (B, H, W, C), as `serving_default` takes them. They split the string signatures into two steps: keraslight's
      server runs the second step in model.tflite; keraslight.json lists which signatures belong together.
    - `embed`: `images` float32 (B, H, W, C) -> `embedding` float32 (B, D), the inputs of the classifier layer.

    Args:
        model: A classifier (B, H, W, C) -> (B, K): a functional or sequential `keras.Model`, or a quantization-aware
            model. A softmax is added to logits.
        path: The servable's directory; its last part is usually the model's name.
        labels: K names, in the order of the outputs.
        preprocessing: How the model's images are resized, cropped and normalized. Pass it for a model that takes
            normalized images: the normalization becomes part of the servable's graph. None uses the model's own (built
            with `preprocessing=`); a model without any gets raw pixels 0..255, and a warning is logged.
        version: Version number, at least 1; None is one more than the highest version.
        overwrite: Whether to replace an existing version.
        quantization: Quantization of `model.tflite`: as in `to_litert`, for forms that need no representative data.
            That of a quantization-aware model is always `"int8"`.
        dtype: Dtype of the SavedModel's weights and computation: `"float32"`, `"float16"` or `"bfloat16"`. Sixteen bits
            are for GPUs and for CPUs with such instructions; elsewhere they are slower. Inputs, outputs, normalizations
            and model.tflite don't change.
        embed: Whether to write the signature `embed`.
        max_pixels: Height times width of the largest file that is decoded, at least 1; a file of a few bytes may claim
            gigabytes of pixels. Larger files raise an error with their index.
        samples: Raw pixels, uint8 or whole-numbered (N, H, W, C), on which the files are compared with the model. None
            uses four random images.
        metrics: Metrics to record in `assets.extra/keraslight.json`.

    Returns:
        The version's directory.

    Raises:
        InvalidArgumentError: Labels, preprocessing, samples, version or dtype don't fit the model, or the model is not
            a classifier or has no graph (it is subclassed).
        ExportError: The version exists already, can't be written, or does not return the model's probabilities (within
            1e-4; float16 1e-2, bfloat16 5e-2); or a file of the repository can't be read. Existing files are kept.
        CompressionError: A nested model is subclassed, or a layer can't be created from its configuration.
        MissingDependencyError: The extra `export` is not installed.
    """
    path = Path(path)
    input_shape, classes = shapes(model)
    ends = read_ends(model)
    if quantization is None and ends.quantization_aware:
        quantization = "int8"
    spec = preprocessing or ends.preprocessing or raw_pixels(input_shape)
    labels = check_labels(labels, classes)
    _check(spec, input_shape, dtype, max_pixels)
    images = _samples(samples, input_shape)
    number = max(list_versions(path), default=0) + 1 if version is None else check_number(version)
    check_config(path)
    sizes = batch_sizes(path)

    before = None if ends.preprocessing or ends.quantization_aware else preprocessing
    softmax = not gives_probabilities(model, ends, before, images)
    served, lite = _forms(model, ends, before, softmax=softmax, dtype=dtype, embed=embed)
    with atomic_version(path, number, overwrite=overwrite) as directory:
        write_saved_model(served, directory, labels, spec, embed=embed, max_pixels=max_pixels)
        file = directory / "model.tflite"
        if isinstance(lite, Graph):
            convert_graph(lite, file, quantization=quantization, batch_size=None, labels=labels)
        else:
            lite.preprocessing = spec  # it takes pixels; where that is a guess, the warning was given above
            to_litert(lite, file, quantization=quantization, batch_size=None, labels=labels)
        predict = predictor(model, before, softmax=softmax)
        parity = verify(predict, directory, images, spec, dtype=dtype, quantization=quantization)
        extra = (directory / INFO).parent
        extra.mkdir()
        warmup = extra / "tf_serving_warmup_requests"
        write_warmup(warmup, path.absolute().name, input_shape, embed=embed, batch_sizes=sizes)
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


def _forms(
    model: Any, ends: Ends, before: Preprocessing | None, *, softmax: bool, dtype: str, embed: bool
) -> tuple[Any, Any]:
    """The model to serve, and the source of model.tflite: a graph, or the quantization-aware model itself.

    Reads the model once and builds it once.
    """
    if ends.quantization_aware:
        if dtype != "float32" or embed:
            raise InvalidArgumentError(
                "A quantization-aware model must be exported in float32 and without `embed`. "
                f"Received: dtype={dtype!r}, embed={embed}."
            )
        served = quantized_with_logits(quantized_with_softmax(model) if softmax else model)
        return served, served
    graph = read(model) if before is None else normalized(read(model), before)
    graph = with_softmax(graph) if softmax else graph
    lite = inference_graph(graph)
    served = inference_graph(graph, embed=True) if embed else lite
    return build(served if dtype == "float32" else halved(served, dtype)), lite


def _check(spec: Preprocessing, shape: tuple[int, int, int], dtype: str, max_pixels: int) -> None:
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
