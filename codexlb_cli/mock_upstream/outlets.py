"""The three ways out of a turn's events: messages, an SSE body, one JSON document.

`turns.Outlet` says what each method does.
"""

# ruff: noqa: D102

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.stream import ResponseStream, rate_limit_headers, rate_limits_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from codexlb_cli.mock_upstream.rules import ErrorSpec, HeaderValue, RateLimits

_BINARY = b"\x00\xff"
SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "transfer-encoding": "chunked",
}


class WriteBuffer:
    """Collects pieces, so that a burst of events costs one write."""

    def __init__(self, writer: wire.Outgoing) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []
        self.buffered_bytes = 0

    def discard(self) -> None:
        """Forget what was put and not flushed."""
        self._take()

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.buffered_bytes += len(piece)

    def _take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.buffered_bytes = 0
        return taken


class Frames(Protocol):
    """Where messages go: into frames on a socket, or into a queue."""

    @property
    def buffered_bytes(self) -> int:
        """How much has been put and not flushed."""

    def put_text(self, payload: bytes) -> None:
        """Take a text message; it may wait for `flush`."""

    def put_binary(self, payload: bytes) -> None:
        """Take a binary message."""

    def discard(self) -> None:
        """Forget what was put and not flushed."""

    async def flush(self) -> None:
        """Send what was put; returns once the client takes it."""


class FrameOutlet:
    """Sends a turn as messages.

    Args:
        frames: where they go.
        close: ends the connection with a code and a reason.

    Attributes:
        closed: once true, nothing is sent any more; a close was the last.
        ignores_pings: whether the silence includes pongs.
    """

    def __init__(self, frames: Frames, close: Callable[[int, str], Awaitable[None]]) -> None:
        self._frames = frames
        self._end = close
        self.closed = False
        self.ignores_pings = False

    @property
    def buffered_bytes(self) -> int:
        return self._frames.buffered_bytes

    def put(self, name: str, payload: bytes) -> None:  # noqa: ARG002 - messages carry no name
        self._frames.put_text(payload)

    def telemetry(
        self, metadata: Mapping[str, HeaderValue], limits: RateLimits | None, stream: ResponseStream
    ) -> None:
        if limits is not None:
            self.put(*rate_limits_event(limits))
        if metadata:
            self.put(*stream.metadata(metadata))

    def put_stray(self, text: str) -> None:
        self._frames.put_text(text.encode())

    def put_binary(self) -> None:
        self._frames.put_binary(_BINARY)

    async def flush(self) -> None:
        if self.closed:
            self._frames.discard()
        else:
            await self._frames.flush()

    async def error(self, error: ErrorSpec, stream: ResponseStream) -> None:
        await self.frame_error(error, stream.request.stream_id)

    async def frame_error(self, error: ErrorSpec, stream_id: str | None) -> None:
        """Send an error frame, also one that no turn is about."""
        frame: dict[str, object] = {"type": "error"}
        if error.status is not None:
            frame["status"] = error.status
        if stream_id is not None:
            frame["stream_id"] = stream_id
        frame["error"] = error.body
        if error.headers:
            frame["headers"] = error.headers
        self._frames.put_text(wire.to_json(frame))
        await self.flush()

    async def close(self, code: int, reason: str) -> None:
        await self.flush()
        await self._end(code, reason)

    async def finish(self, stream: ResponseStream) -> None:  # noqa: ARG002 - frames need no ending
        await self.flush()

    async def silence(self, *, pong: bool) -> None:
        self.ignores_pings = not pong
        await asyncio.Event().wait()


class _HttpOutlet(WriteBuffer):
    """What both kinds of HTTP answer have in common.

    Attributes:
        answered: whether a status went out.
        aborted: whether the TCP connection was cut.
    """

    def __init__(self, writer: wire.Outgoing) -> None:
        super().__init__(writer)
        self._headers: dict[str, str] = {}
        self.answered = False
        self.aborted = False

    def telemetry(
        self, metadata: Mapping[str, HeaderValue], limits: RateLimits | None, stream: ResponseStream
    ) -> None:
        """Metadata and rate limits become headers: over HTTP, clients read them there."""
        del stream
        self._headers |= {name: str(value) for name, value in metadata.items()}
        if limits is not None:
            self._headers |= rate_limit_headers(limits)

    async def close(self, code: int, reason: str) -> None:
        """Cut the connection: HTTP has no close codes."""
        del code, reason
        await self.flush()
        await wire.cut(self._writer)
        self.aborted = True

    async def flush(self) -> None:
        raise NotImplementedError

    async def silence(self, *, pong: bool) -> None:
        del pong
        await asyncio.Event().wait()

    async def _refuse(self, error: ErrorSpec) -> None:
        headers = self._headers | {name: str(value) for name, value in error.headers.items()}
        await self._answer(error.status or 500, {"error": error.body}, headers)

    async def _answer(self, status: int, document: object, headers: Mapping[str, str]) -> None:
        self.answered = True
        self._writer.write(wire.json_response(status, document, headers))
        await self._writer.drain()


class SseOutlet(_HttpOutlet):
    """Sends a turn as server-sent events in a chunked body; nothing comes after its end."""

    _finished = False

    def put(self, name: str, payload: bytes) -> None:
        self._add(wire.sse_event(name, payload))

    def put_stray(self, text: str) -> None:
        lines = "\n".join(f"data: {line}" for line in text.split("\n"))
        self._add(f"{lines}\n\n".encode())

    def put_binary(self) -> None:
        self._add(b"data: " + _BINARY + b"\n\n")

    async def flush(self) -> None:
        await self._write(b"")

    async def error(self, error: ErrorSpec, stream: ResponseStream) -> None:
        if not self.answered and not self.buffered_bytes:
            await self._refuse(error)
            return
        self.put(*stream.error(error.body))
        await self.finish(stream)

    async def finish(self, stream: ResponseStream) -> None:
        del stream
        await self._write(wire.LAST_CHUNK)

    async def _write(self, ending: bytes) -> None:
        data = self._take()
        data = (wire.chunk(data) if data else b"") + ending
        if not data or self._finished:
            return
        self._finished = bool(ending)
        if not self.answered:
            self.answered = True
            data = wire.response_head(200, (SSE_HEADERS | self._headers).items()) + data
        self._writer.write(data)
        await self._writer.drain()


class JsonOutlet(_HttpOutlet):
    """Answers with the response as one document, once it is over; events are not sent."""

    def put(self, name: str, payload: bytes) -> None:
        pass

    def put_stray(self, text: str) -> None:
        pass

    def put_binary(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def error(self, error: ErrorSpec, stream: ResponseStream) -> None:
        del stream
        if not self.answered:
            await self._refuse(error)

    async def finish(self, stream: ResponseStream) -> None:
        await self._answer(200, stream.final, self._headers)
