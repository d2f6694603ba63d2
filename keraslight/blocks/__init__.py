"""Functions from tensor to tensor built from stock Keras layers, so that a model's graph stays flat.

docs/blocks.md documents each of them, with its cost on an example.
"""

from keraslight.blocks.attention import (
    cbam,
    channel_attention,
    coordinate_attention,
    eca_kernel_size,
    efficient_channel_attention,
    spatial_attention,
    squeeze_excite,
)
from keraslight.blocks.conv import (
    PLAIN,
    TENSORFLOW,
    TORCH,
    ConvStyle,
    activate,
    batch_norm,
    conv,
    conv_bn,
    depthwise_bn,
    effective_kernel_size,
    make_divisible,
)
from keraslight.blocks.convnext import convnext_block
from keraslight.blocks.dense import dense_layer, transition
from keraslight.blocks.ghost import ghost_bottleneck, ghost_module
from keraslight.blocks.inception import inception
from keraslight.blocks.inverted_residual import inverted_residual
from keraslight.blocks.mbconv import fused_mbconv, mbconv
from keraslight.blocks.mobile_mqa import mobile_mqa
from keraslight.blocks.pool import max_pool, max_pool_ceil, max_pool_signed
from keraslight.blocks.repvgg import repvgg_block
from keraslight.blocks.residual import add_residual, basic_block, bottleneck_block, scale_branch
from keraslight.blocks.sandglass import sandglass
from keraslight.blocks.separable import depthwise_separable, lightweight_block, separable_bn, xception_module
from keraslight.blocks.shuffle import (
    channel_shuffle,
    grouped_shuffle_unit,
    shuffle_down,
    shuffle_plus_unit,
    shuffle_unit,
    squeeze_excite_bn,
)
from keraslight.blocks.uib import fused_inverted_bottleneck, universal_inverted_bottleneck

__all__ = [
    "PLAIN",
    "TENSORFLOW",
    "TORCH",
    "ConvStyle",
    "activate",
    "add_residual",
    "basic_block",
    "batch_norm",
    "bottleneck_block",
    "cbam",
    "channel_attention",
    "channel_shuffle",
    "conv",
    "conv_bn",
    "convnext_block",
    "coordinate_attention",
    "dense_layer",
    "depthwise_bn",
    "depthwise_separable",
    "eca_kernel_size",
    "effective_kernel_size",
    "efficient_channel_attention",
    "fused_inverted_bottleneck",
    "fused_mbconv",
    "ghost_bottleneck",
    "ghost_module",
    "grouped_shuffle_unit",
    "inception",
    "inverted_residual",
    "lightweight_block",
    "make_divisible",
    "max_pool",
    "max_pool_ceil",
    "max_pool_signed",
    "mbconv",
    "mobile_mqa",
    "repvgg_block",
    "sandglass",
    "scale_branch",
    "separable_bn",
    "shuffle_down",
    "shuffle_plus_unit",
    "shuffle_unit",
    "spatial_attention",
    "squeeze_excite",
    "squeeze_excite_bn",
    "transition",
    "universal_inverted_bottleneck",
    "xception_module",
]
