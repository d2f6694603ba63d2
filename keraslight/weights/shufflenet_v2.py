"""ShuffleNet V2's published weights: torchvision's, https://github.com/pytorch/vision (shufflenetv2.py), and the
authors', https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV2), which take unscaled pixels 0..255.
The authors' order is blue, green, red: the loader reverses the stem.
"""

from typing import Any

from keraslight.architectures.shufflenet_v2 import Row
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import RAW, Names, sequence, torchvision

# A layer's position in torchvision's sequences. Its batch norm is the next entry.
_MAIN = (("expand", "branch2", 0), ("depthwise", "branch2", 3), ("project", "branch2", 5))
_SHORTCUT = (("shortcut_depthwise", "branch1", 0), ("shortcut", "branch1", 2))

# The same for the authors' network.
_MEGVII_MAIN = (("expand", "branch_main", 0), ("depthwise", "branch_main", 3), ("project", "branch_main", 5))
_MEGVII_SHORTCUT = (("shortcut_depthwise", "branch_proj", 0), ("shortcut", "branch_proj", 2))


def torch_names(*, stages: tuple[Row, ...], **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield from sequence("stem", "conv1")
    for s, row in enumerate(stages):
        for b in range(row.repeats + 1):
            for part, branch, place in _MAIN if b else (*_SHORTCUT, *_MAIN):
                yield from sequence(f"stage{s}_block{b}_{part}", f"stage{s + 2}.{b}.{branch}", place)
    yield from sequence("head", "conv5")
    yield "classifier", "fc"


def _megvii_names(*, stages: tuple[Row, ...], **_unused: Any) -> Names:
    """Yields the authors' names."""
    yield from sequence("stem", "first_conv")
    blocks = [(s, b) for s, row in enumerate(stages) for b in range(row.repeats + 1)]
    for index, (s, b) in enumerate(blocks):
        for part, branch, place in _MEGVII_MAIN if b else (*_MEGVII_SHORTCUT, *_MEGVII_MAIN):
            yield from sequence(f"stage{s}_block{b}_{part}", f"features.{index}.{branch}", place)
    yield from sequence("head", "conv_last")
    yield "classifier", "classifier.0"


CHECKPOINTS = {  # IMAGENET1K_V1 of torchvision 0.28
    f"torchvision/shufflenet_v2_{size}": torchvision(torch_names, variant, top1, file, resized=resized)
    for size, variant, resized, top1, file in (
        ("x0_5", "shufflenet_v2_050", 256, 60.552, "shufflenetv2_x0.5-f707e7126e"),
        ("x1_0", "shufflenet_v2_100", 256, 69.362, "shufflenetv2_x1-5666bf0f80"),
        ("x1_5", "shufflenet_v2_150", 232, 72.996, "shufflenetv2_x1_5-3c479a10"),
        ("x2_0", "shufflenet_v2_200", 232, 76.230, "shufflenetv2_x2_0-8be3c8ee"),
    )
} | {  # top-1 from the repository's page
    f"ref/shufflenet_v2_{size}": Checkpoint(f"shufflenet_v2_{width}_megvii", _megvii_names, RAW, top1, bgr=True)
    for size, width, top1 in (
        ("x0_5", "050", 61.1),
        ("x1_0", "100", 69.4),
        ("x1_5", "150", 72.6),
        ("x2_0", "200", 75.0),
    )
}
