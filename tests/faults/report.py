"""The matrix as a table: rows are faults, columns phases and how firmly a turn is bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import get_args

from tests.faults.cells import Cell, Strength
from tests.faults.running import Result
from tests.faults.table import Phase

Column = tuple[str, str]


def table(results: Sequence[Result]) -> str:
    """Return a table for each transport and side; a `*` marks known defects, a `!` what failed."""
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.cell.client == "socket"):
        groups.setdefault(_title(result.cell), []).append(result)
    return "\n\n".join(_table(title, own) for title, own in groups.items())


def _title(cell: Cell) -> str:
    """How the upstream is spoken to, and by whom the gateway is."""
    upstream = "over HTTP" if cell.transport == "http" else "over WebSocket"
    return f"{upstream}, for WebSocket clients" if cell.client == "socket" else upstream


def _table(title: str, results: Sequence[Result]) -> str:
    every = product(get_args(Phase), get_args(Strength))
    seen = {result.column for result in results}
    columns: list[Column] = [column for column in every if column in seen]
    rows = list(dict.fromkeys(result.row for result in results))
    wide = max(len(title), *(len(row) for row in rows))
    cells = {
        (row, column): _count([r for r in results if (r.row, r.column) == (row, column)])
        for row, column in product(rows, columns)
    }
    widths: dict[Column, int] = {
        column: max(len(column[1]), *(len(cells[row, column]) for row in rows))
        for column in columns
    }
    lines = [f"{title:<{wide}}{_phases(columns, widths)}"]
    lines.append(" ".join([" " * wide, *(f"{c[1]:>{widths[c]}}" for c in columns)]))
    for row in rows:
        counts = (f"{cells[row, column]:>{widths[column]}}" for column in columns)
        lines.append(" ".join([f"{row:<{wide}}", *counts]).rstrip())
    return "\n".join(lines)


def _count(results: Sequence[Result]) -> str:
    if not results:
        return "-"
    passed = sum(result.passed for result in results)
    known = "*" if any(result.known for result in results) else ""
    failed = "!" if passed < len(results) else ""
    return f"{passed}/{len(results)}{known}{failed}"


def _phases(columns: Sequence[Column], widths: dict[Column, int]) -> str:
    line = ""
    for phase in dict.fromkeys(phase for phase, _ in columns):
        mine = [widths[column] for column in columns if column[0] == phase]
        line += f" {phase:<{sum(mine) + len(mine) - 1}}"
    return line.rstrip()


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Return what failed, what is known, and the total, a line each."""
    for result in results:
        if not result.passed:
            yield f"failed: {result}"
    known = Counter(result.known for result in results if result.known and result.passed)
    for defect, count in known.items():
        yield f"known: {defect} ({count} cells)"
    passed = sum(result.passed for result in results)
    yield f"{passed} of {len(results)} cells as they should be"
