"""An HTTP/1.1 client that sends what it is told, byte for byte, and shows what came back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Header = tuple[str, str]

TERMINAL = frozenset({"response.completed", "response.failed", "response.incomplete", "error"})
ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Event:
    """A server-sent event: its `event:` line, its `data:` text, and that text decoded."""

    name: str
    text: str
    data: Any = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        complete: whether its end was announced, rather than the connection just ending.
    """

    status: int
    headers: list[Header]
    body: bytes
    complete: bool = True

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n.lower() == name]

    def header(self, name: str) -> str | None:
        """The value of a header that comes at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        assert self.header("content-type") == "application/json", self.headers
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an envelope that has the four fields and nothing beside it."""
        document = self.json
        assert set(document) == {"error"}, document
        error: dict[str, Any] = document["error"]
        assert {"message", "type", "code", "param"} <= set(error), document
        return error

    @property
    def events(self) -> list[Event]:
        assert (self.header("content-type") or "").startswith("text/event-stream"), self.headers
        return parse_events(self.body)

    @property
    def types(self) -> list[str]:
        return [event.data["type"] for event in self.events]

    @property
    def text(self) -> str:
        """All text deltas together."""
        return "".join(
            event.data["delta"]
            for event in self.events
            if event.data["type"] == "response.output_text.delta"
        )


def parse_events(body: bytes) -> list[Event]:
    """Read server-sent events; every block is one event with its type and its data."""
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == "", "the last event is cut off"
    return [parse_event(block) for block in blocks if not block.startswith(":")]


def parse_event(block: str) -> Event:
    lines = block.split("\n")
    name = ""
    if lines[0].startswith("event: "):
        name = lines.pop(0).removeprefix("event: ")
    assert len(lines) == 1, block
    assert lines[0].startswith("data: "), block
    text = lines[0].removeprefix("data: ")
    data = json.loads(text)
    assert name in ("", data["type"]), block
    return Event(name, text, data)


def request_head(method: str, target: str, headers: Sequence[Header]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Exchange:
    """One request on a connection of its own, whose answer is read as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: list[Header] = []
        self.complete = False
        self._left = b""
        self._length: int | None = None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> None:
        """Read the head of the answer; 1xx answers are passed over."""
        while True:
            raw = await self._reader.readuntil(b"\r\n\r\n")
            line, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            version, status, _ = line.split(" ", 2)
            assert version == "HTTP/1.1"
            self.status = int(status)
            if self.status >= 200:
                break
        pairs = (entry.split(":", 1) for entry in lines)
        self.headers = [(name, value.strip()) for name, value in pairs]
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        self._length = int(lengths[0]) if lengths else None

    async def piece(self) -> bytes:
        """Return what comes next of the body; b"" at its end."""
        if self.complete:
            return b""
        if self._length is not None:
            data = await self._reader.read(self._length) if self._length else b""
            self._length -= len(data)
            self.complete = self._length == 0
            return data
        if ("transfer-encoding", "chunked") not in [(n.lower(), v) for n, v in self.headers]:
            return await self._reader.read(65536)
        line = await self._reader.readline()
        if not line.endswith(b"\r\n"):
            return b""
        data = await self._reader.readexactly(int(line, 16) + 2)
        self.complete = data == b"\r\n"
        return data[:-2]

    async def event(self) -> Event:
        """Return the next event; comments are passed over."""
        block = await self.block()
        while block.startswith(":"):
            block = await self.block()
        return parse_event(block)

    async def block(self) -> str:
        """Return the next block of the stream, without the empty line after it."""
        while b"\n\n" not in self._left:
            piece = await self.piece()
            assert piece, f"the stream ended after {self._left!r}"
            self._left += piece
        block, _, self._left = self._left.partition(b"\n\n")
        return block.decode()

    async def until(self, kind: str) -> list[Event]:
        """Return the events up to the first of that type."""
        events = [await self.event()]
        while events[-1].data["type"] != kind:
            events.append(await self.event())
        return events

    async def answer(self) -> Answer:
        """Read the rest; what `event` returned before is not part of the body."""
        if not self.status:
            await self.head()
        pieces = [self._left]
        while piece := await self.piece():
            pieces.append(piece)
        return Answer(self.status, self.headers, b"".join(pieces), self.complete)

    async def ended(self) -> bool:
        """Whether the server ended the connection, with nothing more to read."""
        try:
            return await self._reader.read() == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def half_close(self) -> None:
        self._writer.write_eof()


@asynccontextmanager
async def connection(port: int, seconds: float = ANSWER_SECONDS) -> AsyncIterator[Exchange]:
    """Open a connection, for one request that is over within so many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        async with asyncio.timeout(seconds):
            yield Exchange(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def request(
    port: int,
    method: str,
    target: str,
    headers: Sequence[Header] = (),
    body: bytes = b"",
    seconds: float = ANSWER_SECONDS,
) -> Answer:
    """Send a request with exactly these header lines after `Host`, and read the whole answer."""
    lines = list(headers)
    if "host" not in [name.lower() for name, _ in lines]:
        lines.insert(0, ("Host", f"127.0.0.1:{port}"))
    async with connection(port, seconds) as exchange:
        await exchange.send(request_head(method, target, lines) + body)
        return await exchange.answer()
