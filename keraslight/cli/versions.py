"""`keraslight versions`: the versions of a servable in a model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text
from typer import Argument, Option

from keraslight.cli._common import Json, console, print_json
from keraslight.errors import InvalidArgumentError


def versions(
    name: Annotated[str, Argument(help="Name or folder of a servable.")],
    repository: Annotated[Path, Option(help="Model repository that contains the servable.")] = Path("savedmodels"),
    label: Annotated[
        list[str] | None, Option(help="LABEL=VERSION sets a label; LABEL= removes it; repeatable.", show_default=False)
    ] = None,
    prune: Annotated[
        int | None,
        Option(
            help="Remove old versions, except this many of the highest and all labeled ones.", min=1, show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List and compare the versions of a servable; label or prune them.

    Changes from the previous version are in parentheses.

    Examples:

      keraslight versions digits --label stable=3 --label canary=4
      keraslight versions digits --prune 2
    """
    from keraslight.export import label_version, prune_versions, read_versions, version_labels

    path = repository / name
    if not (found := read_versions(path)):
        raise InvalidArgumentError(f"A servable's folder must hold versions. Received: {path}, which has none.")
    for text in label or ():
        known, _, number = text.partition("=")
        if "=" not in text or not (number.isdecimal() or not number):
            raise InvalidArgumentError(f"`--label` must be LABEL=VERSION or LABEL=. Received: {text!r}.")
        label_version(path, known, int(number) if number else None)
    if prune is not None:
        removed = prune_versions(path, prune)
        console.print(f"Removed: {', '.join(map(str, removed)) or 'none'}.")
        found = read_versions(path)
    labels = version_labels(path)
    if as_json:
        print_json(
            [
                {
                    "version": version.number,
                    "labels": [known for known, number in labels.items() if number == version.number],
                    "path": str(version.path),
                    "created": version.created.isoformat(),
                    "bytes": version.size,
                    "info": version.info,
                }
                for version in found
            ]
        )
        return
    figures = sorted({figure for version in found for figure in version.info.get("metrics", ())})
    names = ("version", "labels", "model", "weights", "created", "MB", *figures)
    columns: dict[str, list[str]] = {column: [] for column in names}
    before: dict[str, float] = {}
    for version in found:
        info, metrics = version.info, version.info.get("metrics", {})
        kind = " ".join(filter(None, (info.get("model"), info.get("dtype"), info.get("quantization"))))
        cells = (
            str(version.number),
            ", ".join(known for known, number in labels.items() if number == version.number),
            kind,
            info.get("weights_sha256", "")[:12],
            version.created.strftime("%Y-%m-%d %H:%M"),
            f"{version.size / 1e6:.2f}",
            *(_with_change(metrics.get(figure), before.get(figure)) for figure in figures),
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
        before = metrics
    console.print(str(path), style="italic")
    for table in _tables(columns, console.width):
        console.print(table)


def _tables(columns: dict[str, list[str]], width: int) -> list[Table]:
    """Tables that together have all columns, each within a width if possible, and with the first column in each."""
    key, *rest = columns

    def table(names: list[str]) -> Table:
        made = Table(*(Column(name, no_wrap=True) for name in names))
        for cells in zip(*(columns[name] for name in names), strict=True):
            made.add_row(*map(Text, cells))
        return made

    wide = console.options.update(width=10_000)  # a measurement is limited to the width
    groups: list[list[str]] = []
    for name in rest:
        if groups and Measurement.get(console, wide, table([key, *groups[-1], name])).maximum <= width:
            groups[-1].append(name)
        else:
            groups.append([name])
    return [table([key, *group]) for group in groups]


def _with_change(figure: float | None, before: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.6g}" if before is None else f"{figure:.6g} ({figure - before:+.3g})"
