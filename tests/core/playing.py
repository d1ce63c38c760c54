"""Plays a turn against a script of events and shows what it did, for tests of `core.turn`.

The player does what the gateway does: it waits before a dial, and what an account is blamed for
is part of the pool from the next event on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from codexlb_cli.core.accounts import FRESH, apply
from codexlb_cli.core.closes import LIVENESS_TIMEOUT, NO_CLOSE_FRAME, close_row
from codexlb_cli.core.failures import DIAL_FAILURE, Failure, parse
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import (
    Action,
    Answer,
    Begin,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    DialFailed,
    Event,
    Finished,
    Opened,
    OutOfTime,
    PassOn,
    Queue,
    Refresh,
    Refreshed,
    RefreshFailed,
    Refused,
    Responded,
    Send,
    Silent,
)
from tests.core.pools import NOW

BEGIN, OPENED, RESPONDED, FINISHED = Begin(), Opened(), Responded(), Finished()
OUT_OF_TIME = OutOfTime()
REFRESHED, NOT_REFRESHED = Refreshed(), RefreshFailed()
LOGIN_ENDED = RefreshFailed("refresh_token_reused")
SILENT = Silent(close_row(NO_CLOSE_FRAME))
UNREACHABLE = DialFailed(DIAL_FAILURE)
NO_PONG = Closed(LIVENESS_TIMEOUT, "no pong")


def closed(code: int) -> Closed:
    """The socket closed with `code`."""
    return Closed(close_row(code), str(code))


def failure(status: int | None, code: str | None, wait: float | None, *, dial: bool) -> Failure:
    """An upstream's refusal; `wait` is the time that it names, from when it is played."""
    headers: Mapping[str, object] = {} if wait is None else {"retry-after": str(wait)}
    body = {"error": {"code": code}} if code else {"error": {"message": "no"}}
    return parse(status, body, headers, NOW, handshake=dial)


def dial_refused(status: int, code: str | None = None, wait: float | None = None) -> DialFailed:
    """The upgrade was refused."""
    return DialFailed(failure(status, code, wait, dial=True))


def refused(status: int | None, code: str | None = None, wait: float | None = None) -> Refused:
    """An error frame came."""
    return Refused(failure(status, code, wait, dial=False))


def answered(status: int, code: str | None = None) -> Refused:
    """The POST was refused."""
    body = {"error": {"code": code}}
    return Refused(parse(status, body, {}, NOW, handshake=False, answer=True))


def told(action: Action) -> str:
    """Show one action as a line."""
    match action:
        case Queue(accounts):
            return f"queue for {' or '.join(accounts)}"
        case Dial(account, 0):
            return f"dial {account}"
        case Dial(account, after):
            return f"dial {account} after {round(after, 3):g}"
        case Refresh(account):
            return f"refresh {account}"
        case Send(attempt):
            return f"send {attempt}"
        case Blame(account, evidence):
            return f"blame {account} {evidence.effect} {evidence.reason}"
        case Answer(error):
            retry = "" if error.retry_after is None else f" retry {error.retry_after}"
            return f"answer {error.status} {error.code}{retry}"
        case PassOn(passed):
            return f"pass on {passed.status} {passed.code}"


@dataclass(slots=True)
class Player:
    """Feeds a turn and keeps the pool and the clock as the gateway would."""

    turn: Turn
    pool: Pool

    def receive(self, event: Event, *, draw: float = 1.0) -> list[Action]:
        """Feed one event; blame and waiting take effect after it."""
        if isinstance(event, DialFailed | Refused) and event.failure.retry_at is not None:
            at = event.failure.retry_at + self.pool.now - NOW
            event = replace(event, failure=replace(event.failure, retry_at=at))
        actions = self.turn.receive(event, self.pool, draw=draw)
        states = dict(self.pool.states)
        waited = 0.0
        for action in actions:
            match action:
                case Blame(account, evidence):
                    state = states.get(account, FRESH)
                    states[account] = apply(state, evidence, self.pool.now)
                case Dial(_, after):
                    waited = after
        self.pool = replace(self.pool, states=states, now=self.pool.now + waited)
        return actions


def play(turn: Turn, pool: Pool, *script: Event | str, draw: float = 1.0) -> Turn:
    """Feed the events of `script` and compare each line of actions that follows one.

    Actions stand in one string, separated by `, `; `-` stands for none.
    """
    player = Player(turn, pool)
    found: list[Event | str] = []
    for step in script:
        if not isinstance(step, str):
            actions = player.receive(step, draw=draw)
            found += [step, ", ".join(map(told, actions)) or "-"]
    assert found == list(script)
    return turn


__all__ = ["BoundElsewhere", "Player", "play"]
