"""A client's WebSocket: the upgrade, text frames in and out, and the close.

The websockets library sits behind `ClientSocket`. The upgrade request was read by the HTTP parser,
so that heads are bounded and refused in one place, and its answer goes out in one write.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.asyncio.connection import Connection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from codexlb_cli.core.headers import Header
from codexlb_cli.gateway.bodies import ClientGone

CLOSE_SECONDS = 1.0
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
UNSUPPORTED_DATA = 1003
_UNREAD_PONGS_BYTES = 1 << 20
"""A client that asks for more pongs than this and reads none is no client."""


class _Connection(Connection):
    """A connection that ends TCP once the closing handshake is over (RFC 6455 section 7.1.1).

    A client that broke the protocol may never end it, and one that has left may not read what is
    still to be written to it: neither keeps a turn, nor a connection, for longer than a moment.
    """

    _ending: asyncio.TimerHandle | None = None
    _unread_pongs = 0

    def data_received(self, data: bytes) -> None:
        unread = self.transport.get_write_buffer_size()
        super().data_received(data)
        if self.paused:  # what answers frames waits for nobody, unlike what is sent
            self._unread_pongs += self.transport.get_write_buffer_size() - unread
            if self._unread_pongs > _UNREAD_PONGS_BYTES:
                self.transport.abort()
        if self.protocol.close_rcvd is not None and not self.transport.is_closing():
            self.loop.call_soon(self.transport.close)
        self._end_soon()

    def eof_received(self) -> None:
        super().eof_received()
        self._end_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._unread_pongs = 0
        super().resume_writing()

    def _end_soon(self) -> None:
        if self._ending is None and self.protocol.state is not State.OPEN:
            self._ending = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The answer to an upgrade request.

    Attributes:
        status: 101, or another one if the request is no proper one.
        answer: the bytes of the 101.
        protocol: of the frames that follow.
    """

    status: int
    answer: bytes
    protocol: ServerProtocol


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """How to answer an upgrade.

    Attributes:
        deflate: whether messages are compressed where the client offers it.
        largest_bytes: of a client's message; a larger one ends the socket with 1009.
    """

    deflate: bool
    largest_bytes: int


def upgrade(target: str, headers: Sequence[Header], options: UpgradeOptions) -> Upgrade:
    """Answer an upgrade request.

    Args:
        target: of the request.
        headers: its header lines.
        options: how.
    """
    extensions = enable_server_permessage_deflate(None) if options.deflate else ()
    negotiation = ServerProtocol(extensions=extensions)
    response = negotiation.accept(Request(target, Headers(headers)))
    response.headers["x-request-id"] = str(uuid.uuid4())
    # A second one, for the first still waits for the head that the HTTP parser has read.
    frames = ServerProtocol(state=State.OPEN, max_size=options.largest_bytes)
    frames.extensions = negotiation.extensions
    return Upgrade(response.status_code, response.serialize(), frames)


class ClientSocket:
    """A client's WebSocket.

    Args:
        transport: whose client has asked for the upgrade.
        accepted: the answer, with 101.
        received: what came after the head.
    """

    def __init__(
        self, transport: asyncio.Transport, accepted: Upgrade, received: bytes = b""
    ) -> None:
        self._connection = _Connection(
            accepted.protocol, ping_interval=None, close_timeout=CLOSE_SECONDS
        )
        self._connection.connection_made(transport)
        transport.set_protocol(self._connection)
        transport.write(accepted.answer)
        if received:
            self._connection.data_received(received)

    async def receive(self) -> str:
        """Return the next text frame.

        Raises:
            ClientGone: the client has left, or sent a binary frame, which ends the socket.
        """
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            raise ClientGone from None
        if isinstance(message, bytes):
            await self.close(UNSUPPORTED_DATA, "text frames only")
            raise ClientGone
        return message

    async def send(self, text: str) -> None:
        """Send a text frame, as fast as the client reads.

        Raises:
            ClientGone: the client has left.
        """
        try:
            await self._connection.send(text)
        except ConnectionClosed:
            raise ClientGone from None

    async def close(self, code: int, reason: str) -> None:
        """Close with a code, and wait a moment for the client's answer."""
        await self._connection.close(code, reason)

    def abort(self) -> None:
        """End the connection at once."""
        self._connection.transport.abort()

    async def left(self) -> None:
        """Return once the connection has ended."""
        await self._connection.wait_closed()
