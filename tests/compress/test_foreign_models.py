"""Models that nobody here wrote, with random weights: their tf_keras twins and quantization-aware training."""

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.export.litert import litert_report, to_litert

SIDE = 96
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
NAMES = (
    *("MobileNetV2", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny", "DenseNet121"),
    *("NASNetMobile", "Xception", "ResNet50V2", "kimm MobileNetV3W050Small"),
)
# Training takes up to a minute each, and the others' twins as well; `make test-all` runs them.
TWINS = ("kimm MobileNetV3W050Small", "MobileNetV2")


def build(name):
    """A model whose signal is alive at the end, and raw pixels for it."""
    keras.utils.set_random_seed(0)
    if name.startswith("kimm "):
        source = pytest.importorskip("kimm", reason="a dev dependency: pip install 'keraslight[dev]'").models
    else:
        source = keras.applications
    model = getattr(source, name.removeprefix("kimm "))(weights=None, classes=10, input_shape=(SIDE, SIDE, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3)).astype("float32")
    compress.settle_batch_norms(model, (pixels, np.zeros(len(pixels))))
    return model, pixels


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TWINS else pytest.mark.slow) for name in NAMES]
)
def test_twin_answers_the_same(name):
    model, pixels = build(name)
    expected = np.asarray(model(pixels, training=False))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(compress.to_tf_keras(model)(pixels, training=False).numpy(), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_trains_quantized_and_converts(name, tmp_path):
    model, pixels = build(name)
    quantized = compress.quantize_aware(model, calibration_data=pixels)
    quantized.run_eagerly = True  # tracing takes longer than a single step
    assert np.isfinite(quantized.train_on_batch(pixels[:4], np.arange(4))).all()
    file = litert_report(to_litert(quantized, tmp_path / "int8.tflite"))
    kernels = [operator for operator in file.operators if operator.kind in KERNELS]
    assert kernels
    assert all(operator.inputs[:2] == ("INT8", "INT8") for operator in kernels)
    kinds = {layer.kind for layer in compress.quantization_report(quantized).layers if layer.precision == "float"}
    # Averages with padding are divided by numbers of pixels that differ, which no convolution does.
    assert kinds == {"ConvNeXtTiny": {"LayerNormalization"}, "NASNetMobile": {"AveragePooling2D"}}.get(name, set())
    assert bool(file.float_operators) == bool(kinds)
    back = compress.quantized_weights_to_keras(quantized, model)
    assert any((a != b).any() for a, b in zip(back.get_weights(), model.get_weights(), strict=True))
