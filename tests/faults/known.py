"""Defects that the matrix has shown and that are not mended yet; each cell of theirs must fail."""

from __future__ import annotations

from tests.faults.cells import Cell

TOO_BIG_ON_A_CHAIN = (
    "close 1009 on an anchored turn: the client is told to send it in full, which is bigger still"
)
WANDERS = (
    "a cache key whose owner lacks the model goes to another account with every turn, so that no "
    "account's prompt cache serves it"
)


def known_defect(cell: Cell) -> str | None:
    """Name the defect that a cell shows; None if it should pass."""
    fault = cell.fault
    if fault.name == "close 1009" and (cell.phase, cell.affinity) == ("sent", "anchored"):
        return TOO_BIG_ON_A_CHAIN
    lacks_model = fault.meaning == "model" and cell.phase == "sent" and cell.reach == "once"
    if lacks_model and cell.affinity == "cache" and cell.accounts == "3":
        return WANDERS
    return None
