"""Servables: versioned SavedModel directories for TensorFlow Serving and for keraslight's own server.

<path>/<version>/
    saved_model.pb, variables/          signatures serving_default, encoded, classify
    model.tflite                        serving_default again, for LiteRT
    assets/labels.txt                   one label a line
    assets.extra/keraslight.json        where the version comes from
    assets.extra/tf_serving_warmup_requests
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError
from keraslight.export.litert import to_litert
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

log = logging.getLogger(__name__)

CLASSIFY_METHOD = "tensorflow/serving/classify"
_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid")


def save_servable(
    model: Any,
    path: str | Path,
    *,
    labels: Sequence[str],
    preprocessing: Preprocessing | None = None,
    version: int | None = None,
    overwrite: bool = False,
    quantization: str | None = None,
    metrics: dict[str, float] | None = None,
) -> Path:
    """Writes the next version of a servable, whole or not at all.

    The version is written under a hidden name, flushed to disk and renamed, so that a server that polls the directory
    never sees half of it, and a run that is killed leaves no version behind.

    Signatures, all with an open batch size (H, W and C are the model's, K its number of classes):

    - `serving_default`: `images` float32 (B, H, W, C), raw pixels 0..255 -> `probabilities` float32 (B, K).
    - `encoded`: `image_bytes` string (B,), image files -> `probabilities` (B, K), and best first `classes` string,
      `scores` float32 and `indices` int32, each (B, K).
    - `classify`: `inputs` string (B,), tf.Examples with `image/encoded` -> `classes` and `scores` as above.

    Args:
        model: A classifier (B, H, W, C) -> (B, K): a `keras.Model`, or a quantization-aware model. Outputs that are
            logits get a softmax.
        path: The servable's directory; its last part is the model's usual name.
        labels: K names, in the order of the outputs.
        preprocessing: How the model's images are resized, cropped and normalized. None takes what the model itself
            carries (built with `preprocessing=`); one that carries nothing gets raw pixels 0..255, said in a warning.
            For a model that takes normalized images pass it, and the normalization goes into the servable's graph.
        version: Version number, at least 1; None is one more than the highest there.
        overwrite: Replace a version that exists.
        quantization: Of the `model.tflite` beside the SavedModel: as in `to_litert`, for forms that need no
            representative data. A quantization-aware model takes `"int8"`.
        metrics: Figures to write down in `assets.extra/keraslight.json`.

    Returns:
        The version's directory.

    Raises:
        InvalidArgumentError: labels, preprocessing or version don't fit the model.
        ExportError: the version exists already, or can't be written; what was there is untouched.
    """
    labels = [str(label) for label in labels]
    own = _own_preprocessing(model)
    input_shape, classes = _shapes(model)
    spec = preprocessing or own or _raw_pixels(input_shape)
    _check(labels, classes, spec, input_shape)
    if isinstance(model, keras.Model):
        model = _from_raw_pixels_to_probabilities(model, None if own else preprocessing)

    path = Path(path)
    if version is None:
        version = max(list_versions(path), default=0) + 1
    elif version < 1:
        raise InvalidArgumentError(f"`version` must be at least 1. Received: version={version}.")
    final = path / str(version)
    if final.exists() and not overwrite:
        raise ExportError(f"A version is never overwritten unless `overwrite=True`. Received: {final}, which exists.")
    with _atomic_directory(final) as directory:
        _write_saved_model(model, directory, labels, spec)
        to_litert(model, directory / "model.tflite", quantization=quantization, batch_size=None)
        extra = directory / "assets.extra"
        extra.mkdir()
        _write_warmup(extra / "tf_serving_warmup_requests", path.name, input_shape, spec)
        origin = {
            "model": model.name,
            "classes": len(labels),
            "preprocessing": spec.to_dict(),
            "quantization": quantization,
            "metrics": metrics or {},
            "versions": {name: metadata.version(name) for name in ("keraslight", "keras", "tensorflow")},
            "python": platform.python_version(),
        }
        (extra / "keraslight.json").write_text(json.dumps(origin, indent=2) + "\n")
    return final


def list_versions(path: str | Path) -> list[int]:
    """The version numbers in a servable's directory, lowest first; none where there is no directory."""
    path = Path(path)
    if not path.is_dir():
        return []
    return sorted(int(child.name) for child in path.iterdir() if child.name.isdecimal() and child.is_dir())


def _own_preprocessing(model: Any) -> Preprocessing | None:
    """What a model that takes raw pixels says of its preprocessing; None for one that takes normalized images."""
    for layer in model.layers:
        if isinstance(layer, ImageNormalization):
            return layer.preprocessing
    return getattr(model, "preprocessing", None)


def _raw_pixels(shape: tuple[int, int, int]) -> Preprocessing:
    """What stands for the preprocessing of a model that says nothing of it."""
    height, width, channels = shape
    log.warning(
        "The model carries no preprocessing (no ImageNormalization layer), so the servable gives it raw pixels 0..255, "
        "resized and cropped to %dx%d. If it was trained on normalized images, pass that Preprocessing, such as "
        "keraslight.model_info(name).preprocessing.",
        height,
        width,
    )
    return Preprocessing((height, width), mean=(0.0,) * channels, std=(1 / 255,) * channels)


def _shapes(model: Any) -> tuple[tuple[int, int, int], int]:
    """Image shape (H, W, C) and number of classes of a classifier with one input and one output."""
    inputs, outputs = model.inputs, model.outputs
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "A servable needs a classifier with one input (B, H, W, C) and one output (B, classes). Received: inputs "
            f"{[tuple(i.shape) for i in inputs]}, outputs {[tuple(o.shape) for o in outputs]}."
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        raise InvalidArgumentError(f"A servable needs a fixed image size. Received: model input {(None, *shape)}.")
    return shape, outputs[0].shape[1]


def _check(labels: list[str], classes: int, spec: Preprocessing, shape: tuple[int, int, int]) -> None:
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


def _from_raw_pixels_to_probabilities(model: keras.Model, spec: Preprocessing | None) -> keras.Model:
    """The model with normalization in front and a softmax behind, each where it lacks them."""
    probabilities = _ends_in_probabilities(model)
    if spec is None and probabilities:
        return model
    images = keras.Input(model.inputs[0].shape[1:], name="images")
    x = images if spec is None else ImageNormalization(spec)(images)
    x = model(x)
    if not probabilities:
        x = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(images, x, name=model.name)


def _ends_in_probabilities(model: keras.Model) -> bool:
    last = model.outputs[0]._keras_history.operation
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    return isinstance(last, keras.layers.Softmax) or activation in _PROBABILITY_ACTIVATIONS


@contextlib.contextmanager
def _atomic_directory(final: Path) -> Iterator[Path]:
    """A hidden directory beside `final` that becomes it when the block ends well, and vanishes otherwise."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    except OSError as error:
        raise ExportError(f"The servable can't be written to {final.parent}: {error}.") from error
    try:
        yield hidden
        hidden.chmod(0o755)  # mkdtemp gives 0700; a server often runs as another user
        for directory, _, files in os.walk(hidden):
            for name in [*files, "."]:
                _fsync(Path(directory, name))
        if final.exists():
            # A rename can't replace a directory that isn't empty. The old one leaves under a hidden name first, so
            # that a reader sees the old version, none, or the new one, never a mixture.
            old = final.with_name(f".{final.name}-replaced-{os.getpid()}")
            final.rename(old)
            hidden.rename(final)
            shutil.rmtree(old)
        else:
            hidden.rename(final)
        _fsync(final.parent)
    except OSError as error:
        raise ExportError(f"The version {final} can't be written: {error}.") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_saved_model(model: Any, directory: Path, labels: list[str], spec: Preprocessing) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        labels_file = Path(scratch, "labels.txt")  # an asset keeps its file's name
        labels_file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        module = tf.Module()
        # The variables themselves, not the model: tracking a Keras model writes each variable twice.
        module.weights = _tf_variables(model)
        module.labels = tf.saved_model.Asset(str(labels_file))
        signatures = _signatures(model, labels, spec)
        tf.saved_model.save(module, str(directory), signatures=signatures)
    # TensorFlow 2 writes the predict method for every signature.
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key="classify", method_name=CLASSIFY_METHOD, tags="serve")
    updater.save()


def _tf_variables(model: Any) -> list[tf.Variable]:
    """A Keras 3 model's variables hold TensorFlow's in `value`; a tf_keras model's are TensorFlow's."""
    if isinstance(model, keras.Model):
        return [variable.value for variable in model.variables]
    return list(model.variables)


def _signatures(model: Any, labels: list[str], spec: Preprocessing) -> dict[str, Callable]:
    names = tf.constant(labels)
    height, width, channels = (*spec.size, spec.channels)

    def probabilities(images: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(model(images, training=False))

    def decode(files: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(spec.decode, files, fn_output_signature=tf.TensorSpec((height, width, channels), tf.float32))

    def ranked(scores: tf.Tensor) -> dict[str, tf.Tensor]:
        best, indices = tf.math.top_k(scores, k=len(labels))
        return {"classes": tf.gather(names, indices), "scores": best, "indices": indices}

    @tf.function(input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": probabilities(images)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = probabilities(decode(image_bytes))
        return {"probabilities": scores, **ranked(scores)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature((), tf.string)})
        outputs = ranked(probabilities(decode(features["image/encoded"])))
        return {"classes": outputs["classes"], "scores": outputs["scores"]}

    return {"serving_default": serving_default, "encoded": encoded, "classify": classify}


def _write_warmup(file: Path, name: str, shape: tuple[int, int, int], spec: Preprocessing) -> None:
    """One request for each signature, in the format that TensorFlow Serving replays before it announces a version.

    Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    try:
        from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise MissingDependencyError(
            'Warmup requests need tensorflow-serving-api: pip install "keraslight[export]".'
        ) from error
    grey = np.full(shape, 128, np.uint8)
    png = tf.io.encode_png(grey).numpy()

    raw = predict_pb2.PredictRequest()
    raw.model_spec.name, raw.model_spec.signature_name = name, "serving_default"
    raw.inputs["images"].CopyFrom(tf.make_tensor_proto(grey[None].astype(np.float32)))
    files = predict_pb2.PredictRequest()
    files.model_spec.name, files.model_spec.signature_name = name, "encoded"
    files.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([png]))
    examples = classification_pb2.ClassificationRequest()
    examples.model_spec.name, examples.model_spec.signature_name = name, "classify"
    example = examples.input.example_list.examples.add()
    example.features.feature["image/encoded"].bytes_list.value.append(png)

    logs = [
        prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=raw)),
        prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=files)),
        prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=examples)),
    ]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
