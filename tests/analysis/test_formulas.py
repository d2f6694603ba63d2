from pathlib import Path

import keras
import pytest
from keras import layers

from keraslight.analysis import compare_convolutions, convolution_cost, count_macs, count_parameters
from keraslight.errors import InvalidArgumentError


def test_the_classic_example():
    standard = convolution_cost(224, 224, 3, 64, 3)
    separable = convolution_cost(224, 224, 3, 64, 3, "depthwise_separable")
    assert standard == (86_704_128, 1728, 1.0)
    assert separable == (10_988_544, 219, pytest.approx(1 / 64 + 1 / 9))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["standard", "depthwise_separable", "grouped", "ghost"])
def test_agrees_with_the_count_of_a_model(kind, stride):
    images = keras.Input((9, 12, 6))
    plain = {"padding": "same", "use_bias": False}
    match kind:
        case "standard":
            x = layers.Conv2D(8, 5, strides=stride, **plain)(images)
        case "depthwise_separable":
            x = layers.Conv2D(8, 1, **plain)(layers.DepthwiseConv2D(5, strides=stride, **plain)(images))
        case "grouped":
            x = layers.Conv2D(8, 5, strides=stride, groups=2, **plain)(images)
        case "ghost":  # 3 maps of their own, 2 more from each
            own = layers.Conv2D(3, 5, strides=stride, **plain)(images)
            x = layers.Concatenate()([own, layers.DepthwiseConv2D(3, depth_multiplier=2, **plain)(own)])
    model = keras.Model(images, x)
    extra = {"grouped": {"groups": 2}, "ghost": {"ghost_ratio": 3}}.get(kind, {})
    cost = convolution_cost(9, 12, 6, 8, 5, kind, stride=stride, **extra)
    assert cost.macs == count_macs(model)
    assert cost.parameters == count_parameters(model)
    assert cost.ratio == cost.macs / convolution_cost(9, 12, 6, 8, 5, stride=stride).macs


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kernel": 0}, "`kernel` must be an integer of at least 1. Received: kernel=0."),
        ({"height": 2.5}, "`height` must be an integer of at least 1. Received: height=2.5."),
        ({"kind": "cheap"}, "`kind` must be .* Received: kind='cheap'."),
        ({"groups": 2}, "`groups` needs kind=\"grouped\". Received: groups=2, kind='standard'."),
        ({"kind": "grouped", "groups": 4}, "`groups` must divide .* Received: channels=6, filters=8, groups=4."),
    ],
)
def test_bad_arguments(change, text):
    with pytest.raises(InvalidArgumentError, match=text):
        convolution_cost(**{"height": 8, "width": 8, "channels": 6, "filters": 8, "kernel": 3, **change})


def test_a_table_of_costs():
    rows = compare_convolutions((1, 3), (8, 16), size=5, stride=2, groups=8, ghost_ratio=4)
    assert [(row.kernel, row.channels) for row in rows] == [(1, 8), (1, 16), (3, 8), (3, 16)]
    for row in rows:
        shapes = (5, 5, row.channels, row.channels, row.kernel)
        assert row.standard == convolution_cost(*shapes, stride=2)
        assert row.standard.macs == 9 * row.channels**2 * row.kernel**2
        assert row.depthwise_separable.ratio == pytest.approx(1 / row.channels + 1 / row.kernel**2)
        assert row.grouped.ratio == 1 / 8
        assert row.ghost == convolution_cost(*shapes, "ghost", stride=2, ghost_ratio=4)


@pytest.mark.parametrize("change", [{"kernels": (0,)}, {"channels": (30,)}, {"size": 0}, {"groups": 3}])
def test_a_table_of_what_does_not_exist(change):
    with pytest.raises(InvalidArgumentError):
        compare_convolutions(**change)


def test_the_table_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    for row in compare_convolutions((3, 5, 7), (32, 128, 512)):
        ratios = " | ".join(f"{cost.ratio:.1%}" for cost in (row.depthwise_separable, row.grouped, row.ghost))
        macs = f"{row.standard.macs / 1e6:,.2f} M"
        assert f"| {row.kernel}x{row.kernel} | {row.channels} | {macs} | {ratios} |\n" in page
