import keras
import numpy as np
import pytest
from keras import layers, ops

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


@pytest.mark.parametrize("name", ["seedling_conv", "seed", "birdseed", "seed_generator", "my_seed_generator_state"])
@pytest.mark.parametrize("nested", [False, True])
def test_seeds_in_names_are_no_random_generators(name, nested):
    kernel = layers.Conv2D(4, 3, name="conv" if nested else name)
    images = keras.Input((8, 8, 3))
    inner = keras.Model(images, layers.Dropout(0.1)(kernel(layers.GaussianNoise(0.1)(images))), name=name)
    model = keras.Sequential([images, inner]) if nested else inner
    assert count_parameters(model) == profile(model).parameters == 3 * 9 * 4 + 4
    assert profile(model).access_bytes >= 4 * 112


def test_generators_are_no_parameters():
    class Noisy(layers.Layer):
        def __init__(self):
            super().__init__()
            self.listed = [keras.random.SeedGenerator(1), keras.random.SeedGenerator(2)]
            self.scale = self.add_weight(shape=(3,), name="seed_scale")

        def call(self, x):
            return x + self.scale

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomFlip(), layers.RandomRotation(0.1), Noisy()])
    assert count_parameters(model) == 3


def test_statistics_of_the_data_are_not_learned():
    normalization = layers.Normalization()
    normalization.adapt(np.arange(48.0).reshape(4, 2, 2, 3))
    spectral = layers.SpectralNormalization(layers.Conv2D(2, 3))
    model = keras.Sequential([keras.Input((8, 8, 3)), normalization, layers.Conv2D(4, 3), spectral])
    model.trainable = False  # frozen weights were learned all the same
    assert count_parameters(model) == profile(model).parameters == 112 + 3 * 3 * 4 * 2 + 2


def product(shapes, function):
    """A model of that many inputs, each of a shape with the batch in front."""
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, function(*inputs))


CONSTANT = np.ones((4, 7), "float32")


@pytest.mark.parametrize(
    ("shapes", "function", "macs"),
    [
        ([(5, 4), (4, 7)], lambda a, b: ops.matmul(a, b), 5 * 4 * 7),
        ([(5, 4)], lambda a: a @ CONSTANT, 5 * 4 * 7),
        ([(7, 5)], lambda a: ops.matmul(CONSTANT, a), 4 * 7 * 5),
        ([(3, 5, 4), (3, 4, 7)], lambda a, b: ops.matmul(a, b), 3 * 5 * 4 * 7),
        ([(5, 4), (7, 4)], lambda a, b: ops.einsum("bik,bjk->bij", a, b), 5 * 4 * 7),
        ([(2, 5, 4), (2, 7, 4)], lambda a, b: ops.einsum("...ik,...jk->...ij", a, b), 2 * 5 * 4 * 7),
        ([(5, 4)], lambda a: ops.tensordot(a, CONSTANT, 1), 5 * 4 * 7),
        ([(5, 7)], lambda a: ops.tensordot(a, CONSTANT, axes=([2], [1])), 5 * 4 * 7),
        ([(5, 4)], lambda a: ops.dot(a, CONSTANT), 5 * 4 * 7),
        ([(8, 8, 4)], lambda a: ops.conv(a, np.ones((3, 3, 4, 6), "float32")), 36 * 9 * 4 * 6),
        ([(8, 8, 4)], lambda a: ops.depthwise_conv(a, np.ones((3, 3, 4, 2), "float32")), 36 * 9 * 8),
        ([(5, 4)], layers.EinsumDense("abc,cd->abd", (5, 6)), 5 * 4 * 6),
        ([(5, 4)], layers.EinsumDense("abc,bcd->ad", 6), 5 * 4 * 6),
        ([(3, 5, 4)], layers.EinsumDense("...x,xy->...y", 6), 3 * 5 * 4 * 6),
        ([(5, 4)], layers.LSTM(6), 5 * (4 * 24 + 6 * 24)),
        ([(5, 4)], layers.GRU(6, return_sequences=True), 5 * (4 * 18 + 6 * 18)),
        ([(8, 4)], layers.DepthwiseConv1D(3, depth_multiplier=2), 6 * 3 * 8),
        ([(8, 4)], layers.SeparableConv1D(5, 3), 6 * (3 * 4 + 4 * 5)),
        ([(8, 4)], layers.Conv1DTranspose(5, 3), 8 * 3 * 4 * 5),
        ([(5, 4), (7, 4)], lambda a, b: layers.Attention()([a, b]), 5 * 7 * (4 + 4)),
        ([(5, 4), (7, 4)], lambda a, b: layers.AdditiveAttention()([a, b]), 5 * 7 * (4 + 4)),
        # 2 heads of 3 keys and 5 values: maps of queries, keys and values, scores, sums and the last map
        (
            [(5, 4), (7, 6)],
            lambda a, b: layers.MultiHeadAttention(2, 3, 5)(a, b),
            5 * 4 * 6 + 7 * 6 * 6 + 7 * 6 * 10 + 2 * 5 * 7 * (3 + 5) + 5 * 10 * 4,
        ),
        (
            [(3, 5, 4)],  # each row attends to itself
            lambda a: layers.MultiHeadAttention(2, 3, attention_axes=(2,))(a, a),
            15 * 4 * 6 * 4 + 3 * 2 * 5 * 5 * 6,
        ),
        (
            [(5, 6), (7, 6)],  # 4 heads of queries, 2 of keys and values
            lambda a, b: layers.GroupQueryAttention(3, 4, 2)(a, b),
            5 * 6 * 12 + 2 * 7 * 6 * 6 + 4 * 5 * 7 * 6 + 5 * 12 * 6,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:NotImplemented should not be used")  # Keras 3.15, of an open batch in tensordot
def test_products(shapes, function, macs):
    model = product(shapes, function)
    assert count_macs(model) == macs
    assert profile(model).macs == macs
    assert profile(model).unknown == ()


def test_layers_that_can_not_be_counted_are_named():
    class Mystery(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 5))
            self.bias = self.add_weight(shape=(5,))

        def call(self, x):
            return x @ self.kernel + self.bias

    model = keras.Sequential([keras.Input((4,)), Mystery(), layers.Dense(3), Mystery()])
    with pytest.warns(UserWarning, match="unknown and not counted: Mystery$"):
        assert count_macs(model) == 15


def test_models_that_are_not_built():
    model = keras.Sequential([layers.Dense(3)], name="later")
    for count in (count_parameters, count_macs, profile):
        with pytest.raises(InvalidArgumentError, match="Received: 'later'"):
            count(model)
