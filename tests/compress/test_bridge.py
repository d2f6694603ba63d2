import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # of a public model, but with no public name

from keraslight import compress, layers as own
from keraslight.errors import CompressionError, UnmappableLayerError
from keraslight.preprocessing import Preprocessing

RNG = np.random.default_rng(0)


def maps(*shape):
    return RNG.normal(size=(2, *shape)).astype("float32")


def assert_same(model, twin, inputs, tolerance=1e-5):
    for a, b in zip(keras.tree.flatten(model(inputs)), keras.tree.flatten(twin(inputs)), strict=True):
        np.testing.assert_allclose(np.asarray(a), b.numpy(), atol=tolerance * max(float(np.std(a)), 1e-2))


def test_twin_of_the_trained_net(trained, digits):
    twin = compress.to_tf_keras(trained)
    images = digits[1][0][:32]
    assert_same(trained, twin, images)
    a, b = (np.asarray(m.get_layer("block1_add").output.shape) for m in (trained, twin))
    assert list(a) == list(b)
    assert [layer.name for layer in twin.layers] == [layer.name for layer in trained.layers]


@pytest.mark.parametrize(
    "layer",
    [
        *(
            layers.Activation(name)
            for name in ("relu", "relu6", "silu", "gelu", "hard_sigmoid", "hard_silu", "sigmoid", "tanh")
        ),
        layers.Conv2D(4, 3, strides=2, activation="hard_silu", padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6"),
        layers.SeparableConv2D(5, 3),
        layers.Conv2DTranspose(5, 3, strides=2),
        layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.0, 1.0, 0.0, 1.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 16.0]),
        layers.LayerNormalization(epsilon=1e-6),
        layers.LeakyReLU(0.3),
        layers.ReLU(4.0, negative_slope=0.1),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Permute((3, 1, 2)),
        layers.Reshape((32, 8)),
        layers.Softmax(axis=-1),
        layers.MaxPooling2D(3, 2, padding="same"),
        layers.AveragePooling2D(3, 2, padding="same"),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Cropping2D(((1, 0), (2, 1))),
        layers.Dense(7, activation="softmax"),
    ],
    ids=lambda layer: layer.name,
)
def test_stock_layers(layer):
    layer = type(layer).from_config(layer.get_config())
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, layer(images))
    for weight in model.weights:
        weight.assign(RNG.uniform(0.2, 1.0, weight.shape))
    assert_same(model, compress.to_tf_keras(model), 3 * maps(8, 8, 4))


def test_the_sums_of_inception_resnet():
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, CustomScaleLayer(0.17)([images, layers.Conv2D(4, 3, padding="same")(images)]))
    twin = compress.to_tf_keras(model)
    assert twin.get_layer(model.layers[-1].name).scale == 0.17
    assert_same(model, twin, maps(8, 8, 4))


def test_shared_nested_several_inputs_and_outputs():
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, layers.Conv2D(3, 3, padding="same", name="conv")(inner_in), name="inner")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    shared = layers.Conv2D(3, 1, name="shared")
    x = shared(inner(left))
    y = shared(inner(right))
    z = layers.Conv2D(3, 3, padding="same", name="conv")(layers.Concatenate(name="cat")([x, y]))
    model = keras.Model([left, right], {"sum": layers.Add(name="sum")([x, y, z]), "z": z})
    twin = compress.to_tf_keras(model)
    names = [layer.name for layer in twin.layers]
    assert len(names) == len(set(names)) == 7  # two inputs, shared, cat, sum, and two called conv
    assert {"shared", "conv"} < set(names)
    inputs = [maps(8, 8, 3), maps(8, 8, 3)]
    expected, got = model(inputs), twin(inputs)
    assert set(got) == {"sum", "z"}
    for key in expected:
        np.testing.assert_allclose(np.asarray(expected[key]), got[key].numpy(), atol=1e-5)


