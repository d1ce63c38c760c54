"""A WebSocket client of the mock, and the arguments that tests share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream

TERMINAL = {"response.completed", "response.failed", "response.incomplete", "error"}
ACCOUNTS = {"work": "demo-key-work", "home": "demo-key-home"}


def run(test: Callable[[MockUpstream], Awaitable[None]], *rules: Any, **options: Any) -> None:
    """Run a test against a mock with two accounts and these rules."""

    async def main() -> None:
        async with asyncio.timeout(30):
            arguments: dict[str, Any] = {"script": Script(rules), "accounts": ACCOUNTS}
            async with MockUpstream(**(arguments | options)) as mock:
                await test(mock)

    asyncio.run(main())


class Socket:
    """A socket on which turns are sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **fields: object) -> None:
        frame = {"type": "response.create", "model": "mock", "input": "hello"} | fields
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.connection.recv())
        return event

    async def until_the_end(self) -> list[dict[str, Any]]:
        events = [await self.receive()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.receive())
        return events

    async def turn(self, **fields: object) -> list[dict[str, Any]]:
        await self.send(**fields)
        return await self.until_the_end()

    async def events_before_the_close(self) -> list[str]:
        """The types of what still arrives, once the connection is closed."""
        return [json.loads(message)["type"] async for message in _all(self.connection)]


async def _all(connection: ClientConnection) -> AsyncIterator[str | bytes]:
    from websockets.exceptions import ConnectionClosed

    while True:
        try:
            yield await connection.recv()
        except ConnectionClosed:
            return


@asynccontextmanager
async def open_socket(
    mock: MockUpstream, key: str = "demo-key-work", headers: dict[str, str] | None = None
) -> AsyncIterator[Socket]:
    """Open a WebSocket to the mock."""
    more = {"Authorization": f"Bearer {key}"} | (headers or {})
    url = f"{mock.websocket_base_url}/responses"
    async with connect(
        url, additional_headers=more, proxy=None, compression=None, max_size=None
    ) as connection:
        yield Socket(connection)


def http_client(key: str = "demo-key-work") -> httpx2.AsyncClient:
    """Return an HTTP client that carries a key."""
    return httpx2.AsyncClient(
        trust_env=False, headers={"authorization": f"Bearer {key}"}, timeout=20
    )


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


__all__ = [
    "ACCOUNTS",
    "HandshakeRule",
    "Socket",
    "TurnRule",
    "http_client",
    "open_socket",
    "run",
    "types",
]
