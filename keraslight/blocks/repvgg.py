"""RepVGG's block: branches for training that become one convolution for inference.

Source: Ding et al., "RepVGG", CVPR 2021, https://arxiv.org/abs/2101.03697, figure 4.
"""

import functools

from keras import KerasTensor, layers

from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, conv, conv_bn


def repvgg_block(
    x: KerasTensor,
    channels: int,
    *,
    stride: int = 1,
    groups: int = 1,
    gated: bool = False,
    deploy: bool = False,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """`relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x))`, the last term only if the shape doesn't change.

    All three are linear, so `keraslight.compress.reparameterize` merges them into one 3x3 convolution with bias, the
    form of `deploy=True`, which has 9 * C * F / groups + F parameters; the training form has 10 * C * F / groups
    weights and 2 * F per normalization.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        stride: Stride, at least 1.
        groups: Groups of the convolutions. Must divide C and F.
        gated: Whether squeeze-and-excitation with F // 16 channels inside scales the sum.
        deploy: Whether to build the fused form.
        style: Padding and batch normalization.
        name: The layers are `{name}_conv` (the 3x3 branch, and the fused convolution), `{name}_point`,
            `{name}_identity_bn`, `{name}_add`, `{name}_add_identity`, `{name}_se_...` and `{name}_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: `groups` doesn't divide C and F.
    """
    inputs = x
    if deploy:
        x = conv(inputs, channels, 3, stride=stride, groups=groups, style=style, name=f"{name}_conv")
    else:
        branch = functools.partial(conv_bn, inputs, channels, stride=stride, groups=groups, style=style)
        x = branch(3, name=f"{name}_conv")
        point = branch(1, name=f"{name}_point")
        x = layers.Add(name=f"{name}_add")([x, point])
        if stride == 1 and inputs.shape[-1] == channels:
            identity = batch_norm(inputs, style=style, name=f"{name}_identity_bn")
            x = layers.Add(name=f"{name}_add_identity")([x, identity])
    if gated:
        x = squeeze_excite(x, max(1, channels // 16), name=f"{name}_se")
    return activate(x, "relu", name=f"{name}_act")
