"""Every fault of the language, as a client sees it."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import http_client, open_socket, run, types


async def raw_socket(mock: MockUpstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket without a library, to see bytes that a library would not show."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
    head = (
        "GET /v1/responses HTTP/1.1\r\nHost: mock\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Authorization: Bearer demo-key-work\r\n\r\n"
    )
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; a mask of zeros leaves the payload readable."""
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


CREATE = masked(1, b'{"type": "response.create", "model": "mock"}')


@pytest.mark.parametrize("code", [1000, 1001, 1004, 1011, 1012, 1015, 1016, 2999, 3000, 4999])
def test_any_code_is_sent_as_it_is(code: int) -> None:
    async def test(mock: MockUpstream) -> None:
        reader, writer = await raw_socket(mock)
        writer.write(CREATE)
        assert await reader.readexactly(4) == bytes((0x88, 2)) + code.to_bytes(2, "big")
        writer.write(masked(8, code.to_bytes(2, "big")))
        assert await reader.read() == b""
        writer.close()
        assert [turn.outcome for turn in mock.turns] == [f"close {code}"]
        assert mock.handshakes[0].ended == f"close {code}"

    run(test, TurnRule(close=code))


def test_1005_is_an_empty_close_frame_and_1006_is_none() -> None:
    async def test(mock: MockUpstream) -> None:
        for left in (b"\x88\x00", b""):
            reader, writer = await raw_socket(mock)
            writer.write(CREATE)
            assert await reader.readexactly(len(left)) == left
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    run(test, TurnRule(close=1005, times=1), TurnRule(close=1006))


@pytest.mark.parametrize(
    ("rule", "before"),
    [
        (TurnRule(close=1011), []),
        (TurnRule(close=1011, when="created"), ["response.created", "response.in_progress"]),
        (
            TurnRule(close=1011, when="streaming", after=2),
            ["response.created", "response.in_progress", "response.output_item.added"]
            + ["response.content_part.added"]
            + ["response.output_text.delta"] * 2,
        ),
    ],
)
def test_a_close_has_its_place_and_reason(rule: TurnRule, before: list[str]) -> None:
    async def test(mock: MockUpstream) -> None:
        for code in (1011, 1006):
            async with open_socket(mock) as socket:
                await socket.send()
                assert await socket.events_before_the_close() == before
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.receive()
                received = caught.value.rcvd
                assert (received and received.code) == (None if code == 1006 else code)
                assert (received and received.reason) == (None if code == 1006 else "why")

    cut = rule.model_copy(update={"close": 1006})
    run(test, rule.model_copy(update={"times": 1, "reason": "why"}), cut)


def test_a_short_turn_has_its_streaming_fault_before_the_end() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send(input="one")
            seen = await socket.events_before_the_close()
        assert seen[-1] == "response.output_item.done"

    run(test, TurnRule(close=1011, when="streaming", after=100))


def test_an_idle_close_comes_after_the_response() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            events = await socket.turn()
            assert events[-1]["type"] == "response.completed"
            assert await socket.events_before_the_close() == []
        assert [turn.outcome for turn in mock.turns] == ["response.completed"]
        assert mock.handshakes[0].ended == "close 1001"

    run(test, TurnRule(close=1001, when="idle"))


def test_the_pace_is_asked_of_the_clock() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send()
            await socket.events_before_the_close()
        assert slept == [3, 1, 1, 1, 2]

    rule = TurnRule(
        delay=3, delta_delay=1, fault_delay=2, close=1011, when="streaming", after=3, deltas=5
    )
    run(test, rule, sleep=sleep)


def test_an_error_frame_and_the_socket_goes_on() -> None:
    error = ErrorSpec.model_validate(
        {
            "status": 429,
            "type": "usage_limit_reached",
            "resets_at": 7,
            "headers": {"retry-after": 7},
        }
    )

    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            assert await socket.turn() == [
                {
                    "type": "error",
                    "status": 429,
                    "error": {
                        "type": "usage_limit_reached",
                        "code": None,
                        "message": "Scripted error.",
                        "param": None,
                        "resets_at": 7,
                    },
                    "headers": {"retry-after": 7},
                }
            ]
            assert (await socket.turn())[-1]["type"] == "response.completed"
        assert mock.turns[0].outcome == "error 429 usage_limit_reached"
        assert mock.turns[0].response_id is None

    run(test, TurnRule(error=error, times=1))


