import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight import compress
from keraslight.analysis import count_macs, count_parameters
from keraslight.blocks.conv import TENSORFLOW
from keraslight.errors import CompressionError


def randomized(model):
    """Random batch norms and biases, so that none is the identity."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.3, 1.7, w.shape) for w in layer.get_weights()])
        elif isinstance(layer, layers.Conv2D) and layer.use_bias:
            layer.bias.assign(rng.uniform(-1, 1, layer.bias.shape))
    return model


def difference(model, other):
    """Of the outputs, in standard deviations."""
    images = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])).astype("float32")
    wanted, got = np.asarray(model(images)), np.asarray(other(images))
    return np.abs(wanted - got).max() / wanted.std()


def repvgg(variant, **arguments):
    settings = {"width": 0.25, "classes": 10, "classifier_activation": None, **arguments}
    return randomized(keraslight.RepVGG(variant, **settings)), keraslight.RepVGG(variant, deploy=True, **settings)


@pytest.mark.parametrize(
    ("variant", "shape"),
    [("a0", (64, 64, 3)), ("a0", (65, 47, 1)), ("b1g2", (65, 47, 1)), ("b1g4", (64, 47, 3)), ("d2se", (33, 32, 4))],
)
def test_gives_the_deploy_form_of_repvgg(variant, shape):
    model, deploy_form = repvgg(variant, input_shape=shape)
    deployed = compress.reparameterize(model)
    assert difference(model, deployed) < 1e-5
    assert [layer.name for layer in deployed.layers] == [layer.name for layer in deploy_form.layers]
    assert [type(layer) for layer in deployed.layers] == [type(layer) for layer in deploy_form.layers]
    assert count_parameters(deployed) == count_parameters(deploy_form)
    assert count_macs(deployed) == count_macs(deploy_form)
    deploy_form.set_weights(deployed.get_weights())
    assert difference(model, deploy_form) < 1e-5


@pytest.mark.parametrize("side", [64, 65])
def test_finds_the_kernels_place_under_tensorflows_padding(side):
    model, _ = repvgg("a0", input_shape=(side, 64, 3), style=TENSORFLOW)
    assert difference(model, compress.reparameterize(model)) < 1e-5


def test_open_sizes():
    model, _ = repvgg("a0", input_shape=(None, None, 3))
    deployed = compress.reparameterize(model)
    images = np.random.default_rng(1).normal(size=(1, 50, 33, 3)).astype("float32")
    np.testing.assert_allclose(deployed(images), model(images), atol=1e-5 * np.std(model(images)))


def block(combine):
    x = images = keras.Input((9, 8, 4))
    x = layers.Conv2D(4, 1, name="before")(x)
    return randomized(keras.Model(images, combine(x)))


def conv(x, kernel, name, **arguments):
    return layers.Conv2D(x.shape[-1], kernel, padding="same", name=name, **arguments)(x)


def kinds(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.Conv2D)]


def test_other_blocks_of_branches():
    def combine(x):
        middle = layers.BatchNormalization()(conv(x, 3, "middle"))
        return layers.Add()([x, conv(x, 5, "wide"), conv(x, (1, 3), "flat"), middle])

    model = block(combine)
    deployed = compress.reparameterize(model)
    assert kinds(deployed) == ["before", "wide"]
    assert difference(model, deployed) < 1e-5


def test_even_kernels_keep_their_place():
    """Keras pads one row more below than above."""
    model = block(lambda x: layers.Add()([conv(x, 4, "wide"), conv(x, 2, "narrow"), x]))
    deployed = compress.reparameterize(model)
    assert kinds(deployed) == ["before", "wide"]
    assert difference(model, deployed) < 1e-5


@pytest.mark.parametrize(
    "combine",
    [
        lambda x: layers.Add()([conv(x, 3, "a"), conv(conv(x, 1, "b"), 3, "c")]),  # another input
        lambda x: layers.Add()([conv(x, 3, "a"), layers.ReLU()(conv(x, 1, "b"))]),
        lambda x: layers.Add()([conv(x, 3, "a"), conv(x, 1, "b", activation="relu")]),
        lambda x: layers.Add()([conv(x, 3, "a"), conv(x, 3, "b", groups=2)]),
        lambda x: layers.Add()([conv(x, 3, "a"), conv(x, 3, "b", dilation_rate=2)]),
        lambda x: layers.Add()([conv(x, (3, 1), "a"), conv(x, (1, 3), "b")]),  # neither holds the other
        lambda x: layers.Add()([(y := conv(x, 3, "a")), layers.ReLU()(layers.Add()([y, conv(x, 1, "b")]))]),
    ],
)
def test_what_is_no_such_block(combine):
    with pytest.raises(CompressionError, match="must have a block of parallel convolutions that are added.*Received"):
        compress.reparameterize(block(combine))


def test_a_block_inside_another_addition():
    model = block(lambda x: layers.Add(name="residual")([layers.Add()([conv(x, 3, "a"), x]), layers.ReLU()(x)]))
    deployed = compress.reparameterize(model)
    assert sum(isinstance(layer, layers.Add) for layer in deployed.layers) == 1
    assert difference(model, deployed) < 1e-5


def test_the_rest_of_a_model_stays():
    def combine(x):
        x = layers.Add(name="sum")([conv(x, 3, "a"), conv(x, 1, "b")])
        return layers.Add(name="residual")([x, layers.ReLU()(layers.BatchNormalization(name="norm")(x))])

    model = block(combine)
    deployed = compress.reparameterize(model)
    assert {"residual", "norm"} <= {layer.name for layer in deployed.layers}
    assert kinds(deployed) == ["before", "a"]
    assert difference(model, deployed) < 1e-5
