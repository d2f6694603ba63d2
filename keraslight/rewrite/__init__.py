"""Rewrites of a model's graph: each takes and returns a `keraslight.graph.Graph`, without data and TensorFlow.

steps.py             a graph that is being rewritten: kernels, makers and readers of each tensor
_fuse.py             fewer layers that compute the same
_reparameterize.py   parallel convolutions that are added, as one
floats.py            float32 images in place of uint8 ones
slices.py            slices that are concatenated again, as a convolution
_half.py             half precision, and back
sparse.py            forms that XNNPACK's sparse kernels run, on ARM
xnnpack.py           forms for which XNNPACK has kernels; _pieces.py cuts large depthwise kernels
"""

from keraslight import _doors

_doors.require("keraslight.rewrite", "models", "numpy", "keras")

from keraslight.rewrite._fuse import fused
from keraslight.rewrite._half import HALVES, halved, in_float32
from keraslight.rewrite._pieces import MAX_TAPS, cut, is_cut
from keraslight.rewrite._reparameterize import reparameterized
from keraslight.rewrite.floats import float_inputs
from keraslight.rewrite.slices import joined_slices
from keraslight.rewrite.sparse import SparseForms, pointwise_zeros
from keraslight.rewrite.xnnpack import in_forms

__all__ = [
    "HALVES",
    "MAX_TAPS",
    "SparseForms",
    "cut",
    "float_inputs",
    "fused",
    "halved",
    "in_float32",
    "in_forms",
    "is_cut",
    "joined_slices",
    "pointwise_zeros",
    "reparameterized",
]
