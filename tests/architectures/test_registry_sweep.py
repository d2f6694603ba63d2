"""One sweep over the registry: what every family's table claims is counted again."""

import keras
import numpy as np
import pytest

import keraslight
import keraslight.zoo
from keraslight import registry
from keraslight.analysis import count_macs, count_parameters, profile
from keraslight.errors import InvalidArgumentError
from tests.nets import of_top

DEFAULTS = [next(iter(family.variants)) for family in registry.FAMILIES.values()]
# Of families that have much in common with others, `make test` counts what the table claims and tries bad arguments.
RARE = {
    *("AlexNet", "ConvNeXtV2", "DenseNet", "EfficientNet", "EfficientNetV2", "GoogLeNet", "MobileNeXt", "MobileNetV1"),
    *("MobileNetV2", "ResNet", "ShuffleNetV1", "ShuffleNetV2Plus", "VGG"),
}
FIXED = {"LeNet5"}  # families whose paper fixes the image size


def cases():
    """Every variant; in `make test` each family's first, however heavy, and its lightest."""
    for family in registry.FAMILIES.values():
        lightest = min(family.variants, key=lambda name: family.variants[name].parameters)
        quick = {next(iter(family.variants)), lightest}
        for name in family.variants:
            yield pytest.param(name, marks=() if name in quick else pytest.mark.slow)


def defaults():
    for name in DEFAULTS:
        yield pytest.param(name, marks=pytest.mark.slow if keraslight.model_info(name).family in RARE else ())


def build(name, **arguments):
    return keraslight.create_model(name, **arguments)


def small(name, channels=2, width=0.5, **arguments):
    """A narrow net for an odd, oblong image, large enough for every family."""
    if keraslight.model_info(name).family in FIXED:
        return {"width": width, **of_top(arguments)}
    return {"width": width, "input_shape": (97, 75, channels), **of_top(arguments)}


@pytest.mark.parametrize("name", list(cases()))
def test_parameters_and_macs_are_the_tables(name):
    family = registry.FAMILIES[keraslight.model_info(name).family]
    row = family.variants[name]
    model = build(name)
    assert model.input_shape[1] == row.input_size
    assert count_parameters(model) == row.parameters
    assert count_macs(model) == row.macs
    result = profile(model)  # here, since building is what takes the time
    assert (result.parameters, result.macs, result.unknown) == (row.parameters, row.macs, ())


@pytest.mark.parametrize("name", list(defaults()))
def test_features_are_named_by_their_strides(name):
    arguments = small(name, features_only=True)
    model = build(name, **arguments)
    side = model.input_shape[1]
    assert model.output
    for key, tensor in model.output.items():
        stride = int(key.removeprefix("stride_"))
        assert abs(tensor.shape[1] - side / stride) <= 3, key  # without padding a pixel or more is lost (LeNet: 3)


@pytest.mark.parametrize("name", list(defaults()))
def test_without_top(name):
    pooled = build(name, **small(name, include_top=False, pooling="avg"))
    maps = build(name, **small(name, include_top=False))
    assert pooled.output_shape == (None, maps.output_shape[-1])
    assert len(maps.output_shape) == 4


@pytest.mark.parametrize("name", DEFAULTS)
class TestArguments:
    def test_too_small_images_are_an_error(self, name):
        with pytest.raises(InvalidArgumentError, match=r"Received: .*\(7, 64, 3\)"):
            build(name, input_shape=(7, 64, 3))

    def test_images_without_channels_are_an_error(self, name):
        with pytest.raises(InvalidArgumentError, match=r"1 or more channels. Received: .*\(256, 256, 0\)"):
            build(name, input_shape=(256, 256, 0))

    def test_no_classes_are_an_error(self, name):
        with pytest.raises(InvalidArgumentError, match="`classes` must be at least 1. Received: classes=0"):
            build(name, **small(name, classes=0))

    def test_an_unknown_activation_is_an_error(self, name):
        with pytest.raises(InvalidArgumentError, match="`activation` must be None or one of .* Received: 'sofmax'"):
            build(name, **small(name, classifier_activation="sofmax"))

    def test_an_unknown_pooling_is_an_error(self, name):
        with pytest.raises(InvalidArgumentError, match="`pooling` must be one of .* Received: 'mean'"):
            build(name, **small(name, include_top=False, pooling="mean"))


@pytest.mark.parametrize("name", list(defaults()))
class TestPrecision:
    def test_builds_in_half_precision(self, name):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = build(name, **small(name))
        finally:
            keras.config.set_dtype_policy(before)
        assert model.output_shape == (None, 10)
        assert model.outputs[0].dtype == "float16"


# Other tests compare .tflite files of MobileNetV3 and V4 in `make test`, among them test_family_servables.py.
LITERT = ("ConvNeXt", "Xception")


def litert_cases():
    for name in DEFAULTS:
        marks = () if keraslight.model_info(name).family in LITERT else pytest.mark.slow
        yield pytest.param(name, marks=marks)


@pytest.fixture(scope="module", params=list(defaults()))
def net(request):
    """A name and its small net, one for the tests below, since building takes most of their time."""
    keras.utils.set_random_seed(0)
    return request.param, build(request.param, **small(request.param, dropout=0.1))


def images_of(model, count):
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype("float32")


class TestSmallNet:
    def test_small_odd_images_of_two_channels(self, net):
        _, model = net
        # Eagerly: tracing takes longer than a single call.
        probabilities = np.asarray(model(images_of(model, 2), training=False))
        assert probabilities.shape == (2, 10)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

        names = [layer.name for layer in model.layers]
        assert len(set(names)) == len(names)
        assert not any(isinstance(layer, keras.Model) for layer in model.layers), "the graph must be flat"

    def test_width_narrows(self, net):
        name, narrow = net
        assert narrow.count_params() < 0.8 * build(name, **small(name, width=1.0)).count_params()

    def test_saves_and_loads(self, net, tmp_path):
        _, model = net
        images = images_of(model, 2)
        model.save(tmp_path / "model.keras")
        again = keraslight.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again(images, training=False), model(images, training=False))

    @pytest.mark.parametrize("net", list(litert_cases()), indirect=True)
    def test_litert_agrees(self, net, tmp_path):
        from ai_edge_litert.interpreter import Interpreter

        from keraslight.export import litert_report, to_litert

        _, model = net
        file = to_litert(model, tmp_path / "model.tflite")
        kinds = {operator.kind for operator in litert_report(file).operators}
        assert not kinds & {"SHAPE", "PACK"}, "a fixed batch needs no operators that work out shapes"
        images = images_of(model, 1)
        runner = Interpreter(str(file), num_threads=1).get_signature_runner("serving_default")
        answer = runner(images=images)["probabilities"]
        np.testing.assert_allclose(answer, model(images, training=False), atol=1e-4)

    def test_learns_a_batch(self, net):  # the last: it changes the net
        _, model = net
        images, targets = images_of(model, 8), np.arange(8)
        # Eagerly: to trace the training step takes ten times as long as the few steps that are needed. And without
        # moments where a normalization lets large steps be: to create Adam's takes longer than the steps.
        normalized = any("norm" in type(layer).__name__.lower() for layer in model.layers)
        optimizer = keras.optimizers.SGD(0.05) if normalized else keras.optimizers.Adam(1e-3)
        model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
        first = model.train_on_batch(images, targets)
        assert any(model.train_on_batch(images, targets) < 0.95 * first for _ in range(20))
