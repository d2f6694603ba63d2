"""Servables: versioned SavedModel directories for TensorFlow Serving and for keraslight's own server.

<path>/<version>/
    saved_model.pb, variables/          signatures serving_default, serving_uint8, encoded, classify (of a regression
                                        regress), decode, decode_examples, and embed on request
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

from keraslight._files import check_pattern
from keraslight._tasks import Head, label_thresholds, read_head
from keraslight.errors import InvalidArgumentError
from keraslight.export._frozen import convertible
from keraslight.export._inference import (
    DTYPES,
    inference_graph,
    normalized,
    predictor,
    quantized_named,
    raw_pixels,
    shapes,
)
from keraslight.export._repository import batch_sizes, check_config, update_config
from keraslight.export._signatures import pipelines, write_saved_model
from keraslight.export._verify import sample_images, verify, weights_hash
from keraslight.export._versions import INFO, atomic_version, check_number, list_versions
from keraslight.export._warmup import write_warmup
from keraslight.export.litert import to_litert
from keraslight.export.litert.convert import convert_graph
from keraslight.graph import Ends, Graph, build, read, read_ends, with_graph_names
from keraslight.labels import check_labels
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import halved

log = logging.getLogger(__name__)


def save_servable(
    model: Any,
    path: str | Path,
    *,
    labels: Sequence[str] = (),
    task: str | None = None,
    thresholds: Sequence[float] | None = None,
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
    - `regress` in place of `classify` for a `regression` with one output: `inputs` -> `outputs` float32 (B, 1), for
      TensorFlow Serving's Regress. In a regression's other signatures, `outputs` float32 (B, K), the model's numbers,
      takes the place of `probabilities`, `logits`, `classes`, `scores` and `indices`.
    - `embed`: `images` float32 (B, H, W, C) -> `embedding` float32 (B, D), the inputs of the classifier layer.

    Args:
        model: A model (B, H, W, C) -> (B, K): a functional or sequential `keras.Model`, or a quantization-aware one. A
            softmax or sigmoid, as the task says, is added to logits.
        path: The servable's directory; its last part is usually the model's name.
        labels: K names, in the order of the outputs. For `binary` either the name of the class that the score is of, or
            two names, of which it is the second: then the signatures return rows of two classes. A `regression` needs
            no names.
        task: What the outputs are: `"softmax"` (one of K classes), `"multi-label"` (K independent scores, which the
            rankings sort), `"binary"` (one score from 0 to 1) or `"regression"`. None takes what the final activation
            says (softmax, sigmoid, or several logits) or what the model remembers.
        thresholds: Scores of a `multi-label` model, between 0 and 1, above which an image has a label: one number, or
            K, such as `TrainingResult.thresholds`. `encoded` then also returns `thresholds` float32 (B, K), in the
            order of `classes`; `ClassifierClient.classify(..., threshold="model")` keeps the labels above them.
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
        InvalidArgumentError: Labels, task, thresholds, preprocessing, samples, version or dtype don't fit the model,
            the task must be said, the model has other outputs or no graph (it is subclassed), or `path` has brackets or
            backslashes.
        ExportError: The version exists already, can't be written, or does not return the model's probabilities (within
            1e-4; float16 1e-2, bfloat16 5e-2; numbers of a regression relative to the largest); or a file of the
            repository can't be read. Existing files are kept.
        CompressionError: A nested model is subclassed, or a layer can't be created from its configuration.
        MissingDependencyError: The extra `export` is not installed.
    """
    path = Path(path)
    check_pattern(path, "path")
    source, model = model, convertible(model)
    input_shape, classes = shapes(model)
    head, ends = read_head(model, task), read_ends(model)
    pair = head.task == "binary" and len(labels) == 2
    if quantization is None and ends.quantization_aware:
        quantization = "int8"
    spec = preprocessing or ends.preprocessing or raw_pixels(input_shape)
    labels = check_labels(labels, 2 if pair else classes) if head.ranks or labels else []
    _check(spec, input_shape, dtype, max_pixels)
    limits = label_thresholds(head, thresholds)
    images = _samples(samples, input_shape)
    number = max(list_versions(path), default=0) + 1 if version is None else check_number(version)
    check_config(path)
    sizes = batch_sizes(path)

    before = None if ends.preprocessing or ends.quantization_aware else preprocessing
    served, lite = _forms(model, ends, before, head, pair=pair, dtype=dtype, embed=embed)
    with atomic_version(path, number, overwrite=overwrite) as directory:
        write_saved_model(served, directory, labels, spec, head, limits, embed=embed, max_pixels=max_pixels)
        file = directory / "model.tflite"
        described: dict[str, Any] = {"labels": labels or None, "task": head.task, "thresholds": limits}
        if isinstance(lite, Graph):
            convert_graph(lite, file, quantization=quantization, batch_size=None, **described)
        else:
            lite.preprocessing = spec  # it takes pixels; where that is a guess, the warning was given above
            to_litert(lite, file, quantization=quantization, batch_size=None, **described)
        predict = predictor(model, before, head, pair=pair)
        parity = verify(predict, directory, images, spec, head, dtype=dtype, quantization=quantization)
        extra = (directory / INFO).parent
        extra.mkdir()
        warmup = extra / "tf_serving_warmup_requests"
        write_warmup(warmup, path.absolute().name, input_shape, head, embed=embed, batch_sizes=sizes)
        origin = {
            "model": model.name,
            "task": head.task,
            "thresholds": limits,
            "weights_sha256": weights_hash(source),
            "classes": len(labels) if head.ranks else classes,
            "preprocessing": spec.to_dict(),
            "dtype": dtype,
            "quantization": quantization,
            "max_pixels": max_pixels,
            "batch_sizes": sizes,
            "pipelines": pipelines(head, limits),
            "metrics": metrics or {},
            "parity": parity,
            "versions": {name: metadata.version(name) for name in ("keraslight", "keras", "tensorflow")},
            "python": platform.python_version(),
        }
        (directory / INFO).write_text(json.dumps(origin, indent=2) + "\n")
    update_config(path)
    return path / str(number)


def _forms(
    model: Any, ends: Ends, before: Preprocessing | None, head: Head, *, pair: bool, dtype: str, embed: bool
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
        served = quantized_named(model, head, pair=pair)
        return served, served
    graph = read(model) if before is None else normalized(read(model), before)
    lite = inference_graph(graph, head, pair=pair)
    served = inference_graph(graph, head, pair=pair, embed=True) if embed else lite
    served, _ = with_graph_names(served if dtype == "float32" else halved(served, dtype))
    return build(served), lite


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
