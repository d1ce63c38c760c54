"""WebSocket clients: turns, chains, lanes, and frames that are no turns."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from tests.support.gateway import Stage, run, session
from tests.support.sockets import client, id_of, text_of, to, types
from tests.support.virtual import run_virtually

PATHS = ["/v1/responses", "/backend-api/codex/responses"]


@pytest.mark.parametrize("path", PATHS)
def test_a_chain_runs_on_one_upstream_socket(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, path=path) as ws:
            warm = await ws.turn(generate=False, store=False, input=[])
            assert types(warm) == ["response.created", "response.in_progress", "response.completed"]
            first = await ws.turn(store=False, previous_response_id=id_of(warm))
            assert text_of(first) == "You said: hello"
            second = await ws.turn(store=False, previous_response_id=id_of(first), input="more")
            assert text_of(second) == "You said: more"
        assert stage.dialled == ["work"]
        assert stage.sent == ["work"] * 3
        assert [line.split()[1:4] for line in stage.lines] == [["200", "work", "hard"]] * 3

    run(test, tmp_path)


def test_events_are_those_of_the_upstream(tmp_path: Path) -> None:
    """Every frame, byte for byte, but for what no two responses have in common."""

    async def test(stage: Stage) -> None:
        async with (
            client(stage.mock.port, headers=[("Authorization", "Bearer sk-test-work")]) as direct,
            to(stage) as ws,
        ):
            for members in ({"model": "mock-tool", "tools": [TOOL]}, {"store": False}):
                seen = []
                for one in (direct, ws):
                    await one.create(**members)
                    events: list[str] = []
                    while not events or json.loads(events[-1])["type"] != "response.completed":
                        events.append(str(await one.connection.recv()))
                    number = json.loads(events[0])["response"]["id"].removeprefix("resp_")
                    seen.append([event.replace(number, "N") for event in events])
                assert seen[0] == seen[1]

    run(test, tmp_path, TurnRule(reasoning=True), strict=False)


TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def test_members_for_http_alone_do_not_go_upstream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.turn(stream=True, background=False, background_options={}, extra={"x": [1.50]})
        assert stage.frames == [
            {"type": "response.create", "model": "mock", "input": "hello", "extra": {"x": [1.5]}}
        ]

    run(test, tmp_path)


REFUSED: dict[str, tuple[str, int, str, str | None]] = {
    "no JSON": ("{", 400, "invalid_request", None),
    "no object": ("[1]", 400, "invalid_request", None),
    "no type": ('{"model":"mock"}', 400, "invalid_request", "type"),
    "another type": ('{"type":"session.update"}', 400, "invalid_request", "type"),
    "background": (
        '{"type":"response.create","model":"mock","background":true}',
        501,
        "not_supported",
        "background",
    ),
    "a lane": (
        '{"type":"response.create","model":"mock","stream_id":"a b"}',
        400,
        "invalid_stream_id",
        "stream_id",
    ),
    "no lane": (
        '{"type":"response.create","model":"mock","stream_id":""}',
        400,
        "invalid_stream_id",
        "stream_id",
    ),
    "a store": (
        '{"type":"response.create","model":"mock","store":1}',
        400,
        "invalid_request",
        "store",
    ),
    "a turn state": (
        '{"type":"response.create","model":"m","client_metadata":{"x-codex-turn-state":"a\\nb"}}',
        400,
        "invalid_header",
        None,
    ),
    "too large": (
        json.dumps({"type": "response.create", "model": "mock", "input": "x" * 200_000}),
        400,
        "request_too_large",
        None,
    ),
    "nobody's response": (
        '{"type":"response.interrupt","response_id":"resp_none"}',
        400,
        "response_not_found",
        "response_id",
    ),
}


def test_a_frame_that_cannot_be_taken_is_answered_and_the_socket_goes_on(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            for label, (frame, status, code, param) in REFUSED.items():
                await ws.connection.send(frame)
                event = await ws.event()
                assert (event["type"], event["status"]) == ("error", status), label
                assert (event["error"]["code"], event["error"]["param"]) == (code, param), label
                assert {"message", "type", "code", "param"} == set(event["error"]), label
            assert text_of(await ws.turn()) == "You said: hello"
        assert [line.split()[1] for line in stage.lines][-1] == "200"
        assert len(stage.sent) == 1

    run(test, tmp_path, more="[limits]\nframe_bytes = 100000\n")


def test_binary_frames_and_giants_end_the_socket(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.connection.send(b'{"type":"response.create","model":"mock"}')
            assert await ws.closed() == 1003
        async with to(stage) as ws:
            await ws.connection.send("x" * 300_000)
            assert await ws.closed() == 1009
        assert stage.sent == []

    run(test, tmp_path, more="[limits]\nrequest_bytes = 200000\nframe_bytes = 100000\n")


@pytest.mark.parametrize("deflate", [False, True])
def test_messages_are_compressed_where_configured(tmp_path: Path, deflate: bool) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, compression="deflate") as ws:
            offered = ws.connection.response.headers.get("Sec-WebSocket-Extensions", "")
            assert ("permessage-deflate" in offered) == deflate
            assert text_of(await ws.turn(input="x" * 70_000)) == "y" * 70_000

    rule = TurnRule(text="y" * 70_000)
    run(test, tmp_path, rule, more=f"[gateway]\ndeflate = {str(deflate).lower()}\n")


def test_turns_of_a_lane_run_one_after_the_other(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            for number in range(3):
                await ws.create(input=f"{number}")
            texts = [text_of(await ws.until("response.completed")) for _ in range(3)]
            assert texts == [f"You said: {number}" for number in range(3)]
        assert stage.dialled == ["work"]
        assert stage.mock.overlaps == 0

    run(test, tmp_path)


def test_named_lanes_run_side_by_side(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            for name in ("a", "b", None):
                await ws.create(input=f"{name}", **({"stream_id": name} if name else {}))
            seen: dict[Any, list[Any]] = {"a": [], "b": [], None: []}
            while not all(e and e[-1]["type"] == "response.completed" for e in seen.values()):
                event = await ws.event()
                seen[event.get("stream_id")].append(event)
            for name, events in seen.items():
                assert text_of(events) == f"You said: {name}"
            # Each goes on where it was.
            more = await ws.turn(stream_id="a", previous_response_id=id_of(seen["a"]), store=False)
            assert more[-1]["stream_id"] == "a"
        assert len(stage.dialled) == 3
        assert stage.mock.overlaps == 0
        assert all("stream_id" not in frame for frame in stage.frames)
        assert stage.mock.turns[-1].socket in {turn.socket for turn in stage.mock.turns[:3]}

    run_virtually(test, tmp_path, TurnRule(delta_delay=0.5))


def test_a_socket_has_32_named_lanes(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            for number in range(32):
                await ws.turn(stream_id=f"{number}")
            (refused,) = await ws.turn(stream_id="another")
            assert refused["error"]["code"] == "websocket_stream_limit_reached"
            assert (refused["status"], refused["stream_id"]) == (400, "another")
            assert types(await ws.turn(stream_id="31"))[-1] == "response.completed"
            assert types(await ws.turn())[-1] == "response.completed"

    run_virtually(test, tmp_path)


def test_many_turns_wait_and_more_are_refused(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.create()
            await ws.until("response.output_text.delta")
            for _ in range(65):
                await ws.create()
            refused = (await ws.until("error"))[-1]
            assert (refused["status"], refused["error"]["code"]) == (429, "queue_full")
            assert refused["headers"]["retry-after"] == "1"
            for _ in range(65):
                await ws.until("response.completed")
            await ws.quiet()
        assert len(stage.sent) == 65

    run_virtually(test, tmp_path, TurnRule(delta_delay=5, times=1), seconds=1000)


# Losing the upstream


STRAY_ERROR = (
    '{"type":"error","status":400,"error":{"type":"invalid_request_error",'
    '"code":"websocket_connection_limit_reached","message":"60 minutes"}}'
)
LOST = {
    "close 1000": TurnRule(times=1, close=1000, when="idle"),
    "close 1011": TurnRule(times=1, close=1011, when="idle"),
    "cut": TurnRule(times=1, close=1006, when="idle"),
    "a stray event": TurnRule(times=1, when="idle", send=('{"type":"response.created"}',)),
    "a stray error": TurnRule(times=1, when="idle", send=(STRAY_ERROR,)),
}


@pytest.mark.parametrize("loss", LOST)
def test_a_socket_lost_between_turns(tmp_path: Path, loss: str) -> None:
    """Full input goes on unnoticed; a chain is told to send it."""

    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            first = await ws.turn(store=False)
            await asyncio.sleep(1)
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(first))
            assert (lost["status"], lost["error"]["code"]) == (400, "previous_response_not_found")
            assert lost["error"]["param"] == "previous_response_id"
            again = await ws.turn(store=False)
            assert text_of(again) == "You said: hello"
        assert stage.sent == ["work", "work"]
        assert stage.dialled == ["work", "work"]

    run_virtually(test, tmp_path, LOST[loss])


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013])
def test_a_close_before_the_response_is_replayed_on_the_owner_and_told(
    tmp_path: Path, code: int
) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            events = await ws.turn()
            told, *rest = events
            assert told == {
                "type": "response.metadata",
                "headers": {"x-codexlb-account": "work", "x-codexlb-attempts": "2"},
            }
            assert types(rest)[0] == "response.created"
            assert types(rest).count("response.completed") == 1
        assert stage.sent == ["work", "work"]

    run_virtually(test, tmp_path, TurnRule(times=1, close=code), draws=1.0)


def test_a_close_before_the_response_of_a_chain(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first = await ws.turn(store=False)
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(first))
            assert lost["error"]["code"] == "previous_response_not_found"
            assert types(await ws.turn(store=False))[-1] == "response.completed"
        assert stage.sent == ["work"] * 3

    run(test, tmp_path, TurnRule(skip=1, times=1, close=1011))


@pytest.mark.parametrize("code", [1000, 1005, 1006, 1008, 1011])
def test_a_close_after_output_is_an_error_frame(tmp_path: Path, code: int) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            events = await ws.turn()
            assert types(events)[-2:] == ["response.output_text.delta", "error"]
            error = events[-1]
            assert (error["status"], error["error"]["code"]) == (502, "upstream_closed")
            assert error["headers"]["x-codexlb-attempts"] == "1"
            assert types(await ws.turn())[-1] == "response.completed"
        assert len(stage.sent) == 2

    run(test, tmp_path, TurnRule(times=1, close=code, when="streaming"))


def test_a_silent_chain_is_told_to_send_all(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            first = await ws.turn(store=False)
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(first))
            assert lost["error"]["code"] == "previous_response_not_found"
            assert types(await ws.turn(store=False))[-1] == "response.completed"

    rule = TurnRule(skip=1, times=1, silence=True)
    run_virtually(test, tmp_path, rule, seconds=1000, answer_seconds=1000)


LIMIT = ErrorSpec.model_validate(
    {
        "status": 429,
        "type": "usage_limit_reached",
        "code": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "resets_in_seconds": 7200,
    }
)


def test_a_chain_moves_when_its_account_is_used_up(tmp_path: Path) -> None:
    """The limit comes in mid-conversation: the client sends all, which goes to another account."""

    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first = await ws.turn(store=False)
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(first))
            assert lost["error"]["code"] == "previous_response_not_found"
            again = await ws.turn(store=False)
            chained = await ws.turn(store=False, previous_response_id=id_of(again))
            assert types(chained)[-1] == "response.completed"
        assert stage.sent == ["work", "work", "home", "home"]

    run(test, tmp_path, TurnRule(account="work", skip=1, error=LIMIT))


def test_a_limit_that_leaves_nobody_is_told_as_it_is(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first = await ws.turn(store=False)
            for more in ({"previous_response_id": id_of(first)}, {}):
                (limited,) = await ws.turn(store=False, **more)
                assert (limited["status"], limited["error"]["code"]) == (429, "usage_limit_reached")
                assert limited["error"]["type"] == "usage_limit_reached"
                assert limited["error"]["resets_at"] > 0

    run(test, tmp_path, TurnRule(skip=1, error=LIMIT), names=["work"])


def test_an_account_that_is_disabled_under_a_chain(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first = await ws.turn(store=False)
            assert (await stage.command("accounts", "disable", "work")).returncode == 0
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(first))
            assert lost["error"]["code"] == "previous_response_not_found"
            assert types(await ws.turn(store=False))[-1] == "response.completed"
        assert stage.sent == ["work", "home"]

    run(test, tmp_path)


def test_the_account_that_stores_a_chain_is_gone(tmp_path: Path) -> None:
    """It was told 503 for ever, though it could have gone on elsewhere with its full input."""

    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first = await ws.turn()
            text = stage.config_file.read_text()
            kept = text[: text.index("[accounts.work]")] + text[text.index("[accounts.home]") :]
            stage.config_file.write_text(kept)
            (lost,) = await ws.turn(previous_response_id=id_of(first))
            assert lost["error"]["code"] == "previous_response_not_found"
            again = await ws.turn()
            chained = await ws.turn(previous_response_id=id_of(again))
            assert types(chained)[-1] == "response.completed"
        assert stage.sent == ["work", "home", "home"]

    run(test, tmp_path)


# Whose socket it is


def test_an_upstream_socket_belongs_to_its_client_while_that_lives(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s"), user_agent_header=None) as ws:
            first = await ws.turn(store=False)
            # The same session over HTTP and over another socket: neither takes it, nor its chain.
            assert (await stage.turn(headers=session("s"))).status == 200
            async with to(stage, session("s"), user_agent_header=None) as other:
                (lost,) = await other.turn(store=False, previous_response_id=id_of(first))
                assert lost["error"]["code"] == "previous_response_not_found"
                assert types(await other.turn())[-1] == "response.completed"
            chained = await ws.turn(store=False, previous_response_id=id_of(first))
            assert types(chained)[-1] == "response.completed"
        assert stage.mock.turns[0].socket == stage.mock.turns[-1].socket
        assert stage.dialled == ["work", "work"]

    run(test, tmp_path)


def test_the_next_client_of_a_session_takes_over_its_socket(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            async with to(stage, session("s")) as ws:
                await ws.turn()
            await asyncio.sleep(0.1)
        assert stage.dialled == ["work"]
        for _ in range(2):  # without a session nobody else may
            async with to(stage) as ws:
                await ws.turn()
            await asyncio.sleep(0.1)
        assert len(stage.dialled) == 3
        assert [h.ended for h in stage.mock.handshakes][1:] == ["client left"] * 2

    run(test, tmp_path)


def test_a_held_socket_outlasts_the_idle_time_but_not_its_age(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            first = await ws.turn(store=False)
            await asyncio.sleep(100)
            second = await ws.turn(store=False, previous_response_id=id_of(first))
            assert types(second)[-1] == "response.completed"
            await asyncio.sleep(401)
            (lost,) = await ws.turn(store=False, previous_response_id=id_of(second))
            assert lost["error"]["code"] == "previous_response_not_found"

    more = "[lanes]\nidle = 30\nmax_age = 400\n"
    run_virtually(test, tmp_path, more=more, seconds=1000)


def test_a_client_that_leaves_ends_its_turns(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.create()
            await ws.create(stream_id="b")
            await ws.create()
            await ws.until("response.output_text.delta")
            ws.connection.transport.abort()
        await asyncio.sleep(1)
        assert [turn.outcome for turn in stage.mock.turns] == ["client left"] * 2
        assert [line.split()[-2:] for line in stage.lines] == [["client", "left"]] * 2
        assert stage.gateway.websockets.running == 0
        assert len(stage.gateway.services.lanes) == 0

    run_virtually(test, tmp_path, TurnRule(delta_delay=5))


def test_a_socket_that_names_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.turn(store=False)
        done = await stage.command("owners", "list", "--json")
        assert json.loads(done.stdout)["owners"] == []

    run(test, tmp_path)


def test_turns_of_an_unkeyed_socket_stay_on_their_account(tmp_path: Path) -> None:
    """The socket is a session: a first turn elsewhere does not move it."""

    async def test(stage: Stage) -> None:
        async with to(stage) as ws, to(stage) as other:
            for _ in range(2):
                await ws.turn()
                await other.turn()
        assert stage.sent == ["work", "home", "work", "home"]

    run(test, tmp_path, more='[selection]\npolicy = "round_robin"\n')


# Events about a response


def test_an_interrupt_ends_the_response(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.create(store=False)
            created = (await ws.until("response.output_text.delta"))[0]
            name = created["response"]["id"]
            members = {"response_id": name, "mode": "discard_partial_items"}
            await ws.say("response.interrupt", **members)
            ended = (await ws.until("response.incomplete"))[-1]
            assert ended["response"]["incomplete_details"] == {"reason": "interrupted"}
            more = await ws.turn(store=False, previous_response_id=name)
            assert types(more)[-1] == "response.completed"
        assert stage.frames[1] == {"type": "response.interrupt", **members}
        assert stage.dialled == ["work"]

    run_virtually(test, tmp_path, TurnRule(delta_delay=2))


def test_an_interrupt_that_comes_too_late_is_answered_by_the_upstream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            first = await ws.turn(store=False, stream_id="a")
            await ws.say("response.interrupt", stream_id="a", response_id=id_of(first))
            late = await ws.event()
            assert (late["type"], late["status"], late["stream_id"]) == ("error", 400, "a")
            assert late["error"]["code"] == "response_not_found"
            assert stage.frames[-1] == {"type": "response.interrupt", "response_id": id_of(first)}
            more = await ws.turn(store=False, stream_id="a", previous_response_id=id_of(first))
            assert types(more)[-1] == "response.completed"
        assert stage.dialled == ["work"]

    run(test, tmp_path)


def test_an_event_follows_a_response_to_the_socket_of_another_lane(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.turn(store=False, stream_id="b")
            first = await ws.turn(store=False)
            chain = {"store": False, "previous_response_id": id_of(first)}
            fork = await ws.turn(stream_id="b", **chain)
            await ws.say("response.steer", previous_response_id=id_of(fork), input="more")
            failed = await ws.event()
            assert failed["type"] == "response.steer.failed"
            # The upstream knows this response: it went to the right socket.
            assert failed["error"]["code"] == "response_already_completed"

    run(test, tmp_path)


def test_steering_goes_on_with_a_successor(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.create(store=False, stream_id="a")
            name = (await ws.until("response.output_text.delta"))[0]["response"]["id"]
            await ws.say("response.steer", previous_response_id=name, input="rather this")
            events = await ws.until("response.completed")
            kinds = [k for k in types(events) if k != "response.output_text.delta"]
            assert kinds[:3] == [
                "response.steer.accepted", "response.incomplete", "response.created",
            ]  # fmt: skip
            assert text_of(events).endswith("You said: rather this")
            assert all(event["stream_id"] == "a" for event in events)
            # What comes too late is told between turns.
            await ws.say("response.steer", previous_response_id=id_of(events), input="or this")
            failed = await ws.event()
            assert failed["type"] == "response.steer.failed"
            assert (failed["stream_id"], failed["error"]["code"]) == (
                "a", "response_already_completed",
            )  # fmt: skip
            more = await ws.turn(store=False, stream_id="a", previous_response_id=id_of(events))
            assert types(more)[-1] == "response.completed"
        assert stage.dialled == ["work"]

    run_virtually(test, tmp_path, TurnRule(delta_delay=2))


def test_an_upstream_over_http_takes_no_events(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            await ws.create()
            name = (await ws.until("response.output_text.delta"))[0]["response"]["id"]
            await ws.say("response.interrupt", response_id=name)
            refused = (await ws.until("error"))[-1]
            assert (refused["status"], refused["error"]["code"]) == (501, "not_supported")
            assert types(await ws.until("response.completed"))[-1] == "response.completed"

    run_virtually(
        test, tmp_path, HandshakeRule(status=426), TurnRule(delta_delay=2), names=["work"]
    )


# What is said beside the response


def test_telemetry_reaches_the_client_from_the_account_that_serves(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            events = await ws.turn()
            metadata = [e for e in events if e["type"] == "response.metadata"]
            assert [e["headers"] for e in metadata] == [
                {"x-codex-turn-state": "state-home"},
                {"x-codexlb-account": "home", "x-codexlb-attempts": "2"},
            ]

    rules = [
        TurnRule(account="work", metadata={"x-codex-turn-state": "state-work"}, error=LIMIT),
        TurnRule(account="home", metadata={"x-codex-turn-state": "state-home"}),
    ]
    run(test, tmp_path, *rules)


def test_a_turn_state_goes_back_to_the_account_that_gave_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            await ws.turn()
            mine = {"x-codex-turn-state": "state-1", "turn_id": "t"}
            await ws.turn(client_metadata=mine)
            await ws.turn(client_metadata={**mine, "x-codex-turn-state": "foreign"})
            await ws.turn(client_metadata={"turn_id": "u"})
        sent = [frame.get("client_metadata") for frame in stage.frames]
        assert sent == [None, mine, {"turn_id": "t"}, {"turn_id": "u"}]

    run(test, tmp_path, TurnRule(metadata={"x-codex-turn-state": "state-1"}))


def test_a_turn_state_in_the_upgrade_is_for_the_first_turn(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            await ws.turn()
        headers = [*session("s"), ("x-codex-turn-state", "state-1")]
        async with to(stage, headers) as ws:
            await ws.turn()
            await ws.turn()
        sent = [(f.get("client_metadata") or {}).get("x-codex-turn-state") for f in stage.frames]
        assert sent == [None, "state-1", None]

    run(test, tmp_path, TurnRule(metadata={"x-codex-turn-state": "state-1"}))


def test_what_the_upstreams_upgrade_says_comes_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first, second = await ws.turn(), await ws.turn()
        told = {"openai-model": "mock", "x-models-etag": '"1"'}
        assert [e["headers"] for e in first if e["type"] == "response.metadata"] == [told]
        assert "response.metadata" not in types(second)

    headers: dict[str, Any] = {"openai-model": "mock", "x-models-etag": '"1"', "set-cookie": "a=b"}
    run(test, tmp_path, HandshakeRule(headers=headers))


def test_limits_of_an_upstream_over_http_become_events(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage, session("s")) as ws:
            first, second = await ws.turn(), await ws.turn()
        (limits,) = [e for e in first if e["type"] == "codex.rate_limits"]
        assert limits["rate_limits"] == {
            "primary": {"used_percent": 42, "window_minutes": 300, "reset_at": 1_900_000_000}
        }
        assert "codex.rate_limits" not in types(second)

    headers: dict[str, Any] = {
        "x-codex-primary-used-percent": "42.0",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1900000000",
    }
    run(
        test, tmp_path, TurnRule(metadata=headers),
        names=["work"], accounts={"work": 'transport = "http"'},
    )  # fmt: skip


def test_codex_gets_signs_of_life(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for agent, alive in (("codex_exec/0.169.0", True), ("other/1", False)):
            async with to(stage, [("originator", agent)], user_agent_header=None) as ws:
                kinds = types(await ws.turn())
                assert kinds[-1] == "response.completed"
                assert (kinds.count("keepalive") > 3) == alive

    run_virtually(test, tmp_path, TurnRule(delta_delay=31), seconds=1000)


# The end


def test_a_gateway_that_stops_closes_its_sockets_with_1012(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            idle, busy = to(stage), to(stage)
            first, second = await idle.__aenter__(), await busy.__aenter__()
            await first.turn()
            await second.create()
            await second.until("response.created")
        assert await first.closed() == 1012
        assert types(await second.until("response.completed"))[-1] == "response.completed"
        assert await second.closed() == 1012
        await idle.__aexit__(None, None, None)
        await busy.__aexit__(None, None, None)

    run(test, tmp_path, TurnRule(skip=1, delta_delay=0.1), serve=False)


def test_a_turn_that_outlasts_the_drain_gets_an_error_frame(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            socket = to(stage)
            ws = await socket.__aenter__()
            await ws.create()
            await ws.until("response.created")
        events = await ws.until("error")
        assert (events[-1]["status"], events[-1]["error"]["code"]) == (502, "upstream_closed")
        assert await ws.closed() == 1012
        await socket.__aexit__(None, None, None)

    more = "[timeouts]\ndrain = 0.2\n"
    run(test, tmp_path, TurnRule(delta_delay=30), serve=False, more=more)


def test_a_client_that_leaves_while_lanes_wait_for_their_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(stage: Stage) -> None:
        async with to(stage) as ws:
            for number in range(20):
                await ws.create(stream_id=f"{number}")
            await ws.until("response.output_text.delta")
            assert stage.gateway.websockets.running == 16
            ws.connection.transport.abort()
        await asyncio.sleep(1)
        assert stage.gateway.websockets.running == 0
        assert len(stage.gateway.services.lanes) == 0
        assert len(stage.lines) == 16

    run_virtually(test, tmp_path, TurnRule(delta_delay=5), seconds=1000)
    assert [record.getMessage() for record in caplog.records] == []
