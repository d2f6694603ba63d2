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
from keraslight.graph.names import any_names
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


class Settling:
    """Replaces the moving averages of batch norms that follow the batch by the mean of the given batches' statistics.

    The pass through the net is traced at the first batch, and again only by a new object. (Layer by layer, 16 batches
    took a ResNet-18 of small images two thirds of the time of an epoch.)

    Args:
        model: Its batch norms are changed in place. Which of them are frozen must not change later.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._forward: Any = None

    def __call__(self, batches: Iterable[Any]) -> None:
        norms = following_batch_norms(self._model)
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        moving = [average for norm in norms for average in (norm.moving_mean, norm.moving_variance)]
        try:
            for norm in norms:
                norm.momentum = 0.0  # so that the averages are the statistics of the batch
            found = [self._statistics(images, moving) for images in batches]
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        for average, values in zip(moving, zip(*found, strict=True), strict=bool(found)):
            average.assign(sum(values) / len(values))

    def _statistics(self, images: Any, moving: list[keras.Variable]) -> list[Any]:
        """Of one batch, in the order of the variables."""
        import tensorflow as tf

        flat = keras.tree.flatten(images)
        if self._forward is None:
            training = keeping_modes(self._model)

            def forward(*flat: Any) -> list[Any]:
                with any_names():
                    training(keras.tree.pack_sequence_as(images, flat), training=True)
                return [tf.identity(average.value) for average in moving]

            # Of any batch size: otherwise the last batch, which is smaller, would be traced again.
            given = [
                tf.TensorSpec(tensor.shape, value.dtype) for tensor, value in zip(self._model.inputs, flat, strict=True)
            ]
            self._forward = tf.function(forward, given, autograph=False)
        found: list[Any] = self._forward(*flat)
        return found


def settle(model: keras.Model, batches: Iterable[Any]) -> None:
    """Settles the batch norms once: see `Settling`."""
    Settling(model)(batches)


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
