import keras
import numpy as np
from keras import layers

from keraslight import compress


def test_a_model_compiled_with_a_loss_that_keras_cannot_serialize():
    """`clone_model` alone would try to compile the copy with it."""
    images = keras.Input((8, 8, 1), name="images")
    x = layers.Conv2D(8, 3, name="stem")(images)
    x = layers.Conv2D(8, 3, name="second")(x)
    x = layers.Dense(3, name="classifier")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, layers.Softmax(name="probabilities")(x))

    def loss(targets, outputs):
        return keras.ops.mean(outputs, axis=-1)

    model.compile("sgd", loss)
    data = np.zeros((8, 8, 8, 1), "float32"), np.zeros(8, int)
    pruned = compress.prune(model, data, sparsity=0.5, epochs=1, batch_size=4, verbose=0)
    assert compress.sparsity(pruned).total >= 0.5
    assert compress.sparsity(model).total < 0.1
