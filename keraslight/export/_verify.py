"""Compares the written files with the model that they were made from."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keraslight._tasks import Head
from keraslight.errors import ExportError
from keraslight.export._frozen import OUTPUT_NAME, VALUES_NAME
from keraslight.export._inference import Predict
from keraslight.export.litert import litert_runner
from keraslight.preprocessing import Preprocessing

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference of a probability, by the SavedModel's dtype. Sixteen bits have 11 and 8 significant bits."""
LITERT_TOLERANCES = {None: 1e-4, "float16": 2e-3}
"""The same for model.tflite, by its quantization. Others have no limit: their differences are only recorded."""


def sample_images(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.uint8]:
    """uint8 (4, H, W, C): noise from coarse to fine, so that different images have different outputs."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    images = []
    for cells in (min(n, height, width) for n in (2, 4, 8, 16)):
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        images.append(rng.integers(0, 256, (cells, cells, channels))[rows][:, columns])
    return np.stack(images).astype(np.uint8)


def verify(
    predict: Predict,
    directory: Path,
    images: npt.NDArray[np.uint8],
    spec: Preprocessing,
    head: Head,
    *,
    dtype: str,
    quantization: str | None,
) -> dict[str, Any]:
    """Compares every signature of a version's directory that runs the network with the source model, `predict`.

    Returns:
        `{"images": B, "signatures": {name: {"largest_difference": ..., "same_top1": share}}}`; `model.tflite` counts
        as a signature.

    Raises:
        ExportError: Probabilities differ by more than their tolerance.
    """
    files = [tf.io.encode_png(image).numpy() for image in images]
    decoded = np.stack([np.asarray(spec.decode(tf.constant(file))) for file in files])
    pixels, from_files = np.split(predict(np.concatenate([images.astype(np.float32), decoded])), 2)
    signatures = tf.saved_model.load(str(directory)).signatures
    # Probabilities are at most 1, a regression's numbers may be anything.
    size = 1.0 if head.ranks else max(1.0, float(np.abs(pixels).max()), float(np.abs(from_files).max()))
    tolerance, lite_tolerance = TOLERANCES[dtype] * size, LITERT_TOLERANCES.get(quantization)
    main = OUTPUT_NAME if head.ranks else VALUES_NAME

    def compared(name: str, wanted: npt.NDArray[np.float32], output: str = main, **inputs: Any) -> Any:
        return _compare(name, signatures[name](**inputs)[output].numpy(), wanted, tolerance)

    lite = litert_runner(directory / "model.tflite")(images)
    examples = tf.constant([_example(file) for file in files])
    results = {
        "serving_default": compared("serving_default", pixels, images=tf.cast(images, tf.float32)),
        "serving_uint8": compared("serving_uint8", pixels, images=tf.constant(images)),
        "encoded": compared("encoded", from_files, image_bytes=tf.constant(files)),
    }
    if head.ranks:
        # Names may stand for several classes, so the scores are compared, in the order of the ranking.
        results["classify"] = compared("classify", -np.sort(-from_files, axis=1), "scores", inputs=examples)
    elif head.units == 1:
        results["regress"] = compared("regress", from_files, inputs=examples)
    limit = None if lite_tolerance is None else lite_tolerance * size
    results["model.tflite"] = _compare("model.tflite", lite, pixels, limit)
    return {"images": len(images), "signatures": results}


def _example(file: bytes) -> Any:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()


def _compare(
    name: str, found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], tolerance: float | None
) -> dict[str, float]:
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
