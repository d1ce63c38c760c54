"""What gateways of this kind were seen to get wrong, from outside, with each close code.

The reported defect itself is in `tests/gateway/test_reported_defect.py`, four parallel turns on one
cache key in `tests/gateway/test_closes.py`, who may speak to the gateway in
`tests/gateway/test_wire.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.support.client import Answer, Header
from tests.support.gateway import Stage, session
from tests.support.virtual import play_virtually, run_each_virtually, run_virtually

CODES = (1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 1014, 3000, 3008, 4000)
CASES = {str(code): code for code in CODES}
STATE = "x-codex-turn-state"
NEW_SOCKET = ("originator", "another")


def assert_served(answer: Answer, account: str, attempts: int) -> None:
    assert (answer.status, answer.types[-1]) == (200, "response.completed")
    assert answer.header("x-codexlb-account") == account
    assert answer.header("x-codexlb-attempts") == str(attempts)


def close_once(code: int) -> TurnRule:
    return TurnRule(model="bad", close=code, times=1)


def test_a_session_is_neither_excluded_nor_moved_by_a_close(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            assert_served(await stage.turn(headers=session("s")), "work", 1)
            assert_served(await stage.turn(headers=session("s"), model="bad"), "work", 2)
            assert_served(await stage.turn(headers=session("s")), "work", 1)
            assert set(stage.sent) == {"work"}

        await play_virtually(test, folder, close_once(code))

    run_each_virtually(CASES, one, tmp_path)


def test_a_turn_state_that_was_handed_out_leads_back(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            first = await stage.turn()
            state = first.header(STATE)
            assert state == "of-work"
            assert_served(await stage.turn(), "home", 1)
            assert_served(await stage.turn(headers=[(STATE, state)], model="bad"), "work", 2)
            assert_served(await stage.turn(headers=[(STATE, state)]), "work", 1)

        gives = TurnRule(account="work", model="mock", metadata={STATE: "of-work"})
        await play_virtually(test, folder, close_once(code), gives)

    run_each_virtually(CASES, one, tmp_path)


@pytest.mark.parametrize("place", ["created", "streaming"])
def test_nothing_is_sent_again_once_the_upstream_has_begun(tmp_path: Path, place: Any) -> None:
    async def one(code: int, folder: Path) -> None:
        keys: dict[str, dict[str, Any]] = {
            "session": {"headers": session("s")},
            "cache": {"prompt_cache_key": "k"},
            "none": {},
        }

        async def test(stage: Stage) -> None:
            for number, key in enumerate(keys.values(), 1):
                answer = await stage.turn(**key)
                assert answer.status == 200
                assert answer.header("x-codexlb-attempts") == "1"
                assert answer.types[0] == "response.created"
                assert answer.types[-1] == "error"
                assert answer.events[-1].data["code"] == "upstream_closed"
                whole = await stage.turn(stream=False, **key)
                assert (whole.status, whole.error["code"]) == (502, "upstream_closed")
                assert whole.header("x-should-retry") == "false"
                assert len(stage.mock.turns) == 2 * number
            assert {turn.transport for turn in stage.mock.turns} == {"websocket"}

        await play_virtually(test, folder, TurnRule(close=code, when=place))

    run_each_virtually(CASES, one, tmp_path)


def test_a_stored_chain_whose_socket_closes_goes_on(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            first = await stage.turn(stream=False)
            chain: dict[str, Any] = {"previous_response_id": first.json["id"]}
            assert_served(await stage.turn(model="bad", **chain), "work", 2)
            refused = await stage.turn(model="worse", **chain)
            assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
            await asyncio.sleep(float(refused.header("retry-after") or "nothing"))
            assert_served(await stage.turn(**chain), "work", 1)
            assert set(stage.sent) == {"work"}

        await play_virtually(test, folder, close_once(code), TurnRule(model="worse", close=code))

    run_each_virtually(CASES, one, tmp_path)


def test_a_chain_that_lived_on_its_socket_goes_on_in_full(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            whole: dict[str, Any] = {"headers": session("s"), "store": False}
            first = await stage.turn(stream=False, **whole)
            lost = await stage.turn(model="bad", previous_response_id=first.json["id"], **whole)
            assert (lost.status, lost.error["code"]) == (400, "previous_response_not_found")
            assert stage.sent == ["work", "work"]
            again = await stage.turn(model="bad", previous_response_id=first.json["id"], **whole)
            assert (again.status, again.error["code"]) == (400, "previous_response_not_found")
            assert_served(await stage.turn(model="bad", **whole), "work", 1)
            assert stage.sent == ["work"] * 3

        await play_virtually(test, folder, close_once(code))

    run_each_virtually(CASES, one, tmp_path)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refused_upgrade_reaches_nobody_while_two_accounts_are_free(
    tmp_path: Path, status: int
) -> None:
    async def test(stage: Stage) -> None:
        for members in ({}, {"headers": session("s")}, {"prompt_cache_key": "k"}, {"store": False}):
            answer = await stage.turn(**members)
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.header("x-codexlb-account") in {"home", "spare"}
            assert answer.header("x-codexlb-attempts") == "1"
        assert "work" in stage.dialled
        assert "work" not in stage.sent

    run_virtually(test, tmp_path, HandshakeRule(account="work", status=status))


@pytest.mark.parametrize("account", ["work", None])
def test_a_refused_credential_leaves_no_client_waiting(tmp_path: Path, account: str | None) -> None:
    async def test(stage: Stage) -> None:
        stored = await stage.turn(stream=False)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(2):
            answer = await stage.turn(headers=[NEW_SOCKET], previous_response_id=stored.json["id"])
            assert (answer.status, answer.error["code"]) == (503, "owner_unavailable")
            assert "`work`" in answer.error["message"]
        assert loop.time() - began <= 240  # `[timeouts] before_first_event_total`, of virtual time

    run_virtually(test, tmp_path, HandshakeRule(account=account, skip=1, status=401))


BROWSER: list[Header] = [
    ("Origin", "http://127.0.0.1:{port}"),
    ("Referer", "http://127.0.0.1/page"),
    ("Via", "1.1 proxy"),
    ("Forwarded", "for=203.0.113.9"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Real-IP", "203.0.113.9"),
    ("OpenAI-Organization", "org-of-the-client"),
    ("OpenAI-Project", "proj_of_the_client"),
    ("X-Unknown", "1"),
    ("Cookie", "token=of-the-client"),
    ("Authorization", "Bearer sk-of-the-client"),
]


def test_what_a_client_says_of_itself_and_its_network_stays_here(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        headers = [(name, value.format(port=stage.port)) for name, value in BROWSER]
        answer = await stage.turn(headers=[*headers, *session("s")], model="bad")
        assert_served(answer, "work", 2)  # and nobody takes it for a remote client
        for number in (0, 1):
            lines = stage.handshake(number)
            assert set(lines) == {
                "host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version",
                "authorization", "openai-beta", "user-agent", "session-id", "x-client-request-id",
            }  # fmt: skip
            assert lines["authorization"] == ["Bearer sk-test-work"]

    run_virtually(test, tmp_path, close_once(1011))


FILE = [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]


@pytest.mark.parametrize("members", [{"conversation": "conv_1"}, {"input": FILE}])
def test_what_lies_upstream_stays_on_its_account(tmp_path: Path, members: Any) -> None:
    async def test(stage: Stage) -> None:
        stage.mock.keep_file("work", "file_1")
        for _ in range(3):
            assert_served(await stage.turn(**members), "work", 1)

    run_virtually(test, tmp_path)


def test_a_stored_response_is_found_after_a_restart(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await stage.turn()
            answer = await stage.turn(stream=False)
            assert answer.header("x-codexlb-account") == "home"
        async with stage.serving():
            found = await stage.turn(previous_response_id=answer.json["id"])
            assert (found.status, found.header("x-codexlb-account")) == (200, "home")
            again = await stage.turn(previous_response_id=answer.json["id"])
            assert_served(again, "home", 1)

    run_virtually(test, tmp_path, serve=False)


def test_a_response_and_a_session_of_two_accounts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work", 1)
        other = await stage.turn(stream=False)
        assert other.header("x-codexlb-account") == "home"
        both = await stage.turn(headers=session("s"), previous_response_id=other.json["id"])
        assert_served(both, "home", 1)
        assert_served(await stage.turn(headers=session("s")), "home", 1)  # it went with it

    run_virtually(test, tmp_path)
