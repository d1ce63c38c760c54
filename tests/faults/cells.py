"""The cells of the matrix: a fault, and the circumstances in which it happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from tests.faults.table import Fault, Phase, faults

Affinity = Literal["session", "cache", "none", "anchored", "stored"]
"""Hard by a session; soft by prompt_cache_key; none; hard by a response that lives on its socket;
hard by a response that is stored."""
Accounts = Literal["1", "2", "3", "limited", "disabled"]
"""How many there are, all usable; or three of which the owner is limited or disabled."""
Reach = Literal["once", "always"]
"""Whether the fault happens once, or wherever the turn goes."""
Transport = Literal["websocket"]
"""What is spoken upstream."""

AFFINITIES: tuple[Affinity, ...] = get_args(Affinity)
NAMES = ("work", "home", "spare")


@dataclass(frozen=True)
class Cell:
    """One play: a turn that meets a fault.

    Attributes:
        stream: whether the client wants a stream.
    """

    fault: Fault
    phase: Phase
    affinity: Affinity
    accounts: Accounts
    reach: Reach
    stream: bool
    transport: Transport = "websocket"

    @property
    def label(self) -> str:
        """Name it."""
        client = "stream" if self.stream else "whole"
        words = (
            self.fault.name, self.phase, self.affinity, self.accounts, self.reach, client,
            self.transport,
        )  # fmt: skip
        return " / ".join(words)

    @property
    def hard(self) -> bool:
        """Whether the turn is bound to its owner."""
        return self.affinity in {"session", "anchored", "stored"}

    @property
    def portable(self) -> bool:
        """Whether the turn may move when its account fails."""
        return self.affinity not in {"anchored", "stored"}

    @property
    def owner_out(self) -> bool:
        """Whether the owner cannot serve from the beginning."""
        return self.accounts in {"limited", "disabled"}

    @property
    def names(self) -> tuple[str, ...]:
        """The accounts."""
        return NAMES if self.owner_out else NAMES[: int(self.accounts)]

    @property
    def first(self) -> str:
        """The account that a turn is sent to first."""
        return "home" if self.owner_out and self.portable else "work"

    @property
    def others(self) -> tuple[str, ...]:
        """The other accounts that may serve, in the order in which they are tried."""
        return ("spare",) if self.owner_out else self.names[1:]


def cells() -> list[Cell]:
    """Return the whole matrix."""
    return [cell for fault in faults() for cell in _cells(fault)]


def _cells(fault: Fault) -> Iterator[Cell]:
    accounts: tuple[Accounts, ...] = get_args(Accounts)
    dimensions = product(fault.phases, AFFINITIES, accounts, _REACHES, (True, False), _TRANSPORTS)
    for phase, affinity, usable, reach, stream, transport in dimensions:
        cell = Cell(fault, phase, affinity, usable, reach, stream, transport)
        if _makes_sense(cell):
            yield cell


_REACHES: tuple[Reach, ...] = get_args(Reach)
_TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


def _makes_sense(cell: Cell) -> bool:
    if cell.reach == "always" and cell.phase not in {"dial", "sent"}:
        return False  # nothing is tried again
    if cell.affinity == "anchored" and cell.phase == "dial":
        return False  # its socket is open
    if cell.owner_out and cell.phase not in {"dial", "sent"}:
        return False  # the owner's state has no say any more
    if cell.reach == "always" and cell.fault.resets_at and (cell.fault.named or 0) <= 10:
        return False  # at the second try the time that it names is over
    # Nothing is sent, so the fault does not happen: one is as good as all.
    nothing_happens = cell.owner_out and not cell.portable
    return not nothing_happens or cell.fault.name in {"close 1011", "dial 503"}


def sample() -> list[Cell]:
    """Return a cell of each fault, phase and reach; every circumstance comes often."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells():
        groups.setdefault((cell.fault.name, cell.phase, cell.reach), []).append(cell)
    # Another one in each group: the step has no divisor in common with the number of affinities,
    # of accounts and of clients.
    chosen = [group[number * 7 % len(group)] for number, group in enumerate(groups.values())]
    return [cell for number, cell in enumerate(chosen) if not _too_alike(cell) or number % 3 == 0]


def _too_alike(cell: Cell) -> bool:
    """Whether an error comes so late that it hardly matters which one it is."""
    return cell.fault.close is None and cell.phase not in {"dial", "sent"}
