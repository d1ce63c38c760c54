"""One WebSocket connection: the upgrade, the client's frames, and one turn after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from websockets import frames as protocol_frames
from websockets.datastructures import Headers
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.answers import compose
from codexlb_cli.mock_upstream.outlets import FrameOutlet
from codexlb_cli.mock_upstream.recording import Frame, Handshake
from codexlb_cli.mock_upstream.requests import RefusedError, invalid_request, parse_request
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.state import INVALID_API_KEY
from codexlb_cli.mock_upstream.stream import ResponseStream
from codexlb_cli.mock_upstream.strict import violations
from codexlb_cli.mock_upstream.turns import TurnPerformance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.rules import HeaderValue
    from codexlb_cli.mock_upstream.state import UpstreamState

MESSAGE_BYTES = 128 * 1024 * 1024
_QUEUED_TURNS = 64
_CLOSE_SECONDS = 2.0


class WebSocketConnection:
    """A client's WebSocket.

    Args:
        state: what all connections share.
        head: the upgrade request.
        incoming: the client's further bytes.
        writer: the way back.
        socket: the connection's number.
    """

    def __init__(
        self,
        *,
        state: UpstreamState,
        head: wire.Head,
        incoming: wire.Incoming,
        writer: asyncio.StreamWriter,
        socket: int,
    ) -> None:
        self._state = state
        self._head = head
        self._incoming = incoming
        self._writer = writer
        self._protocol = ServerProtocol(state=State.OPEN, max_size=MESSAGE_BYTES)
        account = state.identify(head)
        self._account = account or ""
        self._handshake = Handshake(socket, account, head.line, head.headers, state.clock())
        self._turns: asyncio.Queue[tuple[TurnRequest, Turn]] = asyncio.Queue(_QUEUED_TURNS)
        self._outlet = FrameOutlet(writer, self._close)
        self._running: TurnPerformance | None = None
        self._latest: str | None = None
        self._message = bytearray()
        self._closing = False

    async def serve(self) -> None:
        """Answer the upgrade, then serve the socket until it ends."""
        handshake = self._handshake
        if self._state.strict:
            handshake.violations = violations(handshake.headers)
        self._state.recording.handshake(handshake)
        if not await self._accept():
            return
        try:
            async with asyncio.TaskGroup() as group:
                worker = group.create_task(self._perform_turns())
                with contextlib.suppress(ConnectionError):
                    await self._receive()
                worker.cancel()
        finally:
            self._leave()

    def going_away(self) -> None:
        """Say goodbye: the upstream stops."""
        if self._handshake.status == 101 and not self._closing:
            self._writer.write(wire.close_frame(1001, ""))
            self._stop_sending("close 1001")

    # The upgrade

    async def _accept(self) -> bool:
        if self._handshake.account is None:
            await self._refuse(401, wire.to_json({"error": INVALID_API_KEY.body}), {})
            return False
        rule = self._state.handshake_rule(self._account)
        if rule.delay and not await self._incoming.outlasts(self._state.sleep(rule.delay)):
            self._ended("client left")
            return False
        if rule.silence:
            await self._incoming.gone()
            self._ended("client left")
            return False
        if rule.cut:
            self._writer.transport.abort()
            self._ended("close 1006")
            return False
        if rule.status is not None:
            error = rule.error or ErrorSpec(message="Scripted refusal.")
            envelope = wire.to_json(
                {"error": error.model_copy(update={"status": rule.status}).body}
            )
            body = envelope if rule.body is None else rule.body.encode()
            await self._refuse(rule.status, body, error.headers | rule.headers)
            return False
        return await self._upgrade(rule.headers)

    async def _upgrade(self, headers: Mapping[str, HeaderValue]) -> bool:
        request = Request(self._head.target, Headers(self._head.headers))
        response = ServerProtocol().accept(request)
        for name, value in headers.items():
            response.headers[name] = str(value)
        self._answered(response.status_code)
        self._writer.write(response.serialize())
        await self._writer.drain()
        return response.status_code == 101

    async def _refuse(self, status: int, body: bytes, headers: Mapping[str, HeaderValue]) -> None:
        lines = {name: str(value) for name, value in headers.items()}
        self._answered(status)
        self._writer.write(
            wire.response(status, body, lines, content_type="application/json", close=True)
        )
        await self._writer.drain()

    def _answered(self, status: int) -> None:
        self._handshake.status = status
        self._state.recording.changed()

    # What the client sends

    async def _receive(self) -> None:
        protocol = self._protocol
        while True:
            data = await self._incoming.some()
            if not data:
                return
            protocol.receive_data(data)
            for frame in protocol.events_received():
                # The upgrade was read before, so that only frames come here.
                assert isinstance(frame, protocol_frames.Frame)
                if not self._closing:
                    await self._frame(frame)
            # After our own close frame, a client that breaks the protocol has nothing more to say.
            broken = self._closing and protocol.close_sent is not None
            self._answer_control_frames()
            if broken or protocol.close_rcvd is not None:
                return

    def _answer_control_frames(self) -> None:
        """Write the library's pongs, its answer to a close, and its close after a violation."""
        protocol = self._protocol
        output = protocol.data_to_send()
        if self._closing:
            return
        for data in output:
            if data and not (self._outlet.ignores_pings and data[0] == wire.PONG):
                self._writer.write(data)
        if protocol.close_rcvd is not None:
            self._stop_sending(f"client close {protocol.close_rcvd.code}")
        elif protocol.close_sent is not None:
            self._stop_sending(f"close {protocol.close_sent.code}")

    async def _frame(self, frame: protocol_frames.Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            await self._close(1003, "text frames only")
        elif frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._message += frame.data
            if frame.fin:
                message = bytes(self._message)
                self._message.clear()
                await self._text(message)

    async def _text(self, message: bytes) -> None:
        try:
            text = message.decode()
        except UnicodeDecodeError:
            await self._close(1007, "invalid UTF-8")
            return
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        self._state.recording.frame(Frame(self._handshake.socket, self._account, text, body))
        try:
            await self._client_event(body, len(message))
        except RefusedError as refused:
            await self._outlet.frame_error(refused.error, _stream_id(body))

    async def _client_event(self, body: Any, size: int) -> None:
        kind = body.get("type") if isinstance(body, dict) else None
        if kind == "response.create":
            await self._create(body, size)
        elif kind == "response.interrupt":
            self._interrupt(body)
        elif body is None:
            raise invalid_request("The message is not valid JSON.", code="invalid_json")
        else:
            raise invalid_request("Unknown client event type.", code="unknown_event", param="type")

    async def _create(self, body: Any, size: int) -> None:
        recording, socket = self._state.recording, self._handshake.socket
        request = parse_request(body, size)
        turn = recording.begin(
            socket=socket,
            account=self._account,
            transport="websocket",
            model=request.model,
            warm_up=request.warm_up,
        )
        if self._handshake.violations:
            recording.finish(turn, "close 1011")
            await self._close(1011, "")
            return
        if self._running is not None or not self._turns.empty():
            recording.overlap()
        if self._turns.full():
            error = ErrorSpec(
                status=429, code="rate_limit_exceeded", message="Too many turns wait."
            )
            recording.finish(turn, error.label)
            raise RefusedError(error)
        self._turns.put_nowait((request, turn))

    def _interrupt(self, body: Any) -> None:
        running = self._running
        if running is None or body.get("response_id") != running.turn.response_id:
            raise invalid_request(
                "There is no such response in progress.",
                code="response_not_found",
                param="response_id",
            )
        running.interrupt()

    # What the upstream sends

    async def _perform_turns(self) -> None:
        while not self._closing:
            request, turn = await self._turns.get()
            try:
                await self._perform(request, turn)
            except ConnectionError:
                return

    async def _perform(self, request: TurnRequest, turn: Turn) -> None:
        state = self._state
        try:
            state.check(self._account, request, self._latest)
        except RefusedError as refused:
            self._evict(request)
            state.recording.finish(turn, refused.error.label)
            await self._outlet.frame_error(refused.error, request.stream_id)
            return
        rule = state.turn_rule(self._account, request)
        answer = compose(request, rule)
        stream = ResponseStream(state.next_response_id(), self._account, request, answer)
        self._running = TurnPerformance(
            turn=turn,
            rule=rule,
            stream=stream,
            outlet=self._outlet,
            sleep=state.sleep,
            ended=lambda outcome: self._turn_ended(turn, request, outcome),
        )
        await self._running.perform()

    def _turn_ended(self, turn: Turn, request: TurnRequest, outcome: str) -> None:
        # A silent turn is not over: whatever comes next overlaps it.
        if outcome != "silence":
            self._running = None
        if outcome in {"response.completed", "response.incomplete"} and turn.response_id:
            self._latest = turn.response_id
            if request.stored:
                self._state.stored.remember(self._account, turn.response_id)
        elif outcome != "silence":
            self._evict(request)
        self._state.recording.finish(turn, outcome)

    def _evict(self, request: TurnRequest) -> None:
        """Forget the response that a failed turn continued; the socket knows no other way back."""
        if request.previous_response_id == self._latest:
            self._latest = None

    async def _close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        self._stop_sending(f"close {code}")
        transport = self._writer.transport
        if code == 1006:
            # What was sent before must still arrive, so the buffer is emptied first.
            transport.set_write_buffer_limits(high=0)
            await self._writer.drain()
            transport.abort()
            return
        self._writer.write(wire.close_frame(code, reason))

    def _leave(self) -> None:
        """Clear up: the socket is over, and so is whatever waits or runs."""
        self._stop_sending("client left")
        recording = self._state.recording
        if self._running is not None:
            recording.finish(self._running.turn, "client left")
            self._running = None
        while not self._turns.empty():
            recording.finish(self._turns.get_nowait()[1], self._handshake.ended or "client left")

    def _stop_sending(self, how: str) -> None:
        """Send nothing after a close frame; and end TCP when the client does, or soon."""
        if not self._closing:
            # RFC 6455 section 7.1.1: the server closes TCP first.
            loop = asyncio.get_running_loop()
            loop.call_later(_CLOSE_SECONDS, self._writer.transport.abort)
        self._closing = True
        self._outlet.closed = True
        self._ended(how)

    def _ended(self, how: str) -> None:
        if self._handshake.ended is None:
            self._handshake.ended = how
            self._state.recording.changed()


def _stream_id(body: Any) -> str | None:
    lane = body.get("stream_id") if isinstance(body, dict) else None
    return lane if isinstance(lane, str) else None
