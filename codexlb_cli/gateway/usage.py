"""Remembers what turns used: behind the store's thread, so that no turn waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from codexlb_cli.config.schema import UsageTable
from codexlb_cli.core.usage import CLIENT_LEFT, TurnRecord, named, response_of, tokens_in
from codexlb_cli.gateway.services import TurnRequest
from codexlb_cli.gateway.turns import TurnRunner
from codexlb_cli.store.running import Store
from codexlb_cli.store.usage import forget_every_turn, forget_turns, write_turn

TURNS_BETWEEN_PRUNINGS = 500
_DAY = 86_400.0


class UsageLog:
    """Takes a record per turn.

    Args:
        store: where they are kept.
        table: the `[usage]` table that is in force.
        now: seconds since the epoch.
    """

    def __init__(
        self, store: Store, table: Callable[[], UsageTable], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._table = table
        self._now = now
        self._turns = 0
        self._prune()

    def write(self, record: TurnRecord) -> None:
        """Remember one turn, unless nothing is to be recorded."""
        if self._table().keep_days:
            self._store.submit(write_turn(record))
        self._turns += 1
        if self._turns % TURNS_BETWEEN_PRUNINGS == 0:
            self._prune()

    def _prune(self) -> None:
        table = self._table()
        if table.keep_days:
            oldest = self._now() - table.keep_days * _DAY
            self._store.submit(forget_turns(oldest, table.keep_turns))
        else:
            self._store.submit(forget_every_turn)


def turn_record(
    request: TurnRequest, runner: TurnRunner, status: int | None, started_at: float, now: float
) -> TurnRecord:
    """Return what is remembered of a turn that is over.

    Args:
        request: the client's.
        runner: the turn.
        status: what the client was told; None if it left before.
        started_at: loop time at which the request came.
        now: seconds since the epoch.
    """
    turn, first_at = runner.turn, runner.first_event_at
    last = runner.relay.last if runner.relay is not None else None
    response = response_of(last.event if last is not None else {})
    return TurnRecord(
        ended_at=now,
        account=turn.account if turn is not None else None,
        model=named(request.model) or named(response.get("model")),
        lane=request.evidence.lane,
        status=status,
        outcome=runner.recorded_outcome or CLIENT_LEFT,
        attempts=turn.attempts if turn is not None else 0,
        tokens=tokens_in(response),
        first_event_ms=None if first_at is None else _milliseconds(first_at - started_at),
        total_ms=_milliseconds(asyncio.get_running_loop().time() - started_at),
        service_tier=named(response.get("service_tier")),
    )


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
