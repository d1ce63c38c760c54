"""Upgrades that the upstream refuses, and errors before any response event."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from tests.gateway.test_closes import keyed
from tests.support.client import Answer
from tests.support.gateway import Stage, closed_port, play, run, run_each, session
from tests.support.virtual import run_virtually

REFUSALS = {
    str(status): HandshakeRule(account="work", status=status)
    for status in (401, 403, 429, 500, 502, 503, 504, 529)
} | {
    "429 in 7 s": HandshakeRule(account="work", status=429, headers={"retry-after": "7"}),
    "301": HandshakeRule(account="work", status=301, headers={"location": "/v1/responses"}),
    "html": HandshakeRule(account="work", status=503, body="<html>"),
    "cut": HandshakeRule(account="work", cut=True),
}
NEW_SOCKET = ("originator", "another")
"""A turn with another forwarded header needs another socket."""


def assert_served(answer: Answer, account: str, attempts: int = 1) -> None:
    assert (answer.status, answer.types[-1]) == (200, "response.completed")
    assert answer.header("x-codexlb-account") == account
    assert answer.header("x-codexlb-attempts") == str(attempts)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_refused_upgrade_reaches_no_client_while_another_account_is_free(
    tmp_path: Path, key: str
) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "home")
        assert stage.dialled == ["work", "home"]
        assert stage.sent == ["home"]

    run_each(REFUSALS, lambda refusal, folder: play(test, folder, refusal), tmp_path)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_nor_does_an_upgrade_without_an_answer(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "home")
        assert stage.dialled == ["work", "home"]

    silent = HandshakeRule(account="work", silence=True)
    run_virtually(test, tmp_path, silent)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_nor_does_an_account_that_cannot_be_reached(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "home")
        assert stage.dialled == ["home"]

    with closed_port() as port:
        run(test, tmp_path, urls={"work": f"http://127.0.0.1:{port}/v1"})


def test_nor_one_with_a_name_that_nobody_knows(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(), "home")

    run(test, tmp_path, urls={"work": "http://upstream.invalid/v1"})


@pytest.mark.parametrize("status", [429, 401])
def test_a_session_moves_when_its_account_fails(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=[*session("s"), NEW_SOCKET]), "home")
        assert stage.dialled == ["work", "work", "home"]
        stage.clock.advance(3600)
        assert_served(await stage.turn(headers=session("s")), "home")

    run(test, tmp_path, HandshakeRule(account="work", skip=1, status=status))


def test_a_session_moves_after_its_owner_refused_twice_with_403(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=[*session("s"), NEW_SOCKET]), "home")
        assert stage.dialled == ["work", "work", "work", "home"]

    run(test, tmp_path, HandshakeRule(account="work", skip=1, status=403))


@pytest.mark.parametrize("status", [500, 503])
def test_a_session_waits_for_its_owner_that_cannot_serve_now(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=[*session("s"), NEW_SOCKET]), "work")
        answer = await stage.turn(headers=[*session("s"), ("originator", "a third")])
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert stage.dialled == ["work"] * 5
        assert_served(await stage.turn(), "home")

    run(
        test,
        tmp_path,
        HandshakeRule(account="work", skip=1, times=1, status=status),
        HandshakeRule(account="work", skip=2, times=2, status=status),
    )


def test_a_session_waits_for_an_owner_that_is_back_soon(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=[*session("s"), NEW_SOCKET]), "work")
        assert stage.dialled == ["work"] * 3

    soon = HandshakeRule(
        account="work", skip=1, times=1, status=429, headers={"retry-after-ms": "9500"}
    )
    run_virtually(test, tmp_path, soon)


@pytest.mark.parametrize("configured", ["fail", "wait"])
def test_a_session_that_may_not_move(tmp_path: Path, configured: str) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        answer = await stage.turn(headers=[*session("s"), NEW_SOCKET])
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert (answer.error["type"], answer.header("retry-after")) == ("rate_limit_error", "30")
        assert stage.dialled == ["work", "work"]

    more = (
        f'[affinity]\nsession_on_account_failure = "{configured}"\n'
        "[timeouts]\nbefore_first_event_total = 5"
    )
    rule = HandshakeRule(account="work", skip=1, status=429, headers={"retry-after": "30"})
    run(test, tmp_path, rule, more=more)


def test_every_account_is_dialled_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert answer.header("x-codexlb-attempts") == "0"
        assert stage.dialled == ["work", "home", "spare"]
        assert stage.sent == []

    run(test, tmp_path, HandshakeRule(status=503))


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_upstream_status_is_not_the_clients(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            answer = await stage.turn()
            assert answer.status == 503
            assert answer.error["type"] == "server_error"
            assert "Scripted" not in answer.error["message"]

    run(test, tmp_path, HandshakeRule(status=status))


def test_when_every_account_is_rate_limited(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            answer = await stage.turn(prompt_cache_key="k")
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
            assert answer.error["type"] == "rate_limit_error"
            assert answer.header("retry-after") == "20"
        assert stage.dialled == ["work", "home", "spare"]
        stage.clock.advance(20.5)
        assert_served(await stage.turn(prompt_cache_key="k"), "home")

    run(
        test,
        tmp_path,
        HandshakeRule(account="work", times=1, status=429, headers={"retry-after": "40"}),
        HandshakeRule(account="home", times=1, status=429, headers={"retry-after": "20"}),
        HandshakeRule(account="spare", times=1, status=429, headers={"retry-after": "30"}),
    )


TIMES: dict[str, tuple[str, str | None]] = {
    "0.2": ("rate_limit_exceeded", "1"),
    "59.5": ("rate_limit_exceeded", "60"),
    "60": ("rate_limit_exceeded", "60"),
    "61": ("usage_limit_reached", None),
    "99999999999": ("usage_limit_reached", None),
    "1e300": ("rate_limit_exceeded", "10"),
    "-5": ("rate_limit_exceeded", "10"),
    "soon": ("rate_limit_exceeded", "10"),
}


def test_what_the_client_is_told_of_a_time(tmp_path: Path) -> None:
    async def one(seconds: str, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            answer = await stage.turn()
            assert (answer.status, answer.error["code"]) == (429, TIMES[seconds][0])
            assert answer.header("retry-after") == TIMES[seconds][1]

        rule = HandshakeRule(status=429, headers={"retry-after": seconds})
        await play(test, folder, rule, names=["work"])

    run_each({seconds: seconds for seconds in TIMES}, one, tmp_path)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [401, 500])
def test_an_error_frame_of_the_only_account(tmp_path: Path, status: int, stream: bool) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            answer = await stage.turn(stream=stream)
            assert answer.status == 503
            assert "Scripted" not in answer.error["message"]

    run(test, tmp_path, TurnRule(error=ErrorSpec(status=status)), names=["work"])


@pytest.mark.parametrize(("status", "seen"), [(401, 502), (403, 403), (500, 500), (None, 502)])
def test_a_late_error_frame_becomes_its_status(
    tmp_path: Path, status: int | None, seen: int
) -> None:
    """But for 401, which would make Codex spend the person's own refresh token."""

    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=False)
        assert (answer.status, answer.header("x-should-retry")) == (seen, "false")
        assert answer.error["message"] == "Scripted error."

    run(test, tmp_path, TurnRule(error=ErrorSpec(status=status), when="created"))


