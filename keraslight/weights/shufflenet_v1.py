"""ShuffleNet V1's published weights: the authors', https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV1).

They take unscaled pixels 0..255, in the order blue, green, red.
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.shufflenet_v1 import Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint

_PARTS = (("reduce", "branch_main_1.0", "branch_main_1.1"), ("depthwise", "branch_main_1.3", "branch_main_1.4"),
          ("expand", "branch_main_2.0", "branch_main_2.1"))  # fmt: skip


def torch_names(*, stages: tuple[Row, ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, the authors' module name) of all layers with weights."""
    yield "stem", "first_conv.0"
    yield "stem_bn", "first_conv.1"
    blocks = [f"stage{s}_block{b}" for s, row in enumerate(stages) for b in range(row.repeats)]
    for index, block in enumerate(blocks):
        for part, conv, norm in _PARTS:
            yield f"{block}_{part}", f"features.{index}.{conv}"
            yield f"{block}_{part}_bn", f"features.{index}.{norm}"
    yield "classifier", "classifier.0"


_RAW = Preprocessing(
    (224, 224), crop_pct=0.875, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)
)
_TOP1 = {  # groups: at 0.5x, 1x, 1.5x, 2x, from the repository's page
    3: (57.3, 67.8, 71.6, 74.1),
    8: (58.8, 68.0, 71.0, 72.9),
}
CHECKPOINTS = {
    f"ref/shufflenet_v1_g{groups}_x{scale}": Checkpoint(f"shufflenet_v1_g{groups}_{percent}", torch_names, _RAW, top1)
    for groups, row in _TOP1.items()
    for scale, percent, top1 in zip(("0_5", "1_0", "1_5", "2_0"), ("050", "100", "150", "200"), row, strict=True)
}
