"""One HTTP exchange: a turn, a call, files, the issuer, the recording, or an error."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.answers import compose
from codexlb_cli.mock_upstream.file_requests import Reply, file_segments, json_reply
from codexlb_cli.mock_upstream.issuer_http import IssuerExchange
from codexlb_cli.mock_upstream.issuer_requests import is_for_issuer
from codexlb_cli.mock_upstream.models import JSON, asks_for_models, models_reply
from codexlb_cli.mock_upstream.outlets import SSE_HEADERS, JsonOutlet, SseOutlet
from codexlb_cli.mock_upstream.recording import ApiRequest, FileRequest
from codexlb_cli.mock_upstream.requests import RefusedError, invalid_request, parse_request
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.state import INVALID_API_KEY
from codexlb_cli.mock_upstream.stored_requests import Followed, api_segments
from codexlb_cli.mock_upstream.turns import TurnPerformance

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codexlb_cli.mock_upstream.background import BackgroundResponse
    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.state import UpstreamState


_KEPT_BYTES = 64 * 1024


class HttpExchange:
    """A request and its answer.

    Args:
        state: what all connections share.
        identify: names the account of a request; None if it is nobody.
        head: the request's head.
        incoming: the rest of it, and whether the client is still there.
        writer: the way back.
        socket: the connection's number.
    """

    def __init__(
        self,
        *,
        state: UpstreamState,
        identify: Callable[[wire.Head], str | None],
        head: wire.Head,
        incoming: wire.Incoming,
        writer: wire.Outgoing,
        socket: int,
    ) -> None:
        self._state = state
        self._identify = identify
        self._head = head
        self._incoming = incoming
        self._writer = writer
        self._socket = socket

    async def serve(self) -> bool:
        """Answer; return whether the connection may serve another request.

        Raises:
            BadRequestError: the body is malformed or too large.
        """
        head = self._head
        if "100-continue" in head.value("expect").lower():
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        segments = file_segments(head.path)
        if segments is not None:
            return await self._files(segments)
        segments = api_segments(head.path)
        if segments is not None:
            return await self._api(segments)
        body = await self._incoming.body(head)
        if body is None:
            return False
        if is_for_issuer(head.path):
            exchange = IssuerExchange(self._state, head, self._incoming, self._writer, self._socket)
            return await exchange.serve(body)
        if head.method == "GET" and head.path == "/_mock/recording":
            return await self._answer(200, self._state.recording.document())
        account = self._identify(head)
        if account is None:
            return await self._error(INVALID_API_KEY)
        if head.method == "POST" and head.path.endswith("/responses"):
            return await self._respond(account, body)
        if head.method == "GET" and asks_for_models(head):
            return await self._models(account)
        unknown = f"Invalid URL ({head.method} {head.path[:200]})"
        error = ErrorSpec(status=404, type="invalid_request_error", message=unknown)
        return await self._error(error)

    async def _files(self, segments: list[str]) -> bool:
        state, head = self._state, self._head
        account = state.identify(head)
        record = FileRequest(self._socket, account, head.method, head.target, head.headers)
        state.recording.file_request(record)
        body = await self._incoming.body(head)
        if body is None:
            return False
        record.received = len(body)
        try:
            if account is None:
                raise RefusedError(INVALID_API_KEY)
            reply = state.file_requests(account).answer(head, segments, body)
        except RefusedError as refused:
            return await self._refused(record, refused)
        return await self._reply(record, reply)

    async def _api(self, segments: list[str]) -> bool:
        state, head = self._state, self._head
        account = state.identify(head)
        record = ApiRequest(self._socket, account, head.method, head.target, head.headers)
        state.recording.api_request(record)
        body = await self._incoming.body(head)
        if body is None:
            return False
        record.received, record.body = len(body), body[:_KEPT_BYTES].decode(errors="replace")
        try:
            if account is None:
                raise RefusedError(INVALID_API_KEY)
            reply = state.stored_requests(account).answer(head, segments, body)
        except RefusedError as refused:
            return await self._refused(record, refused)
        if isinstance(reply, Followed):
            return await self._follow(record, reply.response, reply.after)
        return await self._reply(record, reply)

    async def _refused(self, record: FileRequest, refused: RefusedError) -> bool:
        record.status = refused.error.status
        self._state.recording.changed()
        return await self._error(refused.error)

    async def _reply(self, record: FileRequest, reply: Reply) -> bool:
        record.status = 200
        self._state.recording.changed()
        keep, kind = self._head.keeps_alive, reply.content_type
        data = wire.response(200, reply.body, reply.headers, content_type=kind, close=not keep)
        if self._head.method == "HEAD":
            data = data[: data.index(b"\r\n\r\n") + 4]
        self._writer.write(data)
        await self._writer.drain()
        return keep

    async def _follow(self, record: ApiRequest, response: BackgroundResponse, after: int) -> bool:
        record.status = 200
        self._state.recording.changed()
        self._writer.write(wire.response_head(200, SSE_HEADERS.items()))

        async def write() -> None:
            async for data in response.follow(after):
                self._writer.write(wire.chunk(data))
                await self._writer.drain()
            self._writer.write(wire.LAST_CHUNK)
            await self._writer.drain()

        record.left = not await self._incoming.outlasts(write())
        self._state.recording.changed()
        return not record.left and self._head.keeps_alive

    async def _respond(self, account: str, body: bytes) -> bool:
        try:
            request = self._parse(body)
        except RefusedError as refused:
            return await self._error(refused.error)
        turn = self._state.recording.begin(
            socket=self._socket,
            account=account,
            transport="http",
            model=request.model,
            warm_up=request.warm_up,
        )
        try:
            self._state.check(account, request, None)
        except RefusedError as refused:
            self._state.recording.finish(turn, refused.error.label)
            return await self._error(refused.error)
        if request.background:
            return await self._in_background(account, request, turn, body)
        return await self._perform(account, request, turn)

    async def _in_background(
        self, account: str, request: TurnRequest, turn: Turn, body: bytes
    ) -> bool:
        state, head = self._state, self._head
        rule = state.turn_rule(account, request)
        record = ApiRequest(self._socket, account, head.method, head.target, head.headers)
        record.received, record.body = len(body), body[:_KEPT_BYTES].decode(errors="replace")
        state.recording.api_request(record)
        if rule.error is not None and rule.point == "before_created":
            state.recording.finish(turn, rule.error.label)
            return await self._refused(record, RefusedError(rule.error))
        response = state.in_background(account, request, turn, compose(request, rule), rule)
        if request.streamed:
            return await self._follow(record, response, -1)
        return await self._reply(record, json_reply(response.stored.document))

    def _parse(self, body: bytes) -> TurnRequest:
        try:
            document = json.loads(_decoded(body, self._head.value("content-encoding")))
        except (ValueError, RecursionError):
            raise invalid_request("The body is not valid JSON.", code="invalid_json") from None
        return parse_request(document, len(body))

    async def _perform(self, account: str, request: TurnRequest, turn: Turn) -> bool:
        state = self._state
        rule = state.turn_rule(account, request)
        stream = state.response(account, request, compose(request, rule))
        outlet = SseOutlet(self._writer) if request.streamed else JsonOutlet(self._writer)

        def ended(outcome: str) -> None:
            if outcome == "response.completed":
                state.remember(stream)
            state.recording.finish(turn, outcome)

        performance = TurnPerformance(
            turn=turn,
            rule=rule,
            stream=stream,
            outlet=outlet,
            sleep=state.sleep,
            ended=ended,
        )
        try:
            stayed = await self._incoming.outlasts(performance.perform())
        finally:
            state.recording.finish(turn, "client left")
        return stayed and self._head.keeps_alive and not outlet.aborted

    async def _models(self, account: str) -> bool:
        rule = self._state.models_rule(account)
        if rule.delay and not await self._incoming.outlasts(self._state.sleep(rule.delay)):
            return False
        if rule.silence:
            return await self._incoming.outlasts(asyncio.Event().wait())
        if rule.cut:
            await wire.cut(self._writer)
            return False
        reply = models_reply(self._head, rule)
        keep = self._head.keeps_alive
        self._writer.write(
            wire.response(
                reply.status, reply.body, reply.headers, content_type=JSON, close=not keep
            )
        )
        await self._writer.drain()
        return keep

    async def _error(self, error: ErrorSpec) -> bool:
        return await self._answer(error.status or 500, {"error": error.body})

    async def _answer(self, status: int, document: object) -> bool:
        keep = self._head.keeps_alive
        data = wire.json_response(status, document, {}, close=not keep)
        if self._head.method == "HEAD":
            data = data[: data.index(b"\r\n\r\n") + 4]
        self._writer.write(data)
        await self._writer.drain()
        return keep


def _decoded(body: bytes, encoding: str) -> bytes:
    """Undo the one encoding that a client of the ChatGPT backend uses: Codex sends zstd."""
    if encoding in {"", "identity"}:
        return body
    if encoding != "zstd":
        raise invalid_request("The content encoding is not supported.")
    try:
        return ZstdDecompressor().decompress(body, wire.BODY_BYTES)
    except ZstdError:
        raise invalid_request("The body is not valid zstd.") from None


def bad_request(error: wire.BadRequestError) -> bytes:
    """Return the last answer on a connection: to what cannot be read."""
    fault = ErrorSpec(status=error.status, message=str(error))
    return wire.json_response(error.status, {"error": fault.body}, {}, close=True)
