"""Where a model's parameters, multiply-adds and memory go, layer by layer."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras
from keras import layers

from keraslight.analysis._graph import ELEMENTWISE_OPS, behaves_like, operation_name, trace
from keraslight.analysis._layer_kinds import COUNTED, MOVING_OPS, MULTIPLY_NOTHING, VIEWS
from keraslight.analysis._memory import item_bytes, peak, tensor_bytes
from keraslight.analysis.cost import _macs, learned_weights
from keraslight.errors import InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from rich.table import Table


class LayerCost(NamedTuple):
    """What a layer, or a group of layers, costs for one image.

    Attributes:
        name: The layer's name, `inner/conv` inside a nested model.
        kind: Its type; of a group, how many layers it has.
        calls: How often the graph calls it.
        output: Shape of its (last) output, without the batch.
        parameters: As `count_parameters` counts; weights that several layers share stand in the first one's row.
        macs: Multiply-adds of all calls, as `count_macs` counts.
        activation_bytes: Memory of the outputs of all calls; 0 where the output is the input's memory (`Flatten`,
            `Reshape`, `Dropout` in inference). An input has the image's.
        access_bytes: Memory access cost: bytes of inputs read, weights read and outputs written, over all calls, as if
            each layer ran on its own and nothing stayed in a cache. ShuffleNet V2, https://arxiv.org/abs/1807.11164,
            section 2, guideline 1, counts so.
    """

    name: str
    kind: str
    calls: int
    output: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    access_bytes: int

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: multiply-adds for each byte moved; 0 where nothing is moved.

        A layer below the machine's own ratio of arithmetic to bandwidth waits for memory.
        """
        return self.macs / self.access_bytes if self.access_bytes else 0.0