def test_a_rate_limit_without_a_time_is_taken_for_ten_seconds(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.header("retry-after") == "10"

    run(test, tmp_path, HandshakeRule(status=429))


def test_when_every_account_has_reached_its_usage_limit(tmp_path: Path) -> None:
    resets_at = int(time.time()) + 7200

    async def test(stage: Stage) -> None:
        for transport in ("upgrade", "known"):
            answer = await stage.turn()
            error = answer.error
            assert answer.status == 429, transport
            assert error["type"] == error["code"] == "usage_limit_reached"
            assert error["resets_at"] == resets_at
            assert answer.header("retry-after") is None

    error = ErrorSpec.model_validate({"type": "usage_limit_reached", "resets_at": resets_at})
    run(test, tmp_path, HandshakeRule(status=429, error=error))


# Error frames


def refusing(status: int | None, code: str | None, **fields: Any) -> TurnRule:
    return TurnRule(account="work", error=ErrorSpec(status=status, code=code, **fields))


REFUSED_TURNS = {
    f"{status} {code}": refusing(status, code, message="Slow down.")
    for status, code in (
        (429, "rate_limit_exceeded"),
        (429, "usage_limit_reached"),
        (429, "insufficient_quota"),
        (401, "invalid_api_key"),
        (401, "token_expired"),
        (None, "rate_limit_exceeded"),
    )
}


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_an_account_that_refuses_the_turn(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "home", attempts=2)
        assert stage.sent == ["work", "home"]

    run_each(REFUSED_TURNS, lambda rule, folder: play(test, folder, rule), tmp_path)


FAILED_TURNS = {
    f"{status} {code}": refusing(status, code)
    for status, code in ((503, "server_is_overloaded"), (500, "server_error"), (502, None))
}


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_an_upstream_that_fails_gets_one_replay(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(**keyed(key))
        if key == "session":
            assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
            assert stage.sent == ["work", "work"]
        else:
            assert_served(answer, "home", attempts=2)

    run_each(FAILED_TURNS, lambda rule, folder: play(test, folder, rule), tmp_path)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_socket_that_has_expired(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "work", attempts=2)
        assert [h.account for h in stage.mock.handshakes] == ["work", "work"]

    rule = refusing(400, "websocket_connection_limit_reached")
    run(test, tmp_path, rule.model_copy(update={"times": 1}))


REQUEST_ERRORS = (
    (400, "context_length_exceeded"),
    (400, "invalid_value"),
    (404, None),
    (403, None),
    (422, "odd"),
    (413, None),
    (400, "previous_response_not_found"),
)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_the_request_is_passed_on(tmp_path: Path, stream: bool) -> None:
    async def test(stage: Stage) -> None:
        for number, (status, code) in enumerate(REQUEST_ERRORS):
            model = str(number)
            for _ in range(2):
                answer = await stage.turn(headers=session("s"), stream=stream, model=model)
                assert answer.status == status
                assert answer.json == {"error": {**own, "code": code}}
                assert answer.header("x-codexlb-attempts") == "1"
        assert set(stage.sent) == {"work"}
        assert len(stage.sent) == 2 * len(REQUEST_ERRORS)
        assert len(stage.dialled) == len(REQUEST_ERRORS)  # a socket is as good as before

    own = {
        "type": "invalid_request_error",
        "message": "Not so.",
        "param": "input",
        "hint": "more",
    }
    rules = [
        TurnRule(
            model=str(number),
            error=ErrorSpec.model_validate({**own, "status": status, "code": code}),
        )
        for number, (status, code) in enumerate(REQUEST_ERRORS)
    ]
    run(test, tmp_path, *rules)


def test_a_model_that_one_account_does_not_have(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(model="rare"), "home", attempts=2)
        assert_served(await stage.turn(model="rare"), "spare")
        assert_served(await stage.turn(model="rare"), "home")
        assert_served(await stage.turn(), "work")

    run(
        test,
        tmp_path,
        TurnRule(account="work", model="rare", error=ErrorSpec(status=404, code="model_not_found")),
    )


def test_a_model_that_none_has(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(model="rare")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")

    run(
        test,
        tmp_path,
        TurnRule(error=ErrorSpec(status=404, code="model_not_found")),
        names=["work"],
    )


def test_telemetry_before_an_error_does_not_start_the_answer(tmp_path: Path) -> None:
    telemetry = (
        '{"type":"codex.rate_limits","rate_limits":{"primary":{"used_percent":99}}}',
        '{"type":"response.metadata","headers":{"openai-model":"m"}}',
        '{"type":"something.else"}',
    )

    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=True)
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.header("retry-after") == "40"

    error = ErrorSpec(status=429, code="rate_limit_exceeded", headers={"retry-after": "40"})
    run(test, tmp_path, TurnRule(send=telemetry, error=error), names=["work"])


def test_telemetry_before_a_close_does_not_forbid_the_replay(tmp_path: Path) -> None:
    telemetry = ('{"type":"codex.rate_limits"}', '{"type":"response.metadata"}')

    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work", attempts=2)

    run(test, tmp_path, TurnRule(send=telemetry, close=1011, times=1))
