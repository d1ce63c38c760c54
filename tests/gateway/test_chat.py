"""Chat completions over real sockets: the turn is that of every response, the words are chat's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from tests.core.chat_deltas import put_together
from tests.support.client import Answer, Exchange, Header, connection, request, request_head
from tests.support.gateway import Stage, run, session

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
DONE = "[DONE]"


def chat_body(members: dict[str, object]) -> bytes:
    return json.dumps({"model": "mock", "messages": [USER], **members}).encode()


async def chat(stage: Stage, *, headers: Sequence[Header] = (), **members: object) -> Answer:
    return await stage.post(chat_body(members), headers=headers, path=CHAT)


def data_of(answer: Answer) -> list[Any]:
    """What stands in the `data:` lines; every block is one, without an `event:` line."""
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    *blocks, rest = answer.body.decode().split("\n\n")
    assert rest == ""
    lines = [block for block in blocks if not block.startswith(":")]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    texts = [line.removeprefix("data: ") for line in lines]
    return [text if text == DONE else json.loads(text) for text in texts]


@asynccontextmanager
async def streaming(stage: Stage, **members: object) -> AsyncIterator[Exchange]:
    body = chat_body({"stream": True, **members})
    lines = [("Host", f"127.0.0.1:{stage.port}"), ("Content-Length", str(len(body)))]
    async with connection(stage.port, stage.answer_seconds) as exchange:
        await exchange.send(request_head("POST", CHAT, lines) + body)
        yield exchange


def test_a_completion(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, max_tokens=9, stream=False)
        assert answer.status == 200
        assert answer.header("x-codexlb-account") == "work"
        assert answer.header("x-codexlb-attempts") == "1"
        assert answer.header("x-request-id")
        assert answer.json["object"] == "chat.completion"
        (choice,) = answer.json["choices"]
        assert choice["message"]["content"] == "You said: hello"
        assert choice["finish_reason"] == "stop"
        assert answer.json["usage"]["completion_tokens"] == 3
        asked = {"type": "message", "role": "user", "content": "hello"}
        assert stage.frames == [
            {
                "type": "response.create", "model": "mock", "input": [asked],
                "max_output_tokens": 9, "store": False,
            }
        ]  # fmt: skip
        assert stage.lines[0].split()[1:3] == ["200", "work"]

    run(test, tmp_path, names=["work"])


def test_a_stream_is_the_completion_in_pieces(tmp_path: Path) -> None:
    members: dict[str, Any] = {"logprobs": True, "response_format": {"type": "json_object"}}

    async def test(stage: Stage) -> None:
        whole = (await chat(stage, **members)).json
        answer = await chat(stage, **members, stream=True, stream_options={"include_usage": True})
        assert answer.header("x-codexlb-attempts") == "1"
        *chunks, usage, done = data_of(answer)
        assert done == DONE
        assert put_together(chunks) == whole["choices"][0]
        assert all(chunk["usage"] is None for chunk in chunks)
        assert (usage["choices"], set(usage["usage"])) == ([], set(whole["usage"]))
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert len({chunk["id"] for chunk in chunks}) == 1

    run(test, tmp_path, TurnRule(text='{"a": 1}', reasoning=True), names=["work"])


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_parallel_tool_calls(tmp_path: Path, transport: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, tools=[TOOL], stream=True)
        *chunks, _ = data_of(answer)
        choice = put_together(chunks)
        assert choice["finish_reason"] == "tool_calls"
        calls = choice["message"]["tool_calls"]
        assert [call["function"]["arguments"] for call in calls] == ['{"a": 1}'] * 3
        assert len({call["id"] for call in calls}) == 3
        history = [USER, choice["message"]]
        history += [{"role": "tool", "tool_call_id": c["id"], "content": "4"} for c in calls]
        answer = await chat(stage, tools=[TOOL], messages=history)
        content = answer.json["choices"][0]["message"]["content"]
        assert content == "The tool has answered, so this turn is done."

    rule = TurnRule(tool="weather", arguments='{"a": 1}', calls=3)
    accounts = {"work": f'transport = "{transport}"'}
    run(test, tmp_path, rule, names=["work"], accounts=accounts)


def test_a_refusal(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        message = (await chat(stage)).json["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == (None, "I will not.")
        *chunks, _ = data_of(await chat(stage, stream=True))
        assert put_together(chunks)["message"] == message

    run(test, tmp_path, TurnRule(refusal="I will not."))


# --- the turn is that of every response --------------------------------------------------------


def test_a_session_and_a_cache_key_keep_their_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        served = []
        for _ in range(2):
            for headers, members in ((session("s"), {}), ([], {"prompt_cache_key": "k"})):
                answer = await chat(stage, headers=headers, **members)
                served.append(answer.header("x-codexlb-account"))
        assert served == ["work", "home", "work", "home"]
        # The same session over the other API is the same conversation.
        answer = await stage.turn(headers=session("s"))
        assert answer.header("x-codexlb-account") == "work"

    run(test, tmp_path)


@pytest.mark.parametrize("stream", [True, False])
def test_a_turn_is_sent_again_before_its_response_began(tmp_path: Path, stream: bool) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, headers=session("s"), stream=stream)
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "2")
        assert stage.sent == ["work", "work"]
        assert "2 attempts" in stage.lines[0]

    run(test, tmp_path, TurnRule(close=1011, times=1))


def test_silence_is_kept_alive_with_comments(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with streaming(stage) as exchange:
            await exchange.head()
            assert await exchange.block() == ": keep-alive"

    async def prepared(stage: Stage) -> None:
        stage.keepalive_seconds = 0.02
        async with stage.serving():
            await test(stage)

    run(prepared, tmp_path, TurnRule(delta_delay=0.3), serve=False)


def test_a_client_that_leaves_frees_its_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with streaming(stage) as exchange:
            await exchange.head()
            await exchange.block()
        answer = await chat(stage)
        assert answer.status == 200
        assert "client left" in stage.lines[0]

    rule = TurnRule(delta_delay=0.2, deltas=50, times=1)
    run(test, tmp_path, rule, names=["work"], accounts={"work": "max_turns = 1"})


def test_a_gateway_that_stops_ends_a_stream_with_an_error(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            body = chat_body({"stream": True})
            lines = [("Host", f"127.0.0.1:{stage.port}"), ("Content-Length", str(len(body)))]
            async with connection(stage.port, stage.answer_seconds) as exchange:
                await exchange.send(request_head("POST", CHAT, lines) + body)
                await exchange.head()
                await stage.gateway.responses.stop_turns()
                last = data_of(await exchange.answer())[-1]
        assert last["error"]["code"] == "upstream_closed"

    run(test, tmp_path, TurnRule(deltas=2, delta_delay=30), serve=False)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        (TurnRule(error=ErrorSpec(status=400, code="context_length_exceeded")), 400, None),
        (HandshakeRule(status=429, headers={"retry-after": "30"}), 429, "rate_limit_exceeded"),
        (HandshakeRule(status=503), 503, "upstream_unavailable"),
    ],
)
def test_errors_before_the_first_event_are_plain(
    tmp_path: Path, rule: TurnRule | HandshakeRule, status: int, code: str | None, stream: bool
) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, stream=stream)
        assert answer.status == status
        assert answer.error["code"] == (code or "context_length_exceeded")

    run(test, tmp_path, rule, names=["work"])


@pytest.mark.parametrize(
    ("rule", "code", "status"),
    [
        (TurnRule(close=1011, when="streaming"), "upstream_closed", 502),
        (TurnRule(failed=FailedSpec(), when="streaming"), "server_error", 500),
        (TurnRule(failed=FailedSpec(code="rate_limit_exceeded")), "rate_limit_exceeded", 429),
        (
            TurnRule(error=ErrorSpec(status=429, code="slow_down"), when="streaming"),
            "slow_down",
            429,
        ),
    ],
)
def test_errors_after_it_end_the_stream_once(
    tmp_path: Path, rule: TurnRule, code: str, status: int
) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, stream=True)
        assert answer.complete
        *chunks, last = data_of(answer)
        assert set(last) == {"error"}
        assert set(last["error"]) >= {"message", "type", "code", "param"}
        assert last["error"]["code"] == code
        assert all(c["finish_reason"] is None for chunk in chunks for c in chunk["choices"])
        answer = await chat(stage, stream=False)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.header("x-should-retry") == "false"
        assert answer.header("x-codexlb-account") == "work"

    run(test, tmp_path, rule, names=["work"])


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_short_says_why(tmp_path: Path, reason: str, finish: str) -> None:
    async def test(stage: Stage) -> None:
        (choice,) = (await chat(stage)).json["choices"]
        assert choice["finish_reason"] == finish
        *chunks, done = data_of(await chat(stage, stream=True))
        assert (chunks[-1]["choices"][0]["finish_reason"], done) == (finish, DONE)

    run(test, tmp_path, TurnRule(incomplete=reason, when="streaming", after=2))


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": [USER, {"role": "user", "content": 4}]}, "messages[1].content"),
        ({"n": 2}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_bad_requests_name_what_is_wrong(
    tmp_path: Path, members: dict[str, Any], param: str
) -> None:
    async def test(stage: Stage) -> None:
        answer = await chat(stage, **members)
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert answer.error["param"] == param
        assert stage.dialled == []
        assert "invalid_request" in stage.lines[0]

    run(test, tmp_path)


def test_what_the_upstream_decides(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await chat(stage, new_thing={"a": 1})).status == 200
        assert stage.frames[0]["new_thing"] == {"a": 1}

    run(test, tmp_path)


def test_other_methods_and_stored_completions(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        close = [("Connection", "close")]
        for method in ("HEAD", "PUT", "DELETE"):
            answer = await request(stage.port, method, CHAT, close)
            assert (answer.status, answer.header("allow")) == (405, "POST")
        for method, path in (
            ("GET", CHAT),
            ("GET", f"{CHAT}/chatcmpl-1"),
            ("POST", f"{CHAT}/chatcmpl-1"),
            ("GET", f"{CHAT}/chatcmpl-1/messages"),
        ):
            answer = await request(stage.port, method, path, close)
            assert (answer.status, answer.error["code"]) == (501, "not_supported")
            assert "stored chat completions" in answer.error["message"]
        answer = await stage.post(chat_body({}), path="/backend-api/codex/chat/completions")
        assert (answer.status, answer.error["code"]) == (501, "not_supported")

    run(test, tmp_path)


def test_a_stream_takes_http_1_1(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        body = chat_body({"stream": True})
        head = f"POST {CHAT} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        async with connection(stage.port, stage.answer_seconds) as exchange:
            await exchange.send(head.encode() + body)
            await exchange.head()
            assert exchange.status == 501

    run(test, tmp_path)
