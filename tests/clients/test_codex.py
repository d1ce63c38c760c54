"""The real Codex CLI through `codexlb serve`, configured as `codexlb connect codex` says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import (
    ErrorSpec,
    HandshakeRule,
    RateLimits,
    RateWindow,
    TurnRule,
)
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.codex import CLIENT_KEY, CODEX, Codex, Turn
from tests.clients.relay import relaying
from tests.clients.running import KEYS, serving
from tests.clients.upstream import check_upstream, turns

if not CODEX:
    pytest.skip("needs the Codex CLI: make test-codex", allow_module_level=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

DONE = "response.completed"
HANDSHAKE = {
    *("host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"),
    *("authorization", "openai-beta", "x-client-request-id"),
    *("user-agent", "originator", "session-id", "thread-id", "x-codex-beta-features"),
}


@contextmanager
def upstream(*rules: HandshakeRule | TurnRule) -> Iterator[RunningMock]:
    """Run a strict upstream that knows both accounts, and check all that it received."""
    with running_mock(script=Script(rules), accounts=KEYS, strict=True) as mock:
        yield mock
        check_upstream(mock.upstream, secret=CLIENT_KEY)
        for handshake in mock.upstream.handshakes:
            assert {name.lower() for name, _ in handshake.headers} == HANDSHAKE
        for frame in mock.upstream.frames:
            metadata = frame.json["client_metadata"]
            assert {"x-codex-turn-metadata", "x-codex-window-id"} <= metadata.keys()


def succeeded(turn: Turn, *texts: str) -> None:
    """Require that a person saw these answers and nothing else."""
    assert (turn.code, turn.texts, turn.complaints) == (0, [*texts], [])


def test_a_turn(tmp_path: Path) -> None:
    with upstream() as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            succeeded(Codex(tmp_path / "c", gateway).exec("hello"), "You said: hello")
        assert gateway.requests() == ["200"]
        assert turns(mock.upstream) == [("work", DONE)]


def test_a_tool_runs_and_the_session_is_resumed_on_its_account(tmp_path: Path) -> None:
    state = TurnRule(model="mock-tool", tool=True, metadata={"x-codex-turn-state": "state-1"})
    with upstream(state) as mock, serving(tmp_path, mock.base_url) as gateway:
        codex = Codex(tmp_path / "c", gateway)
        first = codex.exec("Run the tool once.", model="mock-tool")
        succeeded(first, "The tool has answered, so this turn is done.")
        outputs = [item["aggregated_output"] for item in first.items("command_execution")]
        assert outputs == ["hello-from-tool\n"]

        succeeded(codex.resume("again"), "You said: again")

        assert turns(mock.upstream) == [("work", DONE)] * 3
        called, answered, resumed = (frame.json for frame in mock.upstream.frames)
        kinds = [item["type"] for item in answered["input"]][len(called["input"]) :]
        assert kinds == ["reasoning", "function_call", "function_call_output"]
        assert "hello-from-tool" in str(answered["input"][-1]["output"])
        # The state of a turn travels within the turn, and not into the next one.
        states = [
            body["client_metadata"].get("x-codex-turn-state")
            for body in (called, answered, resumed)
        ]
        assert states == [None, "state-1", None]


def test_what_a_lite_model_says_in_a_header_goes_into_the_frame(tmp_path: Path) -> None:
    with upstream() as mock, serving(tmp_path, mock.base_url) as gateway:
        succeeded(
            Codex(tmp_path / "c", gateway).exec("hello", model="gpt-5.6-sol"), "You said: hello"
        )
        (frame,) = mock.upstream.frames
        lite = "ws_request_header_x_openai_internal_codex_responses_lite"
        assert frame.json["client_metadata"][lite] == "true"


def test_rate_limits_reach_codex(tmp_path: Path) -> None:
    window = RateWindow(used_percent=42.0, window_minutes=300, reset_at=int(time.time()) + 3600)
    with (
        upstream(TurnRule(rate_limits=RateLimits(primary=window))) as mock,
        serving(tmp_path, mock.base_url) as gateway,
    ):
        codex = Codex(tmp_path / "c", gateway)
        succeeded(codex.exec("hello"), "You said: hello")
        limits = [p["rate_limits"] for p in codex.recorded("token_count") if p.get("rate_limits")]
        assert limits[-1]["primary"]["used_percent"] == 42.0


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013])
def test_closes_before_the_response_stay_unseen_and_on_the_owner(tmp_path: Path, code: int) -> None:
    model = f"mock-close-{code}"
    with upstream() as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway)
            succeeded(codex.exec("one", model=model), "You said: one")
            succeeded(codex.resume("two", model=model), "You said: two")
        assert gateway.requests() == ["200", "200"]
        assert turns(mock.upstream) == [("work", f"close {code}"), ("work", DONE)] * 2


def test_codex_retries_a_response_that_was_cut_off(tmp_path: Path) -> None:
    cut = TurnRule(close=1011, when="streaming", after=1, times=1)
    with upstream(cut) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            turn = Codex(tmp_path / "c", gateway).exec("hello")
        assert (turn.code, turn.texts) == (0, ["You said: hello"])
        assert len(turn.complaints) == 1
        assert turn.complaints[0].startswith("Reconnecting... 1/5")
        # One turn upstream for each that Codex sent: the gateway sends none of them again.
        assert gateway.requests() == ["200", "200"]
        assert turns(mock.upstream) == [("work", "close 1011"), ("work", DONE)]


def test_a_usage_limit_of_all_accounts_is_final(tmp_path: Path) -> None:
    limit = ErrorSpec.model_validate(
        {
            "status": 429,
            "type": "usage_limit_reached",
            "code": "usage_limit_reached",
            "message": "The usage limit has been reached.",
            "resets_at": int(time.time()) + 7200,
        }
    )
    with upstream(TurnRule(error=limit)) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            turn = Codex(tmp_path / "c", gateway).exec("hello")
        assert turn.code == 1
        assert "hit your usage limit" in turn.complaints[-1]
        assert gateway.requests() == ["429"]
        refused = "error 429 usage_limit_reached"
        assert turns(mock.upstream) == [("work", refused), ("home", refused)]


def test_a_limited_account_hands_its_session_over_for_good(tmp_path: Path) -> None:
    limit = ErrorSpec(
        status=429,
        code="rate_limit_exceeded",
        message="Rate limit reached.",
        headers={"retry-after": "600"},
    )
    with (
        upstream(TurnRule(account="work", skip=1, error=limit, reasoning=True)) as mock,
        serving(tmp_path, mock.base_url) as gateway,
    ):
        codex = Codex(tmp_path / "c", gateway)
        succeeded(codex.exec("one"), "You said: one")
        succeeded(codex.resume("two"), "You said: two")
        succeeded(codex.resume("three"), "You said: three")
        refused = "error 429 rate_limit_exceeded"
        assert turns(mock.upstream) == [
            ("work", DONE),
            ("work", refused),
            ("home", DONE),
            ("home", DONE),
        ]
        # What `work` had encrypted is of no use on `home`, which would refuse it.
        at_home = [f for f in mock.upstream.frames if f.account == "home"]
        assert "enc:work:" not in "".join(frame.text for frame in at_home)
        assert "enc:work:" in mock.upstream.frames[1].text


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_refused_handshake_is_not_seen(tmp_path: Path, status: int) -> None:
    with (
        upstream(HandshakeRule(account="work", status=status)) as mock,
        serving(tmp_path, mock.base_url) as gateway,
    ):
        succeeded(Codex(tmp_path / "c", gateway).exec("hello"), "You said: hello")
        assert turns(mock.upstream) == [("home", DONE)]


def test_a_session_finds_its_account_again_after_a_restart(tmp_path: Path) -> None:
    with upstream(HandshakeRule(account="work", status=503, times=1)) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway)
            succeeded(codex.exec("one"), "You said: one")
        with serving(tmp_path, mock.base_url) as gateway:
            codex.connect(gateway)
            succeeded(codex.resume("two"), "You said: two")
            succeeded(Codex(tmp_path / "d", gateway).exec("new"), "You said: new")
        assert turns(mock.upstream) == [("home", DONE), ("home", DONE), ("work", DONE)]


def test_the_clients_own_key_goes_nowhere(tmp_path: Path) -> None:
    with upstream() as mock:
        with serving(tmp_path, mock.base_url) as gateway, relaying(gateway.base_url) as relay:
            env_key = '\nenv_key = "CODEX_CLIENT_KEY"\n'
            codex = Codex(tmp_path / "c", gateway, provider=env_key, via=relay.base_url)
            succeeded(codex.exec("hello"), "You said: hello")
            assert f"Bearer {CLIENT_KEY}".encode() in relay.connections[0].sent[0]
        assert CLIENT_KEY not in gateway.log
        assert turns(mock.upstream) == [("work", DONE)]
