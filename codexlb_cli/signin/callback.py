"""The server on loopback to which the browser brings the answer of a sign-in.

It reads request heads and answers with small pages; what an answer means is decided in
`core.signin`. It ends with the sign-in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Self

from codexlb_cli.core.signin import CALLBACK_PATH
from codexlb_cli.errors import ConfigError

HOST = "127.0.0.1"
_HEAD_SECONDS = 10.0
_GOODBYE_SECONDS = 5.0
_MOST_CONNECTIONS = 16

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} - codexlb</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 36em; margin: 15vh auto; }}</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""
_HEADERS = (
    "content-type: text/html; charset=utf-8\r\n"
    "cache-control: no-store\r\n"
    "referrer-policy: no-referrer\r\n"
    "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
    "connection: close\r\n"
)
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class NoPort(ConfigError):
    """The browser's answer cannot be waited for: no port can be had."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the browser shows.

    Attributes:
        status: of the answer.
        title: one line.
        text: what it means, and what to do now.
    """

    status: int
    title: str
    text: str

    def response(self) -> bytes:
        """Return it as an HTTP/1.1 response."""
        body = _PAGE.format(title=escape(self.title), text=escape(self.text)).encode()
        line = f"HTTP/1.1 {self.status} {_PHRASES[self.status]}\r\n"
        return f"{line}{_HEADERS}content-length: {len(body)}\r\n\r\n".encode("ascii") + body


Visit = Callable[[str], "asyncio.Future[Page] | Page"]


class CallbackServer:
    """An async context manager that listens on loopback while entered.

    Args:
        port: the port to listen on; another one is taken where it is in use. 0 for any.
        visited: called with the query of each request to the callback path; returns the page, or a
            future of it where the sign-in has to be finished first.
    """

    def __init__(self, port: int, visited: Visit) -> None:
        self._wanted = port
        self._visited = visited
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self.port = port

    @property
    def redirect_uri(self) -> str:
        """Where the browser is sent to with the answer."""
        return f"http://{HOST}:{self.port}{CALLBACK_PATH}"

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            NoPort: no port can be had.
        """
        try:
            self._server = await self._listen()
        except OSError as exc:
            reason = (exc.strerror or type(exc).__name__).lower()
            raise NoPort(f"cannot listen on `{HOST}` for the browser: {reason}") from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening; let pages that are under way arrive, and drop what else is open."""
        assert self._server is not None
        self._server.close()
        if self._answering and (kind is None or issubclass(kind, Exception)):
            # Browsers open connections in advance and leave them idle: those are not waited for.
            await asyncio.wait(self._answering, timeout=_GOODBYE_SECONDS)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _listen(self) -> asyncio.Server:
        try:
            return await asyncio.start_server(self._serve, HOST, self._wanted)
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        return await asyncio.start_server(self._serve, HOST, 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) >= _MOST_CONNECTIONS:
                return
            self._connections.add(task)
            head = await _head(reader)
            if head is not None:
                self._answering.add(task)
                page = await self._page(head)
                writer.write(page.response())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the browser has left, or the sign-in has ended: there is nobody to tell
        finally:
            self._connections.discard(task)
            self._answering.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _page(self, head: bytes) -> Page:
        """Return the page for a request."""
        parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(parts) != 3:
            return Page(400, "Not understood", "This is no HTTP request.")
        path, _, query = parts[1].partition("?")
        if path != CALLBACK_PATH:
            return Page(404, "Nothing here", "This address only takes the answer of a sign-in.")
        if parts[0] != "GET":
            return Page(405, "Not like this", "This address only takes the answer of a sign-in.")
        page = self._visited(query)
        return page if isinstance(page, Page) else await asyncio.shield(page)


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """Read the head of a request, 64 KiB at most; None if it never came whole."""
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        return None
