"""Background responses: made whether anybody waits or not, and followed from any event on."""

# ruff: noqa: D102

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.memory import StoredResponse, with_ids
from codexlb_cli.mock_upstream.turns import TurnPerformance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.rules import ErrorSpec, HeaderValue, RateLimits, TurnRule
    from codexlb_cli.mock_upstream.stream import ResponseStream

_OVER = frozenset({"completed", "failed", "incomplete", "cancelled"})


class BackgroundResponse:
    """One background response: an outlet that keeps its events, and lets them be followed.

    Args:
        stream: its events.
        sleep: waits for so many seconds.

    Attributes:
        stored: what is stored of it; its document changes as it goes on.
    """

    buffered_bytes = 0

    def __init__(self, stream: ResponseStream, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._stream = stream
        self._sleep = sleep
        self._events: list[tuple[int, bytes]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        document = stream.queued_document()
        items = with_ids(stream.request.items, stream.response_id)
        self.stored = StoredResponse(document, items, self)

    def start(self, turn: Turn, rule: TurnRule, ended: Callable[[str], None]) -> None:
        """Begin to work; `ended` is told the outcome."""
        performance = TurnPerformance(
            turn=turn, rule=rule, stream=self._stream, outlet=self, sleep=self._sleep, ended=ended
        )
        turn.response_id = self._stream.response_id
        for event in self._stream.queued():
            self.put(*event)
        self._task = asyncio.create_task(self._work(performance, ended))

    async def _work(self, performance: TurnPerformance, ended: Callable[[str], None]) -> None:
        try:
            await performance.perform()
        except asyncio.CancelledError:
            ended("cancelled")
            raise
        finally:
            if not self.over:
                self.stored.document["status"] = "failed"
            self._wake()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.stored.document["status"] in _OVER

    def cancel(self) -> None:
        """End it early; what is over stays as it is."""
        if not self.over:
            self.stored.document["status"] = "cancelled"
            self.end()

    def end(self) -> None:
        """Stop working."""
        if self._task is not None:
            self._task.cancel()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Give its events as SSE, those after this sequence number, until it is over."""
        at = 0
        while True:
            changed = self._changed
            fresh, at = self._events[at:], len(self._events)
            data = b"".join(event for number, event in fresh if number > after)
            if data:
                yield data
            if self.over and at == len(self._events):
                return
            if at == len(self._events):
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # As an outlet of its turn

    def put(self, name: str, payload: bytes) -> None:
        event: dict[str, Any] = json.loads(payload)
        self._events.append((event["sequence_number"], wire.sse_event(name, payload)))
        response = event.get("response")
        if isinstance(response, dict):
            self.stored.document.update(response)
        self._wake()

    def telemetry(
        self, metadata: Mapping[str, HeaderValue], limits: RateLimits | None, stream: ResponseStream
    ) -> None:
        pass

    def put_stray(self, text: str) -> None:
        pass

    def put_binary(self) -> None:
        pass

    async def flush(self) -> None:
        await asyncio.sleep(0)

    async def error(self, error: ErrorSpec, stream: ResponseStream) -> None:
        self.stored.document.update(status="failed", error=error.body)
        self.put(*stream.error(error.body))

    async def close(self, code: int, reason: str) -> None:
        del code, reason
        self.stored.document["status"] = "failed"

    async def finish(self, stream: ResponseStream) -> None:
        del stream
        self._wake()

    async def silence(self, *, pong: bool) -> None:
        del pong
        await asyncio.Event().wait()
