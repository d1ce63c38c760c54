"""Holds what was seen of a cell against the promises, and against what the rules say of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from codexlb_cli.mock_upstream.recording import Turn
from tests.faults.cells import Cell
from tests.faults.expected import CUT_SHORT, NAMELESS, SERVED, Expected, expected
from tests.faults.playing import Played
from tests.support.client import TERMINAL, Answer

TOTAL_SECONDS = 240
"""`[timeouts] before_first_event_total`"""
IDLE_SECONDS = 900
"""`[timeouts] idle`"""
TYPES = frozenset(
    {
        "invalid_request_error", "permission_error", "rate_limit_error", "usage_limit_reached",
        "server_error",
    }
)  # fmt: skip
"""What the `type` of an error may be."""
BESIDE_A_RESPONSE = frozenset({"response.metadata", "codex.rate_limits", "error"})
"""What a WebSocket client gets that is no event of a response, so that it has no number."""
ROUNDING_SECONDS = 1.5
"""`accounts list` rounds up to a second, and an account may be blamed before the last wait."""


def faults_of(cell: Cell, played: Played) -> list[str]:
    """Return what is wrong; empty if nothing is."""
    should = expected(cell)
    return [
        *_promises(cell, played),
        *(f"answer: {fault}" for fault in _wire(cell, played.answer)),
        *_outcome(cell, played, should),
        *_accounts(cell, played, should),
        *_next(cell, played),
        *_pairing(cell, played),
    ]


def _promises(cell: Cell, played: Played) -> Iterator[str]:
    creates = played.creates
    if len(creates) > 2:
        yield f"{len(creates)} creates"
    if any(turn.response_id for turn in creates[:-1]):
        yield "sent again after a response event"
    if played.overlaps:
        yield f"{played.overlaps} turns on a busy socket"
    limit = TOTAL_SECONDS + (IDLE_SECONDS if cell.phase in {"created", "streaming"} else 0)
    if played.seconds > limit:
        yield f"it took {played.seconds:g} s"
    strayed = {*played.sent} - {cell.first}
    may_move = cell.portable and (cell.fault.of_account or cell.owner_out)
    spoken = "http" if cell.transport == "http" or cell.falls_back else "websocket"
    if {turn.transport for turn in creates} - {spoken}:
        yield f"not all was sent over {spoken}"
    if cell.hard and strayed and not may_move:
        yield f"a hard turn was sent to {sorted(strayed)}"
    if any(turn.outcome is None for turn in creates):
        yield "a turn of the upstream still runs"
    if played.warnings:
        yield f"warnings: {played.warnings}"
    yield from _told(cell, played)


def _told(cell: Cell, played: Played) -> Iterator[str]:
    """What the client may and must be told, however it ends."""
    answer, creates = played.answer, played.creates
    attempts = answer.header("x-codexlb-attempts")
    serving = answer.header("x-codexlb-account")
    if cell.client == "socket" and len(creates) == 1 and ending(answer) == SERVED:
        if (attempts, serving) != (None, None):  # events tell of a replay alone
            yield f"the client was told of {attempts} attempt by {serving}"
    elif (attempts is not None or creates) and attempts != str(len(creates)):
        yield f"x-codexlb-attempts is {attempts} after {len(creates)} creates"
    elif creates and serving != creates[-1].account:
        yield f"x-codexlb-account is {serving}, not {creates[-1].account}"
    own = answer.status in {401, 403, 429} or answer.status >= 500
    anothers = cell.phase in {"dial", "sent"} and (
        cell.fault.of_account or cell.fault.meaning == "upstream"
    )
    if own and cell.others and anothers and b"Scripted" in answer.body:
        yield f"the upstream's own {answer.status} reached the client"
    if answer.status == 401:
        yield "a 401 reached the client"


def _wire(cell: Cell, answer: Answer) -> Iterator[str]:
    """What an answer must be, whatever it says."""
    if not answer.complete:
        yield "it is cut off"
        return
    retry_after = answer.header("retry-after")
    if retry_after is not None and not (retry_after.isdigit() and 1 <= int(retry_after) <= 60):
        yield f"Retry-After is {retry_after}"
    if answer.status != 200:
        if answer.error["type"] not in TYPES:
            yield f"its error has no type: {answer.error}"
    elif (answer.header("content-type") or "").startswith("text/event-stream"):
        yield from _stream(cell, [event.data for event in answer.events])
        yield from _last(cell, answer.events[-1].data)
    elif answer.json["status"] != "completed":
        yield f"the response is {answer.json['status']}"


def _stream(cell: Cell, events: list[dict[str, Any]]) -> Iterator[str]:
    kinds = [event["type"] for event in events]
    if [kind for kind in kinds if kind in TERMINAL] != kinds[-1:]:
        yield f"terminal events: {kinds}"
    # Codex takes its keep-alives as events, which have no number.
    others = BESIDE_A_RESPONSE if cell.client == "socket" else {"keepalive"}
    numbers = [event["sequence_number"] for event in events if event["type"] not in others]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        yield f"sequence numbers: {numbers}"
    ids = {event["response"]["id"] for event in events if "response" in event}
    if len(ids) > 1:
        yield f"response ids: {sorted(ids)}"


def _last(cell: Cell, event: dict[str, Any]) -> Iterator[str]:
    """What the last event must look like: Codex reads no `error`, all others raise on it alone."""
    if event["type"] == "error" and cell.client == "socket":
        if event["error"]["type"] not in TYPES:
            yield f"its last event is {event}"
    elif event["type"] == "error":
        members = ("code", "message", "param")
        flat, nested = ([e.get(name) for name in members] for e in (event, event["error"]))
        if cell.client == "codex" or flat != nested or event["error"]["type"] not in TYPES:
            yield f"its last event is {event}"
    elif event["type"] == "response.failed":
        response = event["response"]
        if cell.client != "codex" or response["status"] != "failed":
            yield f"its last event is {event}"


def ending(answer: Answer) -> tuple[int, object]:
    """Return status and code of an answer, wherever the code stands."""
    if answer.status != 200:
        return answer.status, answer.error["code"]
    if not (answer.header("content-type") or "").startswith("text/event-stream"):
        return 200, None
    last = answer.events[-1].data
    if last["type"] == "response.failed":
        return 200, last["response"]["error"]["code"]
    if last["type"] == "error" and "status" in last:  # an error frame
        return last["status"], last["error"]["code"]
    return 200, (last["code"] or NAMELESS) if last["type"] == "error" else None


def _outcome(cell: Cell, played: Played, should: Expected) -> Iterator[str]:
    if played.sent != list(should.sent):
        yield f"sent to {played.sent}, not {list(should.sent)}"
    got = ending(played.answer)
    endings = list(should.endings)
    if cell.stream:  # the head is out: the code comes as an event
        endings = [(200, e[1]) if e == CUT_SHORT else e for e in endings]
    if got not in endings:
        yield f"ended with {got}, not {endings}"
    if should.wait is not None and played.waits:
        last = played.waits[-1]
        if abs(last - should.wait) > 0.01:
            yield f"the last create came after {last:g} s, not {should.wait:g} s"
    told = played.answer.header("retry-after")
    wanted = None if should.retry_after is None else str(should.retry_after)
    if should.retry_after != -1 and told != wanted:
        yield f"Retry-After is {told}, not {wanted}"


def _accounts(cell: Cell, played: Played, should: Expected) -> Iterator[str]:
    before = {"work": cell.accounts} if cell.owner_out else {}
    for name, seen in played.accounts.items():
        blamed = should.accounts.get(name)
        state = before.get(name) or (blamed.state if blamed else "ready")
        if seen.state != state:
            yield f"{name} is {seen.state} ({seen.reason}), not {state}"
        elif blamed is not None and blamed.seconds is not None:
            passed = 0.0 if seen.seconds is None else abs(seen.seconds - blamed.seconds)
            if seen.seconds is None or passed > ROUNDING_SECONDS:
                yield f"{name} is {state} for {seen.seconds} s, not {blamed.seconds:g} s"


def _next(cell: Cell, played: Played) -> Iterator[str]:
    answer = played.next
    yield from (f"next turn: {fault}" for fault in _wire(cell, answer))
    if ending(answer) != SERVED:
        yield f"the next turn ended with {ending(answer)}"
    if len(played.next_creates) != 1:
        yield f"the next turn took {len(played.next_creates)} creates"
    served = [turn.account for turn in played.next_creates]
    if cell.falls_back and served == [cell.first] and played.next_creates[0].transport != "http":
        yield "it was forgotten that the account has no WebSocket"
    if cell.fault.meaning == "model" and not cell.hard:
        # It is remembered who lacks the model; the key's turns stay where they found a home.
        if cell.affinity == "cache" and played.answer.status == 200 and served != played.sent[-1:]:
            yield f"the next turn went to {served}, away from {played.sent[-1]}"
        return
    if cell.resends and cell.owner_out and "work" in served:
        yield "the next turn went to the account that is out"
    # In full, a chain's turn is bound to nothing but the client's socket.
    bound = cell.strength != "none" and (cell.affinity != "anchored" or cell.resends)
    keeps = bound and not cell.owner_out
    if keeps and not cell.fault.of_account and served and served[0] != "work":
        yield f"the next turn left its account for {served[0]}"


def _pairing(cell: Cell, played: Played) -> Iterator[str]:
    """Whether a client's socket keeps the upstream's socket that is its own."""
    if played.again is None:
        return
    yield from (f"the turn after it: {fault}" for fault in _wire(cell, played.again))
    if ending(played.again) != SERVED:
        yield f"the turn after it ended with {ending(played.again)}"
    turns = [*played.before[-1:], *played.creates, *played.next_creates, *played.again_creates]
    if len(played.again_creates) != 1:
        yield f"the turn after it took {len(played.again_creates)} creates"
        return
    own = {turn.socket for turn in turns}
    if any(turn.socket in own for turn in played.foreign_creates):
        yield "another client's turn ran on its socket"
    for earlier, later in pairwise(turns):
        kept = earlier.account == later.account and earlier.model == later.model
        if kept and earlier.socket != later.socket and not _is_lost(cell, earlier, played):
            yield f"turn {later.number} left the socket of turn {earlier.number}"


def _is_lost(cell: Cell, turn: Turn, played: Played) -> bool:
    """Whether the upstream's socket has ended with this turn."""
    if turn.transport == "http":
        return True  # a connection of its own
    if turn in played.before and cell.phase == "idle":
        return True
    if turn not in played.creates:
        return False
    if turn == played.creates[-1] and ending(played.answer) == SERVED:
        return False
    spared = cell.phase == "sent" and cell.fault.meaning in {"request", "not_found"}
    return not spared
