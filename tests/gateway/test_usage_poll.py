"""Asking accounts for their usage: sparingly, only to fill gaps, and blaming nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.accounts import Effect, Evidence
from codexlb_cli.gateway.usage_poll import SPREAD_SECONDS, fetch_json
from tests.support.gateway import Stage
from tests.support.raw_upstream import CUT, HANG, RawUpstream, plain
from tests.support.virtual import VirtualLoop, play_virtually

MINUTE = 60.0


def usage(used: float = 42, **rate_limit: Any) -> bytes:
    window = {"used_percent": used, "limit_window_seconds": 18_000, "reset_after_seconds": 7200}
    limits = {"allowed": True, "limit_reached": False, "primary_window": window, **rate_limit}
    return json.dumps({"plan_type": "plus", "rate_limit": limits}).encode()


USAGE = [plain(200, usage())]


def run_polled(
    test: Callable[[Stage, RawUpstream], Awaitable[None]],
    folder: Path,
    *answers: Sequence[object],
    more: str = "",
    plan: str = "",
    draws: float = 0.0,
) -> None:
    """Play a test with `work`, where all turns go, and `plan`, whose usage is asked for."""

    async def play() -> None:
        async with RawUpstream(*answers) as raw:
            base = raw.base_url.removesuffix("/v1") + "/backend-api/codex"
            lines = f'kind = "chatgpt"\npriority = 5\n{plan}'
            await play_virtually(
                lambda stage: test(stage, raw),
                folder,
                names=["work", "plan"],
                urls={"plan": base},
                accounts={"plan": lines},
                more=more,
                draws=draws,
            )

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())


async def answered(raw: RawUpstream, times: int) -> None:
    """Wait until so many answers were taken in."""
    while len(raw.posted) < times:
        raw.asked.clear()
        await raw.asked.wait()
    await asyncio.sleep(1)


def used_at(stage: Stage, name: str = "plan") -> float | None:
    window = stage.gateway.services.accounts.limits(name).primary
    return None if window is None else window.used_percent


def test_an_account_in_use_is_asked_where_nothing_is_known(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        await asyncio.sleep(10 * MINUTE)
        assert raw.posted == [], "nobody needs to know"
        assert (await stage.turn()).header("x-codexlb-account") == "work"
        await answered(raw, 1)
        asked = raw.posted[0]
        assert asked.line == "GET /backend-api/wham/usage HTTP/1.1"
        lines = {name.lower(): value for name, value in asked.headers}
        assert lines["authorization"] == "Bearer sk-test-plan"
        assert lines["user-agent"] == OWN_USER_AGENT
        assert used_at(stage) == 42
        known = stage.gateway.services.accounts.limits("plan")
        assert known.plan == "plus"
        assert known.primary is not None
        assert known.primary.minutes == 300

    run_polled(test, tmp_path, USAGE)


def test_what_is_fresh_is_not_asked_again_and_what_is_stale_is(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        await stage.turn()
        await answered(raw, 1)
        for _ in range(9):
            await asyncio.sleep(MINUTE)
            await stage.turn()
        assert len(raw.posted) == 1
        await asyncio.sleep(2 * MINUTE)
        await stage.turn()
        await answered(raw, 2)
        assert used_at(stage) == 50
        # The window has reset: that needs no asking.
        await asyncio.sleep(130 * MINUTE)
        await stage.turn()
        await asyncio.sleep(SPREAD_SECONDS + 1)
        assert len(raw.posted) == 2

    run_polled(test, tmp_path, USAGE, [plain(200, usage(50))])


BAD: dict[str, Sequence[object]] = {
    "html": [plain(200, b"<html>sign in</html>", "content-type: text/html")],
    "refused": [plain(401, b'{"error":{"code":"token_expired"}}')],
    "forbidden": [plain(403, b"<html>no</html>")],
    "limited": [plain(429, b"")],
    "failed": [plain(500, b"oops")],
    "redirected": [plain(302, b"", "location: http://127.0.0.1:9/")],
    "cut": [CUT],
    "silent": [HANG],
    "nothing": [plain(200, b"")],
    "another document": [plain(200, b'{"hello": [1, 2]}')],
    "endless": [plain(200, b" " * 300_000 + b"{}")],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_blames_nobody(tmp_path: Path, kind: str) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        for number in (1, 2, 3):
            await stage.turn()
            await answered(raw, number)
            await stage.turn()
            await asyncio.sleep(5 * MINUTE)
        assert len(raw.posted) == 3, "every 5 minutes at most"
        states = (await stage.get("/readyz")).json["accounts"]
        assert states == {"work": "ready", "plan": "ready"}
        assert used_at(stage) is None

    run_polled(test, tmp_path, BAD[kind])


@pytest.mark.parametrize("why", ["never", "disabled", "no key", "refused key"])
def test_who_is_never_asked(tmp_path: Path, why: str) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        if why == "no key":
            del stage.environ["PLAN_KEY"]
        elif why == "refused key":
            refused = Evidence(Effect.LOGIN, "credentials_rejected")
            stage.gateway.services.accounts.blame("plan", refused)
        for _ in range(3):
            await stage.turn()
            await asyncio.sleep(20 * MINUTE)
        assert raw.connections == 0

    more = "[limits]\nusage_poll = 0\n" if why == "never" else ""
    plan = "enabled = false" if why == "disabled" else ""
    run_polled(test, tmp_path, USAGE, more=more, plan=plan)


def test_once_a_minute_at_most_and_spread_out(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        await stage.turn()
        await asyncio.sleep(SPREAD_SECONDS / 2 - 1)
        assert raw.connections == 0, "not at once"
        for _ in range(61):
            await asyncio.sleep(10)
            await stage.turn()
        # 614 s, and at least 66 s from one question to the next, at the turn that comes then.
        assert len(raw.posted) == 9

    run_polled(test, tmp_path, [plain(500, b"")], more="[limits]\nusage_poll = 5\n", draws=0.5)


def test_a_plan_that_is_used_up_is_limited_and_let_in_again(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        async def state() -> str:
            return str((await stage.get("/readyz")).json["accounts"]["plan"])

        await stage.turn()
        await answered(raw, 1)
        assert await state() == "limited"
        await asyncio.sleep(11 * MINUTE)
        await stage.turn()
        await answered(raw, 2)
        assert await state() == "ready", "the upstream says otherwise now"

    run_polled(test, tmp_path, [plain(200, usage(100, limit_reached=True))], USAGE)


def test_looking_at_the_accounts_asks_too(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        assert (await stage.get("/_codexlb/accounts")).status == 200
        await answered(raw, 1)
        assert used_at(stage) == 42

    run_polled(test, tmp_path, USAGE)


def test_a_url_that_is_none_is_no_document() -> None:
    assert asyncio.run(fetch_json("http://[", [], 1)) is None
    assert asyncio.run(fetch_json("http://127.0.0.1:1/", [], 1)) is None
