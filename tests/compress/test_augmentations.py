"""Models with Keras' random layers for images in them: random in training, and gone from everything that is served."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import analysis, compress
from keraslight.export.litert import litert_report, to_litert
from keraslight.graph.kinds import AUGMENTATIONS


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")


def with_layer(kind):
    required = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is parameter.empty and name not in ("self", "kwargs")
    ]
    images = keras.Input((16, 16, 3))
    random = kind(**dict.fromkeys(required, 4 if kind is layers.RandomPosterization else 0.3), seed=1)
    return keras.Model(images, layers.Rescaling(2.0)(random(images)))


@pytest.mark.parametrize("kind", AUGMENTATIONS, ids=lambda kind: kind.__name__)
def test_inference_is_the_images(kind, pixels):
    model = with_layer(kind)
    np.testing.assert_array_equal(model(pixels, training=False), 2 * pixels)
    assert [type(layer) for layer in compress.fuse(model).layers] == [layers.InputLayer, layers.Rescaling]
    twin = compress.to_tf_keras(model)
    np.testing.assert_array_equal(twin(pixels, training=False), 2 * pixels)
    np.testing.assert_array_equal(twin.predict(pixels, verbose=0), 2 * pixels)
    if kind in (layers.RandomFlip, layers.RandomBrightness, layers.RandomTranslation):
        assert not np.allclose(twin(pixels, training=True), 2 * pixels)
    assert analysis.receptive_field(model)[-1].size == (1, 1)
    assert analysis.count_macs(model) == 0


def test_what_does_something_in_inference_stays(pixels):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, layers.Rescaling(2.0)(layers.AutoContrast(value_range=(0, 255))(images)))
    wanted = np.asarray(model(pixels, training=False))
    assert not np.allclose(wanted, 2 * pixels)
    np.testing.assert_allclose(compress.to_tf_keras(model).predict(pixels, verbose=0), wanted, rtol=1e-5)
    np.testing.assert_allclose(compress.fuse(model)(pixels, training=False), wanted, rtol=1e-5)
    whole = keras.Input((16, 16, 3), dtype="uint8")  # the layer makes floats of them, which a convolution needs
    fused = compress.fuse(keras.Model(whole, layers.Conv2D(2, 3)(layers.RandomFlip()(whole))))
    assert fused(pixels.astype("uint8"), training=False).shape == (8, 14, 14, 2)


def test_a_quantized_model_has_none_of_it(pixels, tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = layers.RandomContrast(0.5)(layers.RandomFlip()(images))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, x)
    aware = compress.quantize_aware(model, calibration_data=pixels)
    report = compress.quantization_report(aware)
    assert not report.floats
    np.testing.assert_allclose(aware.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=0.02)
    file = litert_report(to_litert(aware, tmp_path / "int8.tflite"))
    assert not file.float_operators
    kinds = {operator.kind for operator in file.operators}
    assert kinds <= {
        "QUANTIZE",
        "MUL",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
        "SOFTMAX",
        "DEQUANTIZE",
    }
