"""Plays many cells at once on one virtual loop."""

from __future__ import annotations

import asyncio
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.cells import Cell
from tests.faults.checks import faults_of
from tests.faults.known import known_defect
from tests.faults.playing import play_cell
from tests.support.gateway import closed_port
from tests.support.virtual import VirtualLoop

AT_ONCE = 24


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Attributes:
        wrong: what was wrong; empty if nothing was.
        known: the known defect that it shows; None if none is known.
    """

    cell: Cell
    wrong: tuple[str, ...]
    known: str | None

    @property
    def row(self) -> str:
        """The row of the report that it counts in."""
        return self.cell.fault.name

    @property
    def column(self) -> tuple[str, str]:
        """The column of the report that it counts in."""
        return self.cell.phase, self.cell.strength

    @property
    def passed(self) -> bool:
        """Whether it went as it should: a known defect must show, until it is mended."""
        return bool(self.wrong) == (self.known is not None)

    def __str__(self) -> str:
        if self.known is not None and not self.wrong:
            return f"{self.cell.label}: passes, so this is mended: {self.known}"
        return f"{self.cell.label}: {'; '.join(self.wrong)}"


def run_cells(cells: Sequence[Cell]) -> list[Result]:
    """Play the cells; the results come in their order."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closed_port() as port,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        return runner.run(_run(cells, Path(folder), port))


async def _run(cells: Sequence[Cell], folder: Path, port: int) -> list[Result]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, cell: Cell) -> Result:
        async with places:
            own = folder / str(number)
            own.mkdir()
            return await _result(cell, own, port)

    return list(await asyncio.gather(*(one(n, cell) for n, cell in enumerate(cells))))


async def _result(cell: Cell, folder: Path, port: int) -> Result:
    try:
        wrong = faults_of(cell, await play_cell(cell, folder, port))
    except Exception as exc:  # noqa: BLE001 - one broken cell must not hide the others
        where = traceback.extract_tb(exc.__traceback__)[-1]
        wrong = [f"{type(exc).__name__}: {exc} ({Path(where.filename).name}:{where.lineno})"]
    return Result(cell, tuple(wrong), known_defect(cell))
