"""ShuffleNet V1's published weights: the authors', https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV1).

They take unscaled pixels 0..255. The authors' order is blue, green, red: the loader reverses the stem.
"""

from typing import Any

from keraslight.architectures.shufflenet_v1 import Row
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import RAW, Names, sequence

# A layer's position in the authors' sequences. Its batch norm is the next entry.
_PARTS = (("reduce", "branch_main_1", 0), ("depthwise", "branch_main_1", 3), ("expand", "branch_main_2", 0))


def torch_names(*, stages: tuple[Row, ...], **_unused: Any) -> Names:
    """Yields the authors' names."""
    yield from sequence("stem", "first_conv")
    blocks = [f"stage{s}_block{b}" for s, row in enumerate(stages) for b in range(row.repeats)]
    for index, block in enumerate(blocks):
        for part, branch, place in _PARTS:
            yield from sequence(f"{block}_{part}", f"features.{index}.{branch}", place)
    yield "classifier", "classifier.0"


_TOP1 = {  # groups: at 0.5x, 1x, 1.5x, 2x, from the repository's page
    3: (57.3, 67.8, 71.6, 74.1),
    8: (58.8, 68.0, 71.0, 72.9),
}
CHECKPOINTS = {
    f"ref/shufflenet_v1_g{groups}_x{scale}": Checkpoint(
        f"shufflenet_v1_g{groups}_{percent}", torch_names, RAW, top1, bgr=True
    )
    for groups, row in _TOP1.items()
    for scale, percent, top1 in zip(("0_5", "1_0", "1_5", "2_0"), ("050", "100", "150", "200"), row, strict=True)
}
