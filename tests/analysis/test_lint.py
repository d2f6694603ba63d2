"""Findings and their numbers, by hand and for networks that ShuffleNet V2's paper discusses."""

import math

import keras
import pytest
from keras import layers, ops

import keraslight
from keraslight.analysis import GUIDELINES, Finding, lint_model, profile
from keraslight.errors import InvalidArgumentError
from keraslight.layers import GroupedConv2D


def found(model, **settings):
    return {finding.where: finding for finding in lint_model(model, **settings)}


def test_guideline_1_by_hand():
    images = keras.Input((16, 16, 8))
    x = layers.Conv2D(48, 1, name="wide")(images)
    x = layers.Conv2D(48, 1, name="equal")(x)
    x = layers.Conv2D(4, 1, strides=2, name="strided")(x)
    x = layers.Dense(32, name="dense")(x)
    x = layers.Conv2D(4, 3, name="windows")(x)
    x = layers.Dense(100, name="classifier")(layers.GlobalAveragePooling2D()(x))  # one place: weights are most of it
    model = keras.Model(images, x)
    rows = found(model, select=["G1"])
    assert list(rows) == ["wide", "dense"]
    bound = math.ceil(4 * (2 * 256 * math.sqrt(8 * 48) + 8 * 48))
    assert rows["wide"] == ("G1", "wide", "8 -> 48 channels", 256 * 8 * 48, 4 * (256 * (8 + 48) + 8 * 48), bound, 1)
    assert rows["dense"].access_bytes == 4 * (64 * (4 + 32) + 4 * 32)
    assert rows["wide"].ratio == rows["wide"].access_bytes / bound == pytest.approx(1.413, abs=1e-3)
    assert rows["wide"].excess_bytes == rows["wide"].access_bytes - bound
    assert rows["wide"].milliseconds(1e6) == rows["wide"].excess_bytes / 1000
    assert found(model, select=["G1"], ratio=1.42) == {"dense": rows["dense"]}
    assert rows["dense"].ratio > 1.42
    assert "equal" not in found(model, select=["G1"], ratio=1.0)


