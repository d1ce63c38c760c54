"""Requests to accounts over HTTP whose bodies are streamed, in both directions, within bounds.

httpx2 sits behind `Transfers`: no redirect is followed, no proxy, cookie or netrc file is used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext

import httpx2

from codexlb_cli.config.load import Settings
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import body_too_large
from codexlb_cli.gateway.bodies import STALL_SECONDS, BodyError, ClientGone, Receive


class TransferError(Exception):
    """The account could not be reached, or its answer broke off."""


class ClientBody:
    """A client's request body, taken as fast as the upstream takes it.

    Attributes:
        begun: whether a byte of it was handed on, so that it cannot be replayed.
        complete: whether all of it was read.

    Args:
        receive: ASGI's receive.
        limit: the most bytes that are taken.
        stall_seconds: after how much silence it is given up.
    """

    def __init__(self, receive: Receive, limit: int, stall_seconds: float = STALL_SECONDS) -> None:
        self.begun = False
        self.complete = False
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

    async def skip(self) -> None:
        """Read a body that nobody needs, so that the client's leaving is noticed.

        Raises:
            BodyError: it is larger than any request may be, or stalls.
            ClientGone: the client left.
        """
        async for _ in self.pieces():
            pass
        self.begun = False

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
        headers: every line but for `Host` and the framing.
        body: the client's body; None if the request has none.
        length: the length that the client announced; None if it announced none.
    """

    method: str
    url: str
    headers: list[Header]
    body: ClientBody | None = None
    length: str | None = None


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
        timeout = httpx2.Timeout(timeouts.first_event, connect=timeouts.dial, pool=timeouts.dial)
        async with httpx2.AsyncClient(timeout=timeout, trust_env=False, verify=self._tls) as client:
            try:
                # Made by hand, for the client would add lines of its own.
                made = httpx2.Request(
                    request.method,
                    request.url,
                    headers=_framed(request),
                    content=request.body.pieces() if request.body else None,
                )
                response = await client.send(made, stream=True, follow_redirects=False)
            except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError):
                raise TransferError from None
            try:
                yield Incoming(response)
            finally:
                await response.aclose()


def decoded(body: bytes) -> object:
    """Return the value of a JSON body; None if it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def _framed(request: Outgoing) -> list[tuple[bytes, bytes]]:
    lines = list(request.headers)
    if request.body is not None and request.length is not None:
        lines.append(("content-length", request.length))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