@dataclass(frozen=True)
class Profile:
    """The costs of a model for one image. `print` shows it as text, rich as a table, a notebook as HTML.

    Attributes:
        name: The model's name.
        rows: A row a layer, in the graph's order.
        peak_bytes: The most memory that activations fill at once, if a tensor lives from the layer that makes it to
            the last one that reads it, inputs from the start and outputs to the end, in the graph's order.
        peak_layer: The layer that runs then.
        unknown: Layer types whose multiply-adds are not known: what they do is missing in `macs`.
    """

    name: str
    rows: list[LayerCost]
    peak_bytes: int
    peak_layer: str
    unknown: tuple[str, ...]

    @property
    def total(self) -> LayerCost:
        """The sums over all layers; the output is the last layer's."""
        return _sum("total", self.rows)

    @property
    def parameters(self) -> int:
        return self.total.parameters

    @property
    def macs(self) -> int:
        return self.total.macs

    @property
    def activation_bytes(self) -> int:
        return self.total.activation_bytes

    @property
    def access_bytes(self) -> int:
        return self.total.access_bytes

    @property
    def intensity(self) -> float:
        return self.total.intensity

    def by_block(self) -> list[LayerCost]:
        """Sums over layers whose names begin alike: `stage2_block0`, `stem`, ...."""
        return self._grouped(r"stage\d+_block\d+|[a-z]+[0-9]*")

    def by_stage(self) -> list[LayerCost]:
        """Sums over stages: `stage2`, `stem`, ..."""
        return self._grouped(r"stage\d+|[a-z]+[0-9]*")

    def table(self, by: Literal["layer", "block", "stage"] = "block") -> Table:
        """A table for rich's console.

        Raises:
            InvalidArgumentError: `by` is none of these.
        """
        from rich.table import Table  # Keras brings it

        table = Table(title=self.name, caption=self._notes())
        for number, column in enumerate(_COLUMNS):
            table.add_column(column, justify="left" if number < 3 else "right")
        for row in self._by(by):
            table.add_row(*_cells(row))
        table.add_section()
        table.add_row(*_cells(self.total))
        return table

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`, a column an attribute of `LayerCost` and `intensity`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                f"to_pandas needs pandas: pip install 'keraslight[analysis]'. Received: {error}."
            ) from error
        return pandas.DataFrame([{**row._asdict(), "intensity": row.intensity} for row in self.rows])

    def __rich__(self) -> Table:
        return self.table("layer")

    def __str__(self) -> str:
        lines = [_COLUMNS, *(_cells(row) for row in (*self.rows, self.total))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if number < 3 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.name, *text, self._notes()])

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            aligned = (
                f'<{tag} style="text-align:{"left" if number < 3 else "right"}">{html.escape(cell)}</{tag}>'
                for number, cell in enumerate(cells)
            )
            return f"<tr>{''.join(aligned)}</tr>"

        body = "".join(row(_cells(cost), "td") for cost in self.rows)
        return (
            f"<table><caption>{html.escape(self.name)}</caption><thead>{row(_COLUMNS, 'th')}</thead>"
            f"<tbody>{body}</tbody><tfoot>{row(_cells(self.total), 'th')}</tfoot></table>"
            f"<p>{html.escape(self._notes())}</p>"
        )

    def _by(self, by: str) -> list[LayerCost]:
        match by:
            case "layer":
                return self.rows
            case "block":
                return self.by_block()
            case "stage":
                return self.by_stage()
        raise InvalidArgumentError(f'`by` must be "layer", "block" or "stage". Received: by={by!r}.')

    def _grouped(self, pattern: str) -> list[LayerCost]:
        groups: dict[str, list[LayerCost]] = {}
        for row in self.rows:
            path, slash, name = row.name.rpartition("/")
            start = re.match(pattern, name)
            groups.setdefault(path + slash + (start[0] if start else name), []).append(row)
        return [_sum(name, rows) for name, rows in groups.items()]

    def _notes(self) -> str:
        text = f"Peak activation memory: {_kib(self.peak_bytes)} KiB, at {self.peak_layer}."
        if self.unknown:
            text += f" Multiply-adds not known, so not counted: {', '.join(self.unknown)}."
        return text


_COLUMNS = ("layer", "type", "output", "parameters", "MACs", "activations KiB", "access KiB", "MACs/byte")


def _cells(row: LayerCost) -> tuple[str, ...]:
    return (
        row.name,
        row.kind if row.calls == 1 or row.kind.endswith("layers") else f"{row.kind}, {row.calls} calls",
        "x".join(map(str, row.output)),
        f"{row.parameters:,}",
        f"{row.macs:,}",
        _kib(row.activation_bytes),
        _kib(row.access_bytes),
        f"{row.intensity:.2f}",
    )


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f}"


def _sum(name: str, rows: list[LayerCost]) -> LayerCost:
    numbers = (sum(row[column] for row in rows) for column in range(4, 8))
    return LayerCost(name, f"{len(rows)} layers", sum(row.calls for row in rows), rows[-1].output, *numbers)


def profile(model: keras.Model, input_shape: Sequence[int] | None = None) -> Profile:
    """Counts what a model costs for one image: parameters, multiply-adds and memory, by layer, block and stage.

    Nested models are opened, a shared layer costs its multiply-adds once a call and its parameters once.

    Args:
        model: A functional or built Sequential model.
        input_shape: (H, W, C) without the batch where the model leaves sides open; a list of shapes for several inputs.

    Raises:
        InvalidArgumentError: a size stays open, `input_shape` does not fit, or the model has no graph.
    """
    graph = trace(model, input_shape)
    rows: dict[int, LayerCost] = {}
    unknown: dict[str, None] = {}
    counted: set[int] = set()
    for call in graph.calls:
        layer, kind = call.layer, operation_name(call.layer)
        for tensor in call.outputs:
            if None in tensor.shape[1:]:
                raise InvalidArgumentError(
                    "Profiling needs a fixed input size: give `input_shape`. "
                    f"Received: layer {call.name!r} with output {tuple(tensor.shape)}."
                )
        weights = []
        if isinstance(layer, layers.Layer):
            weights = [w for w in layer.weights if "seed" not in w.path]
            if not behaves_like(layer, (*COUNTED, *MULTIPLY_NOTHING)):
                unknown[kind] = None
        elif kind not in ELEMENTWISE_OPS | MOVING_OPS:
            unknown[kind] = None
        made = sum(map(tensor_bytes, call.outputs))
        moved = (
            sum(map(tensor_bytes, call.inputs)) + made + sum(math.prod(w.shape) * item_bytes(w.dtype) for w in weights)
        )
        still = behaves_like(layer, VIEWS)
        if still and call.inputs:
            made = 0
        # A nested model without a graph is one unknown layer; `_macs` would look for its graph.
        macs = 0 if isinstance(layer, keras.Model) else _macs(layer, *_shapes(call.inputs, call.outputs))
        own = [w for w in (learned_weights(layer) if weights else []) if id(w) not in counted]
        counted.update(map(id, own))
        before = rows.get(id(layer), LayerCost(call.name, kind, 0, (), 0, 0, 0, 0))
        rows[id(layer)] = before._replace(
            calls=before.calls + 1,
            output=tuple(call.outputs[0].shape[1:]),
            parameters=before.parameters + sum(math.prod(w.shape) for w in own),
            macs=before.macs + macs,
            activation_bytes=before.activation_bytes + made,
            access_bytes=before.access_bytes + (0 if still else moved),
        )
    return Profile(model.name, list(rows.values()), *peak(graph), tuple(unknown))


def _shapes(*groups: list[keras.KerasTensor]) -> list[list[tuple]]:
    return [[tuple(tensor.shape) for tensor in group] for group in groups]
