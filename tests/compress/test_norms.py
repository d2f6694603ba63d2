"""Layer norm and global response normalization, as ConvNeXt has them, as tf_keras twins and in int8."""

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.blocks.convnext import convnext_block, norm, patch_conv
from keraslight.export import litert_report, to_litert
from keraslight.layers import GRN


@pytest.fixture
def net():
    images = keras.Input((16, 16, 3))
    x = norm(patch_conv(images, 16, 4, name="stem"), name="stem_norm")  # norms of fewer channels stay float
    x = convnext_block(x, layer_scale=0.5, name="block0")
    x = convnext_block(x, grn=True, name="block1")
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(norm(x, name="head_norm"))
    model = keras.Model(images, keras.layers.Dense(4, name="classifier")(x))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(rng.normal(size=weight.shape) * (0.5 if isinstance(layer, GRN) else 0.3))
    return model


def test_twins_answer_the_same(net):
    twin = compress.to_tf_keras(net)
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(twin(images).numpy(), np.asarray(net(images)), atol=1e-5)
    assert twin.get_layer("block1_grn").get_config()["epsilon"] == 1e-6


def test_the_converter_makes_all_of_them_int8(net, tmp_path):
    images = np.random.default_rng(1).normal(size=(16, 16, 16, 3)).astype("float32")
    file = to_litert(net, tmp_path / "int8.tflite", quantization="int8", representative_data=images)
    assert litert_report(file).float_operators == ()


def test_quantization_aware_training_keeps_the_convolutions_int8(net, tmp_path):
    images = np.random.default_rng(1).normal(size=(16, 16, 16, 3)).astype("float32")
    quantized = compress.quantize_aware(net, calibration_data=images)
    expected = np.asarray(net(images))
    assert np.abs(quantized(images).numpy() - expected).mean() < 0.1 * expected.std()
    floats = litert_report(to_litert(quantized, tmp_path / "int8.tflite")).float_operators
    assert all("_norm/" in operator.name or "_grn/" in operator.name for operator in floats)
