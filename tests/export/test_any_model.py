"""Models as strangers bring them: names, precisions, functions of their own, and models that can't be read."""

import io
import logging

import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight import analysis, compress
from keraslight.errors import CompressionError
from keraslight.export import litert_runner, onnx_runner, save_servable, to_litert, to_onnx
from keraslight.graph import UnreadableModelError, graph_name

IMAGES = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
LABELS = np.arange(4) % 3


def net(*middle, name=None, prefix="", head_dtype=None):
    """A small classifier whose layers' names begin with `prefix`, with layers in its middle."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name=f"{prefix}stem")(images)
    for layer in middle:
        x = layer(x)
    x = layers.GlobalAveragePooling2D(name=f"{prefix}pool")(x)
    return keras.Model(
        images, layers.Dense(3, activation="softmax", dtype=head_dtype, name=f"{prefix}head")(x), name=name
    )


def assert_converts(model, wanted, tmp_path):
    file = to_litert(model, tmp_path / "model.tflite")
    assert np.abs(litert_runner(file)(IMAGES) - wanted).max() < 1e-5
    file = to_onnx(model, tmp_path / "model.onnx")
    assert np.abs(onnx_runner(file)(IMAGES) - wanted).max() < 1e-5


NAMES = ["conv 1 ", "c:3", "größe", "卷积", "_under", "1a", "a->b(c)", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_models_may_have_any_name(name, tmp_path):
    model = net(layers.Conv2D(4, 1, name=name), keras.ops.relu, prefix=f"{name}-", name=f"{name} model")
    assert_converts(model, np.asarray(model(IMAGES)), tmp_path)


def test_everything_behind_a_conversion_takes_any_name(tmp_path):
    model = net(
        layers.BatchNormalization(name="b n"), layers.GroupNormalization(2, name="grüppe"), prefix="1: ", name="m m"
    )
    wanted = np.asarray(model(IMAGES))
    quantized = compress.train_quantized(model, (IMAGES, LABELS), epochs=1, skip="1: stem", verbose=0)
    report = compress.quantization_report(quantized)
    assert [layer.name for layer in report.layers] == ["1: stem", "b n", "grüppe", "1: pool", "1: head"]
    assert "1: stem" in report.floats
    assert compress.quantized_weights_to_keras(quantized, model).get_layer("1: stem") is not None
    to_litert(quantized, tmp_path / "aware.tflite")
    compress.calibrate(model, IMAGES, tmp_path / "skip.tflite", skip="1: head")
    pruned = compress.prune(model, (IMAGES, LABELS), epochs=1, verbose=0)
    assert [layer.name for layer in pruned.layers[1:]] == [layer.name for layer in model.layers[1:]]
    version = save_servable(model, tmp_path / "servable", labels=["a", "b", "c"])
    pixels = np.zeros((1, 16, 16, 3), np.float32)
    assert np.abs(litert_runner(version / "model.tflite")(pixels) - np.asarray(model(pixels))).max() < 1e-4
    assert np.array_equal(np.asarray(model(IMAGES)), wanted)


def test_names_that_differ_stay_apart():
    names = [*NAMES, "conv 1", "conv:1", "conv_1", "conv\t1", "größe ", "grösse"]
    assert len({graph_name(name) for name in names}) == len(names)
    assert graph_name("conv_1.a-b") == "conv_1.a-b"


class Halves(layers.Layer):
    """A layer that makes the layers inside it by the global policy, as users' layers do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Conv2D(4, 1, activation="tanh")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("head_dtype", ["float32", None])
def test_mixed_precision_converts_as_its_float32_twin(policy, head_dtype, tmp_path, capfd):
    def middle():
        return (
            layers.Rescaling(0.5),
            layers.DepthwiseConv2D(3),
            lambda x: x * layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x)),
            layers.BatchNormalization(),
            Halves(name="halves"),
            lambda x: keras.ops.cast(x, "float32") + 1,
        )

    keras.config.set_dtype_policy(policy)
    try:
        mixed = net(*middle(), head_dtype=head_dtype)
    finally:
        keras.config.set_dtype_policy("float32")
    twin = net(*middle())
    twin.set_weights(mixed.get_weights())
    wanted = np.asarray(twin(IMAGES))
    capfd.readouterr()
    assert_converts(mixed, wanted, tmp_path)
    said = capfd.readouterr().err
    assert "tf2onnx" not in said
    assert "loc(" not in said
    if head_dtype is None and policy == "mixed_float16":
        compress.calibrate(mixed, IMAGES, tmp_path / "int8.tflite")
        save_servable(mixed, tmp_path / "servable", labels=["a", "b", "c"])
    assert keras.config.dtype_policy().name == "float32"
    assert mixed.layers[1].compute_dtype == policy.removeprefix("mixed_")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(keras.ops.mean(x, (1, 2)))


def unreadable():
    called = Subclassed()
    called(IMAGES)
    unbuilt = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)])
    return {
        "unbuilt": unbuilt,
        "called": called,
        "new": Subclassed(),
        "none": None,
        "path": "m.keras",
        "layer": layers.Dense(2),
    }


