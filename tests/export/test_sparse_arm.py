"""Files that ARM processors run sparsely: what the static check says of a file, and the forms that are accepted."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight import compress
from keraslight.export import arm64_problem, litert_report, litert_runner, run_on_arm64, to_litert
from keraslight.export.litert import convert
from keraslight.preprocessing import Preprocessing
from tests.compress import digit_models

emulated = not arm64_problem()
# Families of which XNNPACK accepts a form, and for the others what the report says.
ACCEPTED = ("EfficientNet", "GhostNet", "MobileNeXt", "MobileNetV1", "MobileNetV2", "MobileNetV3")
REFUSED = {
    "AlexNet": "11x11 convolution of stride 4",
    "ConvNeXt": "4x4 convolution of stride 4",
    "ConvNeXtV2": "4x4 convolution of stride 4",
    "DenseNet": "7x7 convolution of stride 2",
    "EfficientNetV2": "3x3 convolution of stride 1 on",
    "GoogLeNet": "7x7 convolution of stride 2",
    "LeNet5": "5x5 convolution of stride 1",
    "MobileNetV4": "3x3 convolution of stride 2 on",
    "RepVGG": "3x3 convolution of stride 2 on",
    "ResNet": "7x7 convolution of stride 2",
    "ShuffleNetV1": "MAX_POOL_2D has no kernel",
    "ShuffleNetV2": "MAX_POOL_2D has no kernel",
    "ShuffleNetV2Plus": "TRANSPOSE has no kernel",
    "SqueezeNet": "MAX_POOL_2D has no kernel",
    "VGG": "3x3 convolution of stride 1 on 3 channels",
    "Xception": "3x3 convolution of stride 1 on",
}
SAMPLE = ("EfficientNet", "GhostNet", "MobileNetV3", "ShuffleNetV2", "LeNet5")  # `make test-all` runs the others


def test_every_family_is_in_a_table():
    assert sorted([*ACCEPTED, *REFUSED]) == digit_models.families()


def sparse_model(model: keras.Model, share: float = 0.8, blocks: tuple[int, int] = (1, 1)) -> keras.Model:
    return compress.prune_at_once(model, share, policy="xnnpack", block_size=blocks)


def noisy(model: keras.Model) -> keras.Model:
    """With biases and batch norms that are not those of an untrained net, so that shifts and scales matter."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense) and layer.use_bias:
            layer.bias.assign(0.1 * rng.normal(size=layer.bias.shape))
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([w + 0.1 * np.abs(rng.normal(size=w.shape)) for w in layer.get_weights()])
    return model


def agrees_with_the_library(file, shape) -> bool:
    """Whether the emulated LiteRT runs sparse kernels if and only if the report says so; True without an emulator."""
    if not emulated:
        return True
    run = run_on_arm64(file, np.zeros((1, *shape), "float32"))
    return (run.sparse > 0) == litert_report(file).sparse.accepted


@pytest.mark.parametrize(
    "family",
    [
        family if family in SAMPLE else pytest.param(family, marks=pytest.mark.slow)
        for family in digit_models.families()
    ],
)
def test_every_family_is_accepted_or_refused_for_its_reason(family, tmp_path):
    variant, width, side = digit_models.SMALL[family]
    side = max(side, 48)
    keras.utils.set_random_seed(0)
    model = noisy(keraslight.create_model(variant, width=width, classes=10, input_shape=(side, side, 3)))
    stride_one = [layer for layer in model.layers if isinstance(layer, layers.Conv2D) and layer.strides == (1, 1)]
    kernels = [layer for layer in stride_one if layer.kernel_size == (1, 1)]
    sparse = sparse_model(model) if kernels else model
    file = to_litert(sparse, tmp_path / "sparse.tflite", sparse=True)
    found = litert_report(file).sparse
    assert found.accepted == (family in ACCEPTED), found
    assert not found.wrong
    if found.accepted:
        assert found.sparse_convolutions == found.convolutions > 10
        assert found.zeros == pytest.approx(0.8, abs=0.02)
        assert str(found).startswith("sparse on ARM: yes, ")
    else:
        assert "no kernel is stored sparsely" in found.problem or REFUSED[family] in found.problem, found
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype("float32")
    dense = to_litert(sparse, tmp_path / "dense.tflite", sparse=False)
    assert not litert_report(dense).sparse.accepted
    np.testing.assert_allclose(litert_runner(file)(images), litert_runner(dense)(images), atol=1e-5)
    np.testing.assert_allclose(litert_runner(file)(images), sparse.predict(images, verbose=0), atol=1e-5)
    assert agrees_with_the_library(file, (side, side, 3))
    if emulated:
        answers = run_on_arm64(file, images[:1]).outputs
        np.testing.assert_allclose(answers, sparse.predict(images[:1], verbose=0), atol=1e-5)


