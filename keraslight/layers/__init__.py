"""Keras layers with state or maths that stock Keras lacks. They run on every Keras backend and serialize.

A layer whose variables have other names in PyTorch checkpoints says which in `checkpoint_names`: our variable -> the
checkpoint's parameter. `keraslight.weights` reads it.
"""

from keraslight import _doors, _faces

_doors.require("keraslight.layers", "models", "keras")

from keraslight.layers.batch_norm import BatchNorm as BatchNorm
from keraslight.layers.channel_slice import ChannelSlice as ChannelSlice
from keraslight.layers.code_distance import CodeDistance as CodeDistance
from keraslight.layers.conditional_conv import ConditionalConv2D as ConditionalConv2D
from keraslight.layers.deformable_conv import DeformableConv2D as DeformableConv2D
from keraslight.layers.drop_path import DropPath as DropPath
from keraslight.layers.equivariant import (
    C4GroupConv2D as C4GroupConv2D,
    C4GroupPooling as C4GroupPooling,
    C4LiftingConv2D as C4LiftingConv2D,
)
from keraslight.layers.grn import GRN as GRN
from keraslight.layers.grouped_conv import GroupedConv2D as GroupedConv2D
from keraslight.layers.layer_norm import LayerNorm as LayerNorm
from keraslight.layers.layer_scale import LayerScale as LayerScale
from keraslight.layers.local_response_norm import LocalResponseNorm as LocalResponseNorm
from keraslight.layers.normalization import (
    ImageNormalization as ImageNormalization,
    ImageStandardization as ImageStandardization,
)
from keraslight.layers.resize import ResizeLike as ResizeLike
from keraslight.layers.spatial_statistics import (
    ChannelStatistics as ChannelStatistics,
    CoordinatePooling as CoordinatePooling,
    CoordinateSplit as CoordinateSplit,
)
from keraslight.layers.unpooling import MaxPoolWithIndices2D as MaxPoolWithIndices2D, MaxUnpool2D as MaxUnpool2D
from keraslight.layers.views import ImageViews as ImageViews, MergeViews as MergeViews

__all__ = _faces.public(globals())
