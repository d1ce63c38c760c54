"""Who owns a turn, from outside: every source of affinity, conflicts, unknown responses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from tests.support.client import Answer
from tests.support.gateway import Stage, run, session
from tests.support.virtual import run_virtually

TURN_STATE = TurnRule(metadata={"x-codex-turn-state": "ts-1"}, account="home", times=1)


def account(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("x-codexlb-account")


def response_id(answer: Answer) -> str:
    found: str = answer.events[-1].data["response"]["id"]
    return found


def file_input(*names: str) -> list[dict[str, Any]]:
    content = [{"type": "input_file", "file_id": name} for name in names]
    return [{"type": "message", "role": "user", "content": content}]


async def pinned_to(stage: Stage, name: str, **members: Any) -> Answer:
    """Send a turn that the account called `name` serves, since no other is enabled."""
    others = {other: "enabled = false" for other in stage.urls if other != name}
    for known in ("file_1", "f"):
        stage.mock.keep_file(name, known)
    stage.configure(accounts=others)
    answer = await stage.turn(**members)
    stage.configure()
    assert account(answer) == name
    return answer


ANCHORS: dict[str, dict[str, Any]] = {
    "conversation": {"conversation": "conv_1"},
    "conversation object": {"conversation": {"id": "conv_1"}},
    "file": {"input": file_input("file_1")},
    "image": {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
}


@pytest.mark.parametrize("what", ANCHORS)
def test_what_lies_in_an_account_is_served_there(tmp_path: Path, what: str) -> None:
    async def test(stage: Stage) -> None:
        await pinned_to(stage, "home", **ANCHORS[what])
        for number in range(3):
            answer = await stage.turn(headers=session(f"s{number}"), **ANCHORS[what])
            assert account(answer) == "home"
        assert account(await stage.turn(headers=session("s0"))) == "home", "the session follows"

    run(test, tmp_path)


@pytest.mark.parametrize("members", [{"conversation": "conv_1"}, {"input": file_input("file_1")}])
def test_an_anchor_is_bound_once_it_was_sent(tmp_path: Path, members: dict[str, Any]) -> None:
    async def test(stage: Stage) -> None:
        stage.mock.keep_file("work", "file_1")
        failed = await stage.turn(**members)
        assert (failed.status, stage.sent) == (503, ["work", "work"])
        for _ in range(2):
            assert account(await stage.turn(**members)) == "work"

    run(test, tmp_path, TurnRule(close=1011, times=2))


def test_an_anchor_that_the_account_does_not_have_binds_nothing(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.mock.keep_file("home", "file_1")
        unknown = await stage.turn(input=file_input("file_1"))
        assert (unknown.status, unknown.error["code"]) == (404, "file_not_found")
        assert account(await stage.turn(input=file_input("file_1"))) == "home"

    run(test, tmp_path, names=["work", "home"])


def test_anchors_survive_a_restart(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            first = await pinned_to(stage, "spare", conversation="conv_1")
            await pinned_to(stage, "home", input=file_input("file_1"))
        async with stage.serving():
            chained = await stage.turn(previous_response_id=response_id(first))
            assert account(chained) == "spare"
            assert account(await stage.turn(conversation="conv_1")) == "spare"
            assert account(await stage.turn(input=file_input("file_1"))) == "home"

    run(test, tmp_path, serve=False)


def test_anchors_in_two_accounts_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await pinned_to(stage, "home", input=file_input("file_1"))
        await pinned_to(stage, "spare", conversation="conv_1")
        sent = len(stage.sent)
        answer = await stage.turn(conversation="conv_1", input=file_input("file_1"))
        assert (answer.status, answer.error["code"]) == (400, "continuity_owner_conflict")
        assert answer.error["type"] == "invalid_request_error"
        assert "`home`" in answer.error["message"]
        assert "`spare`" in answer.error["message"]
        assert len(stage.sent) == sent
        assert len(stage.dialled) == sent

    run(test, tmp_path)


def test_an_anchor_wins_over_the_session_and_its_row_is_rewritten(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert account(await stage.turn(headers=session("s"))) == "work"
            await pinned_to(stage, "home", conversation="conv_1")
            moved = await stage.turn(headers=session("s"), conversation="conv_1")
            assert account(moved) == "home"
        async with stage.serving():
            assert account(await stage.turn(headers=session("s"))) == "home"

    run(test, tmp_path, serve=False)


def test_a_turn_state_binds_a_turn_without_a_session(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            given = await pinned_to(stage, "home")
            assert given.header("x-codex-turn-state") == "ts-1"
        async with stage.serving():
            for _ in range(3):
                echoed = await stage.turn(headers=[("x-codex-turn-state", "ts-1")])
                assert account(echoed) == "home"
                assert stage.frames[-1]["client_metadata"]["x-codex-turn-state"] == "ts-1"
            strange = await stage.turn(headers=[("x-codex-turn-state", "ts-of-somebody")])
            assert account(strange) != "home"
            assert "client_metadata" not in stage.frames[-1]

    run(test, tmp_path, TURN_STATE, serve=False)


def test_a_turn_state_stays_behind_when_its_account_fails(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await pinned_to(stage, "home", headers=session("s"))
        both = [*session("s"), ("x-codex-turn-state", "ts-1")]
        assert account(await stage.turn(headers=both)) == "home"
        del stage.environ["HOME_KEY"]
        moved = await stage.turn(headers=both)
        assert account(moved) == "work"
        assert "client_metadata" not in stage.frames[-1]
        stage.environ["HOME_KEY"] = "sk-test-home"
        assert account(await stage.turn(headers=both)) == "work", "the session does not go back"

    run(test, tmp_path, TURN_STATE)


# Responses that nobody is known to store


async def elsewhere(stage: Stage, name: str) -> str:
    """Make a stored response on `name` that the gateway has forgotten."""
    answer = await pinned_to(stage, name)
    ran = await stage.command("owners", "forget", "--all")
    assert ran.returncode == 0, ran.stderr
    return response_id(answer)


def test_the_accounts_are_asked_for_an_unknown_response(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        previous = await elsewhere(stage, "spare")
        before = len(stage.sent)
        answer = await stage.turn(previous_response_id=previous)
        assert account(answer) == "spare"
        assert answer.header("x-codexlb-attempts") == str(len(stage.sent) - before)
        assert stage.sent[-1] == "spare"
        before = len(stage.sent)
        again = await stage.turn(previous_response_id=previous)
        assert (account(again), len(stage.sent)) == ("spare", before + 1), "who knew is remembered"

    run(test, tmp_path)


def test_nobody_knows_the_response(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(previous_response_id="resp_of_nobody")
        assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert answer.error["param"] == "previous_response_id"
        assert sorted(stage.sent) == ["home", "spare", "work"]
        assert answer.header("x-codexlb-attempts") == "3"
        lost = await stage.turn(previous_response_id="resp_of_nobody", store=False)
        assert (lost.status, lost.error["code"]) == (400, "previous_response_not_found")
        assert len(stage.sent) == 3, "store: false is answered at once"

    run(test, tmp_path)


def test_not_found_is_no_answer_while_an_account_could_not_be_asked(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(previous_response_id="resp_of_nobody")
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.header("retry-after") == "30"

    refuses = HandshakeRule(account="home", status=429, headers={"retry-after": "30"})
    run(test, tmp_path, refuses)


def test_a_known_owner_that_has_lost_the_response_is_believed(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        previous = response_id(await stage.turn())
        answer = await stage.turn(previous_response_id=previous)
        assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert set(stage.sent) == {"work"}

    error = ErrorSpec(status=400, code="previous_response_not_found", type="invalid_request_error")
    run(test, tmp_path, TurnRule(skip=1, error=error))


# Accounts that take no more


def test_a_session_waits_in_line_for_its_owner_and_others_go_elsewhere(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert account(await stage.turn(headers=session("s"))) == "work"
        async with stage.streaming(headers=session("s"), model="slow") as first:
            await first.head()
            waiting = asyncio.create_task(stage.turn(headers=session("s")))
            assert account(await stage.turn()) == "home"
            assert account(await stage.turn(prompt_cache_key="k")) == "spare"
            assert not waiting.done()
            states = (await stage.get("/readyz")).json["accounts"]
            assert states == {"work": "full", "home": "ready", "spare": "ready"}
            await first.until("response.completed")
        assert account(await waiting) == "work"

    slow = TurnRule(model="slow", deltas=8, delta_delay=20)
    run_virtually(test, tmp_path, slow, more="[lanes]\nmax_turns = 1\n")


def test_the_line_is_bounded(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="mock-silent") as first:
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 1)
            waiting = [asyncio.create_task(stage.turn()) for _ in range(3)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused = done.pop().result()
            assert (refused.status, refused.error["code"]) == (429, "queue_full")
            assert refused.header("retry-after") == "1"
            first.leave()  # a client that leaves frees its place
            served = [await task for task in waiting if not task.cancelled()]
        assert sorted(answer.status for answer in served) == [200, 200, 429]

    more = "[lanes]\nmax_turns = 1\nqueue = 2\n"
    run_virtually(test, tmp_path, names=["work"], more=more)


def test_who_leaves_the_line_takes_no_place(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="mock-silent") as first:
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 1)
            async with stage.streaming() as second:
                third = asyncio.create_task(stage.turn())
                second.leave()
                first.leave()
                assert account(await third) == "work"
        for _ in range(3):
            assert account(await stage.turn()) == "work"

    run_virtually(test, tmp_path, names=["work"], more="[lanes]\nmax_turns = 1\n")


def test_time_in_line_counts_against_the_budget(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="slow") as first:
            await first.head()
            answer = await stage.turn()
            assert (answer.status, answer.error["code"]) == (429, "queue_full")

    slow = TurnRule(model="slow", deltas=50, delta_delay=10)
    run_virtually(test, tmp_path, slow, names=["work"], more="[lanes]\nmax_turns = 1\n")
