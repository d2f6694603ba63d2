"""Functions from tensor to tensor built from stock Keras layers, so that a model's graph stays flat.

docs/blocks.md documents each of them, with its cost on an example.
"""

from keraslight import _doors, _faces

_doors.require("keraslight.blocks", "models", "keras")

from keraslight.blocks.attention import (
    cbam as cbam,
    channel_attention as channel_attention,
    coordinate_attention as coordinate_attention,
    eca_kernel_size as eca_kernel_size,
    efficient_channel_attention as efficient_channel_attention,
    spatial_attention as spatial_attention,
    squeeze_excite as squeeze_excite,
)
from keraslight.blocks.conv import (
    PLAIN as PLAIN,
    TENSORFLOW as TENSORFLOW,
    TORCH as TORCH,
    ConvStyle as ConvStyle,
    activate as activate,
    batch_norm as batch_norm,
    conv as conv,
    conv_bn as conv_bn,
    depthwise_bn as depthwise_bn,
    effective_kernel_size as effective_kernel_size,
    make_divisible as make_divisible,
)
from keraslight.blocks.convnext import convnext_block as convnext_block
from keraslight.blocks.dense import dense_layer as dense_layer, transition as transition
from keraslight.blocks.ghost import ghost_bottleneck as ghost_bottleneck, ghost_module as ghost_module
from keraslight.blocks.inception import inception as inception
from keraslight.blocks.inverted_residual import inverted_residual as inverted_residual
from keraslight.blocks.mbconv import fused_mbconv as fused_mbconv, mbconv as mbconv
from keraslight.blocks.mobile_mqa import mobile_mqa as mobile_mqa
from keraslight.blocks.pool import (
    max_pool as max_pool,
    max_pool_ceil as max_pool_ceil,
    max_pool_signed as max_pool_signed,
)
from keraslight.blocks.repvgg import repvgg_block as repvgg_block
from keraslight.blocks.residual import (
    add_residual as add_residual,
    basic_block as basic_block,
    bottleneck_block as bottleneck_block,
    scale_branch as scale_branch,
)
from keraslight.blocks.sandglass import sandglass as sandglass
from keraslight.blocks.separable import (
    depthwise_separable as depthwise_separable,
    lightweight_block as lightweight_block,
    separable_bn as separable_bn,
    xception_module as xception_module,
)
from keraslight.blocks.shuffle import (
    channel_shuffle as channel_shuffle,
    grouped_shuffle_unit as grouped_shuffle_unit,
    shuffle_down as shuffle_down,
    shuffle_plus_unit as shuffle_plus_unit,
    shuffle_unit as shuffle_unit,
    squeeze_excite_bn as squeeze_excite_bn,
)
from keraslight.blocks.uib import (
    fused_inverted_bottleneck as fused_inverted_bottleneck,
    universal_inverted_bottleneck as universal_inverted_bottleneck,
)

__all__ = _faces.public(globals())
