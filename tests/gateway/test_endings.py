"""How an answer ends once the upstream has begun it: one terminal event, never a second turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.gateway.test_closes import keyed
from tests.support.client import TERMINAL, Answer, Event
from tests.support.gateway import Stage, run, session
from tests.support.virtual import run_virtually

CODEX = [
    [("originator", "codex_cli_rs")],
    [("originator", "codex_exec")],
    [("user-agent", "codex_exec/0.144.5 (Linux)")],
]
CLOSES = (1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 3000, 4001)
PLACES: dict[str, dict[str, Any]] = {
    "created": {"when": "created"},
    "streaming": {"when": "streaming", "after": 2},
}


def ended(number: int) -> Callable[[MockUpstream], bool]:
    """Whether an upstream socket is over."""
    return lambda mock: mock.handshakes[number].ended is not None


def assert_one_ending(events: list[Event]) -> None:
    kinds = [event.data["type"] for event in events]
    assert [kind for kind in kinds if kind in TERMINAL] == [kinds[-1]]
    numbers = [event.data["sequence_number"] for event in events]
    assert numbers == list(range(len(numbers)))


def assert_superset_error(event: Event, code: str) -> None:
    """The form on which every client raises: flat, and nested."""
    assert event.name == "error"
    nested = event.data.pop("error")
    assert set(event.data) == {"type", "sequence_number", "code", "message", "param"}
    assert event.data["type"] == "error"
    assert set(nested) == {"type", "code", "message", "param"}
    for name in ("code", "message", "param"):
        assert nested[name] == event.data[name]
    assert nested["code"] == code
    assert nested["message"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_close_during_the_answer(tmp_path: Path, key: str, place: str) -> None:
    async def test(stage: Stage) -> None:
        for number, code in enumerate(CLOSES, 1):
            answer = await stage.turn(model=f"m{code}", **keyed(key, f"k{code}"))
            assert (answer.status, answer.complete) == (200, True)
            assert answer.header("x-codexlb-attempts") == "1"
            events = answer.events
            assert_one_ending(events)
            assert_superset_error(events[-1], "upstream_closed")
            assert answer.text == ("" if place == "created" else "You said: ")
            assert len(stage.mock.turns) == number  # never a second `response.create`
            stage.clock.advance(100)
        assert b"x-should-retry" not in str(answer.headers).encode()

    rules = [TurnRule(model=f"m{code}", close=code, **PLACES[place]) for code in CLOSES]
    run(test, tmp_path, *rules)


@pytest.mark.parametrize("place", PLACES)
def test_codex_gets_a_failure_that_it_retries(tmp_path: Path, place: str) -> None:
    async def test(stage: Stage) -> None:
        for client in CODEX:
            answer = await stage.turn(headers=[*client, *session("s")])
            events = answer.events
            assert_one_ending(events)
            last = events[-1]
            assert last.name == last.data["type"] == "response.failed"
            response = last.data["response"]
            assert response["id"] == events[0].data["response"]["id"]
            assert response["status"] == "failed"
            assert response["error"]["code"] == "server_error"
            assert "work" in response["error"]["message"]
        assert stage.sent == ["work"] * len(CODEX)

    run(test, tmp_path, TurnRule(close=1011, **PLACES[place]))


@pytest.mark.parametrize("place", PLACES)
def test_the_whole_answer_at_once_cannot_come(tmp_path: Path, place: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=False)
        assert (answer.status, answer.error["code"]) == (502, "upstream_closed")
        assert answer.error["type"] == "server_error"
        assert answer.header("x-should-retry") == "false"
        assert answer.header("retry-after") is None
        assert answer.header("x-codexlb-account") == "work"
        assert stage.sent == ["work"]

    run(test, tmp_path, TurnRule(close=1011, **PLACES[place]))


GARBAGE = ("no json", "[]", '{"type":"response.output_text.delta"')


def test_garbage_during_the_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for garbage in GARBAGE:
            answer = await stage.turn(model=garbage)
            assert answer.complete
            assert_one_ending(answer.events)
            assert_superset_error(answer.events[-1], "upstream_closed")

    rules = [TurnRule(model=text, send=(text,), when="streaming") for text in GARBAGE]
    run(test, tmp_path, *rules)


def test_silence_during_the_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert_one_ending(answer.events)
        assert_superset_error(answer.events[-1], "upstream_closed")
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)
        assert stage.sent == ["work"]

    run_virtually(test, tmp_path, TurnRule(silence=True, when="streaming", after=2))


ERROR = ErrorSpec(status=429, code="rate_limit_exceeded", message="Slow down.", param="input")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_frame_during_the_answer(tmp_path: Path, place: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        events = answer.events
        assert_one_ending(events)
        assert (events[-1].data["message"], events[-1].data["param"]) == ("Slow down.", "input")
        assert events[-1].data["error"]["type"] == "rate_limit_error"
        assert_superset_error(events[-1], "rate_limit_exceeded")
        whole = await stage.turn(stream=False)
        assert (whole.status, whole.error["code"]) == (429, "rate_limit_exceeded")
        assert whole.header("x-should-retry") == "false"
        assert len(stage.sent) == 2

    run(test, tmp_path, TurnRule(error=ERROR, **PLACES[place]))


def test_an_error_frame_during_the_answer_to_codex(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=CODEX[0])
        events = answer.events
        assert_one_ending(events)
        assert events[-1].data["type"] == "response.failed"
        assert events[-1].data["response"]["error"]["message"] == "Slow down."

    run(test, tmp_path, TurnRule(error=ERROR, when="streaming"))


def response_of(answer: Answer) -> Any:
    return answer.events[-1].data["response"]


def test_the_upstreams_own_endings(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for model, kind, status in (
            ("mock", "response.completed", "completed"),
            ("failed", "response.failed", "failed"),
            ("short", "response.incomplete", "incomplete"),
        ):
            streamed = await stage.turn(model=model, headers=session("s"))
            assert (streamed.status, streamed.complete) == (200, True)
            assert_one_ending(streamed.events)
            assert streamed.types[-1] == kind
            whole = await stage.turn(model=model, headers=session("s"), stream=False)
            assert (whole.status, whole.json["status"]) == (200, status)
            assert whole.header("x-codexlb-attempts") == "1"
            volatile = {"id", "created_at", "output"}
            left, right = (
                {k: v for k, v in response.items() if k not in volatile}
                for response in (response_of(streamed), whole.json)
            )
            assert left == right
        assert stage.sent == ["work"] * 6

    run(
        test,
        tmp_path,
        TurnRule(model="failed", failed=FailedSpec(code="server_error")),
        TurnRule(model="short", incomplete="max_output_tokens"),
    )


def test_stream_false_is_what_leaving_it_out_means(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for body in (b'{"model":"mock"}', b'{"model":"mock","stream":null}'):
            assert (await stage.post(body)).json["status"] == "completed"

    run(test, tmp_path)


def test_what_comes_after_the_end_belongs_to_nobody(tmp_path: Path) -> None:
    """An upstream that closes, or says more, after the end costs nobody anything."""

    async def test(stage: Stage) -> None:
        for number in range(3):
            answer = await stage.turn(headers=session("s"), input=f"turn {number}")
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.text == f"You said: turn {number}"
            assert_one_ending(answer.events)
            await stage.mock.wait_for(ended(number))
        assert stage.sent == ["work"] * 3
        assert stage.dialled == ["work"] * 3

    stray = json.dumps({"type": "response.output_text.delta", "delta": "stray"})
    run(
        test,
        tmp_path,
        TurnRule(close=1011, when="idle", times=1),
        TurnRule(send=(stray,), when="idle", skip=0, times=1),
        TurnRule(close=1006, when="idle", times=1),
    )


def test_an_idle_close_blames_nobody(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for number in range(6):
            answer = await stage.turn(headers=session("s"))
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.header("x-codexlb-account") == "work"
            await stage.mock.wait_for(ended(number))
        ready = await stage.get("/readyz")
        assert ready.json["accounts"]["work"] == "ready"

    run(test, tmp_path, TurnRule(close=1011, when="idle"))


def test_the_events_are_the_upstreams_own_bytes(tmp_path: Path) -> None:
    texts = (
        '{"type":"response.created", "response":{"id":"resp_1","o":1.50,"big":12345678901234567}}',
        '{"sequence_number":1,"type":"response.output_text.delta","delta":"\\u00e9é\\ud83d\\ude00"}',
        '{"type":"response.brand_new.event","deep":[[[{}]]],"sequence_number":2}',
        '{"type":"response.completed","response":{"id":"resp_1","x":1e400,"y":0.1000},"sequence_number":3}',
    )

    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        expected = [f"event: {json.loads(text)['type']}\ndata: {text}\n\n" for text in texts]
        assert answer.body.decode() == "".join(expected)
        whole = await stage.turn(stream=False)
        assert whole.body.decode() == '{"id":"resp_1","x":1e400,"y":0.1000}'

    run(test, tmp_path, TurnRule(send=texts))


def test_numbers_never_go_back(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        events = (await stage.turn()).events
        numbers = [e.data["sequence_number"] for e in events if "sequence_number" in e.data]
        assert events[-2].data == {"type": "response.unnumbered"}
        assert numbers == sorted(set(numbers))
        assert_superset_error(events[-1], "upstream_closed")

    send = ('{"type":"response.unnumbered"}',)
    run(test, tmp_path, TurnRule(send=send, close=1011, when="streaming", after=2))


def test_a_type_with_line_breaks_adds_no_event(tmp_path: Path) -> None:
    kind = "response.x\n\nevent: response.completed\ndata: {}\n\n"
    last = {"type": "response.completed", "response": {"id": "resp_1"}}

    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        lines = answer.body.split(b"\n")
        assert lines.count(b"event: response.completed") == 1
        assert answer.body.count(b"\n\n") == 3

    send = tuple(
        json.dumps(event) for event in ({"type": "response.created"}, {"type": kind}, last)
    )
    run(test, tmp_path, TurnRule(send=send))


def test_an_event_with_line_breaks_is_still_one_event(tmp_path: Path) -> None:
    pretty = json.dumps({"type": "response.created", "response": {"id": "resp_1"}}, indent=2)
    last = '{"type":"response.completed",\r\n"response":{"id":"resp_1"},"sequence_number":1}'

    async def test(stage: Stage) -> None:
        events = (await stage.turn()).events
        assert [event.data for event in events] == [json.loads(pretty), json.loads(last)]

    run(test, tmp_path, TurnRule(send=(pretty, last)))


def test_a_big_event_passes(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert len(answer.events[-1].text) > 20_000_000
        assert_one_ending(answer.events)

    run(test, tmp_path, TurnRule(completed_bytes=20_000_000))


def test_a_client_that_leaves_ends_its_upstream_turn(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(headers=session("s"), model="slow") as exchange:
            await exchange.head()
            await exchange.until("response.output_text.delta")
            exchange.leave()
        await stage.mock.wait_for(lambda mock: mock.turns[0].outcome == "client left")
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended == "client left")
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.types[-1]) == (200, "response.completed")
        assert answer.header("x-codexlb-account") == "work"
        assert stage.mock.overlaps == 0
        assert stage.gateway.responses.running == 0
        assert any("client left" in line for line in stage.lines)

    run(test, tmp_path, TurnRule(model="slow", delta_delay=0.05, deltas=1000))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_event(tmp_path: Path, stream: bool) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(headers=session("s"), model="quiet", stream=stream) as exchange:
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 1)
            exchange.leave()
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended == "client left")
        answer = await stage.turn(headers=session("s"))
        assert answer.status == 200
        assert stage.sent == ["work", "work"]

    run(test, tmp_path, TurnRule(model="quiet", silence=True))


def test_a_client_that_leaves_while_an_account_is_dialled(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(headers=session("s")) as exchange:
            await stage.mock.wait_for(lambda mock: len(mock.handshakes) == 1)
            exchange.leave()
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended == "client left")
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")
        assert len(stage.sent) == 1

    run(test, tmp_path, HandshakeRule(silence=True, times=1))


def test_clients_that_left_are_not_counted_as_busy(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for number in range(6):
            async with stage.streaming(model="quiet") as exchange:
                await stage.mock.wait_for(turns_begun(number + 1))
                exchange.leave()
            await stage.mock.wait_for(ended(number))
        served = [(await stage.turn()).header("x-codexlb-account") for _ in range(3)]
        assert served == ["work", "home", "spare"]

    run(test, tmp_path, TurnRule(model="quiet", silence=True))


def turns_begun(count: int) -> Callable[[MockUpstream], bool]:
    return lambda mock: len(mock.turns) == count


def test_a_slow_client_holds_up_only_itself(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(model="long") as slow:
            await slow.head()
            await slow.event()
            answers = await asyncio.gather(*(stage.turn(input=f"{n}") for n in range(4)))
            assert [answer.text for answer in answers] == [f"You said: {n}" for n in range(4)]
            whole = await slow.answer()
            assert whole.complete
            assert whole.types[-1] == "response.completed"
            assert len(whole.text) == 200 * 50_000

    run(test, tmp_path, TurnRule(model="long", deltas=200, delta_bytes=50_000))
