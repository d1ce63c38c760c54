"""Requests to accounts over HTTP whose bodies are streamed, in both directions, within bounds.

httpx2 sits behind `Transfers`: no redirect is followed, no proxy, cookie or netrc file is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext
from typing import Protocol
from urllib.parse import quote

import httpx2

from codexlb_cli.config.load import Settings
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import body_too_large
from codexlb_cli.gateway.bodies import (
    STALL_SECONDS,
    BodyError,
    ClientGone,
    Receive,
    Send,
    lingering,
)
from codexlb_cli.gateway.sinks import encoded
from codexlb_cli.gateway.sockets import REFUSAL_BYTES, REFUSAL_SECONDS


class TransferError(Exception):
    """The account could not be reached, or its answer broke off.

    Attributes:
        reached: whether the request, or a part of it, may have come to the account.
    """

    def __init__(self, *, reached: bool = True) -> None:
        super().__init__()
        self.reached = reached


class RequestBody(Protocol):
    """The body of a request to an account."""

    @property
    def gone(self) -> bool:
        """Whether a part of it was handed on that cannot be had again."""

    @property
    def length(self) -> int | None:
        """Its length in bytes; None if it is not known beforehand."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Hand the body on, piece by piece."""


class HeldBody:
    """A body that is held in memory, so that it can be sent again.

    Attributes:
        times: how often it was sent, or begun to be.

    Args:
        data: the bytes.
    """

    gone = False

    def __init__(self, data: bytes) -> None:
        self.times = 0
        self._data = data

    @property
    def length(self) -> int | None:
        """Its length."""
        return len(self._data)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Hand it on."""
        self.times += 1
        yield self._data


class ClientBody:
    """A client's request body, taken as fast as the upstream takes it.

    Attributes:
        begun: whether a byte of it was handed on, so that it cannot be replayed.
        complete: whether all of it was read.
        length: the length that the client announced; None if it announced none.

    Args:
        receive: ASGI's receive.
        limit: the most bytes that are taken.
        stall_seconds: after how much silence it is given up.
        length: the length that the client announced.
    """

    def __init__(
        self,
        receive: Receive,
        limit: int,
        stall_seconds: float = STALL_SECONDS,
        length: int | None = None,
    ) -> None:
        self.begun = False
        self.complete = False
        self.length = length
        self._receive = receive
        self._limit = limit
        self._stall_seconds = stall_seconds
        self._read = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Hand the body on, piece by piece.

        Raises:
            BodyError: it is too large, or stalls.
            ClientGone: the client left.
        """
        size = 0
        while not self.complete:
            piece = await self._next()
            size += len(piece)
            if size > self._limit:
                raise BodyError(body_too_large(self._limit))
            if piece:
                self.begun = True
                yield piece

    @property
    def gone(self) -> bool:
        """Whether a part of it was handed on: it cannot be had again."""
        return self.begun

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            BodyError: it is too large, or stalls.
            ClientGone: the client left.
        """
        data = b"".join([piece async for piece in self.pieces()])
        self.begun = False
        return data

    async def skip(self) -> None:
        """Read a body that nobody needs, so that the client's leaving is noticed.

        Raises:
            BodyError: it is larger than any request may be, or stalls.
            ClientGone: the client left.
        """
        async for _ in self.pieces():
            pass
        self.begun = False

    def answering(self, send: Send) -> Send:
        """Return what writes the answer, so that the client comes to read it."""
        return send if self.complete else lingering(send, self._receive)

    async def left(self) -> None:
        """Return once the client has left; before its body was read, `pieces` tells."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds):
                message = await self._receive()
        except TimeoutError:
            text = f"the request body stalled for {self._stall_seconds:.0f} s"
            raise BodyError(ClientError("request_timeout", text)) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not message.get("more_body", False):
            self.complete = True
            self._read.set()
        piece: bytes = message.get("body", b"")
        return piece


@dataclass(slots=True, repr=False)
class Outgoing:
    """A request to an account.

    Attributes:
        method: the method.
        url: the whole URL.
        headers: every line; `Host`, and the framing of a body without a length, are added.
        body: its body; None if the request has none.
        works: whether the account may be silent because it works: then its silence is taken for
            as long as that of a turn, `[timeouts] idle`.
    """

    method: str
    url: str
    headers: list[Header]
    body: RequestBody | None = None
    works: bool = False


class Incoming:
    """An account's answer, whose body is still to come.

    Attributes:
        status: the HTTP status.
        headers: the header lines.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: list[Header] = list(response.headers.multi_items())
        self._response = response

    async def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            TransferError: it is larger than `limit` bytes, or broke off.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self._response.aiter_bytes():
                size += len(piece)
                if size > limit:
                    raise TransferError
                pieces.append(piece)
        except httpx2.HTTPError:
            raise TransferError from None
        return b"".join(pieces)

    async def read_refusal(self) -> bytes:
        """Return what comes of a refusal's body: its status is what counts."""
        body = bytearray()
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(REFUSAL_SECONDS):
                async for piece in self._response.aiter_bytes():
                    body += piece
                    if len(body) > REFUSAL_BYTES:
                        break
        return bytes(body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Hand the body on as it came, piece by piece.

        Raises:
            TransferError: it broke off.
        """
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx2.HTTPError:
            raise TransferError from None


class Transfers:
    """Sends requests to accounts."""

    @cached_property
    def _tls(self) -> SSLContext:
        return httpx2.create_ssl_context(trust_env=False)  # reads every certificate of the system

    @asynccontextmanager
    async def send(self, request: Outgoing, settings: Settings) -> AsyncIterator[Incoming]:
        """Send a request; the answer's body is read within the context, and dropped at its end.

        Raises:
            TransferError: the account could not be reached.
            BodyError: the client's body is too large, or stalls; the request was broken off.
            ClientGone: the client left; the request was broken off.
        """
        timeouts = settings.timeouts
        silence = timeouts.idle if request.works else timeouts.first_event
        timeout = httpx2.Timeout(silence, connect=timeouts.dial, pool=timeouts.dial)
        async with httpx2.AsyncClient(timeout=timeout, trust_env=False, verify=self._tls) as client:
            try:
                origin, target = _split(request.url)
                # Made by hand, for the client would add lines of its own, and write the target
                # in other words.
                made = httpx2.Request(
                    request.method,
                    origin,
                    headers=encoded(request.headers),
                    extensions={"target": target},
                    content=request.body.pieces() if request.body else None,
                )
                response = await client.send(made, stream=True, follow_redirects=False)
            except (*_NOT_REACHED, httpx2.InvalidURL, UnicodeError):
                raise TransferError(reached=False) from None
            except httpx2.HTTPError:
                raise TransferError from None
            try:
                yield Incoming(response)
            finally:
                await response.aclose()


_NOT_REACHED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
)


def _split(url: str) -> tuple[str, bytes]:
    """Return the origin of a URL, and the request target as it stands in it (RFC 9112 3.2.1)."""
    scheme, _, rest = url.partition("://")
    authority = _AUTHORITY.match(rest)
    assert authority is not None, "it matches any text"
    target = rest[authority.end() :]
    target = target if target.startswith("/") else f"/{target}"
    return f"{scheme}://{authority[0]}", quote(target, safe=_VISIBLE).encode()


_AUTHORITY = re.compile("[^/?]*")
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


def decoded(body: bytes) -> object:
    """Return the value of a JSON body; None if it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value
