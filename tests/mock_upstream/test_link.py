"""What only the mock in memory has; `tests/parity/test_link.py` compares the rest with sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from codexlb_cli.mock_upstream.link import Link, LinkClosed, LinkRefused, MemoryUpstream
from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import Script
from tests.mock_upstream.client import TERMINAL

CREATE = '{"type": "response.create", "model": "mock", "input": "hello"}'


def run(test: Callable[[MemoryUpstream], Awaitable[None]], *rules: Any, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test(MemoryUpstream(script=Script(rules), **options))

    asyncio.run(main())


async def events(link: Link) -> list[Any]:
    found = [json.loads(await link.receive())]
    while found[-1]["type"] not in TERMINAL:
        found.append(json.loads(await link.receive()))
    return found


def test_a_run_makes_the_same_ids_and_times_every_time() -> None:
    texts: list[str] = []

    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [])
        await link.send(CREATE)
        texts.append(json.dumps(await events(link)))

    for _ in range(2):
        run(test, wall_clock=lambda: 7.0)
    assert texts[0] == texts[1]
    assert '"created_at": 7' in texts[0]


def test_the_upgrade_is_recorded_and_answered_with_the_scripts_headers() -> None:
    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [("session-id", "s1")])
        assert link.response_headers == [("openai-model", "gpt-mock")]
        [handshake] = upstream.handshakes
        assert (handshake.socket, handshake.account, handshake.at) == (link.socket, "work", 3.0)
        assert handshake.headers[-1] == ("session-id", "s1")
        assert handshake.status == 101

    run(test, HandshakeRule(headers={"openai-model": "gpt-mock"}), clock=lambda: 3.0)


def test_an_account_that_nobody_has_is_refused() -> None:
    async def test(upstream: MemoryUpstream) -> None:
        with pytest.raises(LinkRefused) as caught:
            await upstream.connect("ghost", [])
        assert caught.value.status == 401
        assert json.loads(caught.value.body)["error"]["code"] == "invalid_api_key"
        assert [(h.account, h.status) for h in upstream.handshakes] == [(None, 401)]

    run(test, accounts=["work"])


@pytest.mark.parametrize("rule", [HandshakeRule(silence=True), HandshakeRule(delay=3600)])
def test_a_client_that_stops_waiting_for_its_upgrade_has_left(rule: HandshakeRule) -> None:
    async def test(upstream: MemoryUpstream) -> None:
        waiting = asyncio.create_task(upstream.connect("work", []))
        await upstream.wait_for(lambda upstream: bool(upstream.handshakes))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [(h.status, h.ended) for h in upstream.handshakes] == [(None, "client left")]

    run(test, rule)


def test_after_a_close_what_was_sent_before_still_arrives() -> None:
    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [])
        await link.send(CREATE)
        await upstream.wait_for(lambda upstream: upstream.handshakes[0].ended is not None)
        with pytest.raises(LinkClosed):
            await link.send(CREATE)
        assert json.loads(await link.receive())["type"] == "response.created"
        assert json.loads(await link.receive())["type"] == "response.in_progress"
        for _ in range(2):
            with pytest.raises(LinkClosed) as caught:
                await link.receive()
            assert (caught.value.code, caught.value.reason) == (1012, "restart")
            assert not caught.value.ours
        assert not link.open

    run(test, TurnRule(close=1012, reason="restart", when="created"))


def test_a_receiver_learns_that_its_own_side_left() -> None:
    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [])
        waiting = asyncio.create_task(link.receive())
        await asyncio.sleep(0)
        await link.close()
        with pytest.raises(LinkClosed) as caught:
            await waiting
        assert (caught.value.code, caught.value.ours) == (1000, True)
        assert upstream.handshakes[0].ended == "client close 1000"

    run(test)


def test_a_stop_says_goodbye() -> None:
    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [])
        await link.send('{"type": "response.create", "model": "mock-silent"}')
        await upstream.wait_for(lambda upstream: upstream.turns[0].outcome == "silence")
        await upstream.stop()
        with pytest.raises(LinkClosed) as caught:
            await link.receive()
        assert caught.value.code == 1001
        assert upstream.handshakes[0].ended == "close 1001"

    run(test)


def test_what_breaks_the_mock_is_not_a_silent_upstream() -> None:
    async def broken(seconds: float) -> None:
        raise ZeroDivisionError

    async def test(upstream: MemoryUpstream) -> None:
        link = await upstream.connect("work", [])
        await link.send(CREATE)
        with pytest.raises(ZeroDivisionError):
            await link.receive()

    run(test, TurnRule(delay=1), sleep=broken)
