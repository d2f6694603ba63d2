"""Engines whose speed `latency` measures: each turns a model into a function without arguments to be timed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keraslight import _litert_files
from keraslight.errors import InvalidArgumentError
from keraslight.graph import compilable

Runner = Callable[[], np.ndarray]
ENGINES = ("keras", "saved_model", "litert")


def keras_runner(model: keras.Model, images: np.ndarray) -> Runner:
    """Keras' compiled inference function, without the data pipeline of `predict`."""

    def run() -> np.ndarray:
        with compilable(model):
            return model.predict_on_batch(images)

    return run


def saved_model_runner(model: keras.Model, images: np.ndarray, folder: Path) -> Runner:
    """Runs the signature of a SavedModel written by Keras."""
    _require_tensorflow("saved_model")
    import tensorflow as tf

    model.export(folder / "saved_model", verbose=False)
    loaded = tf.saved_model.load(folder / "saved_model")

    def run() -> np.ndarray:
        (output,) = tf.nest.flatten(loaded.serve(tf.constant(images)))
        return output.numpy()

    return run


def litert_file(model: keras.Model, batch: int, folder: Path) -> Path:
    """Writes the model as a float32 LiteRT file with a fixed batch size."""
    _require_tensorflow("litert")
    from keraslight.export import to_litert

    return to_litert(model, folder / "model.tflite", batch_size=batch)


def litert_runner(file: Path, images: np.ndarray, threads: int) -> Runner:
    """Runs LiteRT's interpreter with its default delegate, XNNPACK."""
    interpreter, given = _interpreter(file, threads)
    made = interpreter.get_output_details()[0]

    def run() -> np.ndarray:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run


def litert_file_runner(file: Path, rng: np.random.Generator, threads: int) -> Runner:
    """Runs a file on random pixels of the type that it takes: 0..255, or the part of it that fits an int8 input."""
    _, given = _interpreter(file, threads)
    highest = np.iinfo(given["dtype"]).max if np.issubdtype(given["dtype"], np.integer) else 255
    pixels = rng.integers(0, min(highest, 255), size=given["shape"], endpoint=True)
    return litert_runner(file, pixels.astype(given["dtype"]), threads)


def _interpreter(file: Path, threads: int) -> tuple[Any, dict[str, Any]]:
    """Returns LiteRT's interpreter and the details of its input."""
    interpreter = _litert_files.interpreter(file, threads)
    (given,) = interpreter.get_input_details()
    return interpreter, given


def _require_tensorflow(engine: str) -> None:
    if keras.backend.backend() != "tensorflow":
        raise InvalidArgumentError(
            f'The engine "{engine}" needs Keras\' TensorFlow backend. Received: {keras.backend.backend()!r}.'
        )