def test_a_nested_model_at_the_end():
    inner_in = keras.Input((8, 8, 3))
    outputs = [layers.Conv2D(3, 3, padding="same", name="same")(inner_in), layers.Conv2D(2, 1, name="two")(inner_in)]
    inner = keras.Model(inner_in, outputs, name="inner")
    images = keras.Input((8, 8, 3))
    first, _ = inner(images)
    second, two = inner(first)
    sequential = keras.Sequential([layers.Conv2D(4, 3), layers.ReLU()], name="sequential")(second)
    model = keras.Model(images, {"second": second, "two": two, "sequential": sequential})
    x = maps(8, 8, 3)
    expected = model(x)
    for same in (compress.to_tf_keras(model), compress.fuse(model)):
        got = same(x)
        for key in expected:
            np.testing.assert_allclose(np.asarray(expected[key]), np.asarray(got[key]), atol=1e-5)


class Scale(layers.Layer):
    def build(self, input_shape):
        self.factor = self.add_weight(name="factor", shape=(input_shape[-1],), initializer="random_normal")

    def call(self, inputs):
        return inputs * self.factor


def scaled():
    images = keras.Input((4, 4, 3))
    return keras.Model(images, Scale(name="mine")(images))


def test_unmappable_layers_name_the_way_out_and_can_be_registered():
    model = scaled()
    with pytest.raises(UnmappableLayerError, match=r"Received: layer 'mine' of class .*Scale.*register_twin"):
        compress.to_tf_keras(model)

    from keraslight.compress import _registered

    @compress.register_twin(Scale)
    def _(layer, name):
        import tf_keras

        class TwinScale(tf_keras.layers.Layer):
            def build(self, input_shape):
                self.factor = self.add_weight("factor", shape=(input_shape[-1],))

            def call(self, inputs):
                return inputs * self.factor

        return TwinScale(name=name)

    try:
        assert_same(model, compress.to_tf_keras(model), maps(4, 4, 3))
        quantized = compress.quantize_aware(model, calibration_data=maps(4, 4, 3))
        back = compress.quantized_weights_to_keras(quantized, model)
        np.testing.assert_array_equal(back.get_weights()[0], model.get_weights()[0])
    finally:
        _registered.TWINS.pop(Scale)


def test_bare_operations_run_as_keras_has_them():
    images = keras.Input((4, 4, 6))
    left, _, right = keras.ops.split(images, 3, axis=-1)
    x = keras.ops.concatenate([1.0 - left, keras.ops.relu6(right + 3.0) * (1 / 6), images[..., ::2]], axis=-1)
    y = layers.Conv2D(2, 1)(keras.ops.transpose(x, (0, 2, 1, 3)))
    model = keras.Model(
        images, {"mean": keras.ops.mean(y, axis=(1, 2)), "x": keras.ops.einsum("bhwc,bhvc->bhwv", x, x)}
    )
    inputs = maps(4, 4, 6)
    expected, got = model(inputs), compress.to_tf_keras(model)(inputs)
    for key in ("mean", "x"):
        np.testing.assert_allclose(got[key].numpy(), np.asarray(expected[key]), atol=1e-5)


@pytest.mark.parametrize("layer", [layers.GroupNormalization(2), layers.UnitNormalization(), layers.Resizing(5, 3)])
def test_other_stock_layers_run_as_keras_has_them(layer):
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, layers.Conv2D(3, 2)(layer(images)))
    assert_same(model, compress.to_tf_keras(model), maps(8, 8, 4))


def test_lambdas_and_own_activations_are_unmappable():
    images = keras.Input((4, 4, 3))
    with pytest.raises(UnmappableLayerError, match=r"layer 'wave' of class .*Lambda.*register_twin\(Lambda\)"):
        compress.to_tf_keras(keras.Model(images, layers.Lambda(keras.ops.sin, name="wave")(images)))
    model = keras.Model(images, layers.Conv2D(3, 1, activation=keras.ops.sin, name="wave")(images))
    with pytest.raises(UnmappableLayerError, match="An activation must be one of .*in layer 'wave'"):
        compress.to_tf_keras(model)


