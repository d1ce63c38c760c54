"""Where turns are asked for over HTTP, as raw ASGI: the hot path.

The Responses API and chat completions differ in how a body is read and in the sink alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import is_codex
from codexlb_cli.core.frames import InvalidBodyError
from codexlb_cli.core.giving_up import stopped
from codexlb_cli.core.headers import Header, check_header
from codexlb_cli.core.requests import (
    CHAT_PATH,
    AskedTurn,
    body_too_large,
    invalid_body,
    read_request,
    size_error,
)
from codexlb_cli.errors import InvalidHeader
from codexlb_cli.gateway.bodies import BodyError, ClientGone, decode_body, lingering, read_body
from codexlb_cli.gateway.chat_sinks import ChatSink, ChatStreamSink
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.running import RunningTurns
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sinks import (
    HttpSink,
    JsonSink,
    Send,
    SseSink,
    client_left,
    send_json,
)
from codexlb_cli.gateway.turns import TurnRunner
from codexlb_cli.gateway.usage import turn_record

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

UNREAD = frozenset({"request_too_large", "request_timeout", "upstream_unavailable"})
"""Refusals after which the rest of the body is not read, so the connection ends."""


ServeBackground = Callable[[TurnRequest, RequestLine, Scope, Receive, Send], Awaitable[None]]
"""Serves a request for a background response, and writes its line."""


async def no_background(
    _request: TurnRequest, line: RequestLine, _scope: Scope, _receive: Receive, send: Send
) -> None:
    """Refuse it: a gateway without a way to accounts over HTTP, as simulations have it."""
    error = ClientError("not_supported", "background responses are not served here")
    await send_json(send, error.status, [("x-request-id", line.request_id)], error.envelope())


class RefusedRequest(Exception):
    """A request that is answered without a turn."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.code)
        self.error = error


def inbound_headers(scope: Scope) -> list[Header]:
    """Return the header lines of a request in order, values decoded as ISO-8859-1."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


class Responses:
    """The endpoints that take turns.

    Args:
        services: the running gateway.
        request_log: takes a line per request.
        keepalive_seconds: after how much silence a stream gets a keep-alive.
        background: serves background responses, which go to their account over HTTP.
    """

    def __init__(
        self,
        services: Services,
        request_log: RequestLog,
        keepalive_seconds: float,
        background: ServeBackground = no_background,
    ) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._background = background
        self._services = services
        self._log = request_log
        self._turns = RunningTurns()
        self._reading: set[asyncio.Task[Any]] = set()

    @property
    def running(self) -> int:
        """How many turns are in flight."""
        return len(self._turns)

    def stop_reading(self) -> None:
        """Refuse the requests that have not come completely: the gateway stops."""
        for task in self._reading:
            task.cancel()

    async def stop_turns(self) -> None:
        """End every turn with a terminal event, because the time to drain is over."""
        await self._turns.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        line = RequestLine(request_id=str(uuid.uuid4()))
        try:
            headers = inbound_headers(scope)
            asked = await self._read_unless_stopped(scope, headers, receive)
        except ClientGone:
            return
        except (RefusedRequest, BodyError) as exc:
            own = [*exc.error.headers(), ("x-request-id", line.request_id)]
            if exc.error.code in UNREAD:
                own.append(("connection", "close"))  # the rest of the body is not read
            unread = isinstance(exc, BodyError) and exc.unread
            to_client = lingering(send, receive) if unread else send
            await send_json(to_client, exc.error.status, own, exc.error.envelope())
            self._log.write(line.refused(exc.error))
            return
        request = TurnRequest(
            headers, asked.body, asked.evidence, line.request_id, posted=asked.posted
        )
        if request.posted:
            await self._background(request, line, scope, receive, send)
            return
        sink = self._sink(send, headers, asked)
        runner = TurnRunner(self._services, request, sink)
        outcome = "client left"
        try:
            if await self._turns.run(runner, disconnected(receive)):
                outcome = ""
        except Exception as exc:
            if not client_left(exc):
                runner.broke()
                outcome = ""
            raise
        finally:
            sink.close()
            self._log.write(line.served(runner, sink.status, outcome))
            now = self._services.now()
            self._services.record(turn_record(request, runner, sink.status, line.started_at, now))

    async def _read_unless_stopped(
        self, scope: Scope, headers: list[Header], receive: Receive
    ) -> AskedTurn:
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self._reading.add(task)
        try:
            return await self._read(scope, headers, receive)
        except asyncio.CancelledError:
            task.uncancel()
            raise RefusedRequest(stopped(responding=False)) from None
        finally:
            self._reading.discard(task)

    def _sink(self, send: Send, headers: list[Header], asked: AskedTurn) -> HttpSink:
        seconds = self._keepalive_seconds
        if asked.chat is not None:
            if asked.stream:
                return ChatStreamSink(send, asked.chat, seconds)
            return ChatSink(send, asked.chat)
        if asked.stream:
            return SseSink(send, codex=is_codex(headers), keepalive_seconds=seconds)
        return JsonSink(send)

    async def _read(self, scope: Scope, headers: list[Header], receive: Receive) -> AskedTurn:
        try:
            for name, value in headers:
                check_header(name, value)
        except InvalidHeader as exc:
            raise RefusedRequest(ClientError("invalid_header", str(exc))) from None
        self._services.refresh()
        limit = self._services.settings.limits.request_bytes
        lengths = [v for n, v in headers if n.lower() == "content-length"]
        if any(v.isdigit() and int(v) > limit for v in lengths):
            raise BodyError(body_too_large(limit), unread=True)
        encodings = [v for n, v in headers if n.lower() == "content-encoding"]
        data = await read_body(receive, limit)
        if encodings:
            # Beside the event loop: a large body takes its time.
            data = await asyncio.to_thread(decode_body, data, encodings, limit)
        frame_limit = self._services.settings.limits.frame_bytes
        too_large = size_error(len(data), request_bytes=limit, frame_bytes=frame_limit)
        if too_large is not None:
            raise BodyError(too_large)
        try:
            asked = read_request(headers, data, chat=scope["path"] == CHAT_PATH)
        except InvalidBodyError as exc:
            raise RefusedRequest(invalid_body(exc)) from None
        if asked.stream and scope["http_version"] == "1.0":
            text = "a stream has no length, so it takes HTTP/1.1; ask for `stream`: false"
            raise RefusedRequest(ClientError("not_supported", text))
        return asked


async def disconnected(receive: Receive) -> None:
    """Return once the client has left; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
