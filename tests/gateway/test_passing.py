"""Every other endpoint: passed on as it is, or refused with the reason."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.affinity import Key
from tests.gateway.filing import CLOSE, Asked, Reply, account, against, api_asked, call
from tests.support.client import Answer, connection, request, request_head
from tests.support.gateway import Stage, closed_port, run, session

EMBED = {"model": "mock", "input": ["a", "bcd"]}
CLIENT_LINES = [
    ("Authorization", "Bearer sk-client-LEAK"),
    ("Api-Key", "LEAK"),
    ("Cookie", "LEAK"),
    ("OpenAI-Organization", "LEAK"),
    ("X-Forwarded-For", "LEAK"),
    ("Referer", "LEAK"),
    ("traceparent", "LEAK"),
    ("Idempotency-Key", "LEAK"),
    ("x-client-request-id", "LEAK"),
    ("x-codex-window-id", "LEAK"),
    ("x-unknown", "LEAK"),
    ("Range", "bytes=0-LEAK"),
    ("Accept-Encoding", "LEAK"),
    ("OpenAI-Beta", "assistants=v2, responses=experimental"),
    ("User-Agent", "OpenAI/Python 2"),
    ("Accept", "application/json"),
]


async def sent(stage: Stage, method: str, path: str, *headers: tuple[str, str]) -> Answer:
    return await request(stage.port, method, path, [*headers, CLOSE])


def test_an_endpoint_that_the_gateway_knows_nothing_of(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        body = json.dumps(EMBED).encode()
        path = "/v1/embeddings?api-version=1%2F2&x"
        answer = await stage.post(body, headers=CLIENT_LINES, path=path)
        assert (answer.status, account(answer)) == (200, "work")
        assert [len(one["embedding"]) for one in answer.json["data"]] == [3, 3]
        assert answer.header("x-request-id")
        assert answer.header("x-codexlb-attempts") is None
        [seen] = stage.mock.api_requests
        assert (seen.method, seen.target) == ("POST", path)
        assert seen.body.encode() == body
        assert sorted(name.lower() for name, _ in seen.headers) == [
            "accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
            "openai-beta", "user-agent", "x-client-request-id",
        ]  # fmt: skip
        told = {name.lower(): value for name, value in seen.headers}
        assert told["authorization"] == "Bearer sk-test-work"
        assert told["openai-beta"] == "assistants=v2"
        assert told["accept-encoding"] == "identity"
        assert "LEAK" not in repr(seen.headers) + repr(stage.lines)
        await call(stage, "POST", "/v1/moderations", {"input": "x"})
        assert stage.lines[0].split()[1:3] == ["200", "work"]
        assert stage.lines[0].endswith("POST /v1/embeddings")

    run(test, tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        '/v1/things/a[b]{c}|^`"<>;x=%zz%?q=[1]|"<>^`{}\\&x=%7e%7E+%20&&=;\'',
        "/v1/things/%7Ea~/?a=b?c",
    ],
)
def test_a_target_goes_on_byte_for_byte(tmp_path: Path, target: str) -> None:
    async def reply(asked: Asked) -> None:
        await asked.answer(200)

    async def test(stage: Stage) -> None:
        assert (await sent(stage, "GET", target)).status == 200

    [asked] = against(reply, test, tmp_path)
    assert asked.head.target == target


def test_successive_calls_meet(tmp_path: Path) -> None:
    """Turns go around; what is passed on goes to the first usable account, as configured."""

    async def test(stage: Stage) -> None:
        made = []
        for _ in range(4):
            await stage.turn()
            made.append((await call(stage, "POST", "/v1/vector_stores", {"name": "a"})).json["id"])
        listed = await call(stage, "GET", "/v1/vector_stores")
        assert [store["id"] for store in listed.json["data"]] == made
        assert (await call(stage, "DELETE", f"/v1/vector_stores/{made[0]}")).status == 200
        gone = await call(stage, "DELETE", f"/v1/vector_stores/{made[0]}")
        assert gone.status == 404
        assert {who for who, *_ in api_asked(stage)} == {"work"}

    run(test, tmp_path)


def test_a_session_keeps_its_calls_together(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.gateway.services.keys.pin(Key("session", "s"), "spare")
        body = json.dumps({"name": "a"}).encode()
        made = await stage.post(body, headers=session("s"), path="/v1/vector_stores")
        assert account(made) == "spare"
        path = f"/v1/vector_stores/{made.json['id']}"
        assert account(await sent(stage, "GET", path, *session("s"))) == "spare"
        # Without the session the others are asked for what they may have.
        for method in ("GET", "HEAD"):
            answer = await sent(stage, method, path)
            assert (answer.status, account(answer)) == (200, "spare")
        assert [who for who, *_ in api_asked(stage)[2:5]] == ["work", "home", "spare"]
        assert (await sent(stage, "DELETE", path)).status == 404  # asked of one account alone
        assert (await sent(stage, "GET", "/v1/vector_stores/vs_x")).status == 404
        unbound = await stage.post(body, headers=session("t"), path="/v1/vector_stores")
        assert account(unbound) == "work"

    run(test, tmp_path)


def test_plans_are_asked_last(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert account(await call(stage, "POST", "/v1/embeddings", EMBED)) == "home"

    run(test, tmp_path, accounts={"work": 'kind = "chatgpt"'})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/realtime"),
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/backend-api/codex/alpha/search"),
        ("GET", "/backend-api/codex/x"),
        ("PUT", "/backend-api/codex/files"),
        ("GET", "/backend-api/codex/embeddings"),
        ("POST", "/v1/responses/"),
        ("PATCH", "/v1/conversations/conv_1"),
        ("GET", "/v1/"),
    ],
)
def test_what_is_not_passed_on(tmp_path: Path, method: str, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await sent(stage, method, path)
        assert (answer.status, answer.error["code"]) == (501, "not_supported")
        assert answer.error["type"] == "invalid_request_error"
        assert path in answer.error["message"]
        assert answer.header("x-should-retry") == "false"
        assert api_asked(stage) == []

    run(test, tmp_path)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/../admin", "invalid_request"),
        ("/v1/%2e%2e/admin", "invalid_request"),
        ("/v1%2F..%2F..%2Fadmin/x", "invalid_request"),
        ("/%76%31/embeddings", "invalid_request"),
        ("/v1/a/..%2fb", "invalid_request"),
        ("/v1/a/./b", "invalid_request"),
        ("/v1/a%5c..%5cb", "invalid_request"),
        ("/v1/a%00b", "invalid_request"),
        ("/v1/a%0d%0ab", "not_found"),
    ],
)
def test_paths_that_would_lead_elsewhere(tmp_path: Path, path: str, code: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await sent(stage, "GET", path)
        assert answer.error["code"] == code
        assert api_asked(stage) == []

    run(test, tmp_path)


def test_the_guard_stands_before_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await sent(stage, "GET", "/v1/batches", ("Origin", "https://evil.example"))
        assert (answer.status, answer.error["code"]) == (403, "forbidden_origin")

    run(test, tmp_path)


def refusing(status: int, code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(status, {"error": {"message": "No.", "code": code}}, headers)

    return reply


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 503])
def test_a_refusal_of_a_call_without_a_body_leads_on(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        found = await stage.post(b"{}", headers=session("s"), path="/v1/vector_stores")
        assert account(found) is not None
        stage.gateway.services.keys.pin(Key("session", "h"), "home")
        made = await stage.post(b"{}", headers=session("h"), path="/v1/vector_stores")
        answer = await sent(stage, "GET", f"/v1/vector_stores/{made.json['id']}")
        assert (answer.status, account(answer)) == (200, "home")

    headers = {"location": "http://127.0.0.1:9/elsewhere"}
    against(refusing(status, None, headers), test, tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "invalid_api_key", "upstream_unavailable"),
        (403, None, "upstream_unavailable"),
        (429, None, "upstream_unavailable"),
        (500, None, "upstream_unavailable"),
        (422, "no_way", "no_way"),
    ],
)
def test_a_streamed_body_is_sent_once(
    tmp_path: Path, status: int, code: str | None, told: str
) -> None:
    async def test(stage: Stage) -> None:
        answer = await call(stage, "POST", "/v1/embeddings", EMBED)
        assert answer.error["code"] == told
        assert answer.status == (422 if status == 422 else 503)
        assert api_asked(stage) == []

    assert len(against(refusing(status, code), test, tmp_path)) == 1


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        (401, None, "ready"),  # what its key may not do is no reason to sign in again
        (401, "invalid_api_key", "needs_login"),
        (403, None, "ready"),
        (429, "rate_limit_exceeded", "ready"),  # limits of embeddings are not those of turns
        (429, "insufficient_quota", "limited"),
    ],
)
def test_only_what_concerns_the_whole_account_is_held_against_it(
    tmp_path: Path, status: int, code: str | None, state: str
) -> None:
    async def test(stage: Stage) -> None:
        await call(stage, "POST", "/v1/embeddings", EMBED)
        pool = stage.gateway.services.accounts.pool()
        assert pool.standing(pool.accounts[0]).state == state

    against(refusing(status, code, {"retry-after": "30"}), test, tmp_path)


def test_nobody_can_be_reached(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await call(stage, "GET", "/v1/batches/batch_1")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        posted = await call(stage, "POST", "/v1/embeddings", EMBED)
        assert (posted.status, posted.error["code"]) == (503, "upstream_unavailable")

    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/v1"
        run(test, tmp_path, urls={"work": url, "home": url}, names=["work", "home"])


def test_what_may_have_been_taken_is_not_sent_again(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()

    async def test(stage: Stage) -> None:
        posted = await call(stage, "POST", "/v1/batches/batch_1/cancel")
        assert (posted.status, posted.error["code"]) == (502, "upstream_closed")
        assert api_asked(stage) == []
        # Reading does nothing, so the next account is asked.
        assert (await call(stage, "GET", "/v1/vector_stores")).status == 200

    assert len(against(reply, test, tmp_path)) == 2


def test_both_bodies_flow(tmp_path: Path) -> None:
    """The upstream has the first piece before the client has sent the second, and back."""
    half = asyncio.Event()

    async def reply(asked: Asked) -> None:
        assert await asked.read(5) == b"5\r\nab"
        half.set()
        await asked.read(len(b"cde\r\n5\r\nfghij\r\n0\r\n\r\n"))
        await asked.start(200, [
            ("content-type", "audio/mpeg"), ("content-length", "6"), ("x-secret", "LEAK"),
            ("openai-poll-after-ms", "50"), ("openai-processing-ms", "7"), ("set-cookie", "LEAK"),
        ])  # fmt: skip
        await asked.send(b"one")
        await more.wait()
        await asked.send(b"two")

    more = asyncio.Event()

    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            lines = [
                ("Host", f"127.0.0.1:{stage.port}"),
                ("Transfer-Encoding", "chunked"),
                ("Content-Type", "audio/wav"),
                ("Content-Encoding", "gzip"),
            ]
            await exchange.send(request_head("PATCH", "/v1/audio/x", lines) + b"5\r\nabcde\r\n")
            await half.wait()
            await exchange.send(b"5\r\nfghij\r\n0\r\n\r\n")
            await exchange.head()
            told = {name.lower(): value for name, value in exchange.headers}
            assert (told["content-type"], told["content-length"]) == ("audio/mpeg", "6")
            assert (told["openai-poll-after-ms"], told["openai-processing-ms"]) == ("50", "7")
            assert "LEAK" not in repr(told)
            assert await exchange.piece() == b"one"
            more.set()
            assert await exchange.piece() == b"two"
            assert exchange.complete

    [asked] = against(reply, test, tmp_path)
    assert asked.head.value("content-type") == "audio/wav"
    assert asked.head.value("content-encoding") == "gzip"
    assert asked.head.method == "PATCH"


def test_a_client_that_leaves_ends_the_request_upstream(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def reply(asked: Asked) -> None:
        await asked.start(200, [("content-type", "audio/mpeg")])
        await asked.send(b"one")
        assert await asked.gone()
        ended.set()

    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}")]
            await exchange.send(request_head("GET", "/v1/audio/x", lines))
            await exchange.head()
            exchange.leave()
        await ended.wait()

    against(reply, test, tmp_path)


def test_bodies_over_the_limit(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.post(b"x" * 2000, path="/v1/embeddings")
        assert (answer.status, answer.error["code"]) == (400, "request_too_large")
        chunk = b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"
        lines = [("Transfer-Encoding", "chunked"), CLOSE]
        answer = await request(stage.port, "POST", "/v1/embeddings", lines, chunk)
        assert (answer.status, answer.error["code"]) == (400, "request_too_large")
        bad: list[Any] = [("x-note", "a\x01b")]
        answer = await stage.post(b"{}", headers=bad, path="/v1/embeddings")
        assert (answer.status, answer.error["code"]) == (400, "invalid_header")

    run(test, tmp_path, more="[limits]\nrequest_bytes = 1000\n")


def test_an_answer_with_chunks_and_a_length(tmp_path: Path) -> None:
    """RFC 9112 section 6.3: the chunks count; the length must not reach the client."""

    async def reply(asked: Asked) -> None:
        await asked.start(200, [("content-length", "3"), ("transfer-encoding", "chunked")])
        await asked.send(b"5\r\nhello\r\n0\r\n\r\n")

    async def test(stage: Stage) -> None:
        answer = await sent(stage, "GET", "/v1/audio/x")
        assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
        assert answer.header("content-length") is None

    against(reply, test, tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 100\r\n\r\n{",  # cut off
        b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_refusal_counts_by_its_status_however_its_body_ends(tmp_path: Path, body: bytes) -> None:
    """Who refused has not taken the call: nothing may be said of a connection that broke."""

    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.send(b"HTTP/1.1 429 Slow Down\r\n" + body)

    async def test(stage: Stage) -> None:
        limited = await call(stage, "POST", "/v1/batches/batch_1/cancel")
        assert limited.status == 404  # the word of the next account
        assert account(limited) == "home"

    against(reply, test, tmp_path, names=["work", "home"])


def test_the_body_of_a_refusal_is_not_waited_for(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\n{")
        assert await asked.gone()

    async def test(stage: Stage) -> None:
        assert (await sent(stage, "GET", "/v1/vector_stores")).status == 200

    against(reply, test, tmp_path, names=["work", "home"])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"detail": "No such plan."}, {"message": "No such plan.", "code": None}),
        ({"error": {"message": "No.", "x": float("inf")}}, {"message": "No.", "code": None}),
        ({"error": {"message": 5, "code": {"a": float("nan")}}}, {"code": None}),
    ],
)
def test_what_a_refusal_says_is_passed_on(
    tmp_path: Path, body: object, error: dict[str, Any]
) -> None:
    async def reply(asked: Asked) -> None:
        text = json.dumps(body).replace("Infinity", "1e999").encode()
        await asked.read_all()
        await asked.start(422, [("content-length", str(len(text)))])
        await asked.send(text)

    async def test(stage: Stage) -> None:
        answer = await call(stage, "POST", "/v1/embeddings", EMBED)
        assert answer.status == 422
        assert answer.error | error == answer.error
        assert isinstance(answer.error["message"], str)
        assert b"Infinity" not in answer.body
        assert b"NaN" not in answer.body

    against(reply, test, tmp_path)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/files", "/v1/responses"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_that_sends_all_before_it_reads_gets_its_answer(
    tmp_path: Path, path: str, chunked: bool
) -> None:
    """A connection that is closed with something unread is reset, and the answer is lost."""
    body = b"x" * 8_000_000

    async def test(stage: Stage) -> None:
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "8000000")
        head = request_head("POST", path, [("Host", "localhost"), framing])
        sent = b"7a1200\r\n" + body + b"\r\n0\r\n\r\n" if chunked else body
        answer = await asyncio.to_thread(_sent_all, stage.port, head + sent)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"request_too_large"' in answer

    run(test, tmp_path, names=["work"], more="[limits]\nrequest_bytes = 1000\n")


def _sent_all(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(data)
        pieces = []
        while piece := client.recv(65_536):
            pieces.append(piece)
        return b"".join(pieces)
