"""Parameters, multiply-adds and memory of a model, layer by layer."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras

from keraslight.analysis._memory import peak, tensor_bytes, variable_bytes
from keraslight.analysis.cost import call_macs
from keraslight.errors import InvalidArgumentError, MissingDependencyError
from keraslight.graph import Graph, Node, learned_weights, read
from keraslight.graph.kinds import copies, kind, operation_name

if TYPE_CHECKING:
    from rich.table import Table

By = Literal["layer", "block", "stage"]


class LayerCost(NamedTuple):
    """Costs of a layer, or of a group of layers, for one image.

    Attributes:
        name: Name of the layer, `inner/conv` inside a nested model.
        kind: Type of the layer; for a group, its number of layers.
        calls: Number of calls in the graph.
        output: Shape of the (last) output, without the batch.
        parameters: Learned parameters, as `count_parameters` counts them. Weights shared by several layers are counted
            for the first one.
        macs: Multiply-adds of all calls, as `count_macs` counts them.
        activation_bytes: Memory of the outputs of all calls; 0 if the output is the input's memory (`Flatten`,
            `Reshape`, `Dropout` in inference). For an input, memory of the image.
        access_bytes: Memory access cost: bytes of inputs read, weights read and outputs written, over all calls, as if
            each layer ran on its own and nothing stayed in a cache. Source: ShuffleNet V2,
            https://arxiv.org/abs/1807.11164, section 2, guideline 1.
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
        """Arithmetic intensity: multiply-adds per byte moved; 0 if nothing is moved.

        A layer below the machine's ratio of arithmetic to bandwidth waits for memory.
        """
        return self.macs / self.access_bytes if self.access_bytes else 0.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """Costs of a model for one image. `print` shows them as text, rich as a table, a notebook as HTML.

    Attributes:
        name: Name of the model.
        rows: One row per layer, in the graph's order.
        peak_bytes: The most memory that activations use at once, if a tensor lives from the layer that makes it to the
            last one that reads it, inputs from the start and outputs to the end, and layers run in the graph's order.
        peak_layer: Layer that runs at the peak.
        unknown: Layer types whose multiply-adds are unknown and therefore missing in `macs`.
    """

    name: str
    rows: list[LayerCost]
    peak_bytes: int
    peak_layer: str
    unknown: tuple[str, ...]

    @property
    def total(self) -> LayerCost:
        """Sums over all layers; the output is the last layer's."""
        return _sum("total", self.rows)

    @property
    def parameters(self) -> int:
        """Learned parameters of all layers."""
        return self.total.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return self.total.macs

    @property
    def activation_bytes(self) -> int:
        """Memory of the outputs of all layers."""
        return self.total.activation_bytes

    @property
    def access_bytes(self) -> int:
        """Memory access cost of all layers."""
        return self.total.access_bytes

    @property
    def intensity(self) -> float:
        """Multiply-adds per byte moved."""
        return self.total.intensity

    def by_block(self) -> list[LayerCost]:
        """Sums over blocks, by the start of the layers' names: `stage2_block0`, `stem`, ..."""
        return self._grouped(r"stage\d+_block\d+|[a-z]+[0-9]*")

    def by_stage(self) -> list[LayerCost]:
        """Sums over stages: `stage2`, `stem`, ..."""
        return self._grouped(r"stage\d+|[a-z]+[0-9]*")

    def table(self, by: By = "block") -> Table:
        """Makes a table for rich's console.

        Args:
            by: What a row is.

        Raises:
            InvalidArgumentError: `by` is unknown.
        """
        from rich.table import Table  # Keras brings it

        table = Table(title=self.name, caption=self._notes())
        for number, column in enumerate(_COLUMNS):
            justify: Literal["left", "right"] = "left" if number < 3 else "right"
            table.add_column(column, justify=justify, no_wrap=number == 0, overflow="fold")  # names are never cut
        rows = self._by(by)
        for row in (*rows, self.total):
            table.add_row(*_cells(row), end_section=row is rows[-1])
        return table

    def to_pandas(self) -> Any:
        """Returns the rows as a `pandas.DataFrame`, with one column per attribute of `LayerCost`, and `intensity`.

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
        ways = {"layer": lambda: self.rows, "block": self.by_block, "stage": self.by_stage}
        if by not in ways:
            raise InvalidArgumentError(f'`by` must be "layer", "block" or "stage". Received: by={by!r}.')
        return ways[by]()

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
            text += f" Unknown multiply-adds, not counted: {', '.join(self.unknown)}."
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
    _, _, calls, _, *costs = zip(*rows, strict=True)
    return LayerCost(name, f"{len(rows)} layers", sum(calls), rows[-1].output, *map(sum, costs))


def profile(model: keras.Model, input_shape: Sequence[int] | None = None) -> Profile:
    """Counts what a model costs for one image: parameters, multiply-adds and memory, by layer, block and stage.

    Nested models are opened. A shared layer costs its multiply-adds once per call and its parameters once.

    Args:
        model: A functional or built Sequential model.
        input_shape: (H, W, C) without the batch, if the model leaves sides open; a list of shapes for several inputs.

    Raises:
        InvalidArgumentError: A size is open, `input_shape` doesn't fit, or the model has no graph.
    """
    return profile_graph(read(model, input_shape, opaque=True))


def profile_graph(graph: Graph) -> Profile:
    """Counts what a graph costs; see `profile`."""
    rows: dict[Node, LayerCost] = {}
    unknown: dict[str, None] = {}
    counted: set[int] = set()
    images = copies(graph)
    for call in (*graph.input_calls, *graph.calls):
        layer, known, layer_type = call.layer, kind(call.layer), operation_name(call.layer)
        for tensor in call.outputs:
            if None in tensor.shape[1:]:
                raise InvalidArgumentError(
                    "Profiling needs a fixed input size: give `input_shape`. "
                    f"Received: layer {call.path!r} with output {tensor.shape}."
                )
        if known.macs is None:
            unknown[layer_type] = None
        made = sum(tensor_bytes(tensor) * images[tensor] for tensor in call.outputs)
        moved = sum(tensor_bytes(tensor) * images[tensor] for tensor in call.inputs) + made
        own: list[keras.Variable] = []
        if isinstance(layer, keras.Layer):
            moved += sum(map(variable_bytes, layer.weights))
            own = [weight for weight in learned_weights(layer) if id(weight) not in counted]
            counted.update(map(id, own))
        before = rows.get(call.node, LayerCost(call.path, layer_type, 0, (), 0, 0, 0, 0))
        rows[call.node] = before._replace(
            calls=before.calls + 1,
            output=tuple(side for side in call.outputs[0].shape[1:] if side is not None),
            parameters=before.parameters + sum(math.prod(weight.shape) for weight in own),
            macs=before.macs + call_macs(call) * images[call.outputs[0]],
            activation_bytes=before.activation_bytes + (0 if known.view and call.inputs else made),
            access_bytes=before.access_bytes + (0 if known.view else moved),
        )
    return Profile(graph.name, list(rows.values()), *peak(graph), tuple(unknown))
