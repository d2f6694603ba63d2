"""Fusing one small variant of every family: the same logits from fewer layers."""

import gc

import keras
import numpy as np
import pytest

import keraslight
from keraslight import compress
from keraslight.layers import LayerScale

# Name, side of the images, other arguments, and the batch norms and layer scales that stay: those before a padded
# convolution.
SMALL = [
    ("alexnet", 64, {}, 0),
    ("convnext_tiny", 32, {}, 0),
    ("convnext_v2_atto", 32, {}, 0),
    ("densenet121", 32, {}, 0),
    ("efficientnet_b0", 32, {}, 0),
    ("efficientnet_v2_b0", 32, {}, 0),
    ("ghostnet_050", 32, {}, 0),
    ("googlenet", 32, {}, 0),
    ("lenet5_paper", 32, {}, 0),
    ("mobilenet_v1_025", 32, {}, 0),
    ("mobilenet_v2_035", 32, {}, 0),
    ("mobilenet_v3_small_050", 32, {}, 0),
    ("mobilenet_v4_conv_small", 32, {}, 0),
    ("mobilenet_v4_hybrid_medium", 32, {}, 4),
    ("mobilenext_035", 32, {}, 0),
    ("repvgg_a0", 32, {"width": 0.25}, 0),
    ("repvgg_b1g2", 32, {"width": 0.25}, 0),
    ("repvgg_d2se", 32, {"width": 0.25}, 0),
    ("resnet18", 32, {}, 0),
    ("shufflenet_v1_g3_025", 32, {}, 0),
    ("shufflenet_v2_050", 32, {}, 0),
    ("shufflenet_v2_plus_small", 32, {}, 0),
    ("squeezenet_1_1", 32, {}, 0),
    ("vgg11_bn", 32, {}, 0),
    ("xception", 71, {}, 0),
]


# `make test-all` fuses these too; in `make test`, smaller nets have their kinds of blocks.
SLOW = {
    *("convnext_v2_atto", "densenet121", "efficientnet_b0", "efficientnet_v2_b0", "mobilenet_v4_conv_small"),
    *("ghostnet_050", "googlenet", "mobilenext_035", "repvgg_b1g2", "repvgg_d2se", "shufflenet_v2_050"),
    *("mobilenet_v1_025", "mobilenet_v2_035", "shufflenet_v2_plus_small", "vgg11_bn"),
}


@pytest.mark.parametrize(
    ("name", "side", "arguments", "staying"),
    [pytest.param(*row, id=row[0], marks=pytest.mark.slow if row[0] in SLOW else ()) for row in SMALL],
)
def test_same_logits_from_fewer_layers(name, side, arguments, staying):
    channels = 1 if name.startswith("lenet") else 3
    keras.utils.set_random_seed(0)
    model = keraslight.create_model(
        name, input_shape=(side, side, channels), classes=10, classifier_activation=None, **arguments
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:  # else batch norms and layer scales would do nothing
        if isinstance(layer, keras.layers.BatchNormalization | LayerScale):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    fused = compress.fuse(model)
    images = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    wanted, got = np.asarray(model(images)), np.asarray(fused(images))
    assert np.abs(wanted - got).max() <= 1e-5 * wanted.std()
    assert len(fused.layers) < len(model.layers)
    left = [layer for layer in fused.layers if isinstance(layer, keras.layers.BatchNormalization | LayerScale)]
    assert len(left) == staying
    del model, fused, left
    gc.collect()  # the conftest here switches the collection off, and some of these nets are large
