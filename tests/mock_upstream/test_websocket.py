"""Turns over a WebSocket, without faults."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from codexlb_cli.mock_upstream.rules import RateLimits, RateWindow, TurnRule
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import open_socket, run, types

TOOLS = [{"type": "function", "name": "exec_command"}]


def test_a_turn_streams_to_its_end_and_is_recorded() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            events = await socket.turn(input="hello")
        completed = events[-1]["response"]
        assert events[-1]["type"] == "response.completed"
        assert completed["metadata"]["account"] == "work"
        assert completed["output"][0]["content"][0]["text"] == "You said: hello"
        [turn] = mock.turns
        assert (turn.account, turn.socket, turn.transport, turn.model, turn.outcome) == (
            "work", 1, "websocket", "mock", "response.completed",
        )  # fmt: skip
        assert turn.response_id == completed["id"]
        [frame] = mock.frames
        assert (frame.socket, frame.account, frame.json["input"]) == (1, "work", "hello")
        assert json.loads(frame.text) == frame.json
        await mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)
        assert mock.handshakes[0].ended == "client close 1000"

    run(test)


def test_header_lines_are_recorded_as_they_were_sent() -> None:
    async def test(mock: MockUpstream) -> None:
        lines = [
            "GET /v1/responses?x=1 HTTP/1.1",
            f"HOST: 127.0.0.1:{mock.port}",
            "Upgrade: WebSocket",
            "connection:Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            "authorization: Bearer demo-key-home",
            "X-Twice: a",
            "x-twice: \xe9  ",
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        assert (await reader.readline()) == b"HTTP/1.1 101 Switching Protocols\r\n"
        writer.close()
        [handshake] = mock.handshakes
        assert (handshake.account, handshake.status) == ("home", 101)
        assert handshake.request_line == lines[0]
        assert handshake.headers == [
            ("HOST", f"127.0.0.1:{mock.port}"),
            ("Upgrade", "WebSocket"),
            ("connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("authorization", "Bearer demo-key-home"),
            ("X-Twice", "a"),
            ("x-twice", "\xe9"),
        ]
        assert "demo-key-home" not in repr(handshake)

    run(test)


def test_an_unknown_key_is_refused() -> None:
    async def test(mock: MockUpstream) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(mock, key="sk-test-LEAK"):
                pass
        response = caught.value.response
        assert response.status_code == 401
        assert json.loads(bytes(response.body or b""))["error"]["code"] == "invalid_api_key"
        assert [(h.account, h.status) for h in mock.handshakes] == [(None, 401)]

    run(test)


def test_without_accounts_every_key_is_one() -> None:
    async def test(mock: MockUpstream) -> None:
        for key in ("first", "second", "first"):
            async with open_socket(mock, key=key) as socket:
                await socket.turn()
        assert [turn.account for turn in mock.turns] == ["account-1", "account-2", "account-1"]

    run(test, accounts=None)


def test_without_accounts_a_demo_key_names_its_account() -> None:
    async def test(mock: MockUpstream) -> None:
        keys = ["demo-key-account-1", "first", "demo-key-work", "demo-key-", "demo-key-Work"]
        for key in keys:
            async with open_socket(mock, key=key) as socket:
                await socket.turn()
        names = [turn.account for turn in mock.turns]
        assert names == ["account-1", "account-2", "work", "account-3", "account-4"]

    run(test, accounts=None)


def test_two_accounts_side_by_side() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as work, open_socket(mock, "demo-key-home") as home:
            ends = await asyncio.gather(work.turn(), home.turn())
        served = [events[-1]["response"]["metadata"]["account"] for events in ends]
        assert served == ["work", "home"]

    run(test)


def test_a_warm_up_gives_an_id_to_continue_from() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            events = await socket.turn(generate=False, store=False, input=[])
            assert types(events) == [
                "response.created", "response.in_progress", "response.completed",
            ]  # fmt: skip
            warm = events[-1]["response"]["id"]
            events = await socket.turn(previous_response_id=warm, store=False)
        assert events[-1]["response"]["previous_response_id"] == warm
        assert [turn.warm_up for turn in mock.turns] == [True, False]

    run(test)


def refused(events: list[dict[str, Any]]) -> tuple[int, str]:
    [event] = events
    return event["status"], event["error"]["code"]


NOT_FOUND = (400, "previous_response_not_found")


def test_an_unstored_response_is_known_to_its_socket_while_it_is_the_latest() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket, open_socket(mock) as other:
            first = (await socket.turn(store=False))[-1]["response"]["id"]
            assert refused(await other.turn(previous_response_id=first)) == NOT_FOUND
            second = (await socket.turn(store=False, previous_response_id=first))[-1]
            events = await socket.turn(store=False, previous_response_id=first)
            assert events == [
                {
                    "type": "error",
                    "status": 400,
                    "error": {
                        "type": "invalid_request_error",
                        "code": "previous_response_not_found",
                        "message": f"Previous response with id '{first}' not found.",
                        "param": "previous_response_id",
                    },
                }
            ]
            # The refused turn referred to something else, so the latest is still there.
            latest = second["response"]["id"]
            assert len(await socket.turn(store=False, previous_response_id=latest)) > 3
        assert mock.turns[-2].outcome == "error 400 previous_response_not_found"

    run(test)


def test_a_failed_turn_evicts_what_it_continued() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            first = (await socket.turn(store=False))[-1]["response"]["id"]
            await socket.turn(store=False, previous_response_id=first, model="mock-failed")
            events = await socket.turn(store=False, previous_response_id=first)
            assert refused(events) == NOT_FOUND

    run(test)


def test_a_stored_response_is_known_to_its_account() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            first = (await socket.turn())[-1]["response"]["id"]
            await socket.turn()
        async with open_socket(mock) as socket, open_socket(mock, "demo-key-home") as home:
            assert len(await socket.turn(previous_response_id=first)) > 3
            assert refused(await home.turn(previous_response_id=first)) == NOT_FOUND

    run(test)


def test_encrypted_content_of_another_account_is_refused() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as work, open_socket(mock, "demo-key-home") as home:
            include = ["reasoning.encrypted_content"]
            item = (await work.turn(include=include))[-1]["response"]["output"][0]
            assert len(await work.turn(input=[item])) > 3
            events = await home.turn(input=[item])
            assert refused(events) == (400, "invalid_encrypted_content")

    run(test)


def test_a_tool_call_and_its_output() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            response = (await socket.turn(model="mock-tool", tools=TOOLS))[-1]["response"]
            [call] = response["output"]
            assert (call["type"], call["name"]) == ("function_call", "exec_command")
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
            events = await socket.turn(
                model="mock-tool", tools=TOOLS, input=[output], previous_response_id=response["id"]
            )
            assert events[-1]["response"]["output"][0]["type"] == "message"

    run(test)


def test_the_lane_is_echoed() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            events = await socket.turn(stream_id="main")
            assert {event["stream_id"] for event in events} == {"main"}
            [event] = await socket.turn(stream_id="main", previous_response_id="resp_x")
            assert event["stream_id"] == "main"
            [event] = await socket.turn(stream_id="")
            assert event["error"]["code"] == "invalid_stream_id"

    run(test)


def test_turns_on_one_socket_take_their_turn() -> None:
    gate = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await gate.wait()

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            for word in ("one", "two", "three"):
                await socket.send(input=word)
            await mock.wait_for(lambda mock: len(mock.turns) == 3)
            gate.set()
            texts = [
                (await socket.until_the_end())[-1]["response"]["output"][0]["content"][0]["text"]
                for _ in range(3)
            ]
            assert texts == ["You said: one", "You said: two", "You said: three"]
            assert mock.overlaps == 2
            await socket.turn()
            assert mock.overlaps == 2

    run(test, TurnRule(delay=1), sleep=sleep)


def test_too_many_turns_are_refused() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            for _ in range(66):
                await socket.send(model="mock-silent")
            event = await socket.receive()
            assert (event["status"], event["error"]["code"]) == (429, "rate_limit_exceeded")

    run(test)


def test_an_interrupt_ends_the_response() -> None:
    asleep, gate = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await gate.wait()

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send(store=False)
            created = await socket.receive()
            interrupt = {
                "type": "response.interrupt",
                "response_id": created["response"]["id"],
                "mode": "discard_partial_items",
            }
            await asleep.wait()
            await socket.connection.send(json.dumps(interrupt))
            await mock.wait_for(lambda mock: len(mock.frames) == 2)
            gate.set()
            *_, last = await socket.until_the_end()
            assert last["type"] == "response.incomplete"
            assert last["response"]["incomplete_details"] == {"reason": "interrupted"}
            events = await socket.turn(previous_response_id=last["response"]["id"], store=False)
            assert events[-1]["type"] == "response.completed"
            await socket.connection.send(json.dumps(interrupt))
            assert refused([await socket.receive()]) == (400, "response_not_found")

    run(test, TurnRule(delta_delay=1), sleep=sleep)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("null", "invalid_json"),
        ("[]", "unknown_event"),
        ('{"type": "response.cancel"}', "unknown_event"),
        ('{"type": ["response.create"]}', "unknown_event"),
        ('{"type": "response.create"}', "missing_required_parameter"),
        ('{"type": "response.create", "model": "m", "input": 7}', "invalid_type"),
    ],
)
def test_a_frame_that_means_nothing_leaves_the_socket_usable(message: str, code: str) -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.connection.send(message)
            assert refused([await socket.receive()]) == (400, code)
            assert (await socket.turn())[-1]["type"] == "response.completed"

    run(test)


def test_a_binary_frame_is_closed_with_1003() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.connection.send(b"{}")
            with pytest.raises(ConnectionClosed) as caught:
                await socket.receive()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1003
        await mock.wait_for(lambda mock: mock.handshakes[0].ended == "close 1003")

    run(test)


def test_fragments_make_one_message() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.connection.send(['{"type": "response.create",', ' "model": "mock"}'])
            assert (await socket.until_the_end())[-1]["type"] == "response.completed"

    run(test)


def test_a_big_frame_is_taken() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            assert (await socket.turn(input="x" * 20_000_000))[-1]["type"] == "response.completed"

    run(test)


def test_telemetry_comes_before_the_response() -> None:
    rule = TurnRule(
        metadata={"x-codex-turn-state": "ts-1"},
        rate_limits=RateLimits(primary=RateWindow(used_percent=1.0)),
    )

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            limits, metadata, created, *_ = await socket.turn()
        assert limits["type"] == "codex.rate_limits"
        assert metadata["headers"] == {"x-codex-turn-state": "ts-1"}
        assert (metadata["type"], metadata["sequence_number"]) == ("response.metadata", 0)
        assert (created["type"], created["sequence_number"]) == ("response.created", 1)

    run(test, rule)


def test_a_client_that_leaves_in_the_middle_ends_its_turns() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send(model="mock-slow")
            await socket.send()
            await socket.receive()
            socket.connection.transport.abort()
        await mock.wait_for(lambda mock: all(turn.outcome for turn in mock.turns))
        assert [turn.outcome for turn in mock.turns] == ["client left", "client left"]
        assert mock.handshakes[0].ended == "client left"

    run(test)


def test_a_stream_that_is_not_read_does_not_hold_up_the_end() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send()
            await mock.wait_for(lambda mock: len(mock.turns) == 1)
            await mock.stop()

    run(test, TurnRule(deltas=200_000, delta_bytes=1000))


def test_a_stop_says_goodbye() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.turn()
            await mock.stop()
            with pytest.raises(ConnectionClosed) as caught:
                await socket.receive()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001

    run(test)
