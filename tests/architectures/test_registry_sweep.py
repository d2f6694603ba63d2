"""One sweep over the registry: what every family's table claims is counted again."""

import keras
import numpy as np
import pytest

import keraslight
from keraslight import registry
from keraslight.analysis import count_macs, count_parameters
from keraslight.errors import InvalidArgumentError

NAMES = keraslight.list_models()
DEFAULTS = [next(iter(family.variants)) for family in registry.FAMILIES.values()]
SMALL = {"classes": 10, "input_shape": (48, 33, 2)}


def build(name, **arguments):
    return keraslight.create_model(name, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_macs_are_the_tables(name):
    family, _ = registry.find(name)
    row = family.variants[name]
    model = build(name)
    assert model.input_shape == (None, row.input_size, row.input_size, 3)
    assert count_parameters(model) == row.parameters
    assert count_macs(model) == row.macs


@pytest.mark.parametrize("name", NAMES)
def test_small_odd_images_of_two_channels(name):
    model = build(name, **SMALL)
    images = np.random.default_rng(0).normal(size=(2, 48, 33, 2)).astype("float32")
    probabilities = model.predict(images, verbose=0)
    assert probabilities.shape == (2, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers), "the graph must be flat"


@pytest.mark.parametrize("name", NAMES)
def test_features_are_ceil_of_side_by_stride(name):
    features = build(name, features_only=True, input_shape=(48, 33, 3)).output
    assert list(features) == [f"stride_{2**i}" for i in range(1, 6)]
    for key, tensor in features.items():
        stride = int(key.removeprefix("stride_"))
        assert tensor.shape[1:3] == (-(-48 // stride), -(-33 // stride))


@pytest.mark.parametrize("name", NAMES)
def test_without_top(name):
    pooled = build(name, include_top=False, pooling="avg", input_shape=(32, 32, 4))
    maps = build(name, include_top=False, input_shape=(32, 32, 4))
    assert pooled.output_shape == (None, maps.output_shape[-1])
    assert maps.output_shape[:3] == (None, 1, 1)


@pytest.mark.parametrize(
    "name", [family.full_name(next(iter(family.variants))) for family in registry.FAMILIES.values()]
)
class TestArguments:
    def test_width_rounds_to_multiples_of_8(self, name):
        narrow = build(name, width=0.4, **SMALL)
        full = build(name, **SMALL)
        assert narrow.count_params() < 0.6 * full.count_params()
        kernels = [layer.filters for layer in narrow.layers if isinstance(layer, keras.layers.Conv2D)]
        assert all(filters % 8 == 0 for filters in kernels)

    def test_bad_shapes(self, name):
        with pytest.raises(InvalidArgumentError, match=r"at least 32 pixels. Received: \(31, 64, 3\)"):
            build(name, input_shape=(31, 64, 3))
        with pytest.raises(InvalidArgumentError, match=r"1 to 4 channels. Received: \(64, 64, 5\)"):
            build(name, input_shape=(64, 64, 5))
        with pytest.raises(InvalidArgumentError, match=r"must be \(height, width, channels\). Received: \(64, 64\)"):
            build(name, input_shape=(64, 64))

    def test_bad_head(self, name):
        with pytest.raises(InvalidArgumentError, match="`classes` must be at least 1. Received: classes=0"):
            build(name, input_shape=(32, 32, 3), classes=0)
        with pytest.raises(InvalidArgumentError, match=r"`dropout` must be in \[0, 1\). Received: dropout=1.0"):
            build(name, input_shape=(32, 32, 3), dropout=1.0)
        with pytest.raises(InvalidArgumentError, match="`activation` must be None or one of .* Received: 'sofmax'"):
            build(name, input_shape=(32, 32, 3), classifier_activation="sofmax")
        with pytest.raises(InvalidArgumentError, match="`pooling` must be one of .* Received: 'mean'"):
            build(name, input_shape=(32, 32, 3), include_top=False, pooling="mean")

    def test_saves_and_loads(self, name, tmp_path):
        model = build(name, drop_path=0.2, dropout=0.1, **SMALL)
        images = np.random.default_rng(1).normal(size=(2, 48, 33, 2)).astype("float32")
        model.save(tmp_path / "model.keras")
        again = keraslight.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