def network(side=32, channels=3, padding="same", classes=4, top=None, middle=None, stem=None) -> keras.Model:
    """A small network that XNNPACK accepts in a form, unless an argument puts something else into it."""
    keras.utils.set_random_seed(0)
    images = keras.Input((side, side, channels))

    def strided(layer, x):
        if padding == "symmetric":
            return layer(padding="valid")(layers.ZeroPadding2D(layer.keywords["kernel_size"] // 2)(x))
        if padding == "one-sided":
            return layer(padding="valid")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
        return layer(padding=padding)(x)

    convolution = functools.partial(layers.Conv2D, 8, kernel_size=3, strides=2, name="stem")
    x = strided(convolution, images) if stem is None else stem(images)
    x = layers.Conv2D(16, 1, use_bias=False, name="expand")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("hard_silu")(x)
    x = strided(functools.partial(layers.DepthwiseConv2D, kernel_size=3, strides=2, name="depthwise"), x)
    if middle is not None:
        x = middle(x)
    x = layers.Conv2D(16, 1, name="project")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x) if top is None else top(x)
    model = noisy(keras.Model(images, layers.Dense(classes, activation="softmax", name="classifier")(x), name="net"))
    return sparse_model(model)


def check_accepted(model: keras.Model, folder, **options) -> None:
    """The file is accepted, gives the model's answers here, and by the library where that is emulated."""
    file = to_litert(model, folder / "net.tflite", **options)
    found = litert_report(file).sparse
    assert found.accepted, found
    images = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])).astype("float32")
    wanted = model.predict(images, verbose=0)
    tolerance = 2e-3 if options.get("quantization") == "float16" else 1e-5
    np.testing.assert_allclose(litert_runner(file)(images), wanted, atol=tolerance)
    if emulated:
        run = run_on_arm64(file, images)
        assert run.sparse > 0
        np.testing.assert_allclose(run.outputs, wanted, atol=tolerance)


@pytest.mark.parametrize("side", [31, 32, 33, 34])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_every_padding_has_an_accepted_form(side, padding, tmp_path):
    check_accepted(network(side, padding=padding), tmp_path)


def test_one_sided_padding_has_an_accepted_form(tmp_path):
    check_accepted(network(32, padding="one-sided"), tmp_path)


@pytest.mark.parametrize("channels", [1, 2])
def test_images_of_fewer_channels_have_an_accepted_form(channels, tmp_path):
    check_accepted(network(channels=channels), tmp_path)


def gate(x, *, flat: bool):
    y = layers.GlobalAveragePooling2D(keepdims=not flat)(x)
    if flat:
        y = layers.Reshape((1, 1, x.shape[-1]))(y)
    y = layers.Conv2D(4, 1, activation="relu")(y)
    y = layers.Conv2D(x.shape[-1], 1, activation="hard_sigmoid")(y)
    return layers.Multiply()([x, y])


@pytest.mark.parametrize("flat", [False, True], ids=["means in 4-D", "means reshaped"])
def test_gates_have_an_accepted_form(flat, tmp_path):
    check_accepted(network(middle=lambda x: gate(x, flat=flat)), tmp_path)


