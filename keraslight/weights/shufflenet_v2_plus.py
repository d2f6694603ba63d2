"""ShuffleNet V2+'s published weights: the authors', https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV2+).

They take unscaled pixels 0..255. The authors' order is blue, green, red: the loader reverses the stem.
"""

from typing import Any

from keraslight.architectures.shufflenet_v2_plus import Row
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import RAW, Names, sequence

# A layer's position in the authors' sequences. Its batch norm is the next entry.
_SHORTCUT = (("shortcut_depthwise", "branch_proj", 0), ("shortcut", "branch_proj", 2))
_MAIN = (("expand", "branch_main", 0), ("depthwise", "branch_main", 3), ("project", "branch_main", 5))
_XCEPTION = tuple((f"{part}{n}", "branch_main", 5 * n + offset) for n in range(3)
                  for part, offset in (("depthwise", 0), ("pointwise", 2)))  # fmt: skip


def torch_names(*, stages: tuple[Row, ...], **_unused: Any) -> Names:
    """Yields the authors' names."""
    yield from sequence("stem", "first_conv")
    units = [(s, b, row, kernel) for s, row in enumerate(stages) for b, kernel in enumerate(row.kernels)]
    for index, (s, b, row, kernel) in enumerate(units):
        ours, theirs = f"stage{s}_block{b}", f"features.{index}"
        main = _XCEPTION if kernel is None else _MAIN
        for part, branch, place in main if b else (*_SHORTCUT, *main):
            yield from sequence(f"{ours}_{part}", f"{theirs}.{branch}", place)
        if row.attention:
            yield from _attention(f"{ours}_se", f"{theirs}.branch_main.{15 if kernel is None else 8}")
    yield from sequence("head", "conv_last")
    yield from _attention("head_se", "LastSE")
    yield "head_dense", "fc.0"
    yield "classifier", "classifier.0"


def _attention(ours: str, theirs: str) -> Names:
    yield from sequence(f"{ours}_reduce", f"{theirs}.SE_opr", 1)
    yield f"{ours}_expand", f"{theirs}.SE_opr.4"


CHECKPOINTS = {  # top-1 from the repository's page
    f"ref/shufflenet_v2_plus_{size}": Checkpoint(f"shufflenet_v2_plus_{size}", torch_names, RAW, top1, bgr=True)
    for size, top1 in (("small", 74.1), ("medium", 75.7), ("large", 77.1))
}
