"""The status and the models that the real Codex CLI shows, when a gateway tells it of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import HandshakeRule, ModelsRule, RateLimits, RateWindow
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import AnyRule, Script
from tests.clients.codex import CODEX
from tests.clients.codex_app import ACCOUNT_ID, CodexApp, codex_app
from tests.clients.relay import relaying
from tests.clients.running import KEYS, ServingGateway, serving
from tests.clients.upstream import check_upstream

if not CODEX:
    pytest.skip("needs the Codex CLI: make test-codex", allow_module_level=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

MODELS = "GET /backend-api/codex/models"
WORK = ModelsRule(account="work", models=("mock", "only-work"), etag='"w"')
HOME = ModelsRule(account="home", models=("mock", "only-home"), etag='"h"')


def tells(account: str, etag: str) -> HandshakeRule:
    return HandshakeRule(account=account, headers={"x-models-etag": etag})


@contextmanager
def playing(
    tmp_path: Path, *rules: AnyRule, plans: bool = False, websocket: bool = False
) -> Iterator[tuple[CodexApp, ServingGateway, RunningMock]]:
    """Run an upstream with two accounts, a gateway, and Codex, none of whose secrets go further.

    Args:
        tmp_path: a folder.
        rules: what the upstream does.
        plans: whether the accounts are ChatGPT plans, not API keys.
        websocket: whether Codex sends its turns over a WebSocket.
    """
    with running_mock(script=Script(rules), accounts=KEYS, strict=True) as mock:
        more = "".join(
            f'\n[accounts.{name}]\nkind = "{"chatgpt" if plans else "api_key"}"\n'
            f'base_url = "{mock.base_url}"\napi_key_env = "KEY_OF_{name.upper()}"\n'
            for name in KEYS
        )
        with serving(tmp_path, mock.base_url, accounts=(), more=more) as gateway:
            base = gateway.base_url.removesuffix("/v1")
            with codex_app(tmp_path / "c", base, websocket=websocket) as app:
                yield app, gateway, mock
        if mock.upstream.handshakes:
            check_upstream(mock.upstream, secret="LEAK")
        assert "LEAK" not in gateway.log


def asked(gateway: ServingGateway, what: str) -> int:
    """How often Codex asked for something; once the gateway has stopped."""
    return gateway.log.count(what)


def window(used: float, resets_in: int, minutes: int = 300) -> RateWindow:
    return RateWindow(
        used_percent=used, window_minutes=minutes, reset_at=int(time.time()) + resets_in
    )


def usage(account: str, plan: str, *windows: RateWindow) -> IssuerRule:
    primary, secondary = windows
    limits = RateLimits(plan_type=plan, primary=primary, secondary=secondary)
    return IssuerRule(on="usage", account=account, rate_limits=limits)


def test_the_status_shows_the_usage_of_the_pool(tmp_path: Path) -> None:
    work = usage("work", "plus", window(80, 7200), window(30, 90_000, 10_080))
    home = usage("home", "plus", window(20, 3600), window(10, 80_000, 10_080))
    with playing(tmp_path, work, home, plans=True) as (codex, gateway, _):
        begun = int(time.time())
        told = codex.call("account/rateLimits/read")
    limits = told["rateLimits"]
    primary, secondary = limits["primary"], limits["secondary"]
    assert (primary["usedPercent"], primary["windowDurationMins"]) == (50, 300)
    assert begun < primary["resetsAt"] <= begun + 3605
    assert (secondary["usedPercent"], secondary["windowDurationMins"]) == (20, 10_080)
    assert (limits["planType"], limits["rateLimitReachedType"]) == ("plus", None)
    assert told["rateLimitsByLimitId"] == {"codex": limits}
    assert asked(gateway, "GET /backend-api/wham/usage") == 1


def test_the_status_shows_that_every_plan_is_used_up(tmp_path: Path) -> None:
    full = [window(100, 3600), window(40, 90_000, 10_080)]
    work, home = usage("work", "plus", *full), usage("home", "pro", *full)
    with playing(tmp_path, work, home, plans=True) as (codex, _, _mock):
        limits = codex.call("account/rateLimits/read")["rateLimits"]
    assert limits["primary"]["usedPercent"] == 100
    assert (limits["planType"], limits["rateLimitReachedType"]) == ("pro", "rate_limit_reached")


def test_without_plans_the_status_shows_no_windows(tmp_path: Path) -> None:
    with playing(tmp_path) as (codex, _, _mock):
        limits = codex.call("account/rateLimits/read")["rateLimits"]
    assert (limits["primary"], limits["secondary"], limits["credits"]) == (None, None, None)
    assert limits["planType"] == "unknown"


@pytest.mark.parametrize("websocket", [False, True])
def test_codex_shows_the_models_of_all_accounts_and_does_not_ask_at_every_turn(
    tmp_path: Path, websocket: bool
) -> None:
    rules = (WORK, HOME, tells("work", '"w"'), tells("home", '"h"'))
    with playing(tmp_path, *rules, websocket=websocket) as (codex, gateway, mock):
        assert [codex.turn(f"turn {n}") for n in range(5)] == ["completed"] * 5
        shown = [model["id"] for model in codex.call("model/list")["data"]]
        done = [turn for turn in mock.upstream.turns if not turn.warm_up]
        assert [turn.outcome for turn in done] == ["response.completed"] * 5
    assert shown == ["mock", "only-work", "only-home"]
    # When it starts, before the first turn.
    assert 1 <= asked(gateway, MODELS) <= 2


def test_codex_asks_again_once_when_a_catalogue_is_new(tmp_path: Path) -> None:
    new = ModelsRule(account="work", models=("mock", "new"), etag='"w2"')
    old = WORK.model_copy(update={"times": 2})
    with playing(tmp_path, old, new, HOME, tells("work", '"w2"')) as (codex, gateway, _):
        assert [codex.turn(f"turn {n}") for n in range(5)] == ["completed"] * 5
        shown = [model["id"] for model in codex.call("model/list")["data"]]
    assert shown == ["mock", "new", "only-home"]
    assert asked(gateway, MODELS) == 3


def test_codex_works_on_although_the_other_services_are_not_there(tmp_path: Path) -> None:
    with playing(tmp_path) as (codex, gateway, _):
        assert codex.turn("hello") == "completed"
        complaints = [m for m in codex.notices if m.get("method") in ("error", "warning")]
        with (
            relaying(gateway.base_url) as relay,
            codex_app(tmp_path / "d", relay.base_url.removesuffix("/v1")) as other,
        ):
            assert other.turn("hello") == "completed"
            sent = b"".join(b"".join(connection.sent) for connection in relay.connections)
            received = b"".join(b"".join(connection.received) for connection in relay.connections)
    assert complaints == []
    assert b"GET /backend-api/wham/accounts/check" in sent
    assert b"LEAK" in sent, "Codex sends the tokens of its own login"
    assert f'"default_account_id":"{ACCOUNT_ID}"'.encode() in received
    assert b"LEAK" not in received
    refused = [line for line in gateway.log.splitlines() if " 501 " in line]
    assert refused
