"""Layers that other people's models have, through quantization-aware training into the int8 file."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # of a public model, but with no public name

from keraslight import compress, layers as own
from keraslight.errors import UnmappableLayerError
from keraslight.export.litert import litert_report, to_litert

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def net(middle, last="logits"):
    """(8, 8, 8) images -> a convolution, `middle`, pooling and a classifier."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 8), name="images")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(images)
    x = middle(x)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, layers.Dense(4, name=last)(x), name="net")


def run_operations(x):
    left, right = ops.split(x, 2, axis=-1)
    gate = ops.relu6(left + 3.0) * (1 / 6)
    x = ops.concatenate([gate * right, ops.subtract(left, right)], axis=-1)
    return ops.transpose(x[:, 1:, ::2], (0, 2, 1, 3))


IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 8)).astype("float32")
LABELS = np.arange(32) % 4
INT8 = {
    "separable": layers.SeparableConv2D(6, 3, activation="relu", name="mine"),
    "transposed": layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="mine"),
    "dense_on_maps": layers.Dense(6, activation="gelu", name="mine"),
    "pointwise": layers.Conv2D(6, 1, strides=2, name="mine"),
    "resizing": layers.Resizing(5, 5, name="mine"),
    "upsampling": layers.UpSampling2D(2, name="mine"),
    "rescaled_rows": lambda x: layers.Reshape((8, 8, 8))(layers.Rescaling(0.5)(layers.Reshape((64, 8))(x))),
    "leaky": layers.LeakyReLU(0.2, name="mine"),
    "operations": run_operations,
    "c4": lambda x: own.C4GroupPooling()(own.C4GroupConv2D(2, 3)(own.C4LiftingConv2D(2, 3)(x))),
    "channel_statistics": own.ChannelStatistics(name="mine"),
    "max_pool_with_indices": lambda x: own.MaxPoolWithIndices2D(name="mine")(x)[0],
    "scaled_add": lambda x: CustomScaleLayer(0.3)([x, layers.Conv2D(8, 1, name="mine")(x)]),
    "scaled_add_of_a_pool": lambda x: CustomScaleLayer(0.3)([x, layers.MaxPooling2D(3, 1, padding="same")(x)]),
    "coordinate": lambda x: layers.Multiply()(own.CoordinateSplit()([own.CoordinatePooling()(x), x])),
}
FLOAT = {
    "c4_mean": own.C4GroupPooling("mean", name="mine"),
    "deformable": own.DeformableConv2D(4, 3, name="mine"),
    "conditional": own.ConditionalConv2D(4, 3, experts=2, name="mine"),
    "response": own.LocalResponseNorm(name="mine"),
    "normalization": layers.LayerNormalization(axis=(1, 2, 3), name="mine"),  # of few values "first" would be float too
    "group_norm": layers.GroupNormalization(2, name="mine"),
    "average": lambda x: layers.Average(name="mine")([x, layers.MaxPooling2D(3, 1, padding="same")(x)]),
    "relu4": layers.ReLU(4.0, name="mine"),
    "mish": layers.Activation("mish", name="mine"),
}


def check(model, path):
    quantized = compress.quantize_aware(model, calibration_data=IMAGES, learning_rate=1e-3)
    expected = np.asarray(model(IMAGES))
    assert np.abs(quantized(IMAGES).numpy() - expected).mean() < 0.1 * expected.std()
    quantized.fit(IMAGES, LABELS, epochs=2, verbose=0)
    back = compress.quantized_weights_to_keras(quantized, model)
    trained = np.asarray(back(IMAGES))
    assert (trained != expected).any()
    assert np.abs(quantized(IMAGES).numpy() - trained).mean() < 0.1 * trained.std()
    return compress.quantization_report(quantized), litert_report(to_litert(quantized, path))


@pytest.mark.parametrize("name", INT8)
def test_all_int8(name, tmp_path):
    report, file = check(net(INT8[name]), tmp_path / "net.tflite")
    assert report.floats == {}
    assert file.float_operators == ()


@pytest.mark.parametrize("name", FLOAT)
def test_float_inside_is_said(name, tmp_path):
    report, file = check(net(FLOAT[name]), tmp_path / "net.tflite")
    assert set(report.floats) == {"mine"}
    assert "mine" in str(report)
    assert file.float_operators
    assert all("mine" in operator.name for operator in file.float_operators)
    assert [op.inputs[:2] for op in file.operators if op.kind in KERNELS and "mine" not in op.name] == [
        ("INT8", "INT8")
    ] * 2  # the first convolution and the classifier


def test_unpooling_is_refused():
    model = net(lambda x: own.MaxUnpool2D(name="mine")(own.MaxPoolWithIndices2D()(x)))
    with pytest.raises(UnmappableLayerError, match="must not have MaxUnpool2D layers.* Received: layer 'mine'"):
        compress.quantize_aware(model)


def test_report_lists_every_layer_and_why():
    quantized = compress.quantize_aware(net(FLOAT["normalization"]), skip="log*", calibration_data=IMAGES)
    report = compress.quantization_report(quantized)
    assert [(layer.name, layer.precision) for layer in report.layers] == [
        *(("first", "int8"), ("mine", "float"), ("pool", "int8"), ("logits", "float"))
    ]
    assert report.floats == {
        "mine": "its statistics (mean, square, root) need more than 8 bits",
        "logits": "left out by `skip`",
    }
    assert str(report).splitlines()[0] == "2 of 4 layers in int8, 2 in float"


def test_batch_norms_settle_and_then_freeze():
    model = net(layers.BatchNormalization(momentum=0.5, name="bn"))
    quantized = compress.quantize_aware(model, calibration_data=IMAGES, batch_norm_steps=2)
    means = []
    for _ in range(4):
        quantized.train_on_batch(IMAGES, LABELS)
        back = compress.quantized_weights_to_keras(quantized, model)
        means.append(np.asarray(back.get_layer("bn").moving_mean))
    assert (means[0] != means[1]).any()
    np.testing.assert_array_equal(means[1], means[2])
    np.testing.assert_array_equal(means[2], means[3])
    quantized.predict(IMAGES, verbose=0)  # inference counts no steps and moves nothing
    frozen = compress.quantize_aware(model, calibration_data=IMAGES)
    frozen.train_on_batch(IMAGES, LABELS)
    back = compress.quantized_weights_to_keras(frozen, model)
    np.testing.assert_array_equal(back.get_layer("bn").moving_mean, model.get_layer("bn").moving_mean)
