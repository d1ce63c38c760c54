"""HTTP with server-sent events as an upstream, for accounts without a WebSocket.

To a turn it is a socket like `dial.UpstreamSocket`, so that all rules are the same: the frame goes
out as a POST, the events come in as texts, a refusal comes as the error frame that says the same.
The h11 library sits behind it; no redirect is followed and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque

import h11

from codexlb_cli.core.closes import PROTOCOL_FAULT, CloseRow
from codexlb_cli.core.failures import DIAL_FAILURE
from codexlb_cli.core.frames import post_body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.http_request import (
    HttpRequest,
    is_event_stream,
    metadata_event,
    refusal_frame,
)
from codexlb_cli.gateway.http_connection import Connection, connect
from codexlb_cli.gateway.sockets import (
    REFUSAL_BYTES,
    REFUSAL_SECONDS,
    DialError,
    DialOptions,
    SocketGone,
)
from codexlb_cli.gateway.sse import SseDecoder

_HEAD_BYTES = 256 * 1024


class HttpUpstream:
    """One connection to one account, for one turn.

    Attributes:
        account: the account's name.
        opened_at: loop time of the connection.
        response_headers: of the answer, names in lower case; empty until it came.
        refused: whether the answer is a refusal, no event stream.
    """

    serves_one_turn = True

    def __init__(self, request: HttpRequest, connection: Connection, largest: int) -> None:
        self.account = request.account
        self.opened_at = asyncio.get_running_loop().time()
        self.response_headers: list[Header] = []
        self.refused = False
        self._request = request
        self._connection = connection
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self._sse = SseDecoder(largest)
        self._events: deque[str] = deque()
        self._posted = False
        self._at_end = False
        self._gone: SocketGone | None = None

    @property
    def open(self) -> bool:
        """Whether a frame can be sent; there is one only."""
        return not self._posted and self._gone is None and not self._connection.ended

    async def send(self, frame: str) -> None:
        """Post what the frame asks for.

        Raises:
            SocketGone: the connection has ended, or a frame was sent already.
        """
        if not self.open:
            raise self._over()
        try:
            body = post_body(frame).encode()
        except ValueError:
            raise self._over("not possible over HTTP") from None
        self._posted = True
        headers = self._request.headers(str(uuid.uuid4()), len(body))
        head = h11.Request(
            method="POST",
            target=self._request.target,
            headers=[(n.encode(), v.strip(" \t").encode("latin-1")) for n, v in headers],
        )
        for part in (head, h11.Data(body), h11.EndOfMessage()):
            data = self._http.send(part)
            if data:
                self._connection.write(data)
        await self._connection.written()

    async def receive(self) -> str:
        """Return the next event's text.

        Raises:
            SocketGone: the connection or the stream has ended, or is none (a protocol fault).
        """
        while not self._events:
            if self._sse.fault is not None:
                raise self._over(self._sse.fault, PROTOCOL_FAULT)
            match await self._next():
                case h11.Response() as response:
                    await self._answered(response)
                case h11.Data() as part:
                    self._events.extend(self._sse.feed(bytes(part.data)))
                case h11.InformationalResponse():
                    pass
                case _:  # the end of the stream, with no terminal event before it
                    raise self._over()
        return self._events.popleft()

    def end(self, label: str, row: CloseRow | None = None) -> None:
        """End the connection at once."""
        if self._gone is None:
            self._gone = SocketGone(label, row=row)
        self._connection.abort()

    async def close(self) -> None:
        """End the connection; HTTP has no farewell."""
        self.end("closed")

    async def _answered(self, response: h11.Response) -> None:
        self.response_headers = [
            (name.decode("ascii"), value.decode("latin-1")) for name, value in response.headers
        ]
        status = response.status_code
        if not 200 <= status < 300:
            self.refused = True
            body = await self._refusal_body()
            self._events.append(refusal_frame(status, self.response_headers, body))
            return
        if status != 200 or not is_event_stream(self.response_headers):
            raise self._over("no event stream", PROTOCOL_FAULT)
        event = metadata_event(self.response_headers)
        if event is not None:
            self._events.append(event)

    async def _refusal_body(self) -> bytes:
        body = bytearray()
        with contextlib.suppress(TimeoutError, SocketGone):
            async with asyncio.timeout(REFUSAL_SECONDS):
                while isinstance(part := await self._next(), h11.Data):
                    body += part.data
                    if len(body) > REFUSAL_BYTES:
                        break
        return bytes(body)

    async def _next(self) -> h11.Event:
        """Return the next part of the answer.

        Raises:
            SocketGone: it is cut off, or is no HTTP (a protocol fault).
        """
        try:
            while True:
                part = self._http.next_event()
                if isinstance(part, h11.Event):
                    return part
                if part is h11.PAUSED:
                    raise self._over()
                data = await self._connection.read()
                self._at_end = not data
                self._http.receive_data(data)
        except h11.RemoteProtocolError:
            if self._at_end:
                raise self._over() from None
            raise self._over("not HTTP", PROTOCOL_FAULT) from None

    def _over(self, label: str = "1006", row: CloseRow | None = None) -> SocketGone:
        """End the connection; return why, the first word on it counts."""
        if self._gone is None:
            code = 1006 if row is None else None
            self._gone = SocketGone(label, code=code, row=row)
        self._connection.abort()
        return self._gone


async def open_http(request: HttpRequest, options: DialOptions) -> HttpUpstream:
    """Open a connection to `request`'s upstream. Nothing is sent on it yet.

    Raises:
        DialError: it could not be reached.
    """
    try:
        connection = await connect(request.url, options.timeout_seconds)
    except (OSError, UnicodeError):
        raise DialError(DIAL_FAILURE) from None
    return HttpUpstream(request, connection, options.largest_event_bytes)
