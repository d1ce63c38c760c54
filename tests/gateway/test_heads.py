"""What travels in headers over HTTP and in frames over the WebSocket, in both directions."""

from __future__ import annotations

import json
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
from tests.support.gateway import Stage, run, session
from tests.support.virtual import run_virtually

LIMITS = RateLimits(
    primary=RateWindow(used_percent=12.5, window_minutes=300, reset_at=1_900_000_000),
    secondary=RateWindow(used_percent=40, window_minutes=10080),
)
LIMIT_HEADERS = {
    "x-codex-primary-used-percent": "12.5",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-at": "1900000000",
    "x-codex-secondary-used-percent": "40.0",
    "x-codex-secondary-window-minutes": "10080",
}


@pytest.mark.parametrize("stream", [True, False])
def test_rate_limits_become_headers(tmp_path: Path, stream: bool) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=stream)
        assert answer.status == 200
        for name, value in LIMIT_HEADERS.items():
            assert answer.header(name) == value
        if stream:
            assert all(kind.startswith("response.") for kind in answer.types)
            assert "response.metadata" not in answer.types
        # The account's limits are as they were; those of another account are its own.
        assert (await stage.turn()).header("x-codex-primary-used-percent") is None
        await stage.turn()
        again = await stage.turn()
        assert again.header("x-codexlb-account") == "work"
        assert again.header("x-codex-primary-used-percent") == "12.5"

    rule = TurnRule(rate_limits=LIMITS, metadata={"openai-model": "m"}, times=1)
    run(test, tmp_path, rule, more='[selection]\npolicy = "round_robin"\n')


def test_limits_of_the_upgrade_and_of_an_error(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert answer.header("x-codex-primary-used-percent") == "7"
        assert answer.header("x-ratelimit-remaining-requests") == "99"
        assert answer.header("openai-version") == "2020-10-01"
        assert answer.header("x-models-etag") == "abc"
        for name in ("set-cookie", "server", "x-internal", "sec-websocket-accept", "upgrade"):
            assert answer.all(name) == []
        refused = await stage.turn(model="refused")
        assert refused.status == 400
        assert refused.header("x-codex-primary-used-percent") == "99"
        assert refused.header("x-ratelimit-remaining-requests") == "0"

    run(
        test,
        tmp_path,
        HandshakeRule(
            headers={
                "x-codex-primary-used-percent": 7,
                "x-ratelimit-remaining-requests": "99",
                "openai-version": "2020-10-01",
                "x-models-etag": "abc",
                "set-cookie": "a=b",
                "server": "s",
                "x-internal": "i",
                "x-codex-turn-state": "from the upgrade",
            }
        ),
        TurnRule(
            model="refused",
            error=ErrorSpec(
                status=400,
                headers={
                    "x-codex-primary-used-percent": "99",
                    "x-ratelimit-remaining-requests": 0,
                },
            ),
        ),
        names=["work"],
    )


def test_what_metadata_may_tell_a_client(tmp_path: Path) -> None:
    headers: dict[str, Any] = {
        "openai-model": "served-model",
        "x-reasoning-included": True,
        "x-codex-credits-balance": 12,
        "set-cookie": "a=b",
        "content-length": "3",
        "x-codexlb-account": "forged",
        "x-codex-bad\r\nx-injected": "1",
        "x-codex-split": "a\r\nx-injected: 1",
        "x-codex-nested": {"a": 1},
    }
    metadata = json.dumps({"type": "response.metadata", "headers": headers})

    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert answer.header("openai-model") == "served-model"
        assert answer.header("x-reasoning-included") == "true"
        assert answer.header("x-codex-credits-balance") == "12"
        assert answer.header("x-codexlb-account") == "work"
        for name in ("set-cookie", "content-length", "x-injected", "x-codex-split"):
            assert answer.all(name) == []

    run(test, tmp_path, TurnRule(send=(metadata, '{"type":"response.metadata","headers":[]}')))


STATE = "x-codex-turn-state"


def turn_state(value: str, account: str | None = None, **more: Any) -> TurnRule:
    return TurnRule(account=account, metadata={STATE: value}, **more)


def test_a_turn_state_goes_out_as_a_header_and_back_into_the_frame(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await stage.turn(headers=session("s"))
        assert first.header(STATE) == "state-of-work"
        echoed = await stage.turn(headers=[*session("s"), (STATE, "state-of-work")])
        assert echoed.status == 200
        assert stage.frames[1]["client_metadata"] == {STATE: "state-of-work"}
        for number in range(len(stage.mock.handshakes)):
            assert STATE not in stage.handshake(number)
        # It lives for one turn: the next one, without it, does not carry it.
        await stage.turn(headers=session("s"))
        assert "client_metadata" not in stage.frames[2]
        assert stage.dialled == ["work"]

    run(test, tmp_path, turn_state("state-of-work"))


def test_a_turn_state_stays_with_the_account_that_gave_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn()).header(STATE) == "state-of-work"
        for _ in range(3):  # without a session, it names the conversation
            answer = await stage.turn(headers=[(STATE, "state-of-work")])
            assert answer.header("x-codexlb-account") == "work"
            assert stage.frames[-1]["client_metadata"] == {STATE: "state-of-work"}
        assert (await stage.turn()).header("x-codexlb-account") == "home"
        closed = await stage.turn(headers=[(STATE, "state-of-work")], model="mock-close-1011")
        assert closed.header("x-codexlb-account") == "work"
        assert closed.header("x-codexlb-attempts") == "2"

    run(test, tmp_path, turn_state("state-of-work", "work", model="mock"))


def test_a_turn_state_goes_to_no_other_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(headers=session("s"))).header(STATE) == "state-of-work"
        moved = await stage.turn(headers=[*session("s"), (STATE, "state-of-work")], model="limited")
        assert moved.header("x-codexlb-account") == "home"
        assert stage.mock.turns[-2].account == "work"
        assert stage.frames[-2]["client_metadata"] == {STATE: "state-of-work"}
        assert "client_metadata" not in stage.frames[-1]
        unknown = await stage.turn(headers=[(STATE, "nobody's")])
        assert unknown.status == 200
        assert "client_metadata" not in stage.frames[-1]
        assert "state-of-work" not in str([h.headers for h in stage.mock.handshakes])

    limited = ErrorSpec(status=429, code="rate_limit_exceeded")
    run(
        test,
        tmp_path,
        TurnRule(account="work", model="limited", error=limited),
        turn_state("state-of-work", "work"),
    )


