"""A WebSocket client that says what it is told, and shows every frame that comes back."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.client import TERMINAL, Header, request_head
from tests.support.gateway import RESPONSES, Stage


@dataclass
class Client:
    """A client's socket."""

    connection: ClientConnection

    async def say(self, kind: str, **members: object) -> None:
        frame = {"type": kind, **members}
        await self.connection.send(json.dumps(frame, separators=(",", ":")))

    async def create(self, **members: object) -> None:
        await self.say("response.create", **{"model": "mock", "input": "hello", **members})

    async def event(self) -> Any:
        message = await self.connection.recv()
        assert isinstance(message, str), "a binary frame"
        return json.loads(message)

    async def until(self, *kinds: str) -> list[Any]:
        """Return the events up to the first of these types."""
        events = [await self.event()]
        while events[-1]["type"] not in kinds:
            events.append(await self.event())
        return events

    async def turn(self, **members: object) -> list[Any]:
        """Run a turn, and return its events."""
        await self.create(**members)
        return await self.until(*TERMINAL)

    async def closed(self) -> int:
        """Return the close code, once nothing more came than that."""
        try:
            message = await self.connection.recv()
        except ConnectionClosed as exc:
            return exc.rcvd.code if exc.rcvd is not None else 1006
        raise AssertionError(f"{message!r} came instead of a close")

    async def quiet(self, seconds: float = 1.0) -> None:
        """Require that nothing comes for so long, by the loop's clock."""
        try:
            async with asyncio.timeout(seconds):
                message = await self.connection.recv()
        except TimeoutError:
            return
        raise AssertionError(f"{message!r} came")


@asynccontextmanager
async def client(
    port: int, path: str = RESPONSES, headers: Sequence[Header] = (), **options: Any
) -> AsyncIterator[Client]:
    """Open a socket without compression, pings or a proxy."""
    own = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
    url = f"ws://127.0.0.1:{port}{path}"
    async with connect(url, additional_headers=list(headers), **{**own, **options}) as connection:
        yield Client(connection)


def to(stage: Stage, headers: Sequence[Header] = (), path: str = RESPONSES, **options: Any) -> Any:
    """Open a socket to the gateway."""
    return client(stage.port, path, headers, **options)


def types(events: Sequence[Any]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: Sequence[Any]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


def id_of(events: Sequence[Any]) -> str:
    """The id of the response that these events are about."""
    found: str = events[-1]["response"]["id"]
    return found


# A client that speaks bytes


def upgrade_request(port: int) -> bytes:
    lines = [
        ("Host", f"127.0.0.1:{port}"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
    ]
    return request_head("GET", RESPONSES, lines)


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame of less than 64 KiB, masked with nothing."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


@asynccontextmanager
async def upgraded(
    stage: Stage,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a socket, and hand out its bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(upgrade_request(stage.port))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    yield reader, writer
    writer.transport.abort()
