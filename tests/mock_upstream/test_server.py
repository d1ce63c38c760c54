from __future__ import annotations

import asyncio

import pytest

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.recording import Turn
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import open_socket, run


def test_the_addresses() -> None:
    async def test(mock: MockUpstream) -> None:
        assert mock.port > 0
        assert mock.base_url == f"http://127.0.0.1:{mock.port}/v1"
        assert mock.websocket_base_url == f"ws://127.0.0.1:{mock.port}/v1"

    run(test)


def test_a_port_in_use() -> None:
    async def test(mock: MockUpstream) -> None:
        with pytest.raises(ConfigError, match="the port is in use"):
            await MockUpstream(port=mock.port).start()

    run(test)


def test_stopping_twice_is_stopping_once() -> None:
    async def test(mock: MockUpstream) -> None:
        await mock.stop()
        await mock.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", mock.port)

    run(test)


def test_every_turn_is_told_when_it_has_ended() -> None:
    ended: list[Turn] = []

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.turn()
            await socket.turn(model="mock-429")
        assert [turn.outcome for turn in ended] == [
            "response.completed",
            "error 429 rate_limit_exceeded",
        ]
        assert ended == mock.turns

    run(test, on_turn=ended.append)


def test_waiting_has_an_end() -> None:
    async def test(mock: MockUpstream) -> None:
        with pytest.raises(TimeoutError, match="0 handshakes"):
            await mock.wait_for(lambda mock: bool(mock.handshakes), timeout=0.01)

    run(test)


def test_only_the_latest_are_kept() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            for number in range(7):
                await socket.turn(input=str(number))
        assert [frame.json["input"] for frame in mock.frames] == ["4", "5", "6"]
        assert [turn.number for turn in mock.turns] == [5, 6, 7]

    run(test, keep=2)


def test_the_time_of_a_handshake_is_the_clock_s() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock):
            pass
        assert mock.handshakes[0].at == 42.0

    run(test, clock=lambda: 42.0)


def test_a_hundred_sockets_at_once() -> None:
    async def one(mock: MockUpstream) -> str:
        async with open_socket(mock) as socket:
            events = await socket.turn()
        kind: str = events[-1]["type"]
        return kind

    async def test(mock: MockUpstream) -> None:
        ends = await asyncio.gather(*(one(mock) for _ in range(100)))
        assert set(ends) == {"response.completed"}
        assert mock.overlaps == 0

    run(test)