LITE = "X-OpenAI-Internal-Codex-Responses-Lite"
LITE_FIELD = "ws_request_header_x_openai_internal_codex_responses_lite"


def test_headers_of_a_turn_move_into_its_frame(tmp_path: Path) -> None:
    headers = [
        (LITE, "true"),
        ("X-Codex-Turn-Metadata", '{"turn_id":"t1"}'),
        ("x-codex-window-id", "w:0"),
        ("X-Codex-Parent-Thread-Id", "p"),
        ("x-openai-subagent", "review"),
    ]

    async def test(stage: Stage) -> None:
        assert (await stage.turn(headers=[*headers, *session("s")])).status == 200
        assert stage.frames[0]["client_metadata"] == {
            LITE_FIELD: "true",
            "x-codex-turn-metadata": '{"turn_id":"t1"}',
            "x-codex-window-id": "w:0",
            "x-codex-parent-thread-id": "p",
            "x-openai-subagent": "review",
        }
        names = stage.handshake(0)
        assert not {name.lower() for name, _ in headers} & set(names)
        # The next turn of the lane, with others, runs on the same socket.
        others = [(name, f"{value} other") for name, value in headers]
        assert (await stage.turn(headers=[*others, *session("s")])).status == 200
        assert stage.frames[1]["client_metadata"]["x-codex-window-id"] == "w:0 other"
        assert stage.dialled == ["work"]

    run(test, tmp_path)


def test_what_the_body_says_itself_wins(tmp_path: Path) -> None:
    own = b'{"x-codex-window-id":"of the body","big":12345678901234567890,"x":1.50}'
    body = b'{"model":"mock","client_metadata":' + own + b',"input":"hello"}'

    async def test(stage: Stage) -> None:
        headers = [("x-codex-window-id", "of the header"), (LITE, "true")]
        assert (await stage.post(body, headers=headers)).status == 200
        frame = stage.mock.frames[0].text
        merged = own[:-1].decode() + f',"{LITE_FIELD}":"true"}}'
        assert f'"client_metadata":{merged}' in frame
        await stage.post(body)
        assert f'"client_metadata":{own.decode()}' in stage.mock.frames[1].text
        await stage.post(b'{"model":"mock","client_metadata":null}', headers=headers)
        moved = {"x-codex-window-id": "of the header", LITE_FIELD: "true"}
        assert stage.frames[2]["client_metadata"] == moved
        await stage.post(b'{"model":"mock","client_metadata":null}')
        assert stage.frames[3]["client_metadata"] is None

    run(test, tmp_path)


def test_every_answer_says_who_served_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        seen = set()
        for stream in (True, False):
            answer = await stage.turn(stream=stream, headers=[("x-request-id", "mine")])
            assert answer.header("x-codexlb-account") in ("work", "home")
            assert answer.header("x-codexlb-attempts") == "1"
            seen.add(answer.header("x-request-id"))
        for refused in (await stage.post(b"{"), await stage.get("/nothing")):
            seen.add(refused.header("x-request-id"))
            assert refused.header("x-codexlb-account") is None
        assert len(seen) == 4
        assert not {None, "mine"} & seen

    run(test, tmp_path)


def test_the_head_of_a_stream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        assert answer.header("cache-control") == "no-cache"
        assert answer.header("content-encoding") is None
        assert b"\nid:" not in answer.body
        assert answer.header("server") is None

    run(test, tmp_path)


def test_the_head_waits_for_the_first_event(tmp_path: Path) -> None:
    """As long as nothing of the response has come, anything may still become a status."""

    async def test(stage: Stage) -> None:
        async with stage.streaming() as exchange:
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 1)
            answer = await exchange.answer()
        assert (answer.status, answer.error["code"]) == (400, "late")

    send = ('{"type":"codex.rate_limits","rate_limits":{"primary":{"used_percent":1}}}',)
    error = ErrorSpec(status=400, code="late")
    run_virtually(test, tmp_path, TurnRule(send=send, error=error, fault_delay=90))
