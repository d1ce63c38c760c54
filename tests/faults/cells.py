"""The cells of the matrix: a fault, and the circumstances in which it happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from tests.faults.table import Fault, Phase, Transport, faults

Affinity = Literal[
    "session", "cache", "none", "anchored", "stored", "conversation", "file", "turn state"
]
"""Hard by a session; soft by prompt_cache_key; none; hard by a response that lives on its socket;
hard by what lies in an account: a response, a conversation, a file; hard by a turn state."""
Strength = Literal["hard", "pinned", "soft", "none"]
"""Hard, but a failing account lets it move; bound for good to what lies in an account."""
Accounts = Literal["1", "2", "3", "limited", "disabled"]
"""How many there are, all usable; or three of which the owner is limited or disabled."""
Reach = Literal["once", "always"]
"""Whether the fault happens once, or wherever the turn goes."""
Client = Literal["stream", "codex", "whole", "socket"]
"""Whether it wants a stream, is Codex (which wants one as well), or wants the whole at once; or has
a WebSocket, for all turns of its conversation."""

AFFINITIES: tuple[Affinity, ...] = get_args(Affinity)
LATE: tuple[Phase, ...] = ("created", "streaming")
NAMES = ("work", "home", "spare")
PINNED = frozenset({"anchored", "stored", "conversation", "file"})


@dataclass(frozen=True)
class Cell:
    """One play: a turn that meets a fault.

    Attributes:
        transport: how the accounts are configured to be spoken to.
    """

    fault: Fault
    phase: Phase
    affinity: Affinity
    accounts: Accounts
    reach: Reach
    client: Client
    transport: Transport = "auto"

    @property
    def label(self) -> str:
        """Name it."""
        words = (
            self.fault.name, self.phase, self.affinity, self.accounts, self.reach, self.client,
            self.transport,
        )  # fmt: skip
        return " / ".join(words)

    @property
    def stream(self) -> bool:
        """Whether the answer is a stream of HTTP's, which has its status before it has an end."""
        return self.client in {"stream", "codex"}

    @property
    def strength(self) -> Strength:
        """How strongly the turn is bound to its owner."""
        if self.affinity in PINNED:
            return "pinned"
        if self.affinity == "cache":
            return "soft"
        # A client's socket is a session if its turns name nothing else.
        return "none" if self.affinity == "none" and self.client != "socket" else "hard"

    @property
    def hard(self) -> bool:
        """Whether the turn is bound to its owner."""
        return self.strength in {"hard", "pinned"}

    @property
    def portable(self) -> bool:
        """Whether the turn may move when its account fails."""
        return self.affinity not in PINNED

    @property
    def chainless(self) -> bool:
        """Whether the turn continues a response that lives on a socket where there is none."""
        return self.affinity == "anchored" and self.transport == "http"

    @property
    def resends(self) -> bool:
        """Whether the client sends its full input when it is told that its chain is lost."""
        return self.affinity == "anchored" and self.client == "socket"

    @property
    def resends_stored(self) -> bool:
        """Whether it does so when the account that stores its chain is gone."""
        return self.affinity == "stored" and self.client == "socket" and len(self.names) > 1

    @property
    def falls_back(self) -> bool:
        """Whether the upgrade is refused because there is none, and HTTP takes its place."""
        return self.fault.meaning == "no_websocket" and self.transport == "auto"

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
    clients: tuple[Client, ...] = get_args(Client)
    dimensions = product(fault.phases, AFFINITIES, accounts, _REACHES, clients, fault.transports)
    for phase, affinity, usable, reach, client, transport in dimensions:
        cell = Cell(fault, phase, affinity, usable, reach, client, transport)
        if _is_possible(cell) and _is_another(cell):
            yield cell


_REACHES: tuple[Reach, ...] = get_args(Reach)


def _is_possible(cell: Cell) -> bool:
    late = cell.phase not in {"dial", "sent"}
    if late and (cell.reach == "always" or cell.owner_out):
        return False  # nothing is tried again, and the owner's state has no say any more
    if cell.affinity == "anchored" and cell.phase == "dial":
        return False  # its socket is open
    if cell.transport == "http" and cell.phase == "idle":
        return False  # nothing is open
    if cell.transport == "http" and (cell.fault.kind, cell.phase) == ("frame", "sent"):
        return False  # before the first event, a POST is answered with a status
    # At the second try the time that it names is over.
    over = cell.fault.resets_at and (cell.fault.named or 0) <= 10
    return not (cell.reach == "always" and over)


def _is_another(cell: Cell) -> bool:
    """Whether the rules, or how they are carried out, could make a difference in this cell."""
    if cell.client == "codex" and cell.phase not in LATE:
        return False  # only the last event is another one
    if cell.chainless or (cell.owner_out and not cell.portable):
        # Nothing is sent, so the fault does not happen: one is as good as all.
        early = cell.phase in {"dial", "sent"}
        return early and cell.fault.name in {"close 1006", "close 1011", "dial 503"}
    if cell.affinity in {"conversation", "file", "turn state"} and cell.accounts in {"1", "2"}:
        return False  # they differ from a session, or a stored response, in how they are known
    late = cell.phase not in {"dial", "sent"}
    if cell.accounts == "2" and (late or cell.transport == "http"):
        return False
    if cell.accounts == "1" and late and cell.fault.kind == "frame":
        return False  # the others have no say any more
    if cell.fault.alike:
        return cell.accounts == "3" and cell.affinity in {"session", "cache", "stored"}
    return True


def sample() -> list[Cell]:
    """Return a cell of each fault, phase and transport; every circumstance comes often.

    Chains of WebSocket clients have a cell of each meaning and phase to themselves.
    """
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells():
        group: tuple[str, ...] = (cell.fault.name, cell.phase, cell.transport)
        if cell.resends:  # what WebSocket clients have of their own
            kind = "silence" if cell.fault.lasts else cell.fault.meaning
            group = (kind, cell.phase, cell.transport, "out" if cell.owner_out else "in")
        groups.setdefault(group, []).append(cell)
    # Another one in each group: the step has no divisor in common with the number of affinities,
    # of accounts and of clients.
    chosen = [group[number * 7 % len(group)] for number, group in enumerate(groups.values())]
    return [cell for number, cell in enumerate(chosen) if not _too_alike(cell) or number % 4 == 0]


def _too_alike(cell: Cell) -> bool:
    """Whether the fault comes so late that it hardly matters which one it is."""
    of_a_kind = cell.fault.close is None or cell.fault.alike
    return of_a_kind and cell.phase not in {"dial", "sent"}