def test_an_error_without_a_status_in_the_middle_and_a_close() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            *_, delta, error = await socket.turn(stream_id="main")
            assert delta["type"] == "response.output_text.delta"
            assert "status" not in error
            assert error["stream_id"] == "main"
            assert await socket.events_before_the_close() == []

    run(test, TurnRule(error=ErrorSpec(code="x"), close=1013, when="streaming"))


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        (TurnRule(failed=FailedSpec(code="server_error")), "response.failed"),
        (TurnRule(failed=FailedSpec(), when="before_created"), "response.failed"),
        (TurnRule(incomplete="max_output_tokens", when="streaming"), "response.incomplete"),
    ],
)
def test_other_ends_of_a_response(rule: TurnRule, last: str) -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            events = await socket.turn()
            assert events[-1]["type"] == last
            assert [turn.outcome for turn in mock.turns] == [last]
            assert (await socket.turn())[-1]["type"] == last

    run(test, rule)


@pytest.mark.parametrize("pong", [True, False])
def test_silence_with_and_without_pongs(pong: bool) -> None:
    async def test(mock: MockUpstream) -> None:
        reader, writer = await raw_socket(mock)
        writer.write(CREATE)
        await mock.wait_for(lambda mock: bool(mock.turns) and mock.turns[0].outcome == "silence")
        writer.write(masked(9, b"ping") + masked(8, b"\x03\xe8"))
        answered = (b"\x8a\x04ping" if pong else b"") + b"\x88\x02\x03\xe8"
        assert await reader.read() == answered
        writer.close()

    run(test, TurnRule(silence=True, pong=pong))


def test_a_turn_on_a_silent_socket_is_an_overlap() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send(model="mock-silent")
            await mock.wait_for(lambda mock: mock.turns[-1:] != [] and bool(mock.turns[0].outcome))
            await socket.send()
            await mock.wait_for(lambda mock: mock.overlaps == 1)

    run(test)


def test_stray_frames_do_not_end_the_turn() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send()
            assert await socket.connection.recv() == "{"
            assert await socket.connection.recv() == '{"type": "keepalive"}'
            assert await socket.connection.recv() == b"\x00\xff"
            assert (await socket.until_the_end())[-1]["type"] == "response.completed"

    run(test, TurnRule(send=("{", '{"type": "keepalive"}'), binary=True))


def test_a_huge_response() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket:
            await socket.send()
            sizes: list[int] = []
            while len(sizes) < 12:
                sizes.append(len(await socket.connection.recv()))
            assert max(sizes) >= 20_000_000

    run(test, TurnRule(completed_bytes=20_000_000, deltas=4))


# Handshakes


def test_a_refused_handshake() -> None:
    async def test(mock: MockUpstream) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(mock):
                pass
        response = caught.value.response
        assert (response.status_code, response.headers["retry-after"]) == (503, "3")
        error = json.loads(bytes(response.body or b""))["error"]
        assert (error["code"], error["type"]) == ("server_is_overloaded", "server_error")
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(mock):
                pass
        assert bytes(caught.value.response.body or b"") == b"<html>"
        assert caught.value.response.headers["content-type"] == "text/html"
        async with open_socket(mock) as socket:
            assert socket.connection.response is not None
            assert socket.connection.response.headers["openai-model"] == "gpt-mock"
        assert [handshake.status for handshake in mock.handshakes] == [503, 426, 101]

    error = ErrorSpec(code="server_is_overloaded")
    run(
        test,
        HandshakeRule(times=1, status=503, headers={"retry-after": 3}, error=error),
        HandshakeRule(times=1, status=426, body="<html>", headers={"Content-Type": "text/html"}),
        HandshakeRule(headers={"openai-model": "gpt-mock"}),
    )