def ghost(x):
    first = layers.Conv2D(8, 1, activation="relu")(x)
    second = layers.DepthwiseConv2D(3, padding="same", activation="relu")(first)
    both = layers.Concatenate()([first, second])
    shortcut = layers.Conv2D(16, 1)(x)
    return layers.ReLU()(layers.Add()([both, gate(shortcut, flat=False)]))


def test_concatenations_have_an_accepted_form(tmp_path):
    check_accepted(network(middle=ghost), tmp_path)


def uneven(x):
    parts = [layers.Conv2D(width, 1)(x) for width in (3, 5, 8)]
    inner = layers.Concatenate()(parts[:2])
    return layers.Add()([layers.Concatenate()([inner, parts[2]]), layers.Concatenate()([parts[2], inner])])


def test_concatenations_of_other_cuts_are_cut_further(tmp_path):
    check_accepted(network(middle=uneven), tmp_path)


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu", "hard_silu", "sigmoid", "tanh", "elu", "leaky_relu"])
def test_activations_between_convolutions_are_accepted(activation, tmp_path):
    check_accepted(network(middle=lambda x: layers.Activation(activation)(x)), tmp_path)


def head(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(32, 1, activation="relu", name="head")(x)
    return layers.Dropout(0.2)(layers.Flatten()(x))


def test_a_convolution_behind_the_last_mean_does_not_end_a_part(tmp_path):
    check_accepted(network(top=head), tmp_path)


def test_a_large_dense_classifier_is_no_part_of_it(tmp_path):
    check_accepted(network(classes=300), tmp_path)


def test_float16_and_larger_batches(tmp_path):
    check_accepted(network(), tmp_path, quantization="float16")
    check_accepted(network(), tmp_path, batch_size=2)


def test_a_folded_normalization_is_accepted(tmp_path):
    spec = Preprocessing(size=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    file = to_litert(network(), tmp_path / "net.tflite", preprocessing=spec)
    assert litert_report(file).sparse.accepted
    assert agrees_with_the_library(file, (32, 32, 3))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"middle": layers.MaxPooling2D(2)}, "MAX_POOL_2D has no kernel for sparse parts"),
        ({"middle": layers.Conv2D(16, 3, padding="same")}, "3x3 convolution of stride 1 on 16 channels; a sparse part"),
        ({"middle": layers.DepthwiseConv2D(7, padding="same")}, "STRIDED_SLICE has no kernel"),
        ({"middle": layers.DepthwiseConv2D(3)}, "0 zeros above, 0 below, 0 left, 0 right; it must be 1 on each side"),
        ({"middle": layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)}, "dilated depthwise"),
        ({"middle": layers.Conv2D(16, 1, groups=4)}, "4 groups"),
        ({"middle": layers.Conv2D(16, 1, strides=2)}, "1x1 convolution of stride 2"),
        ({"middle": lambda x: x - 2.0 * layers.ReLU()(x)}, "SUB has no kernel"),
        ({"middle": lambda x: layers.ReLU()(layers.ReLU()(x) * np.arange(16, dtype="float32"))}, "4 and 1 axes"),
        ({"top": layers.Flatten()}, "no mean over a map"),
        ({"stem": layers.Conv2D(8, 5, strides=2, padding="same")}, "5x5 convolution of stride 2 on 3 channels"),
    ],
)
def test_what_stops_it_is_named(arguments, problem, tmp_path):
    model = network(**arguments)
    file = to_litert(model, tmp_path / "net.tflite", sparse=True)
    found = litert_report(file).sparse
    assert not found.accepted
    assert problem in found.problem, found
    assert str(found) == f"sparse on ARM: no, {found.problem}"
    assert agrees_with_the_library(file, (32, 32, 3))
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(litert_runner(file)(images), model.predict(images, verbose=0), atol=1e-5)


def smooth_gate(x):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="relu")(y))
    return layers.Multiply()([x, y])


