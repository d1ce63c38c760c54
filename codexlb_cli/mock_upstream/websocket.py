"""A WebSocket as bytes: the upgrade, frames in and out, and the end of the TCP connection."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from websockets import frames as protocol_frames
from websockets.datastructures import Headers
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.outlets import WriteBuffer
from codexlb_cli.mock_upstream.session import Session
from codexlb_cli.mock_upstream.upgrades import record_upgrade, reply_to

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codexlb_cli.mock_upstream.state import UpstreamState

MESSAGE_BYTES = 128 * 1024 * 1024
_CLOSE_SECONDS = 2.0


class _SocketChannel(WriteBuffer):
    """Sends a session's frames over TCP."""

    def put_text(self, payload: bytes) -> None:
        self._add(wire.text_frame(payload))

    def put_binary(self, payload: bytes) -> None:
        self._add(wire.binary_frame(payload))

    async def flush(self) -> None:
        data = self._take()
        if data:
            self._writer.write(data)
            await self._writer.drain()

    def stopping(self) -> None:
        """End TCP when the client does, or soon (RFC 6455 section 7.1.1: the server is first)."""
        loop = asyncio.get_running_loop()
        loop.call_later(_CLOSE_SECONDS, self._writer.transport.abort)

    async def close(self, code: int, reason: str) -> None:
        if code == 1006:
            await wire.cut(self._writer)
            return
        self._writer.write(wire.close_frame(code, reason))


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
        self._handshake = record_upgrade(state, head, state.identify(head), socket)
        self._session = Session(state, self._handshake, _SocketChannel(writer))
        self._message = bytearray()

    async def serve(self) -> None:
        """Answer the upgrade, then serve the socket until it ends."""
        if not await self._accept():
            return
        session = self._session
        try:
            async with asyncio.TaskGroup() as group:
                worker = group.create_task(session.perform_turns())
                with contextlib.suppress(ConnectionError):
                    await self._receive()
                worker.cancel()
        finally:
            session.leave()

    def going_away(self) -> None:
        """Say goodbye: the upstream stops."""
        if self._handshake.status == 101 and not self._session.stopped:
            self._writer.write(wire.close_frame(1001, ""))
            self._session.stop("close 1001")

    # The upgrade

    async def _accept(self) -> bool:
        reply = reply_to(self._state, self._handshake)
        if reply.delay and not await self._incoming.outlasts(self._state.sleep(reply.delay)):
            self._state.ended(self._handshake, "client left")
            return False
        if reply.silence:
            await self._incoming.gone()
            self._state.ended(self._handshake, "client left")
            return False
        if reply.cut:
            self._writer.transport.abort()
            self._state.ended(self._handshake, "close 1006")
            return False
        if reply.status is not None:
            self._state.answered(self._handshake, reply.status)
            self._writer.write(
                wire.response(
                    reply.status,
                    reply.body,
                    reply.headers,
                    content_type="application/json",
                    close=True,
                )
            )
            await self._writer.drain()
            return False
        return await self._upgrade(reply.headers)

    async def _upgrade(self, headers: Mapping[str, str]) -> bool:
        request = Request(self._head.target, Headers(self._head.headers))
        response = ServerProtocol().accept(request)
        for name, value in headers.items():
            response.headers[name] = value
        self._state.answered(self._handshake, response.status_code)
        self._writer.write(response.serialize())
        await self._writer.drain()
        return response.status_code == 101

    # What the client sends

    async def _receive(self) -> None:
        protocol, session = self._protocol, self._session
        while True:
            data = await self._incoming.some()
            if not data:
                return
            protocol.receive_data(data)
            for frame in protocol.events_received():
                # The upgrade was read before, so that only frames come here.
                assert isinstance(frame, protocol_frames.Frame)
                if not session.stopped:
                    await self._frame(frame)
            # After our own close frame, a client that breaks the protocol has nothing more to say.
            broken = session.stopped and protocol.close_sent is not None
            self._answer_control_frames()
            if broken or protocol.close_rcvd is not None:
                return

    def _answer_control_frames(self) -> None:
        """Write the library's pongs, its answer to a close, and its close after a violation."""
        protocol, session = self._protocol, self._session
        output = protocol.data_to_send()
        if session.stopped:
            return
        for data in output:
            if data and not (session.ignores_pings and data[0] == wire.PONG):
                self._writer.write(data)
        if protocol.close_rcvd is not None:
            session.stop(f"client close {protocol.close_rcvd.code}")
        elif protocol.close_sent is not None:
            session.stop(f"close {protocol.close_sent.code}")

    async def _frame(self, frame: protocol_frames.Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            await self._session.binary()
        elif frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._message += frame.data
            if frame.fin:
                message = bytes(self._message)
                self._message.clear()
                await self._session.text(message)
