import keras
import numpy as np
import pytest

import keraslight
from keraslight.errors import InvalidArgumentError

SMALL = {"input_shape": (64, 64, 3), "classes": 10}


def test_poolings_come_after_other_layers_in_the_two_versions():
    def before_pooling(variant):
        model = keraslight.SqueezeNet(variant, **SMALL)
        pads = [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
        return [layer._inbound_nodes[0].input_tensors[0]._keras_history.operation.name for layer in pads]

    assert before_pooling("1_0") == ["stem_act", "fire4_concat", "fire8_concat"]
    assert before_pooling("1_1") == ["stem_act", "fire3_concat", "fire5_concat"]


@pytest.mark.parametrize(("side", "sides"), [(224, (111, 55, 27, 13)), (226, (112, 56, 28, 14)), (33, (16, 8, 4, 2))])
def test_stem_does_not_pad_and_poolings_round_up(side, sides):
    model = keraslight.SqueezeNet("1_1", input_shape=(side, side, 3), features_only=True)
    assert {key: map_.shape[1] for key, map_ in model.output.items()} == dict(
        zip(("stride_2", "stride_4", "stride_8", "stride_16"), sides, strict=True)
    )


def test_logits_pass_a_relu_before_their_mean():
    model = keraslight.SqueezeNet("1_1", classifier_activation=None, **SMALL)
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    assert np.asarray(model(images)).min() >= 0
    assert model.get_layer("pool").input is model.get_layer("classifier_act").output


def test_bad_head():
    with pytest.raises(InvalidArgumentError, match="`classes` must be at least 1. Received: classes=0"):
        keraslight.SqueezeNet("1_1", classes=0)
    with pytest.raises(InvalidArgumentError, match=r"`dropout` must be in \[0, 1\). Received: dropout=1"):
        keraslight.SqueezeNet("1_1", dropout=1)
