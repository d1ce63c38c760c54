"""What Codex asks of `chatgpt_base_url`: its status over the pool, and a plain no to the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from codexlb_cli.gateway.usage_poll import LONGEST_WAIT_SECONDS
from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import RateLimits, RateWindow
from codexlb_cli.mock_upstream.script import Script
from tests.support.client import request
from tests.support.gateway import Stage, run
from tests.support.virtual import run_virtually

USAGE_PATHS = ["/backend-api/wham/usage", "/api/codex/usage"]
CHECK_PATHS = ["/backend-api/wham/accounts/check", "/api/codex/accounts/check"]
PLAN = {"work": 'kind = "chatgpt"', "home": 'kind = "chatgpt"'}
CLIENT = [("Authorization", "Bearer sk-client-LEAK"), ("chatgpt-account-id", "acct-of-the-client")]


def usage(account: str, used: float, plan: str = "plus", **options: float) -> IssuerRule:
    window = RateWindow(used_percent=used, window_minutes=300)
    week = RateWindow(used_percent=used / 2, window_minutes=10_080)
    limits = RateLimits(
        plan_type=plan,
        primary=window,
        secondary=week,
        limit_reached=used >= 100,
        allowed=used < 100,
    )
    return IssuerRule(
        on="usage", account=account, rate_limits=limits, delay=options.get("delay", 0)
    )


@pytest.mark.parametrize("path", USAGE_PATHS)
def test_the_usage_of_all_plans(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(path, CLIENT)
        assert answer.status == 200
        assert answer.json["plan_type"] == "pro"
        limits = answer.json["rate_limit"]
        assert limits["limit_reached"] is False
        # (1 x 70 + 10 x 4) / 11
        assert limits["primary_window"]["used_percent"] == 10
        assert limits["secondary_window"]["limit_window_seconds"] == 604_800
        assert answer.header("x-request-id")
        assert answer.header("x-codexlb-account") is None
        assert f"GET {path}" in stage.lines[-1]
        asked = stage.mock.issuer_requests
        assert sorted(r.account for r in asked) == ["home", "work"]
        assert "LEAK" not in str([r.headers for r in asked])
        assert "LEAK" not in "".join(stage.lines)

    # The accounts that are due are asked at once, whatever chance says: a person waits.
    rules = Script((usage("work", 70), usage("home", 4, "pro")))
    run(test, tmp_path, script=rules, accounts=PLAN, draws=1.0)


def test_the_limit_is_reached_when_no_account_can_serve(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        document = (await stage.get(USAGE_PATHS[0])).json
        assert document["rate_limit"]["limit_reached"] is True
        assert document["rate_limit"]["allowed"] is False
        assert document["rate_limit"]["primary_window"]["used_percent"] == 100
        assert document["rate_limit_reached_type"] == {"type": "rate_limit_reached"}
        assert (await stage.turn()).error["code"] == "usage_limit_reached"

    rules = Script((usage("work", 100), usage("home", 100)))
    run(test, tmp_path, script=rules, accounts=PLAN, names=["work", "home"])


def test_accounts_without_a_plan_have_no_windows(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(USAGE_PATHS[0])
        assert answer.json == {
            "plan_type": "unknown",
            "rate_limit": {
                "allowed": True,
                "limit_reached": False,
                "primary_window": None,
                "secondary_window": None,
            },
            "credits": None,
            "additional_rate_limits": None,
            "rate_limit_reached_type": None,
        }

    run(test, tmp_path)
    run(test, tmp_path, names=[])


def test_an_account_that_does_not_tell_is_not_waited_for_long(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async def used() -> int:
            limits = (await stage.get(USAGE_PATHS[0])).json["rate_limit"]
            return int(limits["primary_window"]["used_percent"])

        begun = stage.clock()
        assert await used() == 10
        assert stage.clock() - begun < LONGEST_WAIT_SECONDS + 1
        # It is listened to further, and nobody is asked again so soon.
        await asyncio.sleep(LONGEST_WAIT_SECONDS)
        assert await used() == 20
        assert len(stage.mock.issuer_requests) == 2

    slow = usage("home", 30, delay=1.5 * LONGEST_WAIT_SECONDS)
    script = Script((usage("work", 10), slow))
    run_virtually(test, tmp_path, script=script, accounts=PLAN, names=["work", "home"])


@pytest.mark.parametrize("path", CHECK_PATHS)
def test_a_client_is_told_of_its_own_account(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(path, CLIENT)
        assert answer.status == 200
        assert [a["id"] for a in answer.json["accounts"]] == ["acct-of-the-client"]
        assert answer.json["accounts"][0]["workspace_backend_origin"] == "NO_CONSTRAINT"
        assert answer.header("x-request-id")
        refused = await stage.get(path, CLIENT[:1])
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
        assert refused.error["param"] == "chatgpt-account-id"
        assert b"LEAK" not in answer.body + refused.body
        assert "LEAK" not in "".join(stage.lines)

    run(test, tmp_path)


def test_other_services_of_an_account_are_not_served(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for method, path in (
            ("GET", "/backend-api/wham/rate-limit-reset-credits"),
            ("GET", "/backend-api/wham/settings/user"),
            ("GET", "/backend-api/ps/plugins/installed?limit=200"),
            ("POST", "/backend-api/ps/mcp"),
            ("POST", "/backend-api/wham/usage"),
            ("DELETE", "/backend-api/wham/accounts/check"),
            ("GET", "/backend-api/"),
            ("GET", "/backend-api/wham/usage/"),
            ("GET", "/api/codex/tasks/list"),
            ("POST", "/api/codex/rate-limit-reset-credits/consume"),
        ):
            lines = [*CLIENT, ("Content-Length", "0"), ("Connection", "close")]
            answer = await request(stage.port, method, path, lines)
            assert (answer.status, answer.error["code"]) == (501, "not_supported"), path
            assert "the client's own login" in answer.error["message"]
            assert answer.header("x-request-id")
            assert path.partition("?")[0] in stage.lines[-1].replace("\n", "")
        assert not stage.mock.issuer_requests

    run(test, tmp_path)


@pytest.mark.parametrize("path", [*USAGE_PATHS, *CHECK_PATHS, "/backend-api/wham/settings/user"])
def test_the_guard_holds_here_too(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(path, [*CLIENT, ("Origin", "https://example.com")])
        assert (answer.status, answer.error["code"]) == (403, "forbidden_origin")

    run(test, tmp_path)