@pytest.mark.parametrize(("places", "product"), [(49, 36), (3136, 576), (1, 1024)])
def test_the_bound_of_guideline_1_is_the_least_there_is(places, product):
    """Over all whole widths with the product, so with the same multiply-adds."""
    pairs = [(c, product // c) for c in range(1, product + 1) if product % c == 0]
    least = min(4 * (places * (a + b) + a * b) for a, b in pairs)
    images = keras.Input((places, 1, 1))
    model = keras.Model(images, layers.Conv2D(product, 1, name="one")(images))
    (finding,) = lint_model(model, select=["G1"], ratio=1)
    assert finding.least_bytes == least  # the products are squares
    assert finding.access_bytes == 4 * (places * (1 + product) + product)


def test_guideline_2_by_hand():
    images = keras.Input((8, 8, 12))
    x = GroupedConv2D(24, 3, groups=3, padding="same", name="groups")(images)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = GroupedConv2D(24, 1, groups=24, name="each")(x)
    rows = found(keras.Model(images, x), select=["G2"])
    weights = 9 * 4 * 24
    access = 4 * (64 * 12 + 64 * 24 + weights)
    least = 4 * (64 * 12 + 64 * 8 + weights)  # 8 filters over all 12 channels: the same multiply-adds
    assert rows == {"groups": ("G2", "groups", "3 groups, 12 -> 24 channels", 64 * weights, access, least, 1)}
    assert 64 * weights == 64 * 9 * 12 * 8
    assert found(keras.Model(images, x), select=["G2"], ratio=2) == {}


def fork(x, count, name):
    """`count` convolutions side by side."""
    return layers.Concatenate(name=f"{name}_concat")(
        [layers.Conv2D(2, 1, name=f"{name}_{number}")(x) for number in range(count)]
    )


def test_guideline_3_counts_blocks_between_meeting_points():
    images = keras.Input((8, 8, 4), name="images")
    x = images
    for number in range(8):  # a chain is no block
        x = layers.Conv2D(4, 3, padding="same", name=f"chain{number}")(x)
    x = fork(x, 5, "five")
    x = layers.ReLU(name="act")(x)
    x = fork(x, 6, "six")
    pool = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Add(name="join")([layers.Conv2D(12, 2, strides=2, name="conv")(x), pool])
    (finding,) = lint_model(keras.Model(images, x), select=["G3"])
    assert finding.where == "six_0 to six_concat"
    assert finding.detail == "6 convolutions and poolings, 6 branches"
    assert finding.macs == 6 * 64 * 10 * 2
    assert finding.excess_bytes == 0
    assert finding.ratio == 1
    assert finding.operations == 6
    assert finding.milliseconds(1e6, overhead=0.5) == 5 * 0.5  # five starts more than one convolution
    moved = 6 * 4 * (64 * 10 + 64 * 2 + 20) + 4 * 2 * 64 * 12
    assert finding.access_bytes == moved
    five, *_ = sorted(found(keras.Model(images, x), select=["G3"], fragments=4))
    assert five == "five_0 to five_concat"


def test_guideline_4_leaves_out_what_is_folded():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(images)
    x = layers.BatchNormalization(name="bn")(x)
    short = layers.ReLU(6, name="relu6")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(short)
    x = layers.Activation("relu", name="folded")(x)
    x = layers.Activation("silu", name="silu")(layers.Conv2D(4, 1, name="point")(x))
    x = layers.Add(name="add")([x, short])
    x = layers.BatchNormalization(name="late_bn")(x)
    x = ops.tanh(layers.ReLU(name="late")(x))
    both = layers.Conv2D(4, 1, name="twice")(x)  # read by two: it must exist
    x = layers.Concatenate(name="concat")([layers.ReLU(name="once")(both), both])
    x = layers.ReLU(max_value=2, name="relu2")(layers.Conv2D(4, 1, name="last")(x))
    model = keras.Model(images, x)
    rows = found(model, select=["G4"])
    size = 64 * 4 * 4
    elementwise = next(name for name in rows if name.startswith("tanh"))
    assert {name: row.access_bytes for name, row in rows.items()} == {
        "silu": 2 * size,
        "add": 3 * size,
        "late_bn": 2 * size + 4 * 16,
        "late": 2 * size,
        elementwise: 2 * size,
        "once": 2 * size,
        "relu2": 2 * size,
    }
    assert next(iter(rows)) == "add"  # the dearest first
    assert rows["add"].detail == "Add of 8x8x4"
    assert rows["silu"].detail == "silu of 8x8x4"
    assert rows["relu2"].detail == "ReLU of 8x8x4"
    assert rows[elementwise].detail == "ops.Tanh of 8x8x4"
    assert (rows["add"].excess_bytes, rows["add"].ratio, rows["add"].macs) == (3 * size, math.inf, 0)
    total = profile(model).access_bytes
    assert list(found(model, select=["G4"], share=2.9 * size / total)) == ["add"]
    assert found(model, select=["G4"], share=3.1 * size / total) == {}


def test_nested_models():
    inside = keras.Input((None, None, 4))
    inner = keras.Model(inside, layers.Conv2D(64, 1, name="wide")(inside), name="inner")
    images = keras.Input((None, None, 4))
    model = keras.Model(images, inner(images))
    assert list(found(model, input_shape=(32, 32, 4))) == ["inner/wide"]


def test_open_sizes_are_rejected():
    images = keras.Input((None, None, 4))
    model = keras.Model(images, layers.Conv2D(64, 1)(images))
    with pytest.raises(InvalidArgumentError, match="give `input_shape`"):
        lint_model(model)


def codes(name, **arguments):
    return {finding.guideline for finding in lint_model(keraslight.create_model(name, **arguments))}


def test_nets_of_the_paper():
    """Section 3: ShuffleNet V1 breaks G1 (bottlenecks) and G2, MobileNetV2 G1; V2 keeps them all."""
    assert codes("shufflenet_v2_100") == set()
    assert {"G2", "G4"} <= codes("shufflenet_v1_g3_100")
    assert codes("mobilenet_v2_100") == {"G1"}
    assert codes("resnet50") == {"G4"}
    inception = [f for f in lint_model(keraslight.create_model("googlenet")) if f.guideline == "G3"]
    assert len(inception) == 9
    assert {finding.detail for finding in inception} == {"7 convolutions and poolings, 4 branches"}


@pytest.fixture
def pointwise():
    images = keras.Input((8, 8, 4))
    return keras.Model(images, layers.Conv2D(4, 1)(images))


@pytest.mark.parametrize(
    ("select", "text"),
    [(["G5"], r"`select` must be some of \('G1', .*'G4'\). Received: \['G5'\]"), ("G1", "Received: 'G1'")],
)
def test_unknown_guidelines_are_rejected(pointwise, select, text):
    with pytest.raises(InvalidArgumentError, match=text):
        lint_model(pointwise, select=select)


@pytest.mark.parametrize("wrong", [{"ratio": 0.9}, {"fragments": 0}, {"share": 1.1}])
def test_thresholds_out_of_range_are_rejected(pointwise, wrong):
    with pytest.raises(InvalidArgumentError, match="must be at least 1 and `share` in .* Received: ratio="):
        lint_model(pointwise, **wrong)


def test_the_public_names_of_findings():
    assert list(GUIDELINES) == ["G1", "G2", "G3", "G4"]
    assert Finding._fields[0] == "guideline"
