"""Request bodies: read within bounds, decoded, never larger than configured."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.requests import body_too_large

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

STALL_SECONDS = 30.0
"""A body of which nothing comes for this long is given up."""
LINGER_SECONDS = 5.0
"""So long a body that nobody needs is read, after its answer."""
_PIECE = 1 << 16

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyError(Exception):
    """A body that cannot be taken.

    Attributes:
        error: what the client is told.
        unread: whether more of the body may come.
    """

    def __init__(self, error: ClientError, *, unread: bool = False) -> None:
        super().__init__(error.code)
        self.error = error
        self.unread = unread


class ClientGone(Exception):
    """The client left before its request was complete."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read a request body.

    Args:
        receive: ASGI's receive.
        limit: the most bytes that are taken.

    Raises:
        BodyError: it is too large, or stalls.
        ClientGone: the client left.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                message = await receive()
        except TimeoutError:
            text = f"the request body stalled for {STALL_SECONDS:.0f} s"
            raise BodyError(ClientError("request_timeout", text), unread=True) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise BodyError(body_too_large(limit), unread=message.get("more_body", False))
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def lingering(send: Send, receive: Receive) -> Send:
    """Return what writes an answer to a client whose body was not read to its end.

    The client may send all before it reads. A connection that is closed with something unread is
    reset, and the answer that is on its way is lost (RFC 9112 section 9.6). So what still comes is
    read for a while before the answer ends.
    """

    async def write(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return write


def decode_body(data: bytes, encodings: Iterable[str], limit: int) -> bytes:
    """Undo `content-encoding`: identity, gzip, deflate and zstd, also several in a row.

    Args:
        data: the body as received.
        encodings: the values of the content-encoding lines.
        limit: the most bytes that may come out, so that a small body cannot fill the memory.

    Raises:
        BodyError: an unknown encoding, broken data, or too large.
    """
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    for name in reversed([name for name in names if name not in ("", "identity")]):
        new_decoder = _decoder(name)
        try:
            data = _decode(new_decoder, data, limit)
        except (zlib.error, ZstdError, EOFError):
            text = f"the request body is not valid {name}"
            raise BodyError(ClientError("invalid_request", text)) from None
    return data


def _decode(new_decoder: Callable[[], _Decoder], data: bytes, limit: int) -> bytes:
    """Decode all members of `data` (RFC 1952 section 2.2, RFC 8878 section 3.1), bounded."""
    pieces: list[bytes] = []
    size, at = 0, 0
    while at < len(data) or not pieces:
        decoder = new_decoder()
        while not decoder.eof:
            starved = decoder.needs_input and at >= len(data)
            fresh = data[at : at + _PIECE] if decoder.needs_input else b""
            at += len(fresh)
            piece = decoder.decompress(fresh, _PIECE)
            if starved and not piece and not decoder.eof:
                raise EOFError("the data ends early")
            size += len(piece)
            if size > limit:
                raise BodyError(body_too_large(limit))
            pieces.append(piece)
        at -= len(decoder.unused_data)
    return b"".join(pieces)


class _Zlib:
    """zlib's decompressor with the interface of the newer modules."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decoder(name: str) -> Callable[[], _Decoder]:
    match name:
        case "gzip" | "x-gzip":
            return lambda: _Zlib(16 + zlib.MAX_WBITS)
        case "deflate":
            return lambda: _Zlib(zlib.MAX_WBITS)
        case "zstd":
            return ZstdDecompressor
    raise BodyError(
        ClientError(
            "invalid_request", "the content-encoding of the body must be gzip, deflate or zstd"
        )
    )
