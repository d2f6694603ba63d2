"""Keras layers with state or maths that stock Keras lacks. They run on every Keras backend and serialize.

A layer whose variables have other names in PyTorch checkpoints says which in `checkpoint_names`: our variable -> the
checkpoint's parameter. `keraslight.weights` reads it.
"""

from keraslight.layers.batch_norm import BatchNorm
from keraslight.layers.channel_slice import ChannelSlice
from keraslight.layers.code_distance import CodeDistance
from keraslight.layers.conditional_conv import ConditionalConv2D
from keraslight.layers.deformable_conv import DeformableConv2D
from keraslight.layers.drop_path import DropPath
from keraslight.layers.equivariant import C4GroupConv2D, C4GroupPooling, C4LiftingConv2D
from keraslight.layers.grn import GRN
from keraslight.layers.grouped_conv import GroupedConv2D
from keraslight.layers.layer_norm import LayerNorm
from keraslight.layers.layer_scale import LayerScale
from keraslight.layers.local_response_norm import LocalResponseNorm
from keraslight.layers.normalization import ImageNormalization
from keraslight.layers.spatial_statistics import ChannelStatistics, CoordinatePooling, CoordinateSplit
from keraslight.layers.unpooling import MaxPoolWithIndices2D, MaxUnpool2D

__all__ = [
    "GRN",
    "BatchNorm",
    "C4GroupConv2D",
    "C4GroupPooling",
    "C4LiftingConv2D",
    "ChannelSlice",
    "ChannelStatistics",
    "CodeDistance",
    "ConditionalConv2D",
    "CoordinatePooling",
    "CoordinateSplit",
    "DeformableConv2D",
    "DropPath",
    "GroupedConv2D",
    "ImageNormalization",
    "LayerNorm",
    "LayerScale",
    "LocalResponseNorm",
    "MaxPoolWithIndices2D",
    "MaxUnpool2D",
]
