"""Spaces: as many choices whatever the depth, nets within the bounds, and programs that build them again."""

import random

import numpy as np
import pytest
from optuna.trial import FixedTrial

import keraslight
from keraslight.architectures.mobilenet_v3 import SMALL
from keraslight.architectures.mobilenet_v4 import UIB, Conv
from keraslight.compress import calibrate, fuse
from keraslight.errors import InvalidArgumentError
from keraslight.export import litert_runner
from keraslight.preprocessing import Preprocessing
from keraslight.search import SPACES, MobileNetV3Space, MobileNetV4Space

SPEC = Preprocessing(size=(32, 32), mean=(0.5,), std=(0.5,))
ENDS = {"classes": 4, "input_shape": (32, 32, 1), "preprocessing": SPEC}
KINDS = pytest.mark.parametrize("kind", SPACES.values(), ids=SPACES)


class Draws:
    """Stands in for a trial: draws each choice, and keeps it."""

    def __init__(self, seed, **fixed):
        self._random, self.choices, self._fixed = random.Random(seed), {}, fixed

    def suggest_int(self, name, low, high, step=1):
        return self.choices.setdefault(name, self._fixed.get(name, self._random.randrange(low, high + 1, step)))

    def suggest_categorical(self, name, values):
        return self.choices.setdefault(name, self._fixed.get(name, self._random.choice(values)))


@KINDS
def test_every_trial_has_the_same_choices(kind):
    space = kind.for_images(224)
    assert len(space.stages) == 4
    names = {tuple(trial.choices) for trial in map(Draws, range(50)) if space.sample(trial)}
    assert len(names) == 1


@KINDS
def test_rows_stay_within_the_bounds(kind):
    space = kind(stages=((8, 24), (16, 16)), depth=(1, 2), stem=(8, 16), head=((8, 8), (16, 24)))
    for trial in map(Draws, range(50)):
        arguments = space.sample(trial)
        stages = arguments["stages"][:2]
        for (low, high), stage in zip(space.stages, stages, strict=True):
            assert 1 <= len(stage) <= 2
            assert [row.stride for row in stage] == [2, 1][: len(stage)]
            assert len({row.channels for row in stage}) == 1
            assert stage[0].channels in range(low, high + 1, 8)
        assert arguments["stem"] in (8, 16)


@pytest.mark.parametrize(
    ("kind", "fused"), [(MobileNetV3Space, None), (MobileNetV4Space, False), (MobileNetV4Space, True)]
)
def test_the_program_of_a_net_builds_the_same_net(kind, fused):
    space = kind(stages=((8, 16), (8, 24)), depth=(1, 2), head=((8, 24), (8, 24)))
    trial = Draws(3, stage0_depth=1, stage1_depth=2, stage0_fused=fused)
    arguments = space.sample(trial)
    model = space.build(arguments, ENDS)
    scope = {}
    exec(space.code(arguments, ENDS), scope)
    again = scope["model"]
    again.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype("float32")
    np.testing.assert_array_equal(again(images), model(images))
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert space.sample(FixedTrial(trial.choices)) == arguments
    assert model.get_layer("stem").filters == arguments["stem"]
    head = arguments["head"]
    assert model.get_layer("head").filters == (head if isinstance(head, int) else head[1])


def test_a_first_row_without_depthwise_convolutions_gets_one_that_strides():
    space = MobileNetV4Space(stages=((8, 8),), depth=(2, 2), starts=(0,), middles=(0, 5), fused=False)
    stage, head = space.sample(Draws(0, stage0_middle=0, head0=16))["stages"]
    assert [(row.start, row.middle, row.stride) for row in stage] == [(0, 5, 2), (0, 0, 1)]
    assert (type(stage[0]), head) == (UIB, (Conv(1, 16),))
    alone = MobileNetV4Space(stages=((8, 8),), depth=(1, 1), starts=(0,), middles=(0,), fused=False)
    assert alone.sample(Draws(0))["stages"][0][0].middle == 3
    after = MobileNetV4Space(stages=((8, 8),), depth=(1, 1), starts=(3,), middles=(0,), fused=False)
    assert after.sample(Draws(0))["stages"][0][0].middle == 0


