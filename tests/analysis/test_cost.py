import keras
import pytest
from keras import layers

from keraslight.analysis import count_macs, count_parameters, profile
from keraslight.errors import InvalidArgumentError
from keraslight.layers import C4GroupConv2D, C4LiftingConv2D, ConditionalConv2D, DeformableConv2D


def test_by_hand():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(images)  # 8*8*4 * 3*3*3
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(4, 3, groups=2, padding="valid")(x)  # 6*6*4 * 3*3*2
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)  # 3*3*4 * 3*3
    x = layers.Flatten()(x)
    x = layers.Dense(5)(x)  # 36*5
    model = keras.Model(images, x)
    assert count_macs(model) == 6912 + 2592 + 324 + 180
    # kernels and biases, and batch norm's gamma and beta without its statistics
    assert count_parameters(model) == (108 + 4) + 8 + (72 + 4) + (36 + 4) + (180 + 5)


def test_shared_layers_cost_once_a_call_and_nested_models_count():
    shared = layers.Dense(6, use_bias=False)
    images = keras.Input((6,))
    inner = keras.Model(images, shared(shared(images)))
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(2)])
    assert count_macs(inner) == 72
    assert count_macs(model) == 72 + 12
    assert count_parameters(inner) == 36


def test_matrix_products():
    a, b = keras.Input((5, 4)), keras.Input((7, 4))
    assert count_macs(keras.Model([a, b], layers.Dot(axes=(2, 2))([a, b]))) == 5 * 7 * 4


@pytest.mark.parametrize(
    ("shape", "layer", "macs"),
    [
        ((8, 8, 3), layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2), 16 * (9 * 6 + 6 * 5)),
        ((8, 8, 3), layers.Conv2DTranspose(5, 3, strides=2), 64 * 3 * 9 * 5),
        ((8, 8, 3), C4LiftingConv2D(5, 3, padding="valid"), 36 * 20 * 9 * 3),  # four times a convolution to 5 filters
        ((8, 8, 8), C4GroupConv2D(5, 3), 64 * 20 * 9 * 8),
        ((8, 8, 3), DeformableConv2D(5, 3), 64 * (18 * 27 + 5 * 27)),  # two offsets for each of the kernel's 9 points
        # a kernel at 4x4 places, 4 kernels mixed, 4 shares of them
        ((8, 8, 3), ConditionalConv2D(5, 3, experts=4, strides=2), 16 * 5 * 27 + 4 * 5 * 27 + 3 * 4),
        ((8, 3), layers.Conv1D(5, 3), 6 * 5 * 3 * 3),
        ((4, 4, 4, 3), layers.Conv3D(5, 3), 8 * 5 * 27 * 3),
    ],
)
def test_other_convolutions(shape, layer, macs):
    images = keras.Input(shape)
    model = keras.Model(images, layer(images))
    assert count_macs(model) == macs
    assert profile(model).unknown == ()


def test_costs_by_block_add_up():
    import keraslight

    model = keraslight.MobileNetV4("hybrid_medium", input_shape=(64, 64, 3))
    rows = {row.name: row for row in profile(model).by_block()}
    assert sum(row.parameters for row in rows.values()) == count_parameters(model)
    assert sum(row.macs for row in rows.values()) == count_macs(model)
    assert rows["stem"].output == (32, 32, 32)
    assert rows["stage2_block4"].output == (4, 4, 160)  # attention
    assert rows["stage2_block4"].parameters == 106_400


def test_open_sizes_are_refused():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layers.Conv2D(4, 3, name="stem")(images))
    with pytest.raises(InvalidArgumentError, match="fixed input size. Received: layer 'stem'"):
        count_macs(model)
