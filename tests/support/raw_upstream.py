"""An HTTP upstream that answers each request with bytes as they stand, and notes what it got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.client import Header
from tests.support.gateway import Stage, play
from tests.support.virtual import VirtualLoop, play_virtually

CUT = object()
"""Reset the connection."""
HANG = object()
"""Wait until the other side leaves."""
STALL = object()
"""Neither read nor answer any more."""
UNREAD = object()
"""Answer before the body was read; only as the first part of an answer."""

CREATED = '{"type":"response.created","response":{"id":"resp_1"},"sequence_number":0}'
COMPLETED = (
    '{"type":"response.completed","response":{"id":"resp_1","output":[]},"sequence_number":1}'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def sse(*texts: str) -> bytes:
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def plain(status: int, body: bytes, *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} Any", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


TURN = STREAM_HEAD + sse(CREATED, COMPLETED)


@dataclass
class Posted:
    """A request as it came."""

    line: str
    headers: list[Header]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawUpstream:
    """Listens while entered; each request gets the next answer, the last one ever after.

    Attributes:
        posted: the requests, in order.
        connections: how many were opened.
        asked: set once a request has come.
        left: set whenever a client has left while the answer was `HANG`.
    """

    def __init__(self, *answers: Sequence[object]) -> None:
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.posted: list[Posted] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name, value) for name, _, value in (text.partition(": ") for text in lines)]
        parts = list(self._answers[min(len(self.posted), len(self._answers) - 1)])
        length = int(dict(headers).get("content-length", "0"))
        read = not (parts and parts[0] is UNREAD)
        body = await reader.readexactly(length) if read else b""
        self.posted.append(Posted(line, headers, body))
        self.asked.set()
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            elif part is CUT:
                writer.transport.abort()
                return
            elif part is STALL:
                await asyncio.Event().wait()
            elif part is HANG:
                while await reader.read(65_536):
                    pass
                self.left.set()


RawTest = Callable[[Stage, RawUpstream], Awaitable[None]]
OVER_HTTP = {"work": 'transport = "http"'}


async def play_raw(
    test: RawTest,
    folder: Path,
    *answers: Sequence[object],
    player: Callable[..., Awaitable[None]] = play,
    **options: Any,
) -> None:
    """Play a test against a gateway whose account `work` lies at a raw upstream, over HTTP.

    Args:
        test: the test.
        folder: a folder of its own.
        answers: see `RawUpstream`.
        player: `play`, or `play_virtually` on a virtual loop.
        options: further ones of `play`.
    """
    async with RawUpstream(*answers) as raw:
        settled = {"names": ["work"], "accounts": OVER_HTTP, **options}
        await player(lambda stage: test(stage, raw), folder, urls={"work": raw.base_url}, **settled)


def run_raw(test: RawTest, folder: Path, *answers: Sequence[object], **options: Any) -> None:
    """Run one test; see `play_raw`."""
    asyncio.run(play_raw(test, folder, *answers, **options))


def run_raw_virtually(
    test: RawTest, folder: Path, *answers: Sequence[object], **options: Any
) -> None:
    """Run one test on virtual time; see `play_raw`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play_raw(test, folder, *answers, player=play_virtually, **options))