def test_a_handshake_that_is_cut_or_hangs() -> None:
    async def test(mock: MockUpstream) -> None:
        with pytest.raises((InvalidMessage, ConnectionError)):
            async with open_socket(mock):
                pass
        hanging = asyncio.create_task(_connect(mock))
        await mock.wait_for(lambda mock: len(mock.handshakes) == 2)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        await mock.wait_for(lambda mock: mock.handshakes[1].ended == "client left")
        assert [handshake.status for handshake in mock.handshakes] == [None, None]

    run(test, HandshakeRule(times=1, cut=True), HandshakeRule(silence=True))


async def _connect(mock: MockUpstream) -> None:
    headers = {"Authorization": "Bearer demo-key-work"}
    url = f"{mock.websocket_base_url}/responses"
    async with connect(url, additional_headers=headers, proxy=None):
        pass


def test_a_late_handshake_whose_client_leaves() -> None:
    async def test(mock: MockUpstream) -> None:
        waiting = asyncio.create_task(_connect(mock))
        await mock.wait_for(lambda mock: len(mock.handshakes) == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await mock.wait_for(lambda mock: mock.handshakes[0].ended == "client left")

    run(test, HandshakeRule(delay=3600))


def test_strict_mode_closes_with_1011_where_the_turn_would_be_answered() -> None:
    async def test(mock: MockUpstream) -> None:
        beta = {"openai-beta": "responses_websockets=2026-02-06"}
        async with open_socket(mock, headers=beta | {"accept": "text/event-stream"}) as socket:
            await socket.send()
            assert await socket.events_before_the_close() == []
        async with open_socket(mock, headers=beta) as socket:
            assert (await socket.turn())[-1]["type"] == "response.completed"
        assert [turn.outcome for turn in mock.turns] == ["close 1011", "response.completed"]
        assert [handshake.violations for handshake in mock.handshakes] == [
            ("`accept` belongs to an HTTP request",),
            (),
        ]

    run(test, strict=True)


# HTTP


async def post(client: httpx2.AsyncClient, mock: MockUpstream, **fields: object) -> httpx2.Response:
    body = {"model": "mock", "input": "hello", "stream": True} | fields
    return await client.post(f"{mock.base_url}/responses", json=body)


def test_an_error_over_http_is_a_status() -> None:
    error = ErrorSpec(status=429, code="rate_limit_exceeded", headers={"retry-after": "7"})

    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            for streamed in (True, False):
                answer = await post(client, mock, stream=streamed)
                assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"

    run(test, TurnRule(error=error))


def test_an_error_in_the_middle_of_an_sse_stream_is_an_event() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            answer = await post(client, mock)
        assert answer.status_code == 200
        last = answer.text.strip().split("\n\n")[-1]
        assert last.startswith("event: error\ndata: ")
        event = json.loads(last.split("data: ")[1])
        assert (event["code"], event["message"], event["param"]) == ("x", "Scripted error.", None)
        assert event["sequence_number"] == 5

    run(test, TurnRule(error=ErrorSpec(status=500, code="x"), when="streaming"))


@pytest.mark.parametrize("when", ["before_created", "created", "streaming"])
@pytest.mark.parametrize("code", [1000, 1006, 1011])
def test_a_close_over_http_cuts_the_connection(when: str, code: int) -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            for streamed in (True, False):
                with pytest.raises(httpx2.RemoteProtocolError):
                    await post(client, mock, stream=streamed)
        assert [turn.outcome for turn in mock.turns] == [f"close {code}"] * 2

    run(test, TurnRule.model_validate({"close": code, "when": when}))


def test_http_clients_that_leave_a_silent_turn() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            waiting = asyncio.create_task(post(client, mock))
            await mock.wait_for(lambda mock: len(mock.turns) == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await mock.wait_for(lambda mock: mock.turns[0].outcome == "client left")

    run(test, TurnRule(delay=3600))


def test_failures_and_telemetry_over_http() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            answer = await post(client, mock)
            assert answer.headers["x-codex-turn-state"] == "ts-1"
            assert "response.metadata" not in answer.text
            assert types([json.loads(answer.text.strip().split("data: ")[-1])]) == [
                "response.failed"
            ]
            assert (await post(client, mock, stream=False)).json()["status"] == "failed"

    run(test, TurnRule(failed=FailedSpec(), metadata={"x-codex-turn-state": "ts-1"}))
