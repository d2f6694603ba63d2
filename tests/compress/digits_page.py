"""Reads the two tables in docs/compression.md, and writes the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
COLUMNS = ("family", "net", "parameters", "training", "float", "int8 trained", "int8 calibrated", "same top-1")
COLUMNS += ("70% sparse", "float32 file", "int8 file", "float32 latency", "int8 latency")
OPERATOR_COLUMNS = ("family", "in int8", "in float, trained", "of the layers", "in float, calibrated")

# Family -> column -> cell.
Table = dict[str, dict[str, str]]


def read() -> tuple[Table, Table]:
    """Reads the current tables: the results, and which operators are int8."""
    page = PAGE.read_text(encoding="utf-8")
    return _table(page, COLUMNS), _table(page, OPERATOR_COLUMNS)


def text(costs: Table, operators: Table, head: list[str]) -> str:
    """Returns the page.

    Args:
        costs, operators: The tables, as returned by `read`; the page lists families alphabetically.
        head: The lines above the first table.
    """
    between = [
        "## Which operators are int8",
        "",
        "The columns `in int8` and `in float, trained` list the operators in the file from `train_quantized`. The next",
        "column names the Keras layers of the float operators, with the reason that `quantization_report` gives.",
        "The file from `calibrate` runs everything in int8 except the operators in the last column. QUANTIZE and",
        "DEQUANTIZE, which convert at the file's input and output and around float operators, are not listed.",
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
