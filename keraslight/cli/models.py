"""`keraslight list`, `info`, `show`, `compare`, `profile` and `receptive-field`: models by name. `convolution-cost`."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from keraslight.cli._common import Name, Size, console, create


class Grouping(enum.StrEnum):
    """Rows of a profile."""

    layer = "layer"
    block = "block"
    stage = "stage"


def list_models(pattern: Annotated[str, Argument(help='Shell-style pattern, such as "mobilenet*".')] = "*") -> None:
    """List models with parameters, MACs and reported ImageNet accuracy."""
    import keraslight

    table = Table("model", "input", "parameters", "MACs", "ImageNet top-1", "checkpoint")
    for name in keraslight.list_models(pattern):
        info = keraslight.model_info(name)
        size = f"{info.parameters / 1e6:.2f} M", f"{info.macs / 1e6:,.0f} M"
        table.add_row(name, f"{info.input_size} px", *size, _percent(info.top1), info.checkpoint or "")
    console.print(table)


def info(name: Name) -> None:
    """Show the details of a model."""
    import dataclasses

    import keraslight

    table = Table(show_header=False)
    for field, value in dataclasses.asdict(keraslight.model_info(name)).items():
        table.add_row(field, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)


def show(name: Name, size: Size = None) -> None:
    """List the blocks of a model with output sizes, parameters and MACs."""
    from keraslight import analysis

    model = create(name, size)
    costs = analysis.profile(model)
    table = Table("block", "output", "parameters", "MACs", title=model.name)
    for row in costs.by_block():
        table.add_row(row.name, "x".join(map(str, row.output)), f"{row.parameters:,}", f"{row.macs:,}")
    table.add_section()
    table.add_row("total", "", f"{costs.parameters:,}", f"{costs.macs:,}")
    console.print(table)


def compare(
    names: Annotated[list[str], Argument(help="Model names or published checkpoint IDs.", metavar="MODEL...")],
) -> None:
    """Compare parameters, MACs and reported accuracy of several models.

    Ratios to the first model are in parentheses.
    """
    import keraslight

    table = Table("model", "input", "parameters", "MACs", "ImageNet top-1")
    infos = [keraslight.model_info(name) for name in names]
    first = infos[0]
    for info in infos:
        table.add_row(
            info.name,
            f"{info.input_size} px",
            f"{info.parameters / 1e6:.2f} M ({info.parameters / first.parameters:.2f})",
            f"{info.macs / 1e6:,.0f} M ({info.macs / first.macs:.2f})",
            _percent(info.top1),
        )
    console.print(table)


def profile(
    name: Name, size: Size = None, by: Annotated[Grouping, Option(help="Rows of the table.")] = Grouping.block
) -> None:
    """Break down parameters, MACs and memory traffic of a model.

    Also reports the peak activation memory.
    """
    from keraslight import analysis

    console.print(analysis.profile(create(name, size)).table(by.value))


def receptive_field(
    name: Name,
    size: Size = None,
    every: Annotated[
        bool, Option("--all", help="Include layers with the same receptive field as the layer before.")
    ] = False,
) -> None:
    """Show the receptive field of each layer of a model.

    Lists the size, the stride, and the center of the first output's field.
    As a check, "backward" is the size computed from the layer to the image.
    """
    from keraslight import analysis

    model = create(name, size)
    table = Table("layer", "field", "stride", "center (y, x)", "backward", title=model.name)
    before = None
    backward = analysis.backward_receptive_field(model)
    for field, again in zip(analysis.receptive_field(model), backward, strict=True):
        if every or field[1:] != before:
            height, width = field.size
            table.add_row(
                field.name,
                "the whole image" if field.whole else f"{height}x{width}",
                "x".join(f"{side:g}" for side in field.stride) if any(field.stride) else "",
                "" if field.whole else ", ".join(f"{c:g}" for c in field.center),
                "" if field.whole else "x".join(map(str, again)),
            )
        before = field[1:]
    console.print(table)


def convolution_cost(
    kernel: Annotated[
        list[int] | None, Option(help="Side of the window, in pixels. Can be repeated. Default: 3, 5 and 7.")
    ] = None,
    channels: Annotated[
        list[int] | None,
        Option(help="Number of input and output channels. Can be repeated. Default: 32, 64, 128, 256 and 512."),
    ] = None,
    size: Annotated[int, Option(help="Side of the square input, in pixels.")] = 28,
    stride: Annotated[int, Option(help="Stride, in pixels.")] = 1,
    groups: Annotated[int, Option(help="Groups of the grouped convolution. Must divide the channels.")] = 4,
    ghost_ratio: Annotated[int, Option(help="Output maps per map of the ghost module's first convolution.")] = 2,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare the cost of standard, separable, grouped and ghost convolutions.

    Percentages are relative to the standard convolution; parameters and MACs
    have the same ones.
    """
    from keraslight import analysis

    rows = analysis.compare_convolutions(
        kernel or (3, 5, 7),
        channels or (32, 64, 128, 256, 512),
        size=size,
        stride=stride,
        groups=groups,
        ghost_ratio=ghost_ratio,
    )
    if as_json:
        kinds = ("standard", "depthwise_separable", "grouped", "ghost")
        shown = [row._asdict() | {kind: getattr(row, kind)._asdict() for kind in kinds} for row in rows]
        typer.echo(json.dumps(shown))
        return
    table = Table(
        "kernel",
        "channels",
        "standard",
        "separable",
        f"{groups} groups",
        "ghost",
        title=f"MACs at {size}x{size} pixels",
    )
    for row in rows:
        others = (f"{cost.ratio:.1%}" for cost in (row.depthwise_separable, row.grouped, row.ghost))
        table.add_row(f"{row.kernel}x{row.kernel}", str(row.channels), f"{row.standard.macs / 1e6:,.2f} M", *others)
    console.print(table)


def _percent(top1: float | None) -> str:
    return "" if top1 is None else f"{top1:.1f} %"
