"""The report of an evaluation as text of at most 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keraslight.analysis._scores import Calibration
    from keraslight.analysis.evaluation import Evaluation

WIDTH = 80
ROWS = 40  # classes that are listed; of more, the worst ones
_LABEL = 24  # letters of a label in the first column


def text(report: Evaluation) -> str:
    """The whole report."""
    parts = [[cut(f"{report.name}: {headline(report)}", WIDTH)], _classes(report), _values(report)]
    parts += [_confusion(report), _calibration(report.calibration), _robustness(report)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def headline(report: Evaluation) -> str:
    """The main figures in one line."""
    images = f"{report.images:,} image{'' if report.images == 1 else 's'}"
    if report.task == "regression":
        return f"R2 {report.r2:.4f} on {images}"
    if report.task == "multi-label":
        return (
            f"mean average precision {share(report.mean_average_precision)}, "
            f"{share(report.accuracy)} of decisions right, {images}"
        )
    return f"{share(report.accuracy)} of {images} right"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def cut(label: str, width: int) -> str:
    """A text that fits."""
    return label if len(label) <= width else label[: width - 2] + ".."


def shown_classes(report: Evaluation, most: int) -> list[int]:
    """Indices of the classes to list: all, or of many the worst by F1."""
    if len(report.classes) <= most:
        return list(range(len(report.classes)))
    return sorted(range(len(report.classes)), key=lambda index: (report.classes[index].f1, index))[:most]


def confusions(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """(true class, answer, count) of the wrong answers, the most frequent first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    return sorted(((int(r), int(c), int(wrong[r, c])) for r, c in np.argwhere(wrong)), key=lambda row: -row[2])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def _classes(report: Evaluation) -> list[str]:
    if not report.classes:
        return []
    several = report.task == "multi-label"
    rows = [["class", "images", "precision", "recall", "F1", *(["threshold", "avg. prec."] if several else [])]]
    shown = shown_classes(report, ROWS)
    for index in shown:
        row = report.classes[index]
        more = [f"{row.threshold:.3f}", share(row.average_precision)] if several else []
        figures = map(share, (row.precision, row.recall, row.f1))
        rows.append([cut(row.label, _LABEL), f"{row.count:,}", *figures, *more])
    left = len(report.classes) - len(shown)
    return _table(rows) + ([f"... and {left} classes with a higher F1"] if left else [])


def _values(report: Evaluation) -> list[str]:
    if not report.values:
        return []
    rows = [["number", "R2", "mean |error|", "RMS error", "bias", "largest"]]
    for row in report.values[:ROWS]:
        errors = (row.mean_absolute_error, row.root_mean_square_error, row.bias, row.largest_error)
        rows.append([cut(row.label, _LABEL), f"{row.r2:.4f}", *(f"{error:.4g}" for error in errors)])
    left = len(report.values) - ROWS
    return _table(rows) + ([f"... and {left} more"] if left > 0 else [])


def _confusion(report: Evaluation) -> list[str]:
    counts = report.confusion
    if counts is None:
        return []
    # As many letters of the labels as fit, at least two.
    first = max(len("true \\ answer"), *(min(len(label), 16) for label in report.labels))
    room = (WIDTH - first) // len(counts) - 2
    digits = len(str(counts.max()))
    if room >= max(digits, min(4, max(map(len, report.labels)))):
        heads = [cut(label, room) for label in report.labels]
        lines = [["true \\ answer", *heads]]
        for label, row in zip(report.labels, counts, strict=True):
            lines.append([cut(label, first), *(str(count) if count else "." for count in row)])
        return _table(lines)
    wrong = confusions(counts)
    if not wrong:
        return ["No wrong answers."]
    rows = [["most frequent mistakes", "answer", "images", "of the class"]]
    for true, answer, count in wrong[:10]:
        of = share(count / counts[true].sum())
        rows.append([cut(report.labels[true], _LABEL), cut(report.labels[answer], _LABEL), str(count), of])
    return _table(rows)


def _calibration(found: Calibration | None) -> list[str]:
    if found is None:
        return []
    rows = [["probability", "answers", "mean", "right", "right - mean"]]
    bins = len(found.counts)
    for number, (count, confidence, accuracy) in enumerate(
        zip(found.counts, found.confidence, found.accuracy, strict=True)
    ):
        if count:
            name = f"{number / bins:.2f} to {(number + 1) / bins:.2f}"
            difference = f"{100 * (accuracy - confidence):+.1f}"
            rows.append([name, f"{count:,}", share(confidence), share(accuracy), difference])
    return [f"Expected calibration error {share(found.ece)}, {bins} bins:", *_table(rows)]


def _robustness(report: Evaluation) -> list[str]:
    if not report.robustness:
        return []

    def shown(value: float) -> str:
        return f"{value:.4f}" if report.task == "regression" else share(value)

    name = {"multi-label": "mean avg. precision", "regression": "R2"}.get(report.task, "right")
    rows: list[list[str]] = [["images", name, "change"], ["as they are", shown(report.score), ""]]
    for change, value in report.robustness.items():
        difference: Any = value - report.score
        moved = f"{difference:+.4f}" if report.task == "regression" else f"{100 * difference:+.1f}"
        rows.append([cut(change, 40), shown(value), moved])
    return _table(rows)
