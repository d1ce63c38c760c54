"""How a turn is written to an HTTP client: as server-sent events, or as one JSON answer.

The head is held back until the upstream's first response event, so that whatever goes wrong
before it is a plain HTTP status. After it, every stream ends in exactly one terminal event.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import (
    CODEX_KEEPALIVE,
    SSE_COMMENT,
    ended_with_error,
    error_object,
    our_error,
    passed_on,
    terminal_event,
    whole_response,
)
from codexlb_cli.core.failures import Failure, error_within, is_final
from codexlb_cli.core.frames import ITEM_DONE_EVENT
from codexlb_cli.core.headers import Header
from codexlb_cli.gateway.keepalive import KeepAlive

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Sink(Protocol):
    """Where a turn's events go."""

    status: int | None

    async def begin(self, headers: list[Header]) -> None:
        """Take the head: the upstream works on the turn."""

    async def event(self, kind: str, text: str) -> None:
        """Take an event that is not the last."""

    async def telemetry(self, kind: str, event: Mapping[str, Any], text: str) -> None:
        """Take what the upstream says beside the response: limits, the model, unknown types."""

    async def finish(self, kind: str, text: str) -> None:
        """Take the terminal event."""

    async def fail(self, error: ClientError, headers: list[Header]) -> None:
        """End with an error of ours."""

    async def pass_on(self, failure: Failure, headers: list[Header]) -> None:
        """End with the upstream's own error."""


class HttpSink(Sink, Protocol):
    """Where a turn's events go over HTTP."""

    def close(self) -> None:
        """Stop whatever runs beside: the client is gone, or the answer has ended."""


async def send_json(send: Send, status: int, headers: list[Header], body: object) -> None:
    """Write a complete JSON answer."""
    text = body if isinstance(body, str) else json.dumps(body)
    content = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": encoded(
                [
                    ("content-type", "application/json"),
                    ("content-length", str(len(content))),
                    *headers,
                ]
            ),
        }
    )
    await send({"type": "http.response.body", "body": content})


def client_left(exc: Exception) -> bool:
    """Whether a write failed because the client is gone: uvloop says so with a RuntimeError."""
    return isinstance(exc, RuntimeError) and "handler is closed" in str(exc)


