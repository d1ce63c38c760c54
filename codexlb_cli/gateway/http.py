"""`POST /v1/responses` and `/backend-api/codex/responses`, as raw ASGI: the hot path."""

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
    body_too_large,
    invalid_body,
    read_request,
    size_error,
    wants_background,
)
from codexlb_cli.errors import InvalidHeader
from codexlb_cli.gateway.bodies import BodyError, ClientGone, decode_body, read_body
from codexlb_cli.gateway.exchanges import Client, unless_left
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sinks import JsonSink, Send, SseSink, client_left, send_json
from codexlb_cli.gateway.stored import BackgroundExchange
from codexlb_cli.gateway.transfers import Transfers
from codexlb_cli.gateway.turns import TurnRunner
from codexlb_cli.gateway.usage import turn_record

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

UNREAD = frozenset({"request_too_large", "request_timeout", "upstream_unavailable"})
"""Refusals after which the rest of the body is not read, so the connection ends."""


class RefusedRequest(Exception):
    """A request that is answered without a turn."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.code)
        self.error = error


def inbound_headers(scope: Scope) -> list[Header]:
    """Return the header lines of a request in order, values decoded as ISO-8859-1."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


class Responses:
    """The Responses endpoint.

    Args:
        services: the running gateway.
        request_log: takes a line per request.
        keepalive_seconds: after how much silence a stream gets a keep-alive.
    """

    def __init__(
        self, services: Services, request_log: RequestLog, keepalive_seconds: float
    ) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._services = services
        self._log = request_log
        self._transfers = Transfers()
        self._running: dict[asyncio.Task[None], TurnRunner] = {}
        self._reading: set[asyncio.Task[Any]] = set()

    @property
    def running(self) -> int:
        """How many turns are in flight."""
        return len(self._running)

    def stop_reading(self) -> None:
        """Refuse the requests that have not come completely: the gateway stops."""
        for task in self._reading:
            task.cancel()

    async def stop_turns(self) -> None:
        """End every turn with a terminal event, because the time to drain is over."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        line = RequestLine(request_id=str(uuid.uuid4()))
        try:
            request, stream = await self._read_unless_stopped(scope, receive, line.request_id)
        except ClientGone:
            return
        except (RefusedRequest, BodyError) as exc:
            headers = [*exc.error.headers(), ("x-request-id", line.request_id)]
            if exc.error.code in UNREAD:
                headers.append(("connection", "close"))  # the rest of the body is not read
            await send_json(send, exc.error.status, headers, exc.error.envelope())
            self._log.write(line.refused(exc.error))
            return
        if request.posted:
            await self._background(request, line, scope, receive, send)
            return
        sink = self._sse(send, request) if stream else JsonSink(send)
        runner = TurnRunner(self._services, request, sink)
        outcome = "client left"
        try:
            if await self._run(runner, receive):
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

    async def _background(
        self, request: TurnRequest, line: RequestLine, scope: Scope, receive: Receive, send: Send
    ) -> None:
        query = scope["query_string"].decode("latin-1")
        client = Client(request.headers, query, send, request.request_id)
        exchange = BackgroundExchange(request, self._services, self._transfers, client)
        outcome = "client left"
        try:
            if await unless_left(exchange.run(), _disconnected(receive)):
                outcome = exchange.outcome
        except Exception as exc:
            outcome = outcome if client_left(exc) else "internal_error"
            raise
        finally:
            line.account = exchange.account or line.account
            line.affinity = exchange.placement.ownership.key.strength.value
            self._log.write(line.answered(exchange.status, outcome))

    async def _read_unless_stopped(
        self, scope: Scope, receive: Receive, request_id: str
    ) -> tuple[TurnRequest, bool]:
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self._reading.add(task)
        try:
            return await self._read(scope, receive, request_id)
        except asyncio.CancelledError:
            task.uncancel()
            raise RefusedRequest(stopped(responding=False)) from None
        finally:
            self._reading.discard(task)

    def _sse(self, send: Send, request: TurnRequest) -> SseSink:
        codex = is_codex(request.headers)
        return SseSink(send, codex=codex, keepalive_seconds=self._keepalive_seconds)

    async def _read(
        self, scope: Scope, receive: Receive, request_id: str
    ) -> tuple[TurnRequest, bool]:
        headers = inbound_headers(scope)
        try:
            for name, value in headers:
                check_header(name, value)
        except InvalidHeader as exc:
            raise RefusedRequest(ClientError("invalid_header", str(exc))) from None
        self._services.refresh()
        limit = self._services.settings.limits.request_bytes
        lengths = [v for n, v in headers if n.lower() == "content-length"]
        if any(v.isdigit() and int(v) > limit for v in lengths):
            raise BodyError(body_too_large(limit))
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
            body, stream, evidence = read_request(headers, data)
        except InvalidBodyError as exc:
            raise RefusedRequest(invalid_body(exc)) from None
        if stream and scope["http_version"] == "1.0":
            text = "a stream has no length, so it takes HTTP/1.1; ask for `stream`: false"
            raise RefusedRequest(ClientError("not_supported", text))
        posted = data if wants_background(body) else b""
        return TurnRequest(headers, body, evidence, request_id, posted=posted), stream

    async def _run(self, runner: TurnRunner, receive: Receive) -> bool:
        """Run a turn; False if the client left before its end."""
        turn = asyncio.create_task(runner.run())
        gone = asyncio.create_task(_disconnected(receive))
        self._running[turn] = runner
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                turn.cancel()
                await asyncio.wait((turn,))
                return False
            if turn.cancelled():
                await runner.abort()
                return True
            turn.result()
            return True
        finally:
            del self._running[turn]
            turn.cancel()  # of no effect but where this request itself was cancelled
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