ENDS = {
    "a convolution": layers.Conv2D(16, 1, name="end"),
    "a depthwise convolution": layers.DepthwiseConv2D(3, padding="same", name="end"),
    "a sum": lambda x: layers.Add(name="end")([x, layers.Conv2D(16, 1)(x)]),
    "a gate": smooth_gate,
    "an activation": lambda x: layers.Activation("hard_silu", name="end")(layers.Conv2D(16, 1)(x)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("xnnpack", [True, False])
def test_maps_behind_gates_are_right(end, xnnpack, tmp_path):
    """XNNPACK runs a part up to the gate's mean, and what follows it in the other layout: answers would be wrong."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(images))
    x = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(16, 1)(x))
    model = sparse_model(noisy(keras.Model(images, ENDS[end](smooth_gate(x)))))
    file = to_litert(model, tmp_path / "net.tflite", sparse=True, xnnpack=xnnpack)
    found = litert_report(file).sparse
    assert not found.accepted
    assert not found.wrong
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(litert_runner(file)(pixels), wanted, atol=1e-5)
    if emulated:
        np.testing.assert_allclose(run_on_arm64(file, pixels).outputs, wanted, atol=1e-5)


def shuffled(x):
    left = layers.Conv2D(16, 1, activation="relu")(layers.DepthwiseConv2D(3, padding="same")(x))
    both = layers.Concatenate()([left, layers.MaxPooling2D(3, 1, "same")(x)])
    both = layers.Permute((1, 2, 4, 3))(layers.Reshape((16, 16, 2, -1))(both))
    return smooth_gate(layers.Reshape((16, 16, -1))(both))


def test_parts_in_front_of_a_shuffle_are_right(tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(images))
    x = layers.GlobalAveragePooling2D()(shuffled(x))
    model = sparse_model(noisy(keras.Model(images, layers.Dense(3)(x))))
    file = to_litert(model, tmp_path / "net.tflite", sparse=True)
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    wanted = model.predict(pixels, verbose=0)
    assert not litert_report(file).sparse.wrong
    np.testing.assert_allclose(litert_runner(file)(pixels), wanted, atol=1e-5)
    if emulated:
        np.testing.assert_allclose(run_on_arm64(file, pixels).outputs, wanted, atol=1e-5)


def test_files_with_wrong_answers_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "without_parts", lambda content: content)
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(images))
    model = keras.Model(images, layers.Conv2D(16, 1, name="end")(smooth_gate(layers.Conv2D(16, 1)(x))))
    file = to_litert(sparse_model(model), tmp_path / "net.tflite", sparse=True)
    found = litert_report(file).sparse
    assert found.wrong
    assert not found.accepted
    assert found.operator == litert_report(file).operators[-1].name
    assert "ARM processors give wrong answers or none; convert with `sparse=False`" in str(found)


def test_too_few_zeros(tmp_path):
    model = compress.prune_at_once(network(), 0.05, policy="xnnpack")
    rng = np.random.default_rng(0)
    for name in ("expand", "project"):
        kernel = model.get_layer(name).kernel
        dense = rng.normal(size=kernel.shape)
        dense[rng.random(kernel.shape) < 0.6] = 0
        kernel.assign(dense)
    file = to_litert(model, tmp_path / "net.tflite", sparse=True)
    found = litert_report(file).sparse
    assert not found.accepted
    assert "% of the weights of its 1x1 convolutions are zeros, where more than two thirds must be" in found.problem
    assert agrees_with_the_library(file, (32, 32, 3))


def test_dense_files_say_so(tmp_path):
    found = litert_report(to_litert(network(), tmp_path / "net.tflite", sparse=False)).sparse
    assert not found.accepted
    assert found.problem == "no kernel is stored sparsely; convert with `sparse=True`"


def test_without_xnnpack_the_plain_operators_stay(tmp_path):
    file = to_litert(network(), tmp_path / "net.tflite", sparse=True, xnnpack=False)
    assert "REVERSE_V2" not in {operator.kind for operator in litert_report(file).operators}


def test_zeros_in_1x1_kernels_alone_make_a_file_sparse(tmp_path):
    """Most weights are the classifier's, which stay."""
    assert litert_report(to_litert(network(classes=300), tmp_path / "net.tflite")).sparse.accepted
