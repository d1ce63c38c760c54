"""Bytes in and out: request heads, response heads, chunks and outgoing WebSocket frames.

Outgoing frames are written here rather than by `ServerProtocol`: a server's frames are not masked,
so that one costs a few bytes of header, and codes that must never be sent (RFC 6455 section 7.4.1)
can be sent all the same, which is what a misbehaving upstream does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping

HEAD_BYTES = 128 * 1024
BODY_BYTES = 128 * 1024 * 1024
_READ_BYTES = 256 * 1024

PONG = 0x8A


class BadRequestError(Exception):
    """A request that is no HTTP/1.1, or exceeds a bound; the connection ends with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request head.

    Attributes:
        line: the request line.
        headers: every header line, in order, name and value as sent, decoded as Latin-1.
    """

    line: str
    method: str
    target: str
    headers: list[tuple[str, str]]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def values(self, name: str) -> list[str]:
        """The values of every line with this lower-case name, in order."""
        return [value for key, value in self.headers if key.lower() == name]

    def value(self, name: str) -> str:
        """The values of a header, joined as RFC 9110 section 5.3 says; empty if there is none."""
        return ", ".join(self.values(name))

    @property
    def asks_for_websocket(self) -> bool:
        """Whether it is an upgrade to a WebSocket."""
        return self.method == "GET" and self.value("upgrade").lower() == "websocket"

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may serve another request."""
        return self.line.endswith("HTTP/1.1") and "close" not in self.value("connection").lower()


def parse_head(raw: bytes) -> Head:
    """Parse a request head without its empty line.

    Raises:
        BadRequestError: it is no HTTP/1 request head.
    """
    first, *lines = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError(400, "The request line is malformed.")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(400, "A header line is malformed.")
        headers.append((name, value.strip(" \t")))
    return Head(first, parts[0], parts[1], headers)


class Incoming:
    """The bytes of one client, read with bounds."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    async def head(self) -> Head | None:
        """Read a request head; None if the client left before a whole one.

        Raises:
            BadRequestError: it is malformed or longer than 128 KiB.
        """
        while True:
            end = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES)
            if end >= 0:
                raw = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return parse_head(raw)
            if len(self._buffer) >= HEAD_BYTES:
                raise BadRequestError(431, "The request head is too large.")
            if not await self._more():
                return None

    async def body(self, head: Head) -> bytes | None:
        """Read the body that `head` announces; None if the client left in the middle of it.

        Raises:
            BadRequestError: its framing is broken, or it exceeds 128 MiB.
        """
        if "chunked" in head.value("transfer-encoding").lower():
            return await self._chunked()
        length = head.value("content-length") or "0"
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(400, "The content-length is malformed.")
        if int(length) > BODY_BYTES:
            raise BadRequestError(413, "The request body is too large.")
        return await self._take(int(length))

    async def gone(self) -> None:
        """Return once the client has left; what it still sends is kept, up to 128 KiB."""
        while len(self._buffer) < HEAD_BYTES and await self._more():
            pass
        if len(self._buffer) >= HEAD_BYTES:
            await asyncio.Event().wait()

    async def outlasts(self, doing: Awaitable[object]) -> bool:
        """Do something while the client is there; return False if it left, and then stop."""
        task = asyncio.ensure_future(doing)
        watching = asyncio.create_task(self.gone())
        try:
            await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            await task
            return True
        finally:
            task.cancel()
            watching.cancel()
            await asyncio.gather(task, watching, return_exceptions=True)

    async def discard(self, seconds: float) -> None:
        """Read and forget until the client leaves, or for so many seconds.

        Closing a socket with unread input resets the connection, and then the client may lose what
        it was sent (RFC 9112 section 9.6).
        """
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while await self._reader.read(_READ_BYTES):
                    pass

    async def some(self) -> bytes:
        """Return what arrived, at least one byte; empty once the client has left."""
        if self._buffer:
            some = bytes(self._buffer)
            self._buffer.clear()
            return some
        return await self._reader.read(_READ_BYTES)

    async def _more(self) -> bool:
        data = await self._reader.read(_READ_BYTES)
        self._buffer += data
        return bool(data)

    async def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            if not await self._more():
                return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _line(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES:
                raise BadRequestError(400, "A chunk header is too long.")
            if not await self._more():
                return None
        taken = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return taken

    async def _chunked(self) -> bytes | None:
        body = bytearray()
        while True:
            line = await self._line()
            if line is None:
                return None
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadRequestError(400, "A chunk size is malformed.") from None
            if size < 0 or len(body) + size > BODY_BYTES:
                raise BadRequestError(413, "The request body is too large.")
            if size == 0:
                return await self._after_last_chunk(body)
            chunk = await self._take(size + 2)
            if chunk is None:
                return None
            body += chunk[:-2]

    async def _after_last_chunk(self, body: bytearray) -> bytes | None:
        while line := await self._line():
            pass
        return None if line is None else bytes(body)


class Cuttable(Protocol):
    """What lies under a way back, such as `asyncio.WriteTransport`."""

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        """Say from how many unsent bytes on `drain` waits."""

    def abort(self) -> None:
        """End the connection at once."""


class Outgoing(Protocol):
    """The way back to one client, such as `asyncio.StreamWriter`."""

    @property
    def transport(self) -> Cuttable:
        """What lies under it."""

    def write(self, data: bytes) -> None:
        """Send bytes; they may wait for `drain`."""

    async def drain(self) -> None:
        """Return once the client takes what was written.

        Raises:
            ConnectionError: the client has left.
        """


async def cut(outgoing: Outgoing) -> None:
    """End the TCP connection without a word; what was written before still arrives."""
    outgoing.transport.set_write_buffer_limits(high=0)
    await outgoing.drain()
    outgoing.transport.abort()


def response_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a response head, its empty line included."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Scripted"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode("latin-1")


def response(
    status: int, body: bytes, headers: Mapping[str, str], *, content_type: str, close: bool
) -> bytes:
    """Return a whole response: head and body in one piece, as Codex needs refusals to be."""
    given = {name.lower() for name in headers}
    own = {"content-type": content_type, "content-length": str(len(body))}
    if close:
        own["connection"] = "close"
    lines = [(name, value) for name, value in own.items() if name not in given]
    return response_head(status, [*lines, *headers.items()]) + body


def json_response(
    status: int, document: object, headers: Mapping[str, str], *, close: bool = False
) -> bytes:
    """Return a whole response with a JSON body."""
    return response(
        status, to_json(document), headers, content_type="application/json", close=close
    )


def to_json(document: object) -> bytes:
    """Return compact JSON; a lone surrogate, which UTF-8 cannot carry, becomes `?`."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse_event(name: str, payload: bytes) -> bytes:
    """Return one server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), payload)


LAST_CHUNK = b"0\r\n\r\n"


def text_frame(payload: bytes) -> bytes:
    """Return a whole, unmasked text frame (RFC 6455 section 5.2)."""
    return _frame_header(0x81, len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """Return a whole, unmasked binary frame."""
    return _frame_header(0x82, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame with any code; 1005 is an empty one."""
    payload = b"" if code == 1005 else struct.pack("!H", code) + reason.encode()
    return _frame_header(0x88, len(payload)) + payload


def _frame_header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
