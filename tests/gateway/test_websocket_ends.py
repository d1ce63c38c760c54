"""How WebSocket clients' sockets end: the gateway stops, or the client leaves or breaks a rule."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from codexlb_cli.gateway.client_socket import ClientSocket, UpgradeOptions, upgrade
from codexlb_cli.gateway.request_log import RequestLog
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.websocket import WebSockets
from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.gateway import RESPONSES, Stage, run
from tests.support.sockets import client, masked, to, upgraded


def test_turns_that_wait_when_the_drain_is_over_are_told_and_not_sent(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            socket = to(stage)
            ws = await socket.__aenter__()
            for _ in range(3):
                await ws.create()
            await ws.until("response.created")
        seen = [(await ws.until("error"))[-1] for _ in range(3)]
        assert [error["error"]["code"] for error in seen] == [
            "upstream_closed", "upstream_unavailable", "upstream_unavailable",
        ]  # fmt: skip
        assert await ws.closed() == 1012
        assert len(stage.sent) == 1
        await socket.__aexit__(None, None, None)

    more = "[timeouts]\ndrain = 0.2\n"
    run(test, tmp_path, TurnRule(delta_delay=30), serve=False, more=more)


class _Broken:
    """Services with a bug: nothing of them can be used."""


def test_a_bug_closes_the_socket_with_1011_and_is_said() -> None:
    bugs: list[Exception] = []
    lines: list[str] = []

    async def test() -> None:
        services = cast("Services", _Broken())
        broken = WebSockets(services, RequestLog(lines.append), 15.0, bugs.append)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Accepts(broken), "127.0.0.1", 0
        )
        async with server, client(server.sockets[0].getsockname()[1]) as ws:
            await ws.create()
            assert await ws.closed() == 1011
        assert [type(bug) for bug in bugs] == [AttributeError]

    asyncio.run(test())


class _Accepts(asyncio.Protocol):
    """Accepts each upgrade for a `WebSockets`."""

    def __init__(self, websockets: WebSockets) -> None:
        self._websockets = websockets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        lines = data.decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
        headers = [(n, v) for n, _, v in (line.partition(": ") for line in lines)]
        answer = upgrade(RESPONSES, headers, UpgradeOptions(deflate=False, largest_bytes=1000))
        self._websockets.serve(ClientSocket(self._transport, answer), [])


# Clients that do not end TCP


CLOSE_1000 = masked(8, b"\x03\xe8")


@pytest.mark.parametrize("last", [masked(3, b""), CLOSE_1000], ids=["broken", "closed"])
def test_a_client_that_keeps_its_connection_is_let_go(tmp_path: Path, last: bytes) -> None:
    async def test(stage: Stage) -> None:
        async with upgraded(stage) as (reader, writer):
            writer.write(last)
            await reader.read()  # to the end of what we send
            with pytest.raises(ConnectionError):
                await write_on(writer)

    run(test, tmp_path)


async def write_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["close", "eof"])
def test_a_client_that_leaves_without_reading_ends_its_turn(tmp_path: Path, how: str) -> None:
    """What was written to it lies in the buffers of the connection, which nobody empties."""

    async def test(stage: Stage) -> None:
        async with upgraded(stage) as (_, writer):
            await ask_and_do_not_read(stage, writer)
            if how == "close":
                writer.write(CLOSE_1000)
            else:
                writer.write_eof()
            while stage.gateway.websockets.running:
                await asyncio.sleep(0.1)
            assert [line.split()[-2:] for line in stage.lines] == [["client", "left"]]
            assert len(stage.gateway.services.lanes) == 0

    run(test, tmp_path, MUCH)


async def ask_and_do_not_read(stage: Stage, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    create = {"type": "response.create", "model": "mock", "input": "hello"}
    writer.write(masked(1, json.dumps(create).encode()))
    while stage.gateway.websockets.running == 0:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


MUCH = TurnRule(text="y" * 30_000_000)
"""More than the buffers of a connection hold."""


def test_pongs_that_nobody_reads_do_not_fill_the_memory(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with upgraded(stage) as (_, writer):
            await ask_and_do_not_read(stage, writer)
            with pytest.raises(ConnectionError):
                await ping_on(writer)
            while stage.gateway.websockets.running:
                await asyncio.sleep(0.1)

    run(test, tmp_path, MUCH)


async def ping_on(writer: asyncio.StreamWriter) -> None:
    for _ in range(5000):
        writer.write(masked(9, bytes(125)) * 100)
        await writer.drain()