def test_an_expansion_of_1_has_no_expansion():
    space = MobileNetV3Space(stages=((8, 8),), depth=(1, 1), expansions=(1,), stem=(24, 24))
    model = space.build(space.sample(Draws(0)), ENDS)
    assert model.get_layer("stage0_block0_depthwise").output.shape[-1] == 24
    assert "stage0_block0_expand" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize(("side", "stages"), [(32, 2), (48, 3), (64, 3), (96, 4), (224, 4), (1024, 4)])
def test_images_determine_the_number_of_stages(side, stages):
    assert len(MobileNetV3Space.for_images(side).stages) == stages


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stages": ()}, "`stages` must have at least one pair of channels. Received: none."),
        (
            {"stages": ((8, 20),)},
            "`stages` must be pairs of fewest and most channels, multiples of 8. Received: .8, 20.",
        ),
        ({"stages": ((16, 8),)}, "Received: .16, 8."),
        ({"stem": (0, 8)}, "`stem` must be pairs of fewest and most channels, multiples of 8. Received: .0, 8."),
        ({"head": ((8, 8),)}, "`head` must have two pairs of channels."),
        ({"depth": (0, 2)}, "`depth` must be fewest and most rows, at least 1. Received: .0, 2."),
        ({"kernels": (3, 4)}, "`kernels` must be sides of kernels, odd numbers. Received: .3, 4."),
        ({"kernels": (0,)}, "`kernels` must be sides of kernels, odd numbers."),
        ({"expansions": (0.5,)}, "`expansions` must be numbers of at least 1. Received: .0.5,."),
        ({"activations": ()}, "`activations` must have at least one. Received: none."),
    ],
)
def test_bad_spaces_are_refused(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        MobileNetV3Space(**arguments)


def test_bad_spaces_of_mobilenet_v4_are_refused():
    with pytest.raises(InvalidArgumentError, match="`middles` must be sides of kernels, odd numbers, or 0 for none."):
        MobileNetV4Space(middles=(2,))
    with pytest.raises(InvalidArgumentError, match="`side` must be at least 32 pixels. Received: 16."):
        MobileNetV4Space.for_images(16)


def test_lists_make_the_same_space():
    assert MobileNetV3Space(stages=[[8, 16]], depth=[1, 2], kernels=[3]) == MobileNetV3Space(
        stages=((8, 16),), depth=(1, 2), kernels=(3,)
    )


def test_a_found_net_is_fused_and_calibrated(tmp_path):
    space = MobileNetV3Space(stages=((8, 16),), depth=(1, 1), head=((8, 8), (8, 8)))
    model = space.build(space.sample(Draws(1, stage0_squeeze=True, activation="hard_silu")), ENDS)
    images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 1)).astype("float32")
    np.testing.assert_allclose(fuse(model)(images), model(images), atol=1e-5)
    file = calibrate(model, images, tmp_path / "net.tflite", equalize=False, correct_bias=False)
    np.testing.assert_allclose(litert_runner(file)(images), model(images), atol=0.05)


def test_stems_and_heads_of_any_width():
    ends = {"classes": 2, "input_shape": (32, 32, 3)}
    net = keraslight.MobileNetV3("small_100", stages=SMALL[:1], stem=24, head=(16, 32), **ends)
    assert [net.get_layer(name).filters for name in ("stem", "head_expand", "head")] == [24, 16, 32]
    # 16 to 16 channels in the table's first row; with another stem that is an expansion.
    assert net.get_layer("stage0_block0_expand").filters == 16
    net = keraslight.MobileNetV4("conv_small", stages=((UIB(3, 3, 2, 8, 2),), (Conv(1, 16),)), head=48, **ends)
    assert net.get_layer("head").filters == 48
