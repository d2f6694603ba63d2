"""What was found when images were loaded, as text for people and as JSON."""

from __future__ import annotations

import collections
import dataclasses
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keraslight._notebook import Report

if TYPE_CHECKING:
    from keraslight.training._data import ImageData

_WIDTH = 80
_LABEL_WIDTH = 40
_MOST_CLASSES, _MOST_NAMES, _MOST_SIZES = 40, 20, 4  # in the text; the JSON form has all


@dataclasses.dataclass(frozen=True)
class ClassCount:
    """Images of one class; of targets that are rows of numbers, those with a positive number in the label's column."""

    label: str
    train: int
    validation: int


@dataclasses.dataclass(frozen=True)
class DataReport(Report):
    """What `ImageData` holds. `str()` is text of at most 80 columns.

    Attributes:
        source: Where the images come from.
        train_images: Number of training images.
        validation_images: Number of held-out images.
        classes: Images per class, by label.
        ranges: Of targets that are rows of other numbers than zeros and ones: the lowest and highest per label.
        sizes: (height, width, images) for each size before resizing, the most frequent first; empty if all had the
            model's size.
        weights: Lowest and highest weight, or None.
        skipped: Names of the images that can't be read, with the reason.
        ignored: Other files, and folders without images.
    """

    source: str
    train_images: int
    validation_images: int
    classes: tuple[ClassCount, ...]
    ranges: tuple[tuple[str, float, float], ...]
    sizes: tuple[tuple[int, int, int], ...]
    weights: tuple[float, float] | None
    skipped: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, data: ImageData) -> DataReport:
        """The report of one data set."""
        targets, parts = data.targets, (data.train_indices, data.validation_indices)
        ranges: tuple[tuple[str, float, float], ...] = ()
        if targets.ndim == 1:
            counts = [np.bincount(targets[part], minlength=len(data.labels)) for part in parts]
        else:
            counts = [(targets[part] > 0).sum(axis=0) for part in parts]
            if not np.isin(targets, (0, 1)).all():
                limits = zip(data.labels, targets.min(axis=0), targets.max(axis=0), strict=True)
                ranges = tuple((label, float(low), float(high)) for label, low, high in limits)
        classes = (ClassCount(label, int(a), int(b)) for label, a, b in zip(data.labels, *counts, strict=True))
        sizes = collections.Counter(map(tuple, data.sizes.tolist() if data.sizes is not None else ()))
        return cls(
            data.source,
            data.train_count,
            data.validation_count,
            tuple(classes),
            ranges,
            tuple((height, width, count) for (height, width), count in sizes.most_common()),
            None if data.weights is None else (float(data.weights.min()), float(data.weights.max())),
            data.unreadable,
            data.ignored,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serializable dict."""
        values = dataclasses.asdict(self)
        values["ranges"] = [dict(zip(("label", "lowest", "highest"), row, strict=True)) for row in self.ranges]
        values["sizes"] = [dict(zip(("height", "width", "images"), row, strict=True)) for row in self.sizes]
        values["skipped"] = [{"name": shown(name), "reason": reason} for name, reason in self.skipped]
        values["ignored"] = [shown(name) for name in self.ignored]
        return values

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        total = self.train_images + self.validation_images
        yield from _wrapped(
            f"{shown(self.source)}: {_count(total, 'image')} of {_count(len(self.classes), 'class', 'classes')}, "
            f"{self.train_images} for training and {self.validation_images} held out."
        )
        yield from self._ranges() if self.ranges else self._classes()
        if self.sizes:
            parts = [f"{width} x {height} ({count})" for height, width, count in self.sizes[:_MOST_SIZES]]
            if len(self.sizes) > _MOST_SIZES:
                heights, widths, _ = zip(*self.sizes, strict=True)
                parts.append(
                    f"{len(self.sizes) - _MOST_SIZES} others; widths {min(widths)} to {max(widths)}, "
                    f"heights {min(heights)} to {max(heights)}"
                )
            yield from _wrapped(f"Image sizes: {', '.join(parts)}.")
        if self.weights is not None:
            yield from _wrapped(f"Weights: {self.weights[0]:g} to {self.weights[1]:g}.")
        if self.skipped:
            yield f"Skipped {_count(len(self.skipped), 'image')} that can't be read:"
            for name, reason in self.skipped[:_MOST_NAMES]:
                yield from _wrapped(f"{shown(name)}: {reason}", "  ")
            yield from _more(len(self.skipped))
        if self.ignored:
            yield f"Ignored {_count(len(self.ignored), 'other file or folder', 'other files and folders')}:"
            for name in self.ignored[:_MOST_NAMES]:
                yield from _wrapped(shown(name), "  ")
            yield from _more(len(self.ignored))

    def _classes(self) -> Iterator[str]:
        few = sorted(self.classes, key=lambda count: count.train + count.validation)
        if len(few) <= _MOST_CLASSES:
            yield from _table(self.classes)
            return
        half = _MOST_CLASSES // 4
        yield f"The {half} smallest and the {half} largest classes:"
        yield from _table([*few[:half], *few[-half:]])

    def _ranges(self) -> Iterator[str]:
        rows = self.ranges[:_MOST_CLASSES]
        width = max(_columns(_cut(label)) for label, *_ in rows)
        for label, low, high in rows:
            yield f"  {_padded(_cut(label), width)}  {low:g} to {high:g}"
        if len(self.ranges) > len(rows):
            yield f"  and {len(self.ranges) - len(rows)} more"


def shown(name: str) -> str:
    """A name with all characters visible: those that can't be printed are escaped, as in names that aren't UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def _table(classes: Sequence[ClassCount]) -> Iterator[str]:
    width = max(5, *(_columns(_cut(count.label)) for count in classes))
    yield f"  {'class':{width}}  training  held out"
    for count in classes:
        yield f"  {_padded(_cut(count.label), width)}  {count.train:8}  {count.validation:8}"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _more(count: int) -> list[str]:
    return [f"  and {count - _MOST_NAMES} more"] if count > _MOST_NAMES else []


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes: two for East Asian characters, none for combining ones."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _cut(label: str) -> str:
    text = shown(label)
    if _columns(text) <= _LABEL_WIDTH:
        return text
    while _columns(text) >= _LABEL_WIDTH:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, indent: str = "") -> list[str]:
    # Wide characters are followed by a placeholder, because textwrap counts characters.
    spaced = "".join(c + "\0" if unicodedata.east_asian_width(c) in "WF" else c for c in text)
    lines = textwrap.wrap(
        spaced, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )
    return [line.replace("\0", "") for line in lines]
