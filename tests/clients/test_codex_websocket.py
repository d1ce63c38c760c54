"""The real Codex CLI over its WebSocket, through `codexlb serve`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.codex import CLIENT_KEY, CODEX, Codex, Turn
from tests.clients.running import KEYS, ServingGateway, serving
from tests.clients.upstream import check_upstream, turns

if not CODEX:
    pytest.skip("needs the Codex CLI: make test-codex", allow_module_level=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

DONE = "response.completed"
TOOL = "The tool has answered, so this turn is done."
LIMIT = ErrorSpec.model_validate(
    {
        "status": 429,
        "type": "usage_limit_reached",
        "code": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "resets_in_seconds": 7200,
    }
)


@contextmanager
def upstream(*rules: HandshakeRule | TurnRule) -> Iterator[RunningMock]:
    with running_mock(script=Script(rules), accounts=KEYS, strict=True) as mock:
        yield mock
        check_upstream(mock.upstream, secret=CLIENT_KEY)


def codex_at(folder: Path, gateway: ServingGateway) -> Codex:
    on = '\nsupports_websockets = true\nenv_key = "CODEX_CLIENT_KEY"\n'
    return Codex(folder / "c", gateway, provider=on)


def succeeded(turn: Turn, *texts: str) -> None:
    assert (turn.code, turn.texts, turn.complaints) == (0, [*texts], [])


def created(mock: RunningMock) -> list[dict[str, Any]]:
    frames: Sequence[Any] = [frame.json for frame in mock.upstream.frames]
    return [frame for frame in frames if frame["type"] == "response.create"]


def test_a_session_is_one_chain_on_one_upstream_socket(tmp_path: Path) -> None:
    with upstream(TurnRule(model="mock-tool", tool=True)) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = codex_at(tmp_path, gateway)
            succeeded(codex.exec("Run the tool once.", model="mock-tool"), TOOL)
            assert [h.account for h in mock.upstream.handshakes] == ["work"]
            warm, asked, answered = created(mock)
            assert warm["generate"] is False
            assert "previous_response_id" in asked
            assert "previous_response_id" in answered
            assert [item["type"] for item in answered["input"]] == ["function_call_output"]
            succeeded(codex.resume("again"), "You said: again")
        assert set(gateway.requests()) == {"200"}
        assert {account for account, _ in turns(mock.upstream)} == {"work"}


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013])
def test_closes_before_the_response_stay_unseen_and_on_the_owner(tmp_path: Path, code: int) -> None:
    rule = TurnRule(times=1, close=code)
    with upstream(rule) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = codex_at(tmp_path, gateway)
            succeeded(codex.exec("one"), "You said: one")
        assert turns(mock.upstream)[-1] == ("work", DONE)
        assert {account for account, _ in turns(mock.upstream)} == {"work"}


@pytest.mark.parametrize("code", [1000, 1006, 1011])
def test_closes_in_mid_stream(tmp_path: Path, code: int) -> None:
    with upstream(TurnRule(times=1, close=code, when="streaming")) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            succeeded(codex_at(tmp_path, gateway).exec("one"), "You said: one")
        assert turns(mock.upstream)[-1] == ("work", DONE)


@pytest.mark.parametrize("code", [1000, 1001, 1011])
def test_a_rotated_upstream_between_the_requests_of_a_turn(tmp_path: Path, code: int) -> None:
    with upstream(TurnRule(model="mock-tool", tool=True, times=1, close=code, when="idle")) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            succeeded(codex_at(tmp_path, gateway).exec("Run it.", model="mock-tool"), TOOL)
        assert len(created(mock)) == 3
        assert "previous_response_id" not in created(mock)[-1]
        assert {account for account, _ in turns(mock.upstream)} == {"work"}


def test_a_limit_in_mid_conversation_moves_it(tmp_path: Path) -> None:
    rules = [
        TurnRule(account="work", model="mock-tool", skip=1, error=LIMIT),
        TurnRule(model="mock-tool", tool=True),
    ]
    with upstream(*rules) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            succeeded(codex_at(tmp_path, gateway).exec("Run it.", model="mock-tool"), TOOL)
        assert turns(mock.upstream)[-1] == ("home", DONE)


def test_a_limit_that_leaves_nobody_is_said_clearly(tmp_path: Path) -> None:
    with upstream(TurnRule(error=LIMIT)) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            turn = codex_at(tmp_path, gateway).exec("one")
        assert turn.code != 0
        assert any("usage limit" in text for text in turn.complaints)


def test_the_gateway_restarts_between_turns(tmp_path: Path) -> None:
    with upstream() as mock:
        for prompt in ("one", "two"):
            with serving(tmp_path, mock.base_url) as gateway:
                codex = codex_at(tmp_path, gateway)
                run = codex.exec if prompt == "one" else codex.resume
                succeeded(run(prompt), f"You said: {prompt}")
        assert {account for account, _ in turns(mock.upstream)} == {"work"}
