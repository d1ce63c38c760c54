"""Calls for tests: forms, JSON, and an upstream that answers as each test says."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.mock_upstream.wire import Head, parse_head, response, response_head
from tests.support.client import Answer, Header, request
from tests.support.gateway import Stage, Test, play

BOUNDARY = "b0undary"
CLOSE: Header = ("Connection", "close")


def form(content: bytes, filename: str = "a.txt", purpose: str = "user_data") -> bytes:
    """A form as the SDKs send it."""
    return (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: text/plain\r\n\r\n"
    ).encode() + ending(content)


def part(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="p"\r\n\r\n'
    return head.encode() + ending(content)


def ending(content: bytes) -> bytes:
    return content + f"\r\n--{BOUNDARY}--\r\n".encode()


def form_headers(length: int | None, *more: Header) -> list[Header]:
    framing = (
        ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
    )
    return [("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"), framing, CLOSE, *more]


async def upload(
    stage: Stage, content: bytes = b"hello", *headers: Header, path: str = "/v1/files"
) -> Answer:
    body = form(content)
    return await request(stage.port, "POST", path, form_headers(len(body), *headers), body)


async def uploaded(stage: Stage, content: bytes = b"hello", *headers: Header) -> tuple[str, str]:
    """Upload a file; returns its id and its account."""
    answer = await upload(stage, content, *headers)
    assert answer.status == 200, answer.body
    account = answer.header("x-codexlb-account")
    assert account is not None
    return answer.json["id"], account


async def call(stage: Stage, method: str, path: str, document: object = None) -> Answer:
    """Send a request without a body, or with a JSON one."""
    if document is None:
        length = [("Content-Length", "0")] if method == "POST" else []
        return await request(stage.port, method, path, [*length, CLOSE])
    body = json.dumps(document).encode()
    lines = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), CLOSE]
    return await request(stage.port, method, path, lines, body)


def naming(*files: str) -> list[dict[str, Any]]:
    """An input that names files."""
    parts = [{"type": "input_file", "file_id": name} for name in files]
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": "read"}]}]


async def ids(stage: Stage, query: str = "") -> tuple[list[str], bool]:
    answer = await call(stage, "GET", f"/v1/files{query}")
    assert answer.status == 200, answer.body
    document = answer.json
    return [file["id"] for file in document["data"]], document["has_more"]


def asked(stage: Stage) -> list[tuple[str | None, str, str]]:
    """Account, method and target of every request for files that reached the upstream."""
    return [(r.account, r.method, r.target) for r in stage.mock.file_requests]


def api_asked(stage: Stage) -> list[tuple[str | None, str, str]]:
    """Account, method and target of every other call that reached the upstream."""
    return [(r.account, r.method, r.target) for r in stage.mock.api_requests]


def account(answer: Answer) -> str | None:
    return answer.header("x-codexlb-account")


def rows(stage: Stage, source: str) -> dict[str, str]:
    """The owners on disk."""
    with sqlite3.connect(stage.state_folder / "state.sqlite3") as connection:
        found = connection.execute("SELECT key, account FROM owners WHERE source = ?", (source,))
        pinned = dict(found.fetchall())
    connection.close()
    return pinned


Reply = Callable[["Asked"], Awaitable[None]]


class Asked:
    """A request that reached a plain upstream, whose answer is up to the test.

    Attributes:
        body: what was read of its body.
    """

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.head = head
        self.body = b""
        self._reader = reader
        self._writer = writer

    async def read(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self.body += data
        return data

    async def read_all(self) -> bytes:
        await self.read(int(self.head.value("content-length") or 0))
        return self.body

    async def gone(self) -> bool:
        """Whether the gateway ends the connection; what it still sends is read."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        return True

    async def answer(
        self, status: int, document: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps(document if document is not None else {}).encode()
        await self.send(
            response(status, body, headers or {}, content_type="application/json", close=True)
        )

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        await self.send(response_head(status, headers))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


@asynccontextmanager
async def upstream(reply: Reply) -> AsyncIterator[tuple[str, list[Asked]]]:
    """Serve calls by `reply`; gives the base URL, and every request that came."""
    seen: list[Asked] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
            seen.append(Asked(parse_head(raw.removesuffix(b"\r\n\r\n")), reader, writer))
            await reply(seen[-1])
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1", seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def against(
    reply: Reply, test: Test, folder: Path, *rules: TurnRule, **options: Any
) -> list[Asked]:
    """Run a test where account `work` answers by `reply`; returns what came there."""

    async def main() -> list[Asked]:
        async with upstream(reply) as (url, seen):
            await play(test, folder, *rules, urls={"work": url}, **options)
            return seen

    return asyncio.run(main())
