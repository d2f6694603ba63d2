"""VGG's published weights: torchvision's (https://github.com/pytorch/vision, vgg.py). timm publishes the same,
with the dense layers as convolutions (https://github.com/huggingface/pytorch-image-models, vgg.py).
"""

from typing import Any

from keraslight.architectures.vgg import Row
from keraslight.weights.sources import Names, checkpoint, torchvision


def timm_names(*, stages: tuple[Row, ...], batch_norms: bool, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from _features(stages, batch_norms)
    yield "fc1", "pre_logits.fc1"
    yield "fc2", "pre_logits.fc2"
    yield "classifier", "head.fc"


def torchvision_names(*, stages: tuple[Row, ...], batch_norms: bool, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield from _features(stages, batch_norms)
    yield "fc1", "classifier.0"
    yield "fc2", "classifier.3"
    yield "classifier", "classifier.6"


def _features(stages: tuple[Row, ...], batch_norms: bool) -> Names:
    index = 0  # both count every layer of the trunk
    for s, row in enumerate(stages):
        for c in range(row.repeats):
            yield f"stage{s}_conv{c}", f"features.{index}"
            if batch_norms:
                yield f"stage{s}_conv{c}_bn", f"features.{index + 1}"
            index += 3 if batch_norms else 2
        index += 1


# variant: top-1 of timm 1.0.31 (results-imagenet.csv), of torchvision 0.28, torchvision's file
_SOURCES = {
    "vgg11": (69.050, 69.020, "vgg11-8a719046"),
    "vgg13": (69.950, 69.928, "vgg13-19584684"),
    "vgg16": (71.594, 71.592, "vgg16-397923af"),
    "vgg19": (72.400, 72.376, "vgg19-dcbb9e9d"),
    "vgg11_bn": (70.374, 70.370, "vgg11_bn-6002323d"),
    "vgg13_bn": (71.560, 71.586, "vgg13_bn-abd245e5"),
    "vgg16_bn": (73.354, 73.360, "vgg16_bn-6c64b313"),
    "vgg19_bn": (74.230, 74.218, "vgg19_bn-c79401a0"),
}
CHECKPOINTS = {
    f"timm/{variant}.tv_in1k": checkpoint(timm_names, variant, top1, interpolation="bilinear")
    for variant, (top1, _, _) in _SOURCES.items()
} | {
    f"torchvision/{variant}": torchvision(torchvision_names, variant, top1, file)
    for variant, (_, top1, file) in _SOURCES.items()
}
