import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress, graph
from keraslight.errors import CompressionError
from keraslight.export._inference import inference_graph


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


def adapted(images):
    """A model that normalizes images by what it has seen of them, in a nested model and outside."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Normalization(name="inner")], name="nested")
    inner.get_layer("inner").adapt(images)
    outer = layers.Normalization(name="outer")
    outer.adapt(3 * inner.predict(images, verbose=0) + 1)
    inputs = keras.Input((8, 8, 3))
    x = outer(inner(inputs))
    x = layers.Add()([layers.Conv2D(4, size, padding="same", name=f"conv{size}")(x) for size in (1, 3)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))


def pruned(model, images):
    data = images, np.zeros(len(images), int)
    return compress.prune(model, data, sparsity=0.01, layers="dense", epochs=1, learning_rate=1e-12, verbose=0)


COPIES = {
    "half": lambda model, images: compress.half(model),
    "fuse": lambda model, images: compress.fuse(model),
    "reparameterize": lambda model, images: compress.reparameterize(model),
    "prune": pruned,
    "strip_pruning": lambda model, images: compress.strip_pruning(compress.wrap_pruning(model, end_step=1), model),
    "quantized_weights_to_keras": lambda model, images: compress.quantized_weights_to_keras(
        compress.quantize_aware(model), model
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_normalizes_by_what_the_model_was_adapted_to(name):
    """With Keras' `set_weights` alone the copy has the statistics, but goes on with mean 0 and variance 1."""
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(50, 20, (16, 8, 8, 3)).astype("float32")
    model = adapted(images)
    answers = model.predict(images, verbose=0)
    copy = COPIES[name](model, images)
    np.testing.assert_allclose(copy.predict(images, verbose=0), answers, atol=2e-3)
    other = copy.predict(images + 50, verbose=0)
    np.testing.assert_allclose(other, model.predict(images + 50, verbose=0), atol=5e-3)


class Forgetful(layers.Layer):
    """A user's layer whose configuration lacks an argument."""

    def __init__(self, size=3, **arguments):
        super().__init__(**arguments)
        self.conv = layers.Conv2D(4, size)

    def build(self, shape):
        self.conv.build(shape)
        super().build(shape)

    def call(self, images):
        return self.conv(images)

    def get_config(self):
        return {"name": self.name}


class Unserializable(layers.Layer):
    """A user's layer with an argument that Keras can't write down."""

    def __init__(self, factor, **arguments):
        super().__init__(**arguments)
        self.factor = factor

    def call(self, images):
        return self.factor() * images


def prune(model):
    return compress.prune(model, (np.zeros((8, 8, 8, 3), "float32"), np.zeros(8, int)), sparsity=0.5, verbose=0)


def serve(model):
    return graph.build(inference_graph(graph.read(model)))


@pytest.mark.parametrize("do", [compress.fuse, compress.half, prune, serve])
@pytest.mark.parametrize(
    ("layer", "received"),
    [
        (Forgetful(5, name="forgetful"), r"Received: 'forgetful' of class .*Forgetful, of which Keras says: .*shape"),
        (
            Unserializable(lambda: 2),
            r"Received: '(user|unserializable)' .*Unserializable was created\s+by passing\s+non-serializable",
        ),
    ],
    ids=["forgetful", "unserializable"],
)
def test_a_layer_that_its_configuration_does_not_make_again(do, layer, received):
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(layer(images)))
    model = keras.Model(images, layers.Dense(3, activation="softmax")(x), name="user")
    with pytest.raises(CompressionError, match=rf"(?s)made again by `from_config.*{received}"):
        do(model)


def test_a_layer_whose_copy_fails_at_its_call():
    class Fussy(layers.Layer):
        def __init__(self, channels=3, **arguments):
            super().__init__(**arguments)
            self.channels = channels

        def call(self, images):
            if images.shape[-1] != self.channels:
                raise ValueError("channels")
            return images

        def get_config(self):
            return {"name": self.name}

    images = keras.Input((8, 8, 2))
    model = keras.Model(images, layers.Conv2D(8, 3)(Fussy(2)(images)))
    for do in (compress.fuse, compress.half):
        with pytest.raises(CompressionError, match=r"(?s)Received: 'fussy' of class .*Fussy.*channels"):
            do(model)
