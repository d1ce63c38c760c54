"""Limits as a running gateway lives by them: accounts that are used up, and come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import (
    ErrorSpec,
    HandshakeRule,
    RateLimits,
    RateWindow,
    TurnRule,
)
from codexlb_cli.store.cooldowns import read_states
from tests.support.gateway import Stage, run, session
from tests.support.virtual import AHEAD_SECONDS, run_virtually

HOUR = 3600.0


def in_seconds(seconds: float) -> int:
    """A time so far after the virtual clock's beginning."""
    return int(time.time() + AHEAD_SECONDS + seconds)


def told(primary: RateWindow, secondary: RateWindow | None = None, **rule: Any) -> TurnRule:
    return TurnRule(rate_limits=RateLimits(primary=primary, secondary=secondary), **rule)


def used(percent: float, resets_in: float = 3 * HOUR) -> RateWindow:
    return RateWindow(used_percent=percent, window_minutes=300, reset_at=in_seconds(resets_in))


async def served(stage: Stage, turns: int, **members: Any) -> list[str | None]:
    return [(await stage.turn(**members)).header("x-codexlb-account") for _ in range(turns)]


async def listed(stage: Stage) -> dict[str, tuple[str, str | None]]:
    ran = await stage.command("accounts", "list", "--json")
    assert (ran.returncode, ran.stderr) == (0, b"")
    return {a["name"]: (a["state"], a["reason"]) for a in json.loads(ran.stdout)["accounts"]}


