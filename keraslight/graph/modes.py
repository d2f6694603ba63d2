"""Training that leaves in inference mode what the model calls with `training=False`.

Keras' guide to fine-tuning calls the pretrained part with `training=False`, so that its batch norms keep normalizing by
their statistics. But a functional model of Keras 3 calls every layer in its own mode, whatever the layer was called
with when the model was built: in its `fit`, those batch norms normalize by the batch and their statistics move. A model
of the same layers that goes through the graph call by call doesn't.
"""

from collections.abc import Iterable
from typing import Any

import keras

from keraslight.graph.calls import Call, Graph
from keraslight.graph.reader import read, takes_training
from keraslight.graph.run import ends_of, run
from keraslight.graph.weights import flat_layers


@keras.saving.register_keras_serializable(package="keraslight")
class ModeKeepingModel(keras.Model):
    """A functional model whose calls with `training=False` are in inference mode while it trains."""

    RUNS_ITS_GRAPH = True
    _read: Graph | None = None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self._read is None:
            self._read = read(self, opaque=True)
        wanted = [tensor.dtype for tensor in self.inputs]
        values = [keras.ops.cast(value, dtype) for value, dtype in zip(keras.tree.flatten(inputs), wanted, strict=True)]

        def call_layer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if takes_training(call.layer):
                kwargs = {**kwargs, "training": bool(training) and not call.in_inference}
            return call.layer(*args, **kwargs)

        return run(self._read, values, call_layer)


def keeping_modes(model: keras.Model) -> keras.Model:
    """A model of the same layers to train in place of this one; the model itself if it calls all in its own mode.

    Args:
        model: A functional or built Sequential model. It is not changed.
    """
    if not any(call.in_inference for call in read(model, opaque=True).calls):
        return model
    return ModeKeepingModel(*ends_of(model), name=model.name)


def settle(model: keras.Model, batches: Iterable[Any]) -> None:
    """Replaces the moving averages of batch norms that follow the batch by the mean of these batches' statistics."""
    norms = following_batch_norms(model)
    if not norms:
        return
    training = keeping_modes(model)
    momenta = [norm.momentum for norm in norms]
    try:
        for seen, images in enumerate(batches):
            for norm in norms:
                norm.momentum = seen / (seen + 1)  # all batches so far have the same weight
            training(images, training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def following_batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch norms whose statistics training moves: neither frozen nor called in inference mode alone."""
    found = {}
    for call in read(model).calls:
        if call.in_inference or not isinstance(call.layer, keras.layers.Layer):
            continue
        for layer in flat_layers(call.layer):
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
                found[id(layer)] = layer
    return list(found.values())
