"""Which turns share an upstream socket, and turns that live on one."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any, cast
from weakref import ref

import pytest

from codexlb_cli.core.affinity import UNKEYED
from codexlb_cli.gateway.lanes import Lane, Lanes
from codexlb_cli.gateway.sockets import Socket
from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from tests.gateway.test_closes import keyed
from tests.gateway.test_endings import ended
from tests.support.client import Answer
from tests.support.gateway import Stage, run, session
from tests.support.virtual import play_virtually, run_each_virtually, run_virtually


def sockets(stage: Stage) -> list[int]:
    """The numbers of the sockets that turns ran on, in order of the turns."""
    numbers = [handshake.socket for handshake in stage.mock.handshakes]
    return [numbers.index(turn.socket) for turn in stage.mock.turns]


@pytest.mark.parametrize("key", ["session", "cache"])
def test_successive_turns_share_a_socket(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        for model, more in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("a", "1"), ("b", "1")):
            turn = keyed(key)
            turn["headers"] = [*turn.get("headers", []), ("x-codex-beta-features", more)]
            assert (await stage.turn(model=model, **turn)).status == 200
        assert sockets(stage) == [0, 0, 1, 2, 0, 1]
        assert (await stage.turn(model="a", **keyed(key, "another"))).status == 200
        assert len(stage.mock.handshakes) == 4

    run(test, tmp_path, names=["work"])


def test_turns_without_a_key_share_idle_sockets(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(3):
            assert (await stage.turn()).status == 200
        assert sockets(stage) == [0, 0, 0]
        await asyncio.gather(*(stage.turn() for _ in range(3)))
        assert stage.mock.overlaps == 0

    run_virtually(test, tmp_path, TurnRule(delta_delay=1), names=["work"])


def test_a_session_and_its_threads_do_not_share_a_socket(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for thread in ("t1", "t2", "t1"):
            await stage.turn(headers=[*session("s"), ("thread-id", thread)])
        assert sockets(stage) == [0, 1, 0]

    run(test, tmp_path, names=["work"])


def test_a_turn_that_failed_takes_its_socket_along(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            await stage.turn(headers=session("s"))
        assert stage.mock.turns[0].outcome == "close 1011"
        assert sockets(stage) == [0, 1, 1]

    run(test, tmp_path, TurnRule(close=1011, times=1))


@pytest.mark.parametrize("lanes", ["idle = 60", "idle = 0", "max_age = 60"])
def test_sockets_do_not_live_for_ever(tmp_path: Path, lanes: str) -> None:
    async def one(key: str, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            assert (await stage.turn(**keyed(key))).status == 200
            await stage.mock.wait_for(ended(0), 61)
            assert (await stage.turn(**keyed(key))).header("x-codexlb-attempts") == "1"
            assert sockets(stage) == [0, 1]

        await play_virtually(test, folder, more=f"[lanes]\n{lanes}", names=["work"])

    run_each_virtually({key: key for key in ("session", "cache", "none")}, one, tmp_path)


def test_every_socket_is_closed_at_the_end(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            for key in ("session", "cache", "none"):
                await stage.turn(**keyed(key))
        for number in range(3):
            await stage.mock.wait_for(ended(number))

    run(test, tmp_path, serve=False)


# Responses that live on the socket that made them (`store: false`)


async def anchor(stage: Stage, key: str, **more: Any) -> tuple[Answer, str]:
    answer = await stage.turn(store=False, **keyed(key), **more)
    assert (answer.status, answer.types[-1]) == (200, "response.completed")
    return answer, answer.events[-1].data["response"]["id"]


def assert_not_found(answer: Answer) -> None:
    error = answer.error
    assert (answer.status, error["code"]) == (400, "previous_response_not_found")
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "previous_response_id"


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_chain_stays_on_its_socket(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, key)
        for _ in range(3):
            await stage.turn()  # others come and go
            answer, previous = await anchor(stage, key, previous_response_id=previous)
            assert answer.header("x-codexlb-account") == "work"
        chain = [
            t.socket for t, f in zip(stage.mock.turns, stage.frames, strict=True) if "store" in f
        ]
        assert len(chain) == 4
        assert len(set(chain)) == 1

    run(test, tmp_path)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_only_the_latest_response_of_a_socket_is_there(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        _, first = await anchor(stage, key)
        await anchor(stage, key, previous_response_id=first)
        turns = len(stage.mock.turns)
        for previous in (first, "resp_unknown"):
            answer = await stage.turn(store=False, previous_response_id=previous, **keyed(key))
            assert_not_found(answer)
        assert len(stage.mock.turns) == turns

    run(test, tmp_path)


def test_a_turn_in_between_takes_the_place(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, "session")
        await anchor(stage, "session")
        assert_not_found(
            await stage.turn(store=False, previous_response_id=previous, **keyed("session"))
        )

    run(test, tmp_path)


def test_a_chain_ends_with_its_socket(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, "session")
        await stage.mock.wait_for(ended(0))
        assert_not_found(
            await stage.turn(store=False, previous_response_id=previous, **keyed("session"))
        )
        answer = await stage.turn(store=False, **keyed("session"))  # the client sends it in full
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")

    run(test, tmp_path, TurnRule(close=1001, when="idle", times=1))


def test_a_chain_is_never_sent_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for code in (1000, 1006, 1011, 1012):
            stage.mock.turns.clear()
            _, previous = await anchor(stage, "session")
            model = f"mock-close-{code}"
            chained: dict[str, Any] = {"store": False, "previous_response_id": previous}
            assert_not_found(await stage.turn(model=model, **chained, **keyed("session")))
            assert [turn.model for turn in stage.mock.turns] == ["mock", model]

    run(test, tmp_path)


def test_an_error_drops_the_response_that_it_continued(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, "session")
        chained: dict[str, Any] = {"store": False, "previous_response_id": previous}
        refused = await stage.turn(model="bad", **chained, **keyed("session"))
        assert (refused.status, refused.error["code"]) == (400, "odd")
        turns = len(stage.mock.turns)
        assert_not_found(await stage.turn(**chained, **keyed("session")))
        assert len(stage.mock.turns) == turns

    run(test, tmp_path, TurnRule(model="bad", error=ErrorSpec(status=400, code="odd")))


def test_silence_on_a_chain(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, "session")
        answer = await stage.turn(
            store=False, previous_response_id=previous, model="quiet", **keyed("session")
        )
        assert (answer.status, answer.error["code"]) == (504, "upstream_silent")
        assert answer.error["type"] == "server_error"
        assert len(stage.mock.turns) == 2

    run_virtually(test, tmp_path, TurnRule(model="quiet", silence=True))


SLOW = TurnRule(model="slow", deltas=30, delta_delay=2)


async def while_one_runs(stage: Stage, *, on_the_running: bool) -> tuple[Answer, Answer]:
    """A turn on a chain, and while it runs another one, on it or on the one before."""
    _, previous = await anchor(stage, "session")
    chained: dict[str, Any] = {"store": False, "previous_response_id": previous}
    async with stage.streaming(model="slow", **chained, **keyed("session")) as first:
        await first.head()
        running = (await first.event()).data["response"]["id"]
        if on_the_running:
            chained["previous_response_id"] = running
        second = await stage.turn(**chained, **keyed("session"))
        return await first.answer(), second


def test_a_chained_turn_waits_for_the_one_before(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first, second = await while_one_runs(stage, on_the_running=True)
        assert first.types[-1] == "response.completed"
        assert (second.status, second.types[-1]) == (200, "response.completed")
        assert stage.mock.overlaps == 0
        assert sockets(stage) == [0, 0, 0]

    run_virtually(test, tmp_path, SLOW)


def test_of_several_that_wait_for_one_response_one_continues_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        _, previous = await anchor(stage, "session")
        chained: dict[str, Any] = {"store": False, "previous_response_id": previous}
        async with stage.streaming(model="slow", **chained, **keyed("session")) as first:
            await first.head()
            chained["previous_response_id"] = (await first.event()).data["response"]["id"]
            waiting = [stage.turn(**chained, **keyed("session")) for _ in range(3)]
            answers = await asyncio.gather(first.answer(), *waiting)
        assert sorted(answer.status for answer in answers) == [200, 200, 400, 400]
        assert {a.error["code"] for a in answers if a.status == 400} == {
            "previous_response_not_found"
        }
        assert stage.mock.overlaps == 0

    run_virtually(test, tmp_path, SLOW)


def test_a_response_that_another_turn_continues_is_gone(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first, second = await while_one_runs(stage, on_the_running=False)
        assert first.types[-1] == "response.completed"
        assert_not_found(second)
        assert len(stage.mock.turns) == 2

    run_virtually(test, tmp_path, SLOW)


def test_so_many_may_wait(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="endless", store=False, **keyed("session")) as first:
            await first.head()
            running = (await first.event()).data["response"]["id"]
            chained: dict[str, Any] = {"store": False, "previous_response_id": running}
            answer = await stage.turn(**chained, **keyed("session"))
            assert (answer.status, answer.error["code"]) == (429, "queue_full")
            assert answer.error["type"] == "rate_limit_error"
            assert answer.header("retry-after") == "1"
            first.leave()
        await stage.mock.wait_for(ended(0))

    rule = TurnRule(model="endless", silence=True, when="streaming")
    run(test, tmp_path, rule, more="[lanes]\nqueue = 0")


def test_a_stored_response_belongs_to_its_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await stage.turn()
        previous = first.events[-1].data["response"]["id"]
        assert first.header("x-codexlb-account") == "work"
        for model in ("mock", "mock-close-1011", "mock-close-1006"):
            answer = await stage.turn(previous_response_id=previous, model=model)
            assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")
        refused = await stage.turn(previous_response_id=previous, model="limited")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert set(stage.sent) == {"work"}

    limited = ErrorSpec(status=429, code="rate_limit_exceeded")
    run(test, tmp_path, TurnRule(model="limited", error=limited))


class _Socket:
    """A socket of which only its end counts."""

    account, opened_at, open, serves_one_turn = "work", 0.0, True, False

    def end(self, label: str, row: object = None) -> None:
        self.open = False


def test_of_a_socket_that_is_gone_only_its_responses_are_remembered() -> None:
    """A connection takes 17 KB, and 20,000 responses are remembered."""

    async def test() -> None:
        lanes = Lanes(lambda: 300.0, lambda: 3300.0)
        socket = cast("Socket", _Socket())
        seat = lanes.add(socket, Lane(UNKEYED, "work", None, ()))
        lanes.made(seat, "resp_1")
        assert lanes.anchor("resp_1") is seat
        lanes.retire(seat)
        gone = ref(socket)
        del seat, socket
        gc.collect()
        assert gone() is None
        assert lanes.made_on_socket("resp_1")
        assert lanes.anchor("resp_1") is None

    asyncio.run(test())
