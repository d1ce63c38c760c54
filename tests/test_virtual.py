"""The event loop on virtual time, and a gateway on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.support.gateway import Stage, session
from tests.support.virtual import (
    HangError,
    VirtualLoop,
    play_virtually,
    run_each_virtually,
    run_virtually,
)


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_timers_jump() -> None:
    async def main() -> None:
        began = now()
        await asyncio.sleep(3600)
        assert now() - began == pytest.approx(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(24 * 3600):
                await asyncio.Event().wait()
        assert now() - began == pytest.approx(25 * 3600)

    run(main())


def test_the_order_of_timers_is_kept() -> None:
    async def main() -> None:
        began, called = now(), list[tuple[float, float]]()

        def note(seconds: float) -> None:
            called.append((seconds, now()))

        for seconds in (5, 0.01, 300, 5, 0, 20.5):
            asyncio.get_running_loop().call_later(seconds, note, seconds)
        await asyncio.sleep(301)
        assert [seconds for seconds, _ in called] == [0, 0.01, 5, 5, 20.5, 300]
        for seconds, at in called:
            assert at - began == pytest.approx(seconds)

    run(main())


def test_a_timer_that_was_cancelled_is_not_waited_for() -> None:
    async def main() -> None:
        began = now()
        async with asyncio.timeout(600):
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        assert now() - began == pytest.approx(2)

    run(main())


def test_time_stands_still_while_sockets_are_busy() -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asyncio.get_running_loop().call_later(0.05, lambda: None)
        began = now()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for size in (1, 100, 1_000_000):
            writer.write(b"x" * size)
            assert await reader.readexactly(size) == b"x" * size
        assert now() == began
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_work_in_threads_takes_no_time() -> None:
    async def main() -> None:
        released = threading.Event()
        began = now()
        asyncio.get_running_loop().call_later(3600, lambda: None)
        work = asyncio.create_task(asyncio.to_thread(released.wait, 10))
        threading.Timer(0.05, released.set).start()
        assert await work
        assert now() == began

    run(main())


def test_other_work_can_be_watched() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        began, done = now(), asyncio.Event()
        thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(done.set))
        with loop.jumping.watching(thread.is_alive):
            thread.start()
            async with asyncio.timeout(0.2):
                await done.wait()
        assert now() == began

    run(main())


def test_a_hang_is_reported() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(HangError, match="a hang"):
        run(main())


def test_a_gateway_on_virtual_time(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        began, epoch = now(), stage.clock()
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "2")
        assert now() - began == pytest.approx(100)  # `[timeouts] first_event`
        assert stage.clock() - epoch == pytest.approx(100)
        assert stage.sent == ["work", "work"]
        assert stage.mock.handshakes[1].at - stage.mock.handshakes[0].at == pytest.approx(100)
        assert stage.warnings == []

    run_virtually(test, tmp_path, TurnRule(silence=True, times=1))


def test_pings_are_answered_during_a_quarter_of_an_hour_of_silence(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        began = now()
        answer = await stage.turn()
        assert answer.types[-1] == "error"
        assert now() - began == pytest.approx(900)  # `[timeouts] idle`

    run_virtually(test, tmp_path, TurnRule(silence=True, when="streaming"))


def test_gateways_share_a_loop(tmp_path: Path) -> None:
    async def one(seconds: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            began = now()
            assert (await stage.turn()).status == 200
            assert now() - began == pytest.approx(seconds)

        rule = HandshakeRule(delay=seconds)
        await play_virtually(test, folder, rule, more="[timeouts]\ndial = 60")

    run_each_virtually({str(n): n for n in (1, 5, 50)}, one, tmp_path)
