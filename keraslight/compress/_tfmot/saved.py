"""Quantization-aware models in files, and what a file keeps of the Keras 3 model that one was made from."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from keraslight.compress._tfmot import twin_layers
from keraslight.compress._tfmot.int8_graph import Assembled
from keraslight.compress._tfmot.quantizers import (
    ActivationQuantizer,
    Config,
    KeepClusters,
    KeepZeros,
    KernelQuantizer,
    Quantize,
    Wrapper,
)
from keraslight.errors import InvalidArgumentError
from keraslight.preprocessing import Preprocessing

_SCOPE = {  # without their package, as .h5 files and the library's wrappers name them
    kind.__name__: kind
    for kind in (
        *(kind for kind in vars(twin_layers).values() if getattr(kind, "__module__", "") == twin_layers.__name__),
        *(ActivationQuantizer, KernelQuantizer, Config, Wrapper, KeepZeros, KeepClusters),
        *(Quantize, quantizers.FixedQuantizer),
    )
}
_NOTES = ("keraslight_task", "keraslight_activation")  # which `keraslight.graph.ends` reads


@dataclasses.dataclass
class Origin:
    """Where a quantization-aware model comes from; its attribute `origin`.

    Attributes:
        variables: Keras 3 layer -> the variables that stand for its weights, in their order.
        kinds: Keras 3 layer -> its class, for every layer.
        floats: Keras 3 layer -> why the file computes it in float.
    """

    variables: dict[str, list[tf.Variable | Assembled]]
    kinds: dict[str, str]
    floats: dict[str, str]


@dataclasses.dataclass(frozen=True)
class NoLoss:
    """In place of a loss where there is none for a model: training it raises InvalidArgumentError with this reason."""

    reason: str

    def __call__(self, _labels: Any, _outputs: Any) -> Any:
        raise InvalidArgumentError(self.reason)


@tf_keras.utils.register_keras_serializable(package="keraslight")
class QuantizationAware(tf_keras.Model):
    """A functional model whose files keep its `origin`, `preprocessing`, task and final activation."""

    def make_train_function(self, force: bool = False) -> Any:
        if isinstance(self.loss, NoLoss):  # raised here, an error is not one of TensorFlow's tracing
            raise InvalidArgumentError(self.loss.reason)
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        if isinstance(self.loss, NoLoss):
            raise InvalidArgumentError(self.loss.reason)
        return super().make_test_function(force)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        origin, preprocessing = getattr(self, "origin", None), getattr(self, "preprocessing", None)
        if origin is not None:
            places = {id(weight): n for n, weight in enumerate(self.weights)}
            config["origin"] = {
                "kinds": dict(origin.kinds),
                "floats": dict(origin.floats),
                "variables": {
                    name: [_place(variable, places) for variable in variables]
                    for name, variables in origin.variables.items()
                },
            }
        if preprocessing is not None:
            config["preprocessing"] = preprocessing.to_dict()
        config |= {name: getattr(self, name) for name in _NOTES if hasattr(self, name)}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizationAware:
        config = dict(config)
        notes = {name: config.pop(name) for name in _NOTES if name in config}
        origin, preprocessing = config.pop("origin", None), config.pop("preprocessing", None)
        model = super().from_config(config, custom_objects)
        if origin is not None:
            weights = model.weights
            variables = {name: [_found(place, weights) for place in all_] for name, all_ in origin["variables"].items()}
            model.origin = Origin(variables, dict(origin["kinds"]), dict(origin["floats"]))
        if preprocessing is not None:
            model.preprocessing = Preprocessing.from_dict(preprocessing)
        for name, value in notes.items():
            setattr(model, name, value)
        return model


def _place(variable: tf.Variable | Assembled, places: dict[int, int]) -> Any:
    if not isinstance(variable, Assembled):
        return places[id(variable)]
    return {
        "start": base64.b64encode(variable.start.astype("<f4").tobytes()).decode(),
        "shape": list(variable.start.shape),
        "windows": [[[side.start, side.stop] for side in window] for window in variable.windows],
        "variables": [places[id(part)] for part in variable.variables],
    }


def _found(place: Any, weights: list[tf.Variable]) -> tf.Variable | Assembled:
    if isinstance(place, int):
        return weights[place]
    start = np.frombuffer(base64.b64decode(place["start"]), "<f4").reshape(place["shape"])
    windows = [(slice(*rows), slice(*columns)) for rows, columns in place["windows"]]
    return Assembled(start, windows, [weights[n] for n in place["variables"]])


def load(path: Path) -> Any:
    """Reads a .keras or .h5 file of any tf_keras model, and links what only the weights tell."""
    with tf_keras.utils.custom_object_scope({**_SCOPE, "QuantizationAware": QuantizationAware}):
        model = tf_keras.models.load_model(str(path))
    layers = {layer.name: layer for layer in model.submodules if isinstance(layer, tf_keras.layers.Layer)}
    kernels = {id(layer.layer): layer.kernel for layer in layers.values() if isinstance(layer, Wrapper)}
    for layer in layers.values():
        if isinstance(layer, twin_layers.ScaleOf):
            layer.link(layers[layer.norm_name])
        for kernel, constraint in (("kernel", "kernel_constraint"), ("depthwise_kernel", "depthwise_constraint")):
            held = getattr(layer, constraint, None)
            if isinstance(held, KeepZeros | KeepClusters):
                wrapped = kernels.get(id(layer))
                held.hold((getattr(layer, kernel) if wrapped is None else wrapped).numpy())
    return model
