"""What the tables of published weights share: preprocessings, and names that PyTorch models have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from keraslight.blocks.conv import ConvStyle
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint

Names = Iterator[tuple[str, str]]
"""Pairs (our layer's name, the checkpoint's module name) of all layers with weights."""

NameMap = Callable[..., Names]
"""Function from a model's arguments to its names."""

HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # pixels -1..1
RAW = Preprocessing((224, 224), crop_pct=0.875, interpolation="bilinear", mean=(0.0,) * 3, std=(1 / 255,) * 3)
"""Preprocessing of megvii-model/ShuffleNet-Series, whose networks take unscaled pixels 0..255."""

MBCONV = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}  # parts of a block -> timm's
SEPARABLE = {"depthwise": "conv_dw", "project": "conv_pw"}


def checkpoint(
    names: NameMap, variant: str, top1: float | None = None, *, size: int = 224, crop_pct: float = 0.875,
    style: ConvStyle | None = None, url: str | None = None, **more: Any,
) -> Checkpoint:  # fmt: skip
    """Returns a checkpoint for images of `size` x `size` pixels. `more` are further arguments of `Preprocessing`."""
    spec = Preprocessing((size, size), crop_pct=crop_pct, **more)
    return Checkpoint(variant, names, spec, top1, {"style": style} if style else {}, url)


def torchvision(
    names: NameMap, variant: str, top1: float, file: str, *, resized: int = 256, size: int = 224, **more: Any
) -> Checkpoint:
    """Returns a checkpoint of torchvision, which resizes images to `resized` pixels before the crop to `size`."""
    url = f"https://download.pytorch.org/models/{file}.pth"
    more = {"crop_pct": size / resized, "interpolation": "bilinear", **more}
    return checkpoint(names, variant, top1, size=size, url=url, **more)


def conv_bn(ours: str, theirs: str, norm: str) -> Names:
    """Yields the names of a convolution and its batch norm."""
    yield ours, theirs
    yield f"{ours}_bn", norm


def sequence(ours: str, theirs: str, place: int = 0) -> Names:
    """Yields the names of a convolution at `place` of the sequence `theirs` and of its batch norm, the next entry."""
    yield from conv_bn(ours, f"{theirs}.{place}", f"{theirs}.{place + 1}")


def timm_block(ours: str, theirs: str, parts: Mapping[str, str], *, attention: bool = False) -> Names:
    """Yields the names of a block in timm, which numbers batch norms. `parts`: our part -> timm's."""
    for i, (our_part, their_part) in enumerate(parts.items(), start=1):
        yield from conv_bn(f"{ours}_{our_part}", f"{theirs}.{their_part}", f"{theirs}.bn{i}")
    if attention:
        yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
        yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"


def torchvision_block(ours: str, theirs: str, parts: Sequence[str]) -> Names:
    """Yields the names of a block in torchvision, which numbers its parts; `"se"` is squeeze-and-excitation."""
    for i, part in enumerate(parts):
        if part == "se":
            yield f"{ours}_se_reduce", f"{theirs}.{i}.fc1"
            yield f"{ours}_se_expand", f"{theirs}.{i}.fc2"
        else:
            yield from sequence(f"{ours}_{part}", f"{theirs}.{i}")
