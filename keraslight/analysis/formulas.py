"""The cost of a convolution by formula, without building a model."""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

from keraslight.errors import InvalidArgumentError


class ConvolutionCost(NamedTuple):
    """Cost of a convolution.

    Attributes:
        macs: Multiply-adds for one image.
        parameters: Values of the kernels, without biases, as batch normalization follows.
        ratio: `macs` divided by the multiply-adds of a standard convolution of the same shapes.
    """

    macs: int
    parameters: int
    ratio: float


def convolution_cost(
    height: int,
    width: int,
    channels: int,
    filters: int,
    kernel: int,
    kind: Literal["standard", "depthwise_separable", "grouped", "ghost"] = "standard",
    *,
    stride: int = 1,
    groups: int = 1,
    ghost_ratio: int = 2,
    ghost_kernel: int = 3,
) -> ConvolutionCost:
    """Computes the cost of a convolution (H, W, C_in) -> (H', W', C_out) with "same" padding, H' = ceil(H / stride).

    - "standard": `H' W' C_in C_out K^2`. Each output value is a sum over a window and over all input channels.
    - "depthwise_separable": `H' W' C_in K^2 + H' W' C_in C_out`: first a K x K window in each channel, then a 1x1
      convolution over the channels. Relative to the standard one this is `1 / C_out + 1 / K^2`: the window costs once
      instead of once per output channel, and mixing the channels once instead of K^2 times. With 3x3 and many filters,
      about 1 / 9 remains: an eighth to a ninth of the work. With few filters, the first term dominates.
      Source: Howard et al., "MobileNets", https://arxiv.org/abs/1704.04861, section 3.1.
    - "grouped": `1 / groups` of the standard one, since an output channel sees only the input channels of its group.
      Source: Zhang et al., "ShuffleNet", https://arxiv.org/abs/1707.01083, section 3.1.
    - "ghost": a standard convolution makes `m = ceil(C_out / ghost_ratio)` maps; a depthwise window makes
      the others of these: `H' W' m C_in K^2 + H' W' m (ghost_ratio - 1) ghost_kernel^2`, about `1 / ghost_ratio`.
      Source: Han et al., "GhostNet", https://arxiv.org/abs/1911.11907, equations 4 and 5.

    Args:
        height: Height of the input, H. Like all numbers here, at least 1.
        width: Width of the input, W.
        channels: Number of input channels, C_in.
        filters: Number of output channels, C_out.
        kernel: Side of the window in pixels, K.
        kind: Kind of convolution.
        stride: Distance of neighboring windows in pixels; in "depthwise_separable", of the depthwise windows.
        groups: Number of groups, for "grouped"; a divisor of `channels` and `filters`.
        ghost_ratio: Output maps per map of the first convolution, for "ghost".
        ghost_kernel: Side of the depthwise window in pixels, for "ghost".

    Raises:
        InvalidArgumentError: An argument is out of range, or belongs to another kind.
    """
    sizes = {"height": height, "width": width, "channels": channels, "filters": filters, "kernel": kernel,
             "stride": stride, "groups": groups, "ghost_ratio": ghost_ratio, "ghost_kernel": ghost_kernel}  # fmt: skip
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise InvalidArgumentError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}.")
    if groups > 1 and kind != "grouped":
        raise InvalidArgumentError(f'`groups` needs kind="grouped". Received: groups={groups}, kind={kind!r}.')
    if channels % groups or filters % groups:
        raise InvalidArgumentError(
            "`groups` must divide `channels` and `filters`. "
            f"Received: channels={channels}, filters={filters}, groups={groups}."
        )
    standard = channels * filters * kernel**2
    primary = -(-filters // ghost_ratio)
    by_kind = {
        "standard": standard,
        "depthwise_separable": channels * kernel**2 + channels * filters,
        "grouped": standard // groups,
        "ghost": primary * channels * kernel**2 + primary * (ghost_ratio - 1) * ghost_kernel**2,
    }
    if kind not in by_kind:
        raise InvalidArgumentError(
            f'`kind` must be "standard", "depthwise_separable", "grouped" or "ghost". Received: kind={kind!r}.'
        )
    parameters = by_kind[kind]
    places = -(-height // stride) * -(-width // stride)  # output pixels, each of which uses every value of a kernel
    return ConvolutionCost(places * parameters, parameters, parameters / standard)


class ConvolutionComparison(NamedTuple):
    """Costs of convolutions of the same shapes. See `convolution_cost`.

    Attributes:
        kernel: Side of the window in pixels.
        channels: Number of input and of output channels.
        standard, depthwise_separable, grouped, ghost: Cost of each kind.
    """

    kernel: int
    channels: int
    standard: ConvolutionCost
    depthwise_separable: ConvolutionCost
    grouped: ConvolutionCost
    ghost: ConvolutionCost


def compare_convolutions(
    kernels: Sequence[int] = (3, 5, 7),
    channels: Sequence[int] = (32, 64, 128, 256, 512),
    *,
    size: int = 28,
    stride: int = 1,
    groups: int = 4,
    ghost_ratio: int = 2,
) -> list[ConvolutionComparison]:
    """Tabulates what the kinds of convolutions cost, for each kernel and number of channels.

    Args:
        kernels: Sides of the window in pixels, each at least 1.
        channels: Numbers of input and of output channels, each at least 1.
        size: Side of the square input in pixels, at least 1.
        stride: Distance of neighboring windows in pixels, at least 1.
        groups: Number of groups of the grouped convolution, a divisor of all `channels`.
        ghost_ratio: Output maps per map of the ghost module's first convolution, at least 1.

    Raises:
        InvalidArgumentError: An argument is out of range.
    """

    def costs(kernel: int, width: int) -> ConvolutionComparison:
        cost = functools.partial(convolution_cost, size, size, width, width, kernel, stride=stride)
        return ConvolutionComparison(
            kernel,
            width,
            cost("standard"),
            cost("depthwise_separable"),
            cost("grouped", groups=groups),
            cost("ghost", ghost_ratio=ghost_ratio),
        )

    return [costs(kernel, width) for kernel in kernels for width in channels]