@pytest.mark.parametrize("kind", list(unreadable()))
def test_every_door_refuses_what_it_cannot_read_alike(kind, tmp_path):
    model, data = unreadable()[kind], (IMAGES, LABELS)
    doors = [
        lambda: to_litert(model, tmp_path / "a"),
        lambda: to_litert(model, tmp_path / "a", quantization="int8", representative_data=IMAGES),
        lambda: to_onnx(model, tmp_path / "a"),
        lambda: save_servable(model, tmp_path / "a", labels=["a", "b", "c"]),
        lambda: compress.calibrate(model, IMAGES, tmp_path / "a"),
        lambda: compress.calibrate_mixed(model, IMAGES, tmp_path / "a"),
        lambda: compress.quantization_sensitivity(model, IMAGES),
        lambda: compress.correct_bias(model, IMAGES),
        lambda: compress.equalize(model),
        lambda: compress.fuse(model),
        lambda: compress.half(model),
        lambda: compress.quantize_aware(model),
        lambda: compress.train_quantized(model, data),
        lambda: compress.prune(model, data),
        lambda: compress.cluster(model, data),
        lambda: compress.sparsity(model),
        lambda: compress.to_tf_keras(model),
        lambda: analysis.profile(model),
        lambda: analysis.count_macs(model),
        lambda: analysis.receptive_field(model),
        lambda: analysis.lint_model(model),
        lambda: analysis.latency(model),
    ]
    for door in doors:
        with pytest.raises(
            UnreadableModelError, match="must be a functional Keras 3 model or a Sequential one with an I"
        ):
            door()
    assert not list(tmp_path.iterdir())


def own(x):
    return keras.ops.tanh(x) * 2


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, activation=own),
        lambda: layers.Activation(lambda x: keras.ops.relu(x) - 0.5),
        lambda: layers.Lambda(lambda x, by: x * by, arguments={"by": 3.0}),
        lambda: layers.Lambda(own),
    ],
)
def test_functions_of_ones_own_need_no_registration(layer, tmp_path):
    model = net(layer(), layers.BatchNormalization())
    wanted = np.asarray(model(IMAGES))
    assert_converts(model, wanted, tmp_path)
    for copy in (compress.fuse(model), compress.half(model, "bfloat16")):
        assert np.abs(np.asarray(copy(IMAGES)) - wanted).max() < 0.05
    with pytest.raises(CompressionError, match="register_twin"):
        compress.quantize_aware(model)


class Forgetful(layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {"name": self.name}  # the factor is missing


def test_a_layer_that_cannot_be_copied_says_how_to_register(tmp_path):
    with pytest.raises(CompressionError, match="register_keras_serializable"):
        compress.fuse(net(Forgetful(2)))


LAYERS = {
    "conv2d": [layers.Conv2D(8, 3, groups=4), layers.Conv2D(8, 3, groups=8, padding="same", dilation_rate=2)],
    "depthwise": [
        layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        layers.DepthwiseConv2D(3, dilation_rate=(2, 1), padding="same"),
        layers.SeparableConv2D(8, 3, dilation_rate=2, padding="same"),
    ],
    "conv1d": [layers.Reshape((49, 8)), layers.Conv1D(8, 3, groups=2), layers.Reshape((47, 1, 8))],
    "conv3d": [layers.Reshape((7, 7, 1, 8)), layers.Conv3D(8, (3, 3, 1), groups=2), layers.Reshape((5, 5, 8))],
    "recurrent": [
        layers.Reshape((49, 8)),
        layers.LSTM(4, return_sequences=True),
        layers.Bidirectional(layers.GRU(4)),
        layers.Reshape((1, 1, 8)),
    ],
    "activations": [
        layers.Activation("celu"),
        keras.ops.elu,
        layers.Activation("gelu"),
        layers.Activation("squareplus"),
    ],
}


@pytest.mark.parametrize("kind", LAYERS)
def test_onnx_runtime_gives_the_layers_values(kind, tmp_path, caplog):
    model = net(
        *(
            layer.__class__.from_config(layer.get_config()) if isinstance(layer, layers.Layer) else layer
            for layer in LAYERS[kind]
        )
    )
    model.layers[-1].activation = keras.activations.linear
    wanted = np.asarray(model(IMAGES))
    caplog.clear()  # TensorFlow reports Keras' grouped convolutions, run just now, as traced too often
    found = onnx_runner(to_onnx(model, tmp_path / "model.onnx"))(IMAGES)
    assert np.abs(found - wanted).max() < 1e-4 * wanted.std()
    assert not caplog.records


def test_adding_a_number_leaves_tf2onnx_its_optimizer(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("keraslight.export.onnx._quiet", __import__("contextlib").nullcontext)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("tf2onnx").addHandler(handler)
    try:
        to_onnx(net(lambda x: layers.Conv2D(4, 3)(x) + 1), tmp_path / "model.onnx")
    finally:
        logging.getLogger("tf2onnx").removeHandler(handler)
    assert "Failed to apply" not in said.getvalue()


@pytest.mark.parametrize("axis", [(1, 2, 3), 1, (1, 3)])
def test_normalizations_of_other_axes_quantize(axis, tmp_path):
    normalization = layers.Normalization(axis=axis)
    normalization.adapt(IMAGES)
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(normalization(images)))
    model = keras.Model(images, layers.Dense(3, activation="softmax")(x))
    quantized = compress.quantize_aware(model, calibration_data=IMAGES)
    assert np.abs(np.asarray(quantized(IMAGES)) - np.asarray(model(IMAGES))).max() < 0.03


@pytest.mark.parametrize(
    ("family", "variant"),
    [("MobileNetV3", "small_050"), ("SqueezeNet", "1_1"), ("GhostNet", "050"), ("ShuffleNetV2", "050")],
)
def test_builders_name_their_models(family, variant):
    assert getattr(keraslight, family)(variant, name="mine").name == "mine"
