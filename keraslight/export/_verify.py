"""Compares the written files with the model that they were made from."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keraslight.errors import ExportError
from keraslight.export._inference import Predict
from keraslight.export.litert import litert_runner
from keraslight.preprocessing import Preprocessing

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference of a probability, by the SavedModel's dtype. Sixteen bits have 11 and 8 significant bits."""
LITERT_TOLERANCES = {None: 1e-4, "float16": 2e-3}
"""The same for model.tflite, by its quantization. Others have no limit: their differences are only recorded."""

_SAMPLES = 4


def sample_images(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.uint8]:
    """uint8 (4, H, W, C): noise from coarse to fine, so that different images have different outputs."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    images = []
    for sample in range(_SAMPLES):
        cells = min(2 ** (sample + 1), height, width)
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        images.append(rng.integers(0, 256, (cells, cells, channels))[rows][:, columns])
    return np.stack(images).astype(np.uint8)


def verify(
    predict: Predict,
    directory: Path,
    images: npt.NDArray[np.uint8],
    spec: Preprocessing,
    *,
    dtype: str,
    quantization: str | None,
) -> dict[str, Any]:
    """Compares every signature that returns classes with the source model.

    Args:
        predict: The source model: float32 (B, H, W, C) -> probabilities (B, K).
        directory: Directory of the version.
        images: uint8 (B, H, W, C).
        spec: How the servable turns files into images.
        dtype: Dtype that the SavedModel computes in.
        quantization: Quantization of model.tflite.

    Returns:
        `{"images": B, "signatures": {name: {"largest_difference": ..., "same_top1": share}}}`; `model.tflite` counts
        as a signature.

    Raises:
        ExportError: Probabilities differ by more than their tolerance.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    files = [tf.io.encode_png(image).numpy() for image in images]
    decoded = np.stack([np.asarray(spec.decode(tf.constant(file))) for file in files])
    pixels, from_files = np.split(predict(np.concatenate([images.astype(np.float32), decoded])), 2)
    tolerance = TOLERANCES[dtype]
    results = {}
    for name, found in _saved_model_outputs(directory, images, files):
        wanted = from_files if name in ("encoded", "classify") else pixels
        results[name] = _compare(name, found, wanted, tolerance)
    found = litert_runner(directory / "model.tflite")(images)
    results["model.tflite"] = _compare("model.tflite", found, pixels, LITERT_TOLERANCES.get(quantization))
    return {"images": len(images), "signatures": results}


def _saved_model_outputs(
    directory: Path, images: npt.NDArray[np.uint8], files: list[bytes]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    signatures = tf.saved_model.load(str(directory)).signatures
    pixels = tf.constant(images)
    yield "serving_default", signatures["serving_default"](images=tf.cast(pixels, tf.float32))["probabilities"].numpy()
    yield "serving_uint8", signatures["serving_uint8"](images=pixels)["probabilities"].numpy()
    yield "encoded", signatures["encoded"](image_bytes=tf.constant(files))["probabilities"].numpy()
    # Names may stand for several classes, so the scores are compared, in the order of the ranking.
    examples = tf.constant([_example(file) for file in files])
    yield "classify", signatures["classify"](inputs=examples)["scores"].numpy()


def _example(file: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
    example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
    content: bytes = example.SerializeToString()
    return content


def _compare(
    name: str, found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], tolerance: float | None
) -> dict[str, float]:
    if name == "classify":
        wanted = -np.sort(-wanted, axis=1)
    difference = float(np.abs(found - wanted).max())
    if tolerance is not None and not difference <= tolerance:  # a NaN is not within it
        raise ExportError(
            f"What was exported must give the model's probabilities within {tolerance:g}. Received: {name} with "
            f"differences up to {difference:.3g}."
        )
    # Only recorded: two equally likely classes may swap without anything being wrong.
    same = found.argmax(axis=1) == wanted.argmax(axis=1)
    return {"largest_difference": difference, "same_top1": float(same.mean())}


def weights_hash(model: Any) -> str:
    """SHA-256 of a model's weights: their shapes, dtypes and values in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.shape} {array.dtype} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
