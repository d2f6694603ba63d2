"""The bridge from functional Keras 3 models to tf_keras, the Keras that tensorflow_model_optimization works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from keraslight.graph import read

if TYPE_CHECKING:
    import tf_keras


def run_in_keras(layer: keras.layers.Layer, name: str) -> tf_keras.layers.Layer:
    """Makes a twin that runs the Keras 3 layer as it is, for `register_twin`: any layer, on the TensorFlow backend.

        register_twin(MyLayer)(run_in_keras)

    Its weights are trained and copied back, but nothing inside it is pruned or quantized: in an int8 file it stays
    float.

    Args:
        layer: The built Keras 3 layer. It is not changed.
        name: The twin's name.
    """
    from keraslight.compress._tfmot import twin_layers

    return twin_layers.KerasLayer(layer, name=name, trainable=layer.trainable)


def to_tf_keras(model: keras.Model) -> tf_keras.Model:
    """Transcribes a model, with its weights, into a functional tf_keras model with the same outputs.

    Layers keep their names, and shared layers stay shared; nested models are opened up (where names would clash, the
    nested model's name is put in front). Stock layers that are unusual in CNNs and bare operations (`x + 3`) run in
    Keras 3 inside a tf_keras layer. Keras 3 must run on TensorFlow.

    Args:
        model: A functional or sequential Keras 3 model. It is not changed.

    Returns:
        The twin in float32, not compiled.

    Raises:
        UnmappableLayerError: A layer has no twin; the text names it and what to do.
        CompressionError: The model is subclassed.
        MissingDependencyError: tensorflow-model-optimization or tf_keras is not installed.
    """
    graph = read(model)
    from keraslight.compress._tfmot import transcribe

    return transcribe.to_tf_keras(graph, model.name)
