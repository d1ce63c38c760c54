"""Upstream sockets: dialling one, and turning what happens to it into facts for `core`.

The websockets library sits behind `UpstreamSocket`; no other file of the gateway knows it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from codexlb_cli.core.closes import LIVENESS_TIMEOUT, PROTOCOL_FAULT, CloseRow
from codexlb_cli.core.failures import DIAL_FAILURE, parse
from codexlb_cli.core.handshake import Handshake
from codexlb_cli.gateway.sockets import (
    PING_SECONDS,
    PONG_SECONDS,
    DialError,
    DialOptions,
    SocketGone,
)

CLOSE_SECONDS = 1.0
_OUR_FAULTS = frozenset({1002, 1003, 1007, 1009})


class _Connect(connect):
    """`connect` that follows no redirect: it would carry the account's credentials elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """A connection that does not wait for the upstream to close TCP.

    RFC 6455 section 7.1.1 leaves that to the server; until it does, `recv` would not tell of the
    close frame that has come, and a turn would wait for nothing. Our own frame still goes out.
    """

    def __init__(self, protocol: ClientProtocol, *, secured: Secured, **options: Any) -> None:
        super().__init__(protocol, **options)
        self._secured = secured

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._secured(tls=transport.get_extra_info("ssl_object") is not None)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.close_rcvd is not None and not self.transport.is_closing():
            self.loop.call_soon(self.transport.close)


class UpstreamSocket:
    """One WebSocket to one account, for one turn at a time.

    Attributes:
        account: the account's name.
        opened_at: loop time of the upgrade.
        response_headers: of the 101 answer.
    """

    refused = False  # a refused upgrade makes no socket
    serves_one_turn = False

    def __init__(self, account: str, connection: ClientConnection) -> None:
        self.account = account
        self.opened_at = asyncio.get_running_loop().time()
        self.response_headers: list[tuple[str, str]] = []
        if connection.response is not None:
            self.response_headers = list(connection.response.headers.raw_items())
        self._connection = connection
        self._gone: SocketGone | None = None
        self._reading_since: float | None = None
        self._keepalive = asyncio.create_task(self._ping())

    @property
    def open(self) -> bool:
        """Whether a frame can be sent."""
        return self._gone is None and self._connection.state is State.OPEN

    async def send(self, frame: str) -> None:
        """Send a text frame.

        Raises:
            SocketGone: the socket is closed.
        """
        try:
            await self._connection.send(frame)
        except ConnectionClosed as exc:
            raise self._fact(exc) from None

    async def receive(self) -> str:
        """Return the next event's text.

        Raises:
            SocketGone: the socket is closed, or a binary frame came (a protocol fault).
        """
        self._reading_since = asyncio.get_running_loop().time()
        try:
            message = await self._connection.recv()
        except ConnectionClosed as exc:
            raise self._fact(exc) from None
        finally:
            self._reading_since = None
        if isinstance(message, bytes):
            self.end("binary frame", PROTOCOL_FAULT)
            raise SocketGone("binary frame", row=PROTOCOL_FAULT)
        return message

    def end(self, label: str, row: CloseRow | None = None) -> None:
        """End the socket at once, without a closing handshake."""
        if self._gone is None:
            self._gone = SocketGone(label, row=row)
        self._keepalive.cancel()
        self._connection.transport.abort()

    async def close(self) -> None:
        """Close politely."""
        self._keepalive.cancel()
        await self._connection.close()

    def _fact(self, exc: ConnectionClosed) -> SocketGone:
        self._keepalive.cancel()
        if self._gone is not None:
            return self._gone
        received, sent = exc.rcvd, exc.sent
        if received is not None and (exc.rcvd_then_sent or sent is None):
            return SocketGone(str(received.code), code=received.code)
        if sent is not None and sent.code in _OUR_FAULTS:
            # The upstream broke the protocol and the library closed: never a lost transport.
            return SocketGone(f"we sent {sent.code}", row=PROTOCOL_FAULT)
        if received is not None:
            return SocketGone(str(received.code), code=received.code)
        return SocketGone("1006", code=1006)

    async def _ping(self) -> None:
        """Keep the socket alive, and end it when no pong comes although we are reading.

        The library's own timeout would also fire when a slow client keeps us from reading.
        """
        while True:
            await asyncio.sleep(PING_SECONDS)
            sent_at = asyncio.get_running_loop().time()
            try:
                pong = asyncio.ensure_future(await self._connection.ping())
                await asyncio.wait([pong], timeout=PONG_SECONDS)
            except ConnectionClosed:
                return
            reading = self._reading_since is not None and self._reading_since <= sent_at
            if reading and not pong.done():
                self.end("no pong", LIVENESS_TIMEOUT)
                return


class Secured(Protocol):
    """Is told that the connection is ready for the upgrade."""

    def __call__(self, *, tls: bool) -> None:
        """Take note; `tls` says whether it is encrypted."""


def unwatched(*, tls: bool) -> None:
    """Take no notice."""


async def dial(
    handshake: Handshake,
    options: DialOptions,
    now: Callable[[], float],
    connected: socket.socket | None = None,
    secured: Secured = unwatched,
) -> UpstreamSocket:
    """Open a socket with exactly the lines of `handshake`.

    Args:
        handshake: what the upgrade carries.
        options: how to dial.
        now: seconds since the epoch.
        connected: a TCP connection to the host; None to make one. It is closed with the socket.
        secured: is told when the connection is ready for the upgrade.

    Raises:
        DialError: the account could not be reached, or refused the upgrade. Its cause is what
            went wrong where there was no answer.
    """
    headers = [
        (line.name, str(uuid.uuid4()) if line.varies else _library_text(line.value))
        for line in handshake.additional
    ]
    # Annotated as a class, but used as what makes a connection.
    factory = cast("type[ClientConnection]", partial(_Connection, secured=secured))
    try:
        connection = await _Connect(
            handshake.url,
            create_connection=factory,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=options.timeout_seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,
            max_size=options.largest_event_bytes,
            sock=connected,
        )
    except InvalidStatus as exc:
        response = exc.response
        raise DialError(
            parse(
                response.status_code,
                _json(response.body),
                dict(response.headers.raw_items()),
                now(),
                handshake=True,
            )
        ) from None
    except (OSError, TimeoutError, WebSocketException, UnicodeError) as exc:
        # A UnicodeError is a host that is no name.
        raise DialError(DIAL_FAILURE) from exc
    return UpstreamSocket(handshake.account, connection)


_WRITES_LATIN_1 = Headers([("x", "\xe9")]).serialize().startswith(b"x: \xe9\r")


def _library_text(value: str) -> str:
    """Return a value so that the library writes its bytes; older ones write UTF-8."""
    if _WRITES_LATIN_1 or value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _json(body: bytes | bytearray | None) -> Mapping[str, object] | None:
    try:
        value = json.loads(bytes(body or b""))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