def own_layers():
    """Every layer of keraslight.layers, each in a model of one call, with inputs that it can take."""
    images = keras.Input((8, 8, 8))
    pool = own.MaxPoolWithIndices2D(2, name="pool")
    for layer in (
        *(own.GRN(), own.BatchNorm(), own.LayerNorm(), own.LayerScale(0.5), own.DropPath(0.2), own.ChannelSlice(1, 5)),
        *(own.LocalResponseNorm(), own.ChannelStatistics(), own.CoordinatePooling(), own.C4GroupPooling()),
        *(own.GroupedConv2D(4, 3, groups=4), own.ConditionalConv2D(4, 3, experts=3), own.C4GroupConv2D(2, 3)),
        *(own.DeformableConv2D(4, 3, modulated=True), own.C4LiftingConv2D(2, 3, strides=2)),
    ):
        yield layer.name, keras.Model(images, layer(images))
    spec = Preprocessing((8, 8), mean=(0.5,) * 4, std=(0.2,) * 4)
    yield "normalization", keras.Model(images, own.ImageNormalization(spec)(own.ChannelSlice(0, 4)(images)))
    yield "code_distance", keras.Model(images, own.CodeDistance(5)(layers.Flatten()(images)))
    yield "unpooling", keras.Model(images, own.MaxUnpool2D(2)(pool(images)))
    per_image = own.ImageNormalization(dataclasses.replace(spec, per_image=True))
    yield "standardization", keras.Model(images, per_image(own.ChannelSlice(0, 4)(images)))
    copies = own.ImageViews((0.8, 1.0), (0.0, 20.0))
    scores = layers.Softmax()(layers.GlobalAveragePooling2D()(copies(images)))
    yield "views", keras.Model(images, own.MergeViews(copies.count)(scores))
    rows, columns = own.CoordinateSplit()([own.CoordinatePooling()(images), images])
    yield "resized", keras.Model(images, own.ResizeLike()([layers.Conv2D(4, 2, strides=2)(images), images]))
    yield "coordinate_split", keras.Model(images, layers.Multiply()([rows, columns]))


def test_every_own_layer_has_a_twin_that_learns():
    tried = set()
    for name, model in own_layers():
        for n, weight in enumerate(model.trainable_weights):
            weight.assign(np.random.default_rng(n).uniform(0.2, 1.0, weight.shape))
        inputs = maps(8, 8, 8)
        twin = compress.to_tf_keras(model)
        assert_same(model, twin, inputs)
        tried |= {type(layer).__name__ for layer in model.layers}
        assert len(twin.trainable_weights) == len(model.trainable_weights), name
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(twin(inputs) ** 2)
        assert all(gradient is not None for gradient in tape.gradient(loss, twin.trainable_weights)), name
    assert set(own.__all__) <= tried


@pytest.mark.parametrize("channels", [3, 16])
def test_strided_pointwise_convolutions_leave_pixels_out_before(channels):
    images = keras.Input((9, 9, channels))
    model = keras.Model(images, layers.Conv2D(8, 1, strides=2, padding="same", name="shortcut")(images))
    twin = compress.to_tf_keras(model)
    assert (type(twin.get_layer("shortcut")).__name__ == "PointwiseConv2D") == (channels < 16)
    assert_same(model, twin, maps(9, 9, channels))


def test_subclassed_models_have_no_graph():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(CompressionError, match="must be a functional Keras 3 model"):
        compress.to_tf_keras(Own())


def test_the_door_stays_shut_until_asked_and_leaves_keras_3_alone():
    script = """
import os, sys
import keraslight.compress as compress
assert not any(m.startswith(("tensorflow_model_optimization", "tf_keras")) for m in sys.modules)
assert "TF_USE_LEGACY_KERAS" not in os.environ
import keras, numpy as np, tensorflow as tf
i = keras.Input((4, 4, 1))
model = keras.Model(i, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(i))))
twin = compress.to_tf_keras(model)
assert "tf_keras" in type(twin).__module__
assert "TF_USE_LEGACY_KERAS" not in os.environ
assert tf.keras.__version__.startswith("3.")
model.compile("sgd", "mse", jit_compile=False)
model.fit(np.zeros((4, 4, 4, 1)), np.zeros((4, 2)), verbose=0)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
