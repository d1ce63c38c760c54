"""Turns and other requests over HTTP, without faults."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import http_client, open_socket, run

if sys.version_info >= (3, 14):
    from compression.zstd import compress
else:
    from backports.zstd import compress


def test_a_streamed_turn() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            body = {"model": "mock", "input": "hello", "stream": True}
            answer = await client.post(f"{mock.base_url}/responses", json=body)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        blocks = answer.text.strip().split("\n\n")
        names = [block.split("\n")[0].removeprefix("event: ") for block in blocks]
        events = [json.loads(block.split("\n")[1].removeprefix("data: ")) for block in blocks]
        assert names == [event["type"] for event in events]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["response"]["metadata"]["account"] == "work"
        [turn] = mock.turns
        assert (turn.transport, turn.outcome) == ("http", "response.completed")

    run(test)


def test_a_turn_as_one_document_on_a_connection_that_is_kept() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            for _ in range(2):
                body = {"model": "mock", "input": "hello"}
                answer = await client.post(f"{mock.base_url}/responses", json=body)
                response = answer.json()
                assert (response["object"], response["status"]) == ("response", "completed")
        assert [turn.socket for turn in mock.turns] == [1, 1]

    run(test)


def test_a_chunked_body() -> None:
    async def body() -> AsyncIterator[bytes]:
        for chunk in (b'{"model": "mo', b'ck", "input": "hello"}'):
            yield chunk

    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            answer = await client.post(f"{mock.base_url}/responses", content=body())
        assert answer.json()["output"][0]["content"][0]["text"] == "You said: hello"

    run(test)


def test_previous_responses_over_http() -> None:
    async def test(mock: MockUpstream) -> None:
        url = f"{mock.base_url}/responses"
        async with http_client() as client, http_client("demo-key-home") as home:
            unstored = (await client.post(url, json={"model": "mock", "store": False})).json()["id"]
            stored = (await client.post(url, json={"model": "mock"})).json()["id"]
            statuses = [
                (
                    await who.post(url, json={"model": "mock", "previous_response_id": known})
                ).status_code
                for who, known in ((client, unstored), (client, stored), (home, stored))
            ]
        assert statuses == [400, 200, 400]
        async with open_socket(mock) as socket:
            assert len(await socket.turn(previous_response_id=stored)) > 3

    run(test)


def test_the_models_in_both_forms() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            listed = (await client.get(f"{mock.base_url}/models")).json()
            codex = (await client.get(f"{mock.base_url}/models?client_version=0.169.0")).json()
        assert listed["object"] == "list"
        names = [model["id"] for model in listed["data"]]
        assert {"mock", "mock-tool", "mock-close-1011"} <= set(names)
        assert [model["slug"] for model in codex["models"]] == names

    run(test)


def test_the_recording_shows_no_key() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock, headers={"Cookie": "sk-test-LEAK"}) as socket:
            await socket.turn()
        async with http_client() as client:
            url = f"http://127.0.0.1:{mock.port}/_mock/recording"
            answer = await client.get(url)
        assert "demo-key-work" not in answer.text
        assert "sk-test-LEAK" not in answer.text
        document = answer.json()
        assert set(document) == {
            "schema", "handshakes", "frames", "turns", "file_requests", "api_requests",
            "issuer_requests", "overlaps",
        }  # fmt: skip
        assert ["Authorization", "Bearer <work>"] in document["handshakes"][0]["headers"]
        assert document["turns"][0]["outcome"] == "response.completed"

    run(test)


@pytest.mark.parametrize(
    ("method", "path", "key", "body", "status", "code"),
    [
        ("POST", "/responses", "nobody", b"{}", 401, "invalid_api_key"),
        ("GET", "/models", "nobody", b"", 401, "invalid_api_key"),
        ("POST", "/responses", "demo-key-work", b"{", 400, "invalid_json"),
        ("POST", "/responses", "demo-key-work", b"[" * 100_000, 400, "invalid_json"),
        ("POST", "/responses", "demo-key-work", b"\xff", 400, "invalid_json"),
        ("POST", "/responses", "demo-key-work", b"{}", 400, "missing_required_parameter"),
        ("GET", "/responses", "demo-key-work", b"", 404, None),
        ("POST", "/chat/completions", "demo-key-work", b"{}", 404, None),
    ],
)
def test_what_is_refused(
    method: str, path: str, key: str, body: bytes, status: int, code: str | None
) -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client(key) as client:
            answer = await client.request(method, f"{mock.base_url}{path}", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert mock.turns == []

    run(test)


ASKED = b'{"model": "mock", "input": "packed"}'


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("zstd", compress(ASKED), "You said: packed"),
        ("identity", ASKED, "You said: packed"),
        ("zstd", b"x", "The body is not valid zstd."),
        ("br", ASKED, "The content encoding is not supported."),
    ],
)
def test_a_body_may_be_packed_as_codex_does_it(encoding: str, body: bytes, said: str) -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            headers = {"content-encoding": encoding}
            url = f"{mock.base_url}/responses"
            answer = await client.post(url, content=body, headers=headers)
        assert said in answer.text
        assert answer.status_code == (200 if said.startswith("You") else 400)

    run(test)


async def raw(mock: MockUpstream, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
    writer.write(data)
    if writer.can_write_eof():
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000, b"431"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", b"413"),
    ],
)
def test_a_request_that_is_no_http_is_answered_and_closed(data: bytes, status: bytes) -> None:
    async def test(mock: MockUpstream) -> None:
        answer = await raw(mock, data)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer

    run(test)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /v1/models HT",
        b"POST /v1/responses HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf",
        b"POST /v1/responses HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_request_that_is_never_finished_is_not_answered(data: bytes) -> None:
    async def test(mock: MockUpstream) -> None:
        assert await raw(mock, data) == b""

    run(test)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=80), max_size=3).map(b"\r\n".join))
def test_garbage_never_hangs(data: bytes) -> None:
    async def test(mock: MockUpstream) -> None:
        await raw(mock, data + b"\r\n\r\n")

    run(test)