def test_a_window_that_is_used_up_shuts_its_account_out_until_it_resets(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")
        assert Counter(await served(stage, 4)) == {"home": 2, "spare": 2}
        assert (await listed(stage))["work"] == ("limited", "primary_window_used_up")
        moved = await stage.turn(headers=session("s"))
        assert moved.header("x-codexlb-account") == "home", "its session moves, being portable"
        await asyncio.sleep(3 * HOUR - 60)
        assert Counter(await served(stage, 4)) == {"home": 2, "spare": 2}
        await asyncio.sleep(61)
        assert (await served(stage, 1)) == ["work"], "and nobody had to say so"

    run_virtually(test, tmp_path, told(used(100), account="work", times=1))


def test_used_up_windows_outlast_a_restart_and_end_in_time(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert await served(stage, 2) == ["work", "home"]
        async with stage.serving():
            assert await served(stage, 2) == ["home", "home"]
            assert stage.sent.count("work") == 1
        await asyncio.sleep(3 * HOUR + 1)
        async with stage.serving():
            assert set(await served(stage, 2)) == {"work", "home"}

    rule = told(used(100), account="work", times=1)
    run_virtually(test, tmp_path, rule, names=["work", "home"], serve=False)


def test_percentages_outlast_a_restart_too(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert await served(stage, 2) == ["work", "home"]
        async with stage.serving():
            assert await served(stage, 3) == ["home"] * 3

    rule = told(used(90), account="work", times=1)
    run_virtually(test, tmp_path, rule, names=["work", "home"], serve=False)


def test_when_all_are_used_up_the_client_is_told_until_when(tmp_path: Path) -> None:
    soon = in_seconds(2 * HOUR)

    async def test(stage: Stage) -> None:
        assert await served(stage, 2) == ["work", "home"]
        answer = await stage.turn()
        assert (answer.status, answer.error["code"]) == (429, "usage_limit_reached")
        assert answer.error["type"] == "usage_limit_reached"
        assert answer.error["resets_at"] == soon, "the earliest of the two"
        assert answer.header("retry-after") is None
        await asyncio.sleep(2 * HOUR + 1)
        assert await served(stage, 1) == ["home"]

    home = RateWindow(used_percent=100, window_minutes=300, reset_at=soon)
    rules = (told(used(100), account="work", times=1), told(home, account="home", times=1))
    run_virtually(test, tmp_path, *rules, names=["work", "home"])


def test_a_turn_waits_for_a_window_that_resets_in_a_moment(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        lines = session("s")
        assert (await stage.turn(headers=lines)).header("x-codexlb-account") == "work"
        assert (await stage.turn(headers=lines)).header("x-codexlb-account") == "work"
        assert stage.gateway.services.accounts.pool().now >= resets_at

    resets_at = in_seconds(8)
    window = RateWindow(used_percent=100, window_minutes=300, reset_at=resets_at)
    run_virtually(test, tmp_path, told(window, account="work", times=1))


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_limits_come_with_refusals_as_well(tmp_path: Path, transport: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "home")
        known = stage.gateway.services.accounts.limits("work")
        assert known.primary is not None
        assert (known.primary.used_percent, known.plan) == (100, "plus")
        assert (await listed(stage))["work"] == ("limited", "usage_limit_reached")

    headers: dict[str, str | int | float | bool] = {
        "x-codex-primary-used-percent": 100,
        "x-codex-primary-window-minutes": 300,
        "x-codex-primary-reset-at": in_seconds(3 * HOUR),
    }
    body = {"error": {"type": "usage_limit_reached", "message": "full", "plan_type": "plus"}}
    rule: HandshakeRule | TurnRule = HandshakeRule(
        account="work", status=429, headers=headers, body=json.dumps(body)
    )
    if transport == "http":
        plan = {"plan_type": "plus"}
        error = ErrorSpec(status=429, type="usage_limit_reached", headers=headers, **plan)
        rule = TurnRule(account="work", error=error)
    lines = dict.fromkeys(("work", "home"), f'transport = "{transport}"')
    run_virtually(test, tmp_path, rule, names=["work", "home"], accounts=lines)


def test_newer_limits_lift_a_usage_limit(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="slow", headers=session("w")) as slow:
            await slow.head()
            assert await served(stage, 3, model="refused") == ["home"] * 3
            assert (await listed(stage))["work"] == ("limited", "usage_limit_reached")
            await slow.until("response.completed")
        # What the turn that ran was told, at its end: the limit was raised.
        assert (await listed(stage))["work"] == ("ready", None)

    limit = {"status": 429, "type": "usage_limit_reached", "resets_in_seconds": 5 * HOUR}
    error = ErrorSpec.model_validate(limit)
    raised = {
        "type": "codex.rate_limits",
        "rate_limits": {"allowed": True, "limit_reached": False, "primary": {"used_percent": 3}},
    }
    rules = (
        TurnRule(account="work", model="refused", error=error),
        TurnRule(
            account="work", model="slow", deltas=3, delta_delay=60, when="streaming", after=2,
            send=(json.dumps(raised),),
        ),
    )  # fmt: skip
    run_virtually(test, tmp_path, *rules, more='[selection]\npolicy = "first"\n')


def test_the_rates_of_an_api_key_are_a_preference_that_fades(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert await served(stage, 4) == ["work", "home", "home", "home"]
        assert (await listed(stage))["work"] == ("ready", None)
        await asyncio.sleep(121)
        assert await served(stage, 1) == ["work"]

    rule = HandshakeRule(
        account="work",
        headers={
            "x-ratelimit-limit-tokens": 100_000,
            "x-ratelimit-remaining-tokens": 0,
            "x-ratelimit-reset-tokens": "2m0s",
        },
    )
    run_virtually(test, tmp_path, rule, names=["work", "home"])


def test_reset_forgets_limits_in_the_running_gateway(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert await served(stage, 2) == ["work", "home"]
        assert (await stage.command("accounts", "reset", "work")).returncode == 0
        assert (await stage.get("/readyz")).json["accounts"]["work"] == "ready"
        await asyncio.sleep(5)
        assert read_states(stage.state_folder)["work"].limits.primary is None

    run_virtually(test, tmp_path, told(used(100), account="work", times=1), names=["work", "home"])


# Selection


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("first", ["work"] * 4),
        ("round_robin", ["work", "home", "spare", "work"]),
        ("weighted", ["work", "home", "home", "home"]),
    ],
)
def test_the_policy_of_the_configuration(tmp_path: Path, policy: str, expected: list[str]) -> None:
    async def test(stage: Stage) -> None:
        assert await served(stage, 4) == expected

    accounts = {"home": "weight = 2.5", "spare": "weight = 0"}
    if policy != "weighted":
        accounts = {}
    run(test, tmp_path, more=f'[selection]\npolicy = "{policy}"\n', accounts=accounts)


def test_priorities_and_caps_of_accounts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert await served(stage, 2) == ["home", "home"]
        async with stage.streaming(model="mock-silent"):
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 3)
            assert await served(stage, 2) == ["spare", "spare"], "home takes one turn at a time"

    lines = {"work": "priority = 9", "home": "priority = -1\nmax_turns = 1"}
    run(test, tmp_path, accounts=lines)


def test_models_go_to_accounts_that_take_them(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert set(await served(stage, 4, model="big-1")) == {"work", "home"}
        assert set(await served(stage, 2, model="small-1")) == {"home"}
        refused = await stage.turn(model="other")
        assert (refused.status, refused.error["code"]) == (400, "model_unavailable")
        assert "other" not in [frame["model"] for frame in stage.frames]

    lines = {"work": 'models = ["big-*"]', "home": 'models = ["*-1"]\nnot_models = ["tiny-*"]'}
    run(test, tmp_path, names=["work", "home"], accounts=lines)


def test_parallel_first_turns_spread_in_the_running_gateway(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answers = await asyncio.gather(*(stage.turn(model="slow") for _ in range(9)))
        spread = Counter(answer.header("x-codexlb-account") for answer in answers)
        assert spread == {"work": 3, "home": 3, "spare": 3}

    run(test, tmp_path, TurnRule(model="slow", deltas=5, delta_delay=0.1))


def test_no_herd_storms_the_account_that_has_just_reset(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert await served(stage, 3) == ["work", "home", "spare"]
        await asyncio.sleep(HOUR + 1)
        answers = await asyncio.gather(*(stage.turn(model="slow") for _ in range(12)))
        spread = Counter(answer.header("x-codexlb-account") for answer in answers)
        assert set(spread) == {"work", "home", "spare"}
        assert spread["work"] <= 6

    rules = (
        TurnRule(model="slow", deltas=5, delta_delay=1),
        told(used(100, HOUR), account="work", times=1),
        told(used(60, 3 * HOUR), account="home", times=1),
        told(used(70, 3 * HOUR), account="spare", times=1),
    )
    run_virtually(test, tmp_path, *rules)
