"""`keraslight list`, `info`, `show`, `compare`, `profile` and `receptive-field`: models by name. `convolution-cost`."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any

import typer
from typer import Argument, Option

from keraslight.cli._common import Json, Name, Names, Size, console, create, print_json, table
from keraslight.errors import UnknownModelError


class Grouping(enum.StrEnum):
    """Rows of a profile."""

    layer = "layer"
    block = "block"
    stage = "stage"


class Task(enum.StrEnum):
    """What models are for."""

    classification = "classification"
    detection = "detection"
    segmentation = "segmentation"


def list_models(
    pattern: Annotated[str, Argument(help='Shell-style pattern, such as "mobilenet*".')] = "*",
    task: Annotated[Task, Option(help="What the models are for.")] = Task.classification,
    as_json: Json = False,
) -> None:
    """List models with parameters, MACs and reported ImageNet accuracy."""
    from keraslight import catalogue

    names = catalogue.list_models(pattern, task)
    if not names:
        hint = catalogue.hint(pattern.strip("*"))
        raise UnknownModelError(
            f'No model\'s name matches the pattern; "*" stands for any text. {hint} Received: {pattern!r}.'
        )
    infos = [catalogue.model_info(name) for name in names]
    if as_json:
        fields = ("name", "family", "input_size", "parameters", "macs", "top1", "checkpoint")
        print_json([{field: getattr(info, field) for field in fields} for info in infos])
        return
    rows = [("model", "input", "parameters", "MACs", "top-1", "checkpoint")]
    for info in infos:
        size = f"{info.parameters / 1e6:.2f} M", f"{info.macs / 1e6:,.0f} M"
        rows.append((info.name, f"{info.input_size} px", *size, _percent(info.top1), info.checkpoint or ""))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    shown = len(widths)
    if console.is_terminal and sum(widths) + 2 * (shown - 1) > console.width:
        shown -= 1  # `info` shows the checkpoint
    # Not a table of rich's, which takes as long as everything else together, and cuts names.
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True))
        typer.echo("  ".join([row[0].ljust(widths[0]), *numbers, *row[5:shown]]).rstrip())


def info(name: Name, as_json: Json = False) -> None:
    """Show the details of a model."""
    from keraslight import catalogue

    fields = dataclasses.asdict(catalogue.model_info(name))
    if as_json:
        print_json(fields)
        return
    details = table("", "", show_header=False)
    for field, value in fields.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}={item}" for key, item in value.items())
        details.add_row(field, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(details)


def show(name: Name, size: Size = None, as_json: Json = False) -> None:
    """List the blocks of a model with output sizes, parameters and MACs."""
    model = create(name, size)

    from keraslight import analysis

    costs = analysis.profile(model)
    if as_json:
        blocks = [
            {"name": row.name, "output": row.output, "parameters": row.parameters, "macs": row.macs}
            for row in costs.by_block()
        ]
        print_json({"model": model.name, "parameters": costs.parameters, "macs": costs.macs, "blocks": blocks})
        return
    blocks_table = table("block", "output", "parameters", "MACs", title=model.name)
    for row in costs.by_block():
        blocks_table.add_row(row.name, "x".join(map(str, row.output)), f"{row.parameters:,}", f"{row.macs:,}")
    blocks_table.add_section()
    blocks_table.add_row("total", "", f"{costs.parameters:,}", f"{costs.macs:,}")
    console.print(blocks_table)


def compare(
    names: Names,
    as_json: Json = False,
) -> None:
    """Compare parameters, MACs and reported accuracy of several models.

    Ratios to the first model are in parentheses.
    """
    from keraslight import catalogue

    infos = [catalogue.model_info(name) for name in names]
    first = infos[0]
    if as_json:
        fields = ("name", "input_size", "parameters", "macs", "top1")
        print_json([{field: getattr(info, field) for field in fields} for info in infos])
        return
    models = table("model", "input", "parameters", "MACs", "ImageNet top-1")
    for info in infos:
        models.add_row(
            info.name,
            f"{info.input_size} px",
            f"{info.parameters / 1e6:.2f} M ({info.parameters / first.parameters:.2f})",
            f"{info.macs / 1e6:,.0f} M ({info.macs / first.macs:.2f})",
            _percent(info.top1),
        )
    console.print(models)


def profile(
    name: Name,
    size: Size = None,
    by: Annotated[Grouping, Option(help="Rows of the table.")] = Grouping.block,
    as_json: Json = False,
) -> None:
    """Break down parameters, MACs and memory traffic of a model.

    Also reports the peak activation memory.
    """
    model = create(name, size)

    from keraslight import analysis

    costs = analysis.profile(model)
    if as_json:
        groups = {Grouping.layer: lambda: costs.rows, Grouping.block: costs.by_block, Grouping.stage: costs.by_stage}
        summary: dict[str, Any] = {"model": costs.name, "peak_bytes": costs.peak_bytes, "peak_layer": costs.peak_layer}
        rows = [row._asdict() | {"intensity": row.intensity} for row in groups[by]()]
        print_json({**summary, "total": costs.total._asdict(), "unknown": costs.unknown, "rows": rows})
        return
    console.print(costs.table(by.value))


def receptive_field(
    name: Name,
    size: Size = None,
    every: Annotated[
        bool, Option("--all", help="Include layers with the same receptive field as the layer before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the receptive field of each layer of a model.

    Lists the size, the stride, and the center of the first output's field.
    As a check, "backward" is the size computed from the layer to the image.
    """
    model = create(name, size)

    from keraslight import analysis

    shown = []
    before = None
    backward = analysis.backward_receptive_field(model)
    for field, again in zip(analysis.receptive_field(model), backward, strict=True):
        if every or field[1:] != before:
            shown.append((field, again))
        before = field[1:]
    if as_json:
        layers = [field._asdict() | {"backward": again} for field, again in shown]
        print_json({"model": model.name, "layers": layers})
        return
    fields = table("layer", "field", "stride", "center (y, x)", "backward", title=model.name)
    for field, again in shown:
        height, width = field.size
        fields.add_row(
            field.name,
            "the whole image" if field.whole else f"{height}x{width}",
            "x".join(f"{side:g}" for side in field.stride) if any(field.stride) else "",
            "" if field.whole else ", ".join(f"{c:g}" for c in field.center),
            "" if field.whole else "x".join(map(str, again)),
        )
    console.print(fields)


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
    as_json: Json = False,
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
        print_json(shown)
        return
    columns = ("kernel", "channels", "standard", "separable", f"{groups} groups", "ghost")
    costs = table(*columns, title=f"MACs at {size}x{size} pixels")
    for row in rows:
        others = (f"{cost.ratio:.1%}" for cost in (row.depthwise_separable, row.grouped, row.ghost))
        costs.add_row(f"{row.kernel}x{row.kernel}", str(row.channels), f"{row.standard.macs / 1e6:,.2f} M", *others)
    console.print(costs)


def _percent(top1: float | None) -> str:
    return "" if top1 is None else f"{top1:.1f} %"
