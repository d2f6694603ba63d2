"""The bridge from functional Keras 3 models to tf_keras, where tensorflow_model_optimization works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from keraslight import graph as _graph

if TYPE_CHECKING:
    import tf_keras


def run_in_keras(layer: keras.layers.Layer, name: str) -> tf_keras.layers.Layer:
    """A twin that runs the Keras 3 layer as it is, for `register_twin`: any layer, on the TensorFlow backend.

        register_twin(MyLayer)(run_in_keras)

    Its weights train and come back, but nothing inside it is pruned or quantized; in an int8 file it stays float.

    Args:
        layer: The built Keras 3 layer. It is not changed.
        name: The twin's name.
    """
    from keraslight.compress._tfmot import twin_layers

    return twin_layers.KerasLayer(layer, name=name, trainable=layer.trainable)


def to_tf_keras(model: keras.Model) -> tf_keras.Model:
    """Transcribes a model, weights included, into a functional tf_keras model that gives the same outputs.

    Layers keep their names and stay shared where they are shared; nested models are opened up (their layers' names
    get the nested model's name in front where they would clash). Stock layers of other kinds than a CNN's and bare
    operations (`x + 3`) run as Keras 3 has them, inside a tf_keras layer. Keras 3 must run on TensorFlow.

    Args:
        model: A functional or sequential Keras 3 model. It is not changed.

    Returns:
        The twin in float32, not compiled.

    Raises:
        UnmappableLayerError: a layer has no twin; the text names it and the way out.
        CompressionError: the model is subclassed.
        MissingDependencyError: tensorflow-model-optimization or tf_keras is not installed.
    """
    graph = _graph.read(model)
    from keraslight.compress._tfmot import transcribe

    return transcribe.to_tf_keras(graph, model.name)
