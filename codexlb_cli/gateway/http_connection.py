"""One TCP or TLS connection for one HTTP exchange: bytes both ways, bounded, ended at once.

Not asyncio's streams: those forget what has arrived when the connection breaks, and an upstream
that refuses a large request does so before it has read it, and resets the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import cache
from typing import Protocol, cast
from urllib.parse import urlsplit

_UNREAD_BYTES = 256 * 1024
"""More than this is left in the kernel until what has arrived is read."""
_PROBE_SECONDS = 20
_PROBES = 2
"""A connection whose other end is gone without a word is lost after a minute."""


class Connection(Protocol):
    """The bytes of one exchange, whatever carries them; `HttpConnection` says what each does."""

    @property
    def ended(self) -> bool:
        """Whether nothing more arrives; what has arrived may still be read."""

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the connection has ended."""

    async def written(self) -> None:
        """Return when the bytes are on their way, or something came back, or all is over."""

    async def read(self) -> bytes:
        """Return what has arrived, at least one byte; empty at the end."""

    def abort(self) -> None:
        """End the connection without waiting for anything; a reader is woken."""


class HttpConnection(asyncio.Protocol):
    """A connection; one task writes and reads, one after the other.

    Attributes:
        ended: whether nothing more arrives; what has arrived may still be read.
    """

    def __init__(self) -> None:
        self.ended = False
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._paused = False
        self._full = False
        self._changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the connection has ended."""
        if self._transport is not None:
            self._transport.write(data)

    async def written(self) -> None:
        """Return when the bytes are on their way, or something came back, or all is over."""
        while self._full and not self._unread and not self.ended:
            await self._change()

    async def read(self) -> bytes:
        """Return what has arrived, at least one byte; empty at the end."""
        while not self._unread and not self.ended:
            await self._change()
        data = bytes(self._unread)
        self._unread.clear()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """End the connection without waiting for anything; a reader is woken."""
        self.ended = True
        self._changed.set()
        if self._transport is not None:
            self._transport.abort()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport."""
        self._transport = cast("asyncio.Transport", transport)
        _watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Keep what arrived."""
        self._unread += data
        if len(self._unread) > _UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> None:
        """Note that nothing more arrives; the transport closes itself."""
        self.ended = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - all ends are one
        """Note the end."""
        self.ended = True
        self._transport = None
        self._changed.set()

    def pause_writing(self) -> None:
        """The other end does not read as fast as we write."""
        self._full = True

    def resume_writing(self) -> None:
        """It has read."""
        self._full = False
        self._changed.set()


async def connect(url: str, timeout_seconds: float) -> HttpConnection:
    """Open a connection to the host of an http or https URL.

    Raises:
        OSError: it cannot be reached, its certificate is no good, or the time is over.
        UnicodeError: its name is no name.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    async with asyncio.timeout(timeout_seconds):
        _, connection = await asyncio.get_running_loop().create_connection(
            HttpConnection,
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            ssl=_tls() if secure else None,
        )
    return connection


@cache
def _tls() -> ssl.SSLContext:
    # The same trust as the WebSocket's: the system's authorities. Made once, it costs 20 ms.
    return ssl.create_default_context()


def _watch(sock: socket.socket | None) -> None:
    """Let the kernel probe an idle connection, since HTTP has no pings."""
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
    ):
        option = getattr(socket, name, None)  # macOS and Windows lack some
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