def encoded(headers: list[Header]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def event_bytes(kind: str, text: str) -> bytes:
    """Return one server-sent event; `text` is JSON, so a line break in it is mere white space."""
    if "\n" in text or "\r" in text:
        text = text.replace("\r", " ").replace("\n", " ")
    if not kind.isprintable():
        return f"data: {text}\n\n".encode()  # the type stands in the data as well
    return f"event: {kind}\ndata: {text}\n\n".encode()


class _BeforeHead:
    """What both sinks write before the head: a plain status.

    Attributes:
        status: what the client was told; None until then.
    """

    def __init__(self, send: Send) -> None:
        self.status: int | None = None
        self._send = send

    async def telemetry(self, kind: str, event: Mapping[str, Any], text: str) -> None:
        """Over HTTP these events are headers, or nothing."""

    async def fail(self, error: ClientError, headers: list[Header]) -> None:
        """Write an error of ours."""
        self.status = error.status
        await send_json(self._send, error.status, [*error.headers(), *headers], error.envelope())

    async def pass_on(self, failure: Failure, headers: list[Header]) -> None:
        """Write the upstream's own error, with its status."""
        status, own, body = passed_on(failure)
        self.status = status
        await send_json(self._send, status, [*own, *headers], body)


class StreamSink(_BeforeHead):
    """Writes a turn as server-sent events: the head, the keep-alives and the end.

    Args:
        send: ASGI's send.
        keepalive: what is written after a silence.
        keepalive_seconds: how long a silence may be.
    """

    def __init__(self, send: Send, keepalive: bytes, keepalive_seconds: float) -> None:
        super().__init__(send)
        self._line = keepalive
        self._keepalive = KeepAlive(keepalive_seconds, self._sign_of_life)

    async def begin(self, headers: list[Header]) -> None:
        """Write the head."""
        self.status = 200
        head = [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
        ]
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": encoded([*head, *headers])}
        )
        self._keepalive.start()

    async def fail(self, error: ClientError, headers: list[Header]) -> None:
        """Write an error of ours: a status before the head, the end of the stream after it."""
        if self.status is not None:
            await self.last(self.ending(our_error(error), final=False))
        else:
            await super().fail(error, headers)

    def ending(self, error: Mapping[str, object], *, final: bool) -> bytes:
        """Return what ends a broken stream.

        Args:
            error: `message`, `type`, `code` and `param`.
            final: whether it is the upstream's word about the request itself.
        """
        raise NotImplementedError

    async def more(self, content: bytes) -> None:
        """Write a part of the body that is not the last."""
        self._keepalive.wrote()
        await self._write(content, more=True)

    async def last(self, content: bytes) -> None:
        """Write the last part of the body."""
        self.close()
        await self._write(content, more=False)

    def close(self) -> None:
        """Stop the keep-alives; the client is gone or the stream has ended."""
        self._keepalive.stop()

    async def _write(self, content: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def _sign_of_life(self) -> None:
        await self._write(self._line, more=True)


class SseSink(StreamSink):
    """Writes a turn as the events of the Responses API.

    Args:
        send: ASGI's send.
        codex: whether the client is Codex: it takes other keep-alives and another last event.
        keepalive_seconds: after how much silence a keep-alive is written.
    """

    def __init__(self, send: Send, *, codex: bool, keepalive_seconds: float) -> None:
        super().__init__(send, CODEX_KEEPALIVE if codex else SSE_COMMENT, keepalive_seconds)
        self._codex = codex
        self._numbered = ""
        self._response_id: object = None

    async def event(self, kind: str, text: str) -> None:
        """Write an event."""
        if not self._numbered:
            self._response_id = _response_id(text)
        if '"sequence_number"' in text or not self._numbered:
            self._numbered = text
        await self.more(event_bytes(kind, text))

    async def finish(self, kind: str, text: str) -> None:
        """Write the terminal event; an upstream's error in the form that clients raise on."""
        if kind == "error":
            frame = json_object(text)
            error = error_object(error_within(frame), None)
            await self.last(self.ending(error, final=is_final(frame)))
        else:
            await self.last(event_bytes(kind, text))

    def ending(self, error: Mapping[str, object], *, final: bool) -> bytes:
        """Return the one terminal event that ends a broken stream."""
        last = {**json_object(self._numbered), "response_id": self._response_id}
        return event_bytes(*terminal_event(error, last, codex=self._codex, final=final))


class WholeSink(_BeforeHead):
    """Writes a turn as one JSON answer, when it is over."""

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self._headers: list[Header] = []

    async def begin(self, headers: list[Header]) -> None:
        """Keep the head until the status is known."""
        self._headers = headers

    async def answer(self, body: object) -> None:
        """Write the answer."""
        self.status = 200
        await send_json(self._send, 200, self._headers, body)

    async def refuse(self, status: int, error: Mapping[str, object]) -> None:
        """Write the error that the response ended with; trying again would do its work twice."""
        self.status = status
        headers = [("x-should-retry", "false"), *self._headers]
        await send_json(self._send, status, headers, {"error": error})

    def close(self) -> None:
        """Nothing is left open."""


class JsonSink(WholeSink):
    """Writes a turn as the terminal event's `response` object.

    Args:
        send: ASGI's send.
    """

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self._done: list[str] = []

    async def event(self, kind: str, text: str) -> None:
        """Keep the items that are done: some upstreams leave them out of the response."""
        if kind == ITEM_DONE_EVENT:
            self._done.append(text)

    async def finish(self, kind: str, text: str) -> None:
        """Write the response object; `failed` and `incomplete` are 200, as over HTTP upstream."""
        if kind == "error":
            await self.refuse(*ended_with_error(json_object(text)))
            return
        await self.answer(whole_response(text, self._done))


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object; an empty one if the text is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _response_id(text: str) -> object:
    response = json_object(text).get("response")
    return response.get("id") if isinstance(response, dict) else None
