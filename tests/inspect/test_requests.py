"""A client's whole request in every form that a person may have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codexlb_cli.errors import CodexlbError, InvalidHeader, UsageError
from codexlb_cli.inspect.requests import read_client_request

DATA = Path(__file__).parent.parent / "data"
BODY = b'{"model": "m", "input": "hi"}'


@pytest.mark.parametrize(
    "content",
    [
        b"POST /v1/responses HTTP/1.1\r\nA: 1\r\nb: 2\r\n\r\n" + BODY,
        b"POST /v1/responses HTTP/1.1\nA: 1\nb: 2\n\n" + BODY,
        b"\r\nPOST /backend-api/codex/responses?x=1 HTTP/1.1\r\nA: 1\r\nb:2\r\n\r\n" + BODY,
        b"\xef\xbb\xbfPOST /v1/responses HTTP/1.1\r\nA: 1\r\nb: 2\r\n\r\n" + BODY,
    ],
)
def test_raw_http(content: bytes) -> None:
    request = read_client_request(content)
    assert (request.headers, request.body) == ((("A", "1"), ("b", "2")), BODY)


def test_raw_http_whose_length_an_edit_made_wrong() -> None:
    head = b"POST /v1/responses HTTP/1.1\r\nContent-Length: 3\r\nContent-Encoding: identity\r\n\r\n"
    assert read_client_request(head + BODY).body == BODY


def test_raw_http_without_a_body_or_headers() -> None:
    request = read_client_request(b"POST /v1/responses HTTP/1.1\r\n\r\n")
    assert (request.headers, request.body) == ((), b"")


def test_a_body_is_kept_byte_for_byte() -> None:
    request = read_client_request(b"\n" + BODY + b"\n")
    assert (request.headers, request.body) == ((), BODY + b"\n")


@pytest.mark.parametrize("whole", [False, True])
def test_an_exchange_of_codex(whole: bool) -> None:
    document = json.loads((DATA / "codex_http_second_turn.json").read_bytes())
    if whole:
        other = {"request": {"method": "GET", "target": "/v1/models", "headers": []}}
        document = {"scenario": "x", "exchanges": ["odd", other, {"kind": "ws"}, document]}
    request = read_client_request(json.dumps(document).encode())
    assert dict(request.headers)["x-codex-turn-state"] == "ts-turn-1"
    assert [name for name, _ in request.headers][-1] == "content-length"
    body = json.loads(request.body)
    assert (body["model"], body["store"]) == ("gpt-5.5", False)
    assert [item["type"] for item in body["input"]][4:] == [
        "reasoning",
        "function_call",
        "function_call_output",
    ]


def test_an_exchange_of_an_sdk() -> None:
    request = read_client_request((DATA / "openai_python_store_false.json").read_bytes())
    assert dict(request.headers)["user-agent"] == "OpenAI/Python 3.54.0"
    assert json.loads(request.body)["previous_response_id"] == "resp_1"


def test_a_recorded_body_may_be_a_text() -> None:
    line = {"method": "POST", "target": "/v1/responses", "headers": {"A": "1"}, "body": "{broken"}
    request = read_client_request(json.dumps({"request": line}).encode())
    assert (request.headers, request.body) == ((("A", "1"),), b"{broken")


def test_a_body_that_only_looks_like_a_recording() -> None:
    content = b'{"model": "m", "request": "x", "headers": {}, "exchanges": 1}'
    assert read_client_request(content).body == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is no request"),
        (b"hello", "this is no request"),
        (b"[1]", "this is no request"),
        (b"Host: a\r\n\r\n{}", "this is no request"),
        (b'{"model": ', "the JSON is not valid JSON (line 1, column 11)"),
        (b'{"model": "\xff"}', "the JSON is not valid UTF-8"),
        (b"GET /v1/responses HTTP/1.1\r\n\r\n", "no turn is asked for by `GET /v1/responses`"),
        (b"POST /v1/chat HTTP/1.1\r\n\r\n{}", "no turn is asked for by `POST /v1/chat`"),
        (
            b"POST /v1/responses HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0",
            "the body is coded: `Transfer-Encoding`",
        ),
        (
            b"POST /v1/responses HTTP/1.1\r\ncontent-encoding: zstd\r\n\r\n\x28\xb5",
            "the body is coded: `content-encoding`",
        ),
        (
            b'{"request": {"method": "GET", "target": "/v1/models", "headers": []}}',
            "no turn is asked for by `GET /v1/models`",
        ),
        (b'{"exchanges": []}', "no turn is asked for over HTTP in this recording"),
        ((DATA / "codex_websocket.json").read_bytes(), "no turn is asked for over HTTP"),
    ],
)
def test_what_is_no_request(content: bytes, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_client_request(content)
    assert message in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"POST /v1/responses HTTP/1.1\r\nno colon\r\n\r\n{}",
        b"POST /v1/responses HTTP/1.1\r\na: sk-LEAK\x01\r\n\r\n{}",
        b'{"request_line": "POST /v1/responses H", "headers": {"a b": "sk-LEAK"}, "body": {}}',
    ],
)
def test_headers_that_cannot_be_sent(content: bytes) -> None:
    with pytest.raises(CodexlbError) as raised:
        read_client_request(content)
    assert isinstance(raised.value, InvalidHeader)
    assert "LEAK" not in str(raised.value)
