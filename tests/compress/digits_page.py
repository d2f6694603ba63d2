"""docs/compression.md: how its two tables are read, and the page made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
COLUMNS = ("family", "net", "parameters", "training", "float", "int8 trained", "int8 calibrated", "same top-1")
COLUMNS += ("70% sparse", "float32 file", "int8 file", "float32 latency", "int8 latency")
OPERATOR_COLUMNS = ("family", "in int8", "in float, trained", "of the layers", "in float, calibrated")

# Family -> column -> what stands there.
Table = dict[str, dict[str, str]]


def read() -> tuple[Table, Table]:
    """The tables as they are: what compression costs, and which operators are int8."""
    page = PAGE.read_text(encoding="utf-8")
    return _table(page, COLUMNS), _table(page, OPERATOR_COLUMNS)


def text(costs: Table, operators: Table, head: list[str]) -> str:
    """The page.

    Args:
        costs, operators: The tables, as `read` gives them; the families come out in the order of the alphabet.
        head: Lines above the first table.
    """
    between = [
        "## Which operators are int8",
        "",
        "Read from the files. The columns `in int8` and `in float, trained` are of the file of `train_quantized`; the",
        "Keras layers that the float operators belong to are named, with the reason that `quantization_report` gives.",
        "The file of `calibrate` runs all in int8 but what the last column names. QUANTIZE and DEQUANTIZE are not",
        "listed: they convert at the ends of the file and around float operators.",
    ]
    parts = [*head, "", *_lines(costs, COLUMNS), "", *between, "", *_lines(operators, OPERATOR_COLUMNS)]
    return "\n".join(parts) + "\n"


def _table(page: str, columns: tuple[str, ...]) -> Table:
    table: Table = {}
    for line in page.partition(_line(columns) + "\n")[2].splitlines()[1:]:  # the first is the rule under the head
        if not line.startswith("| "):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        table[cells[0]] = dict(zip(columns, cells, strict=True))
    return table


def _lines(table: Table, columns: tuple[str, ...]) -> list[str]:
    rows = [_line([row[column] for column in columns]) for _, row in sorted(table.items())]
    return [_line(columns), "| --- " * len(columns) + "|", *rows]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
