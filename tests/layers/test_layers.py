import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight.errors import InvalidArgumentError
from keraslight.layers import DropPath, ImageNormalization, LayerScale
from keraslight.preprocessing import Preprocessing


def again(layer):
    return type(layer).from_config(layer.get_config())


def test_layer_scale():
    layer = again(LayerScale(0.5))
    x = np.arange(12, dtype="float32").reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(np.asarray(layer(x)), x * 0.5)
    layer.gamma.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(np.asarray(layer(x)), x * np.array([1, 2, 3]))
    assert layer.count_params() == 3


def test_drop_path_drops_whole_images():
    layer = again(DropPath(0.25, seed=3))
    x = np.ones((4000, 2, 2, 3), "float32")
    y = np.asarray(layer(x, training=True))
    per_image = y.reshape(4000, -1)
    assert set(np.unique(per_image.round(5))) == {0.0, np.float32(1.33333)}
    assert (per_image.min(axis=1) == per_image.max(axis=1)).all()
    assert 0.22 < (per_image[:, 0] == 0).mean() < 0.28
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)


def test_drop_path_rate():
    with pytest.raises(InvalidArgumentError, match=r"`rate` must be in \[0, 1\). Received: rate=1"):
        DropPath(1)


def test_image_normalization():
    spec = Preprocessing((4, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    layer = again(ImageNormalization(spec))
    assert layer.preprocessing == spec
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    wanted = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(np.asarray(layer(pixels)), wanted, atol=1e-6)


@pytest.mark.parametrize(("shape", "row"), [((5, 7, 3), (7, 3)), ((None, None, 3), (3,))])
def test_image_normalization_has_rows_of_constants_where_the_width_is_known(shape, row):
    """LiteRT takes ten times as long over three values at a time."""
    layer = ImageNormalization(Preprocessing((5, 7), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("float32")
    function = tf.function(layer, input_signature=[tf.TensorSpec((None, *shape))], autograph=False)
    np.testing.assert_array_equal(function(pixels), keras.layers.Rescaling(layer.scale, layer.offset)(pixels))
    shapes = [tuple(op.outputs[0].shape) for op in function.get_concrete_function().graph.get_operations()]
    assert {shape for shape in shapes if shape[-1:] == (3,) and shape[0] is not None} == {row}


def test_layers_survive_clone_and_mixed_precision():
    images = keras.Input((4, 4, 1))
    x = ImageNormalization(Preprocessing((4, 4), mean=(0.5,), std=(0.5,)))(images)
    x = DropPath(0.1)(LayerScale(0.1, dtype="mixed_bfloat16")(x))
    model = keras.models.clone_model(keras.Model(images, x))
    assert [type(layer) for layer in model.layers[1:]] == [ImageNormalization, LayerScale, DropPath]
    assert model(np.ones((1, 4, 4, 1), "float32")).dtype.name == "float32"
