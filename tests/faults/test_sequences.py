"""What an account is blamed for when faults follow each other, on virtual time."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.support.gateway import Stage, session
from tests.support.virtual import run_virtually

BAD: dict[str, Any] = {"headers": session("s"), "model": "bad"}
NEUTRAL = (1000, 1001, 1002, 1005, 1009, 1012, 1014, 2999, 3008)


async def state(stage: Stage, name: str = "work") -> str:
    return str((await stage.get("/readyz")).json["accounts"][name])


async def cooling_seconds(stage: Stage) -> int:
    """How long `work` is avoided from now on; waits until it is over."""
    await asyncio.sleep(0.001)  # what was queued for the disk is on it
    listed = json.loads(stage.cli.run("accounts", "list", "--json", stdin=b"", **stage.environ).out)
    until = datetime.fromisoformat(listed["accounts"][0]["until"]).timestamp()
    seconds = int(until - stage.clock())  # it rounds up
    await asyncio.sleep(seconds - 0.5)
    assert await state(stage) == "cooling_down"
    await asyncio.sleep(1)
    assert await state(stage) == "ready"
    return seconds


@pytest.mark.parametrize("code", [1006, 1011])
def test_three_counted_closes_in_a_minute_cool_for_half_a_minute(tmp_path: Path, code: int) -> None:
    async def test(stage: Stage) -> None:
        await stage.turn(**BAD)  # with its replay, two closes
        assert await state(stage) == "ready"
        await asyncio.sleep(59)
        await stage.turn(headers=session("s"), model="once")  # the third, and then it completes
        assert await state(stage) == "ready"
        await stage.turn(**BAD)
        await asyncio.sleep(20)
        assert await state(stage) == "ready"
        await stage.turn(**BAD)  # no replay so soon after it gave up: the third
        assert await cooling_seconds(stage) == 30

    once = TurnRule(model="once", close=code, times=1)
    run_virtually(test, tmp_path, TurnRule(model="bad", close=code), once)


@pytest.mark.parametrize("code", [1006, 1011])
def test_closes_further_apart_are_not_counted_together(tmp_path: Path, code: int) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(4):
            await stage.turn(**BAD)
            assert await state(stage) == "ready"
            await asyncio.sleep(61)

    run_virtually(test, tmp_path, TurnRule(model="bad", close=code), names=["work"])


@pytest.mark.parametrize(
    ("code", "lengths"),
    [(1013, [5, 10, 20, 40, 80, 160, 300, 300]), (4000, [30, 60, 120, 240, 300, 300])],
)
def test_cooldowns_double_until_a_turn_completes(
    tmp_path: Path, code: int, lengths: list[int]
) -> None:
    async def test(stage: Stage) -> None:
        for length in lengths:
            await stage.turn(**BAD)
            assert await cooling_seconds(stage) == length
        assert (await stage.turn(headers=session("s"))).status == 200
        await stage.turn(**BAD)
        assert await cooling_seconds(stage) == lengths[0]

    run_virtually(test, tmp_path, TurnRule(model="bad", close=code), names=["work"])


def test_upgrades_refused_with_403_cool_for_three_seconds_then_for_longer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        seen = []
        for _ in range(4):
            await stage.turn()
            seen.append(await cooling_seconds(stage))
        assert seen == [3, 30, 60, 120]

    run_virtually(test, tmp_path, HandshakeRule(status=403), names=["work"])


def test_what_blames_nobody_leaves_no_trace_however_often_it_happens(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for code in NEUTRAL:
            for _ in range(3):
                await stage.turn(headers=session(str(code)), model=f"close {code}")
                await stage.turn(prompt_cache_key=str(code), model=f"close {code}")
        ran = stage.cli.run("accounts", "list", "--json", stdin=b"", **stage.environ)
        assert [a["state"] for a in json.loads(ran.out)["accounts"]] == ["ready", "ready"]
        assert await state(stage) == await state(stage, "home") == "ready"

    rules = [TurnRule(model=f"close {code}", close=code) for code in NEUTRAL]
    run_virtually(test, tmp_path, *rules, names=["work", "home"])


# Accounts without a WebSocket


@pytest.mark.parametrize("status", [404, 426])
def test_an_account_without_a_websocket_is_spoken_to_over_http_for_ten_minutes(
    tmp_path: Path, status: int
) -> None:
    async def test(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        for second, upgrades in ((0, 1), (300, 1), (599, 1), (601, 2), (900, 2), (1202, 3)):
            await asyncio.sleep(began + second - asyncio.get_running_loop().time())
            answer = await stage.turn(headers=session("s"))
            assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")
            assert answer.header("x-codexlb-account") == "work"
            assert len(stage.mock.handshakes) == upgrades
            assert await state(stage) == "ready"
        assert [turn.transport for turn in stage.mock.turns] == ["http"] * 6

    run_virtually(test, tmp_path, HandshakeRule(status=status))


@pytest.mark.parametrize("status", [404, 426])
def test_an_account_that_must_have_a_websocket_is_passed_over_and_asked_again(
    tmp_path: Path, status: int
) -> None:
    async def test(stage: Stage) -> None:
        for number in range(1, 4):
            answer = await stage.turn(prompt_cache_key=str(number))
            assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")
            assert answer.header("x-codexlb-account") == "home"
        assert {turn.transport for turn in stage.mock.turns} == {"websocket"}
        assert stage.dialled.count("work") == 3
        assert await state(stage) == "ready", "it blames nobody"

    only = {"work": 'transport = "websocket"'}
    refuses = HandshakeRule(account="work", status=status)
    run_virtually(test, tmp_path, refuses, names=["work", "home"], accounts=only)


def test_closes_of_a_websocket_are_no_reason_for_http(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(5):
            await stage.turn(**BAD)
            await asyncio.sleep(61)
        assert {turn.transport for turn in stage.mock.turns} == {"websocket"}

    run_virtually(test, tmp_path, TurnRule(model="bad", close=1006), names=["work"])
