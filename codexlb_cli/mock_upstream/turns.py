"""Performs a turn: paces its events, and brings about the fault that its rule asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from codexlb_cli.mock_upstream.stream import DELTAS, ResponseStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.rules import ErrorSpec, HeaderValue, Point, RateLimits, TurnRule
    from codexlb_cli.mock_upstream.stream import Event

FLUSH_BYTES = 64 * 1024


class Outlet(Protocol):
    """Where the events of a turn go: a WebSocket, an SSE body, or one JSON document."""

    @property
    def buffered_bytes(self) -> int:
        """How much has been put and not flushed."""

    def put(self, name: str, payload: bytes) -> None:
        """Take an event; it may wait for `flush`."""

    def telemetry(
        self, metadata: Mapping[str, HeaderValue], limits: RateLimits | None, stream: ResponseStream
    ) -> None:
        """Pass on turn metadata and rate limits, in the way of this transport."""

    def put_stray(self, text: str) -> None:
        """Take a frame that is sent as it is."""

    def put_binary(self) -> None:
        """Take a binary frame."""

    async def flush(self) -> None:
        """Send what was put; returns once the client takes it."""

    async def error(self, error: ErrorSpec, stream: ResponseStream) -> None:
        """Send an error: a frame, an event, or an HTTP answer if nothing was sent yet."""

    async def close(self, code: int, reason: str) -> None:
        """Send what was put, then end the connection with a close code."""

    async def finish(self, stream: ResponseStream) -> None:
        """Send what was put; the response is over."""

    async def silence(self, *, pong: bool) -> None:
        """Send nothing ever after, perhaps not even pongs; never returns."""


class TurnPerformance:
    """One turn, from its first event to its outcome.

    Args:
        turn: its record.
        rule: the pace, the shape and the fault.
        stream: its events.
        outlet: where they go.
        sleep: waits for so many seconds.
        ended: called as soon as the outcome is known, before an `idle` fault.
    """

    def __init__(
        self,
        *,
        turn: Turn,
        rule: TurnRule,
        stream: ResponseStream,
        outlet: Outlet,
        sleep: Callable[[float], Awaitable[None]],
        ended: Callable[[str], None],
    ) -> None:
        self.turn = turn
        self.stream = stream
        self._rule = rule
        self._outlet = outlet
        self._sleep = sleep
        self._ended = ended
        self._cut_short: str | None = None

    def cut_short(self, reason: str) -> None:
        """End the response early, as incomplete for this reason; the first counts."""
        self._cut_short = self._cut_short or reason

    async def perform(self) -> None:
        """Play the turn to its end."""
        rule, outlet, stream = self._rule, self._outlet, self.stream
        if rule.delay:
            await self._sleep(rule.delay)
        if rule.metadata or rule.rate_limits is not None:
            outlet.telemetry(rule.metadata, rule.rate_limits, stream)
        if await self._reach("before_created"):
            return
        self.turn.response_id = stream.response_id
        for event in stream.opening():
            outlet.put(*event)
        if await self._reach("created") or await self._items():
            return
        if self._cut_short is not None:
            outlet.put(*stream.incomplete(self._cut_short))
            await self._end("response.incomplete")
        else:
            outlet.put(*stream.completed(rule.completed_bytes))
            await self._end("response.completed")
        await self._reach("idle")
        await outlet.flush()

    async def _items(self) -> bool:
        """Play the output items; return whether a fault has ended the turn."""
        rule, outlet = self._rule, self._outlet
        due = (rule.after or 1) if rule.point == "streaming" else 0
        deltas = 0
        for name, payload in self.stream.items():
            is_delta = name in DELTAS
            if is_delta and rule.delta_delay:
                await outlet.flush()
                await self._sleep(rule.delta_delay)
            if self._cut_short is not None:
                return False
            outlet.put(name, payload)
            if is_delta:
                deltas += 1
                if deltas == due and await self._reach("streaming"):
                    return True
            if outlet.buffered_bytes >= FLUSH_BYTES:
                await outlet.flush()
                # Other connections, and an interrupt of this one, get their turn.
                await asyncio.sleep(0)
        return deltas < due and await self._reach("streaming")

    async def _reach(self, point: Point) -> bool:
        """Bring about the fault if this is its place; return whether it has ended the turn."""
        rule, outlet = self._rule, self._outlet
        if rule.point != point:
            return False
        if rule.fault_delay:
            await outlet.flush()
            await self._sleep(rule.fault_delay)
        for text in rule.send:
            outlet.put_stray(text)
        if rule.binary:
            outlet.put_binary()
        if rule.silence:
            await outlet.flush()
            self._ended("silence")
            await outlet.silence(pong=rule.pong)
        elif rule.error is not None:
            self._ended(rule.error.label)
            await outlet.error(rule.error, self.stream)
        elif rule.failed is not None:
            await self._end_with(self.stream.failed(rule.failed))
        elif rule.incomplete is not None:
            await self._end_with(self.stream.incomplete(rule.incomplete))
        if rule.close is not None:
            self._ended(f"close {rule.close}")
            await outlet.close(rule.close, rule.reason)
        return rule.ends_turn

    async def _end_with(self, event: Event) -> None:
        self.turn.response_id = self.stream.response_id
        self._outlet.put(*event)
        await self._end(event[0])

    async def _end(self, outcome: str) -> None:
        # Recorded first, so that whoever has read the last event finds the outcome in the record.
        self._ended(outcome)
        await self._outlet.finish(self.stream)
