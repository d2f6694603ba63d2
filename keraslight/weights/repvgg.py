"""RepVGG's published weights: timm's (https://github.com/huggingface/pytorch-image-models, byobnet.py), which are
the authors' (https://github.com/DingXiaoH/RepVGG, repvgg.py) under other names.
"""

from typing import Any, NamedTuple

from keraslight.architectures.repvgg import VARIANTS, Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import Names, conv_bn


class _Scheme(NamedTuple):
    """A source's names for the parts of a block."""

    blocks: str
    first_stage: int
    conv: str
    point: str
    identity: str
    fused: str
    squeeze: str
    expand: str
    classifier: str


_TIMM = _Scheme(
    "stages.{}.{}", 0, "conv_kxk", "conv_1x1", "identity", "reparam_conv", "attn.fc1", "attn.fc2", "head.fc"
)
_AUTHORS = _Scheme("stage{}.{}", 1, "rbr_dense", "rbr_1x1", "rbr_identity", "rbr_reparam", "se.down", "se.up", "linear")


def timm_names(**arguments: Any) -> Names:
    """Yields timm's names."""
    return _names(_TIMM, "stem", **arguments)


def authors_names(**arguments: Any) -> Names:
    """Yields the authors' names."""
    return _names(_AUTHORS, "stage0", **arguments)


def _names(
    scheme: _Scheme, stem: str, *, stages: tuple[Row, ...], gated: bool = False, deploy: bool = False, **_unused: Any
) -> Names:
    blocks = [("stem", stem, False)]
    for s, row in enumerate(stages):
        for b in range(row.repeats):
            blocks.append((f"stage{s}_block{b}", scheme.blocks.format(s + scheme.first_stage, b), b > 0))
    for ours, theirs, keeps_shape in blocks:
        if deploy:
            yield f"{ours}_conv", f"{theirs}.{scheme.fused}"
        else:
            for part, name in (("conv", scheme.conv), ("point", scheme.point)):
                yield from conv_bn(f"{ours}_{part}", f"{theirs}.{name}.conv", f"{theirs}.{name}.bn")
            if keeps_shape:
                yield f"{ours}_identity_bn", f"{theirs}.{scheme.identity}"
        if gated:
            yield f"{ours}_se_reduce", f"{theirs}.{scheme.squeeze}"
            yield f"{ours}_se_expand", f"{theirs}.{scheme.expand}"
    yield "classifier", scheme.classifier


_TOP1 = {  # timm 1.0.31, results-imagenet.csv
    "repvgg_a0": 72.426,
    "repvgg_a1": 74.474,
    "repvgg_a2": 76.488,
    "repvgg_b0": 75.158,
    "repvgg_b1": 78.370,
    "repvgg_b1g4": 77.608,
    "repvgg_b2": 78.788,
    "repvgg_b2g4": 79.396,
    "repvgg_b3": 80.528,
    "repvgg_b3g4": 80.224,
    "repvgg_d2se": 83.550,
}


def _preprocessing(variant: str) -> Preprocessing:
    size = VARIANTS[variant].input_size  # D2se is tested at 320 pixels without cropping
    return Preprocessing((size, size), crop_pct=1.0 if size == 320 else 0.875, interpolation="bilinear")


CHECKPOINTS = {
    f"timm/{variant}.rvgg_in1k": Checkpoint(variant, timm_names, _preprocessing(variant), top1)
    for variant, top1 in _TOP1.items()
} | {
    f"ref/{variant}": Checkpoint(variant, authors_names, _preprocessing(variant), _TOP1.get(variant))
    for variant in VARIANTS
}
