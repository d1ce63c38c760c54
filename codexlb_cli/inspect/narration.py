"""Tells a decision of `core.turn` in words: what happened, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from codexlb_cli.console import duration
from codexlb_cli.core.accounts import NO_WEBSOCKET_SECONDS, Effect, Evidence
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.turn_events import (
    Action,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    DialFailed,
    Event,
    Opened,
    OutOfTime,
    Queue,
    QueueFull,
    Refresh,
    Refreshed,
    RefreshFailed,
    RefreshOutcome,
    Refused,
    Responded,
    RoomFree,
    Send,
    Silent,
)
from codexlb_cli.inspect.scenario import Result

Line = tuple[str | None, str, str]
"""The account that is concerned, what happened, and why."""
Way = Literal["open socket", "dialled", "http"]
"""How an account was reached: on an idle socket, on a new one, or over HTTP."""


def narrate(
    account: str | None, event: Event, actions: Sequence[Action], *, way: Way
) -> Iterator[Line]:
    """Yield the lines of one decision.

    Args:
        account: the account that the turn has dialled last; None before the first dial.
        event: what happened.
        actions: what follows, in order.
        way: how the account was reached since the last decision, if it was.
    """
    happened = _event(event)
    if isinstance(event, Opened):
        happened = ("uses an open socket" if way == "open socket" else "connected", "")
    create = "POST over HTTP" if way == "http" else "response.create"
    if happened is not None:
        yield account, *happened
    for action in actions:
        match action:
            case Blame(name, evidence):
                yield name, _blamed(evidence), evidence.reason
            case Queue(names):
                yield None, f"waits in line for {' or '.join(names)}", "full"
            case Dial(name, after) if after > 0:
                yield name, f"waits {after:g} s", ""
            case Refresh(name):
                yield name, "has its token refreshed", ""
            case Send(attempt) if attempt > 1:
                yield account, f"{create}, attempt {attempt}", ""
            case Send():
                yield account, create, ""


def answered(result: Result, told: str) -> tuple[str, str]:
    """Return what the client got, and what the request log says beyond the outcome."""
    status = "-" if result.status is None else str(result.status)
    attempts = f", {result.attempts} attempts" if result.attempts > 1 else ""
    _, _, steps = told.partition(": ")
    return f"answer {status} {result.outcome}{attempts}", steps


def _event(event: Event) -> tuple[str, str] | None:
    match event:
        case DialFailed(failure):
            return f"dial failed: {_named(failure)}", failure.row.reason
        case Refused(failure):
            return f"error {_named(failure)}", failure.row.reason
        case Closed(row, label, sent):
            when = "" if sent else " before the frame was sent"
            return f"closed: {label}{when}", row.reason
        case Silent(row):
            return "no event came in time", row.reason
        case OutOfTime():
            return "the time for the first event is used up", ""
        case QueueFull(waiting):
            return f"{waiting} turns wait already", "queue_full"
        case RoomFree():
            return "an account takes another turn", ""
        case BoundElsewhere(owner):
            return f"a parallel turn bound the key to {owner}", "owner"
        case Refreshed() | RefreshFailed():
            return _refreshed(event)
        case Responded():
            return "the response begins", ""
    return None


def _refreshed(outcome: RefreshOutcome) -> tuple[str, str]:
    if isinstance(outcome, Refreshed):
        return "its token was refreshed", ""
    if outcome.refusal is None:
        return "its token could not be refreshed now", "refresh_failed"
    return "its login has ended", outcome.refusal


def _named(failure: Failure) -> str:
    parts = [str(part) for part in (failure.status, failure.code) if part is not None]
    return " ".join(parts) or "not reached"


def _blamed(evidence: Evidence) -> str:
    match evidence.effect:
        case Effect.COUNTED:
            return "the close is counted"
        case Effect.COOLED:
            return f"cools down, {duration(evidence.seconds)} the first time"
        case Effect.LIMITED:
            return "is limited"
        case Effect.LOGIN:
            return "needs a login"
        case Effect.REFUSED:
            return "cools down, 3 s the first time"
        case Effect.NO_WEBSOCKET:
            return f"is spoken to over HTTP for {duration(NO_WEBSOCKET_SECONDS)}"
        case _:
            return "is noted"
