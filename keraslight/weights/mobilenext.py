"""MobileNeXt's weights: the authors', https://github.com/zhoudaquan/rethinking_bottleneck_design (mnext.py).

Their repository only has a file for width 1 (mobilenext/output/74_02_full_id_tensor). Top-1 is from its page.
"""

import functools
from typing import Any

from keraslight.architectures.mobilenext import STAGES
from keraslight.weights.sources import Names, checkpoint, sequence

# Our layer -> position of its convolution among the authors' layers of a block, including activations. Its batch norm
# follows.
FULL = {"depthwise": 0, "reduce": 3, "expand": 5, "depthwise_out": 8}
STRIDED = {"reduce": 0, "expand": 2, "depthwise_out": 5}
POINTWISE = {"reduce": 0, "expand": 2}


def torch_names(**_unused: Any) -> Names:
    """Yields the authors' names."""
    yield from sequence("stem", "features.0")
    index = 1
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            changing = STRIDED if row.stride > 1 else POINTWISE
            positions = changing if b == 0 and row.repeats > 1 else FULL
            for part, position in positions.items():
                yield from sequence(f"stage{s}_block{b}_{part}", f"features.{index}.conv", position)
            index += 1
    yield "classifier", "classifier.1"


_checkpoint = functools.partial(checkpoint, torch_names)
CHECKPOINTS = {
    "ref/mobilenext_100": _checkpoint("mobilenext_100", 74.02),
    "ref/mobilenext_035": _checkpoint("mobilenext_035", 64.7),
    "ref/mobilenext_050": _checkpoint("mobilenext_050", 67.7),
    "ref/mobilenext_075": _checkpoint("mobilenext_075", 72.0),
    "ref/mobilenext_140": _checkpoint("mobilenext_140", 76.1),
}
