"""Upstream sockets: dialling one, and turning what happens to it into facts for `core`.

The websockets library sits behind `UpstreamSocket`; no other file of the gateway knows it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from codexlb_cli.core.closes import (
    LIVENESS_TIMEOUT,
    PROTOCOL_FAULT,
    TRANSPORT_LOST,
    CloseRow,
    ReconnectPolicy,
    close_row,
)
from codexlb_cli.core.failures import DIAL_FAILURE, Failure, parse
from codexlb_cli.core.handshake import Handshake

PING_SECONDS = 20.0
PONG_SECONDS = 20.0
"""A ping every 20 s; no pong for 20 s more, while we are reading, ends a socket."""
CLOSE_SECONDS = 1.0
_OUR_FAULTS = frozenset({1002, 1003, 1007, 1009})


class WallClock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float:
        """Return the time."""


class DialError(Exception):
    """An account could not be dialled; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(repr(failure))
        self.failure = failure


class SocketGone(Exception):
    """The socket is closed.

    Attributes:
        code: the close code that was received; 1006 without a close frame; None if we ended it.
        row: what ended it, where it is not the received code that decides.
        label: the cause, for people.
    """

    def __init__(self, label: str, *, code: int | None = None, row: CloseRow | None = None) -> None:
        super().__init__(label)
        self.label = label
        self._code = code
        self._row = row

    def close_row(self, policy: ReconnectPolicy) -> CloseRow:
        """Return the row of the close table for this end."""
        if self._row is not None or self._code is None:
            return self._row or TRANSPORT_LOST
        return close_row(self._code, policy)


@dataclass(frozen=True, slots=True)
class DialOptions:
    """How to dial.

    Attributes:
        timeout_seconds: for DNS, TCP, TLS and the upgrade together.
        largest_event_bytes: the biggest message that is accepted.
    """

    timeout_seconds: float
    largest_event_bytes: int


class _Connect(connect):
    """`connect` that follows no redirect: it would carry the account's credentials elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """A connection that does not wait for ever for the upstream to close TCP.

    RFC 6455 section 7.1.1 leaves that to the server; until it does, `recv` would not tell of the
    close frame that has come.
    """

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.close_rcvd is not None and not self.transport.is_closing():
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


socket_numbers = itertools.count(1)


class Upstream(Protocol):
    """What a turn runs on: a socket, or an HTTP connection that behaves like one.

    Attributes:
        account: the account's name.
        number: distinguishes sockets in logs.
        opened_at: loop time of its opening.
        response_headers: of the upstream's answer.
        refused: whether that answer is a refusal, told as an error frame.
        serves_one_turn: whether it ends with its turn instead of joining a lane.
    """

    account: str
    number: int
    opened_at: float
    response_headers: list[tuple[str, str]]
    refused: bool
    serves_one_turn: bool

    @property
    def open(self) -> bool:
        """Whether a frame can be sent."""

    async def send(self, frame: str) -> None:
        """Send a frame, or raise SocketGone."""

    async def receive(self) -> str:
        """Return the next event's text, or raise SocketGone."""

    def end(self, label: str, row: CloseRow | None = None) -> None:
        """End it at once; a reader is told why."""

    async def close(self) -> None:
        """Close it politely."""


class UpstreamSocket:
    """One WebSocket to one account, for one turn at a time.

    Attributes:
        account: the account's name.
        number: distinguishes sockets in logs.
        opened_at: loop time of the upgrade.
        response_headers: of the 101 answer.
    """

    refused = False  # a refused upgrade makes no socket
    serves_one_turn = False

    def __init__(self, account: str, connection: ClientConnection) -> None:
        self.account = account
        self.number = next(socket_numbers)
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


async def dial(handshake: Handshake, options: DialOptions, now: WallClock) -> UpstreamSocket:
    """Open a socket with exactly the lines of `handshake`.

    Raises:
        DialError: the account could not be reached, or refused the upgrade.
    """
    headers = [
        (line.name, str(uuid.uuid4()) if line.varies else _library_text(line.value))
        for line in handshake.additional
    ]
    try:
        connection = await _Connect(
            handshake.url,
            create_connection=_Connection,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=options.timeout_seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,
            max_size=options.largest_event_bytes,
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
    except (OSError, TimeoutError, WebSocketException, UnicodeError):  # a host that is no name
        raise DialError(DIAL_FAILURE) from None
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
