"""Do the files that were written give the answers of the model that they were made from?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keraslight.errors import ExportError, MissingDependencyError
from keraslight.preprocessing import Preprocessing

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference of a probability, by what the SavedModel computes in. Sixteen bits carry 11 and 8 digits."""
LITERT_TOLERANCES = {None: 1e-4, "float16": 2e-3}
"""The same for model.tflite, by its quantization; others change probabilities by what they may, so they are counted."""

_SAMPLES = 4


def sample_images(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """uint8 (4, H, W, C): noise from coarse to fine, so that different images give different answers."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    images = []
    for sample in range(_SAMPLES):
        cells = min(2 ** (sample + 1), height, width)
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        images.append(rng.integers(0, 256, (cells, cells, channels))[rows][:, columns])
    return np.stack(images).astype(np.uint8)


def verify(
    predict: Callable[[np.ndarray], np.ndarray],
    directory: Path,
    images: np.ndarray,
    spec: Preprocessing,
    *,
    dtype: str,
    quantization: str | None,
) -> dict[str, Any]:
    """Compares every signature that gives classes with the source model.

    Args:
        predict: The source model: float32 (B, H, W, C) -> probabilities (B, K).
        directory: The version.
        images: uint8 (B, H, W, C).
        spec: How the servable turns files into images.
        dtype: What the SavedModel computes in.
        quantization: Of model.tflite.

    Returns:
        `{"images": B, "signatures": {name: {"largest_difference": ..., "same_top1": share}}}`; `model.tflite` counts
        as a signature.

    Raises:
        ExportError: probabilities are further apart than their tolerance.
    """
    files = [tf.io.encode_png(image).numpy() for image in images]
    decoded = np.stack([np.asarray(spec.decode(tf.constant(file))) for file in files])
    pixels, from_files = np.split(predict(np.concatenate([images.astype(np.float32), decoded])), 2)
    tolerance = TOLERANCES[dtype]
    results = {}
    for name, answers in _saved_model_answers(directory, images, files):
        wanted = from_files if name in ("encoded", "classify") else pixels
        results[name] = _compare(name, answers, wanted, tolerance)
    answers = _litert_answers(directory / "model.tflite", images.astype(np.float32))
    results["model.tflite"] = _compare("model.tflite", answers, pixels, LITERT_TOLERANCES.get(quantization))
    return {"images": len(images), "signatures": results}


def _saved_model_answers(directory: Path, images: np.ndarray, files: list[bytes]) -> Iterator[tuple[str, np.ndarray]]:
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
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()


def _litert_answers(file: Path, images: np.ndarray) -> np.ndarray:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError(
            'The check of model.tflite needs ai-edge-litert: pip install "keraslight[export]".'
        ) from error
    run = Interpreter(str(file), num_threads=1).get_signature_runner("serving_default")
    return np.concatenate([run(images=image[None])["probabilities"] for image in images])


def _compare(name: str, answers: np.ndarray, wanted: np.ndarray, tolerance: float | None) -> dict[str, float]:
    if name == "classify":
        wanted = -np.sort(-wanted, axis=1)
    difference = float(np.abs(answers - wanted).max())
    if tolerance is not None and not difference <= tolerance:  # NaN is no number within it
        raise ExportError(
            f"What was exported must give the model's probabilities within {tolerance:g}. Received: {name} with "
            f"differences up to {difference:.3g}."
        )
    # Only counted: two classes that are as likely as each other may change places without anything being wrong.
    same = answers.argmax(axis=1) == wanted.argmax(axis=1)
    return {"largest_difference": difference, "same_top1": float(same.mean())}


def weights_hash(model: Any) -> str:
    """SHA-256 of a model's weights: their shapes, dtypes and values in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.shape} {array.dtype} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
