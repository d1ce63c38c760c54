"""What the rules say of a cell: where the turn is sent, and what the client gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.faults.cells import Cell
from tests.faults.table import Close, Fault

UNAVAILABLE = (503, "upstream_unavailable")
NOT_FOUND = (400, "previous_response_not_found")
OWNER_OUT = (503, "owner_unavailable")
LIMITED = (429, "rate_limit_exceeded")
EXHAUSTED = (429, "usage_limit_reached")
SERVED = (200, None)
CUT_SHORT = (502, "upstream_closed")
"""After the first event; a stream of HTTP's has begun with 200 and ends with an event of that code,
a WebSocket client gets an error frame of both."""

NAMELESS = "error"
"""Stands for the code of an error event that has none."""
RETRIED = "server_error"
"""Codex is given the one code that it retries, whatever went wrong."""

Ending = tuple[int, str | None]


class Blamed(NamedTuple):
    """The state in which an account is left."""

    state: str
    seconds: float | None = None


@dataclass(frozen=True)
class Expected:
    """What the rules say.

    Attributes:
        sent: the accounts that get a `response.create` or a POST, in order.
        endings: status and code, any of these.
        wait: how long until the last of these, in seconds; None if nothing is said of it.
        accounts: the accounts that are left in a state, all others are ready.
        retry_after: what the client is told; None if nothing, -1 if that is not checked.
    """

    sent: Sequence[str]
    endings: Sequence[Ending]
    wait: float | None = None
    accounts: dict[str, Blamed] = field(default_factory=dict)
    retry_after: int | None = -1


def expected(cell: Cell) -> Expected:
    """Return what the rules say of a cell."""
    if cell.chainless or (cell.resends and cell.owner_out):
        # In full the turn is served: over a new socket, by another account where the owner is out.
        return Expected([], [NOT_FOUND], accounts=_before(cell), retry_after=None)
    if cell.owner_out and not cell.portable:
        if cell.accounts == "limited":
            return Expected([], [EXHAUSTED], accounts=_before(cell), retry_after=None)
        gone = NOT_FOUND if cell.resends_stored else OWNER_OUT
        return Expected([], [gone], retry_after=None)
    match cell.phase:
        case "idle":
            return _idle(cell)
        case "created" | "streaming":
            return _started(cell)
        case "dial":
            return _at_dial(cell)
        case "sent":
            if cell.fault.close is not None:
                return _closed(cell, cell.fault.close)
            return _refused(cell)
    raise AssertionError(cell.phase)


def _before(cell: Cell) -> dict[str, Blamed]:
    return {"work": Blamed("limited")} if cell.accounts == "limited" else {}


def _idle(cell: Cell) -> Expected:
    # Whatever comes while no turn runs retires the socket, an error frame as well.
    if cell.affinity == "anchored":
        return Expected([], [NOT_FOUND])
    if cell.strength == "none":  # whoever was chosen least recently
        return Expected(["work" if len(cell.names) == 1 else "home"], [SERVED])
    return Expected(["work"], [SERVED])


def _started(cell: Cell) -> Expected:
    fault, row = cell.fault, cell.fault.close
    if row is not None:
        endings = [(200, RETRIED) if cell.client == "codex" else CUT_SHORT]
        return Expected([cell.first], endings, accounts=_cooled(row, cell.first))
    # Its own error is the terminal event.
    if cell.client == "codex":
        final = fault.meaning == "request" and fault.code is not None
        ending: Ending = (200, fault.code if final else RETRIED)
    elif cell.stream:
        ending = (200, fault.code or NAMELESS)
    elif cell.transport == "http":  # the event has no status, and an error frame has to
        ending = (502, fault.code)
    else:
        status = 502 if fault.status == 401 else fault.status  # a client's login is not at fault
        ending = (status, fault.code)
    return Expected([cell.first], [ending], accounts=learned(cell))


def learned(cell: Cell) -> dict[str, Blamed]:
    """Return what an error that comes late says of its account: a limit, a refused credential."""
    fault = cell.fault
    if fault.meaning not in {"login", "limit"}:
        return {}
    if cell.transport != "http":
        return _states(fault, cell.first)
    # Over HTTP an event tells its code, and neither a status nor a time.
    return {} if fault.code is None else _states(replace(fault, named=None), cell.first)


def _cooled(row: Close, *names: str) -> dict[str, Blamed]:
    # One or two closes are counted only; three cool.
    state = Blamed("cooling_down", row.seconds)
    return dict.fromkeys(names, state) if row.account == "cooled" else {}


# Closes before the first event


def _closed(cell: Cell, row: Close) -> Expected:
    first = cell.first
    if row.soft == "give_up":
        # A chain's client is told as well: in full its input would be as big, and as ill received.
        told = None if row.code == "request_too_large" else 1
        ending = (row.status, row.code)
        return Expected([first], [ending], accounts=_cooled(row, first), retry_after=told)
    if cell.affinity == "anchored":
        lost = [NOT_FOUND]
        if cell.fault.lasts and not cell.resends:  # the chain may be alive
            lost = [(504, "upstream_silent")]
        return Expected([first], lost, accounts=_cooled(row, first))
    elsewhere = not cell.hard and row.soft == "other" and bool(cell.others)
    second = cell.others[0] if elsewhere else first
    back = row.wait if cell.hard or row.soft == "same" else row.alone
    wait = cell.fault.lasts + (0.0 if elsewhere else back)
    if cell.reach == "once":
        # A completed turn clears what the account was blamed for.
        left = _cooled(row, first) if elsewhere else {}
        return Expected([first, second], [SERVED], wait, left, retry_after=None)
    return Expected(
        [first, second], [UNAVAILABLE], wait, _cooled(row, first, second), retry_after=1
    )


# Error frames before the first event, and answers to a POST


def _refused(cell: Cell) -> Expected:
    fault, first = cell.fault, cell.first
    match fault.meaning:
        case "forbidden" if fault.kind == "post":
            return _post_forbidden(cell)
        case "login" | "limit":
            return _account_refused(cell)
        case "upstream" | "expired":
            return _upstream_refused(cell)
        case "model" if cell.portable and cell.others:
            return _lacks_model(cell)
        case "forbidden" if not cell.hard and cell.others:
            sent = [first, cell.others[0]]
            ending = SERVED if cell.reach == "once" else (fault.status, fault.code)
            return Expected(sent, [ending])
        case _:
            return Expected([first], [(fault.status, fault.code)])


def _lacks_model(cell: Cell) -> Expected:
    """Another account, as long as one is left that may have it."""
    sent = [cell.first, cell.others[0]]
    if cell.reach == "once":
        return Expected(sent, [SERVED])
    if len(cell.others) > 1:  # the client's next try finds out
        return Expected(sent, [UNAVAILABLE], retry_after=1)
    return Expected(sent, [(cell.fault.status, cell.fault.code)])


def _upstream_refused(cell: Cell) -> Expected:
    first = cell.first
    if cell.affinity == "anchored":
        return Expected([first], [NOT_FOUND])
    same = cell.hard or not cell.others or cell.fault.meaning == "expired"
    second = first if same else cell.others[0]
    wait = 0.25 if same and cell.fault.meaning == "upstream" else 0.0
    if cell.reach == "once":
        return Expected([first, second], [SERVED], wait, retry_after=None)
    return Expected([first, second], [UNAVAILABLE], wait, retry_after=1)


def _post_forbidden(cell: Cell) -> Expected:
    first, others = cell.first, cell.others
    if cell.hard:
        if cell.reach == "once":  # completed, so nothing is held against it
            return Expected([first, first], [SERVED], 3.0, retry_after=None)
        left = {first: Blamed("cooling_down", 30)}
        return Expected([first, first], [UNAVAILABLE], 3.0, left, retry_after=1)
    sent = [first, *others[:1]]
    blamed = sent[:1] if cell.reach == "once" else sent
    left = dict.fromkeys(blamed, Blamed("cooling_down", 3))
    if cell.reach == "once" and others:
        return Expected(sent, [SERVED], 0.0, left, retry_after=None)
    return Expected(sent, [UNAVAILABLE], 0.0, left, retry_after=1)


def _account_refused(cell: Cell) -> Expected:
    fault, first = cell.fault, cell.first
    gone = cell.resends_stored and fault.meaning == "login"
    if (cell.resends and cell.others) or gone:  # another serves the turn once it comes in full
        return Expected([first], [NOT_FOUND], accounts=_states(fault, first), retry_after=None)
    if _waits(cell) and cell.affinity != "anchored":
        assert fault.named is not None
        if cell.reach == "once":
            return Expected([first, first], [SERVED], fault.named, retry_after=None)
        endings = [LIMITED, UNAVAILABLE] if cell.others else [LIMITED]
        return Expected([first, first], endings, fault.named, _states(fault, first))
    if not cell.others or not cell.portable:
        return Expected(
            [first], _shortage(cell), accounts=_states(fault, first), retry_after=_told(fault)
        )
    sent = [first, cell.others[0]]
    if cell.reach == "once":
        return Expected(sent, [SERVED], 0.0, _states(fault, first), retry_after=None)
    # A third account is not asked in this turn, but it may serve the client's next try.
    told: list[Ending] = [UNAVAILABLE, *_shortage(cell)]
    if cell.hard and fault.meaning == "login":
        told.append(OWNER_OUT)  # it is bound to the second account by now
    return Expected(sent, told, 0.0, _states(fault, *sent))


def _waits(cell: Cell) -> bool:
    """Whether a keyed turn waits for its owner, which will be back soon."""
    fault = cell.fault
    soon = fault.meaning == "limit" and fault.named is not None and fault.named <= 10
    if cell.affinity == "cache":  # its owner is the account of its last completed turn
        return soon and not cell.owner_out
    if cell.phase == "dial":  # a session that moves is not bound before something was sent
        return soon and cell.hard and not cell.owner_out
    return soon and cell.hard


def _shortage(cell: Cell) -> list[Ending]:
    """What a client is told when nobody can serve (section 4a)."""
    if cell.fault.meaning == "login":
        if cell.accounts == "limited":
            return [EXHAUSTED]  # the one that is limited will be back
        return [OWNER_OUT] if cell.hard else [(503, "no_accounts")]
    named = cell.fault.named
    return [EXHAUSTED] if named is not None and named > 60 else [LIMITED]


def _told(fault: Fault) -> int | None:
    if fault.meaning == "login" or (fault.named or 0) > 60:
        return None
    return 10 if fault.named is None else int(fault.named)


def _states(fault: Fault, *names: str) -> dict[str, Blamed]:
    if fault.meaning == "login":
        return dict.fromkeys(names, Blamed("needs_login"))
    if fault.named is None:
        return dict.fromkeys(names, Blamed("cooling_down", 10))
    return dict.fromkeys(names, Blamed("limited", fault.named))


# Upgrades


def _at_dial(cell: Cell) -> Expected:
    bound = cell.hard and not cell.owner_out
    match cell.fault.meaning:
        case "login" | "limit":
            return _dial_refused_by_account(cell)
        case "forbidden":
            return _dial_forbidden(cell, bound=bound)
        case "upstream" | "network":
            return _dial_failed(cell, bound=bound)
        case "no_websocket" if cell.falls_back:
            return Expected([cell.first], [SERVED], 0.0, retry_after=None)
        case "no_websocket" if bound or not cell.others or cell.reach == "always":
            return Expected([], [UNAVAILABLE])
        case "no_websocket":
            return Expected([cell.others[0]], [SERVED])
        case _:
            return Expected([], [(cell.fault.status, cell.fault.code)])


def _dial_refused_by_account(cell: Cell) -> Expected:
    fault, first = cell.fault, cell.first
    if _waits(cell) and cell.reach == "once":
        return Expected([first], [SERVED], fault.named, retry_after=None)
    if cell.reach == "once" and cell.others and cell.portable:
        return Expected([cell.others[0]], [SERVED], 0.0, _states(fault, first), retry_after=None)
    if cell.resends_stored and fault.meaning == "login":
        return Expected([], [NOT_FOUND], accounts=_states(fault, first), retry_after=None)
    asked = [first, *(cell.others if cell.reach == "always" and cell.portable else ())]
    return Expected([], _shortage(cell), accounts=_states(fault, *asked))


def _dial_forbidden(cell: Cell, *, bound: bool) -> Expected:
    first = cell.first
    if bound and cell.reach == "once":
        return Expected([first], [SERVED], 3.0, retry_after=None)
    if cell.reach == "once" and cell.others:
        left = {first: Blamed("cooling_down", 3)}
        return Expected([cell.others[0]], [SERVED], 0.0, left, retry_after=None)
    left = {first: Blamed("cooling_down", 30 if bound else 3)}
    if cell.portable:
        left |= dict.fromkeys(cell.others, Blamed("cooling_down", 3))
    return Expected([], [UNAVAILABLE], accounts=left, retry_after=1)


def _dial_failed(cell: Cell, *, bound: bool) -> Expected:
    if bound and cell.reach == "once" and not cell.fault.closed_port:
        return Expected([cell.first], [SERVED], cell.fault.lasts + 0.25, retry_after=None)
    if not bound and cell.reach == "once" and cell.others:
        return Expected([cell.others[0]], [SERVED], cell.fault.lasts, retry_after=None)
    return Expected([], [UNAVAILABLE], retry_after=1)
