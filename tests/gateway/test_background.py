"""Background responses: posted as they came, to one account, and found again there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.affinity import Key
from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from tests.gateway.filing import (
    Asked,
    Reply,
    account,
    against,
    api_asked,
    call,
    naming,
    rows,
    uploaded,
)
from tests.support.client import Answer, connection, request_head
from tests.support.gateway import RESPONSES, Stage, closed_port, run, session

BODY = b'{ "background":true, "model":"mock",\n "input":"hello", "background_options":{"a":1.50} }'
DONE = "response.completed"


async def posted(stage: Stage, **members: Any) -> Answer:
    return await stage.turn(**{"background": True, "stream": False, **members})


@pytest.mark.parametrize("path", ["/v1/responses", "/backend-api/codex/responses"])
def test_a_background_response_is_posted_as_it_came(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.post(BODY, headers=session("s"), path=path)
        assert (answer.status, answer.json["status"]) == (200, "queued")
        assert answer.json["background"] is True
        assert (account(answer), answer.header("x-codexlb-attempts")) == ("work", "1")
        assert answer.header("x-request-id")
        [sent] = stage.mock.api_requests
        assert sent.body.encode() == BODY
        assert sent.target == "/v1/responses"
        assert stage.dialled == []
        name = answer.json["id"]
        assert rows(stage, "previous_response") == {name: "work"}
        assert rows(stage, "session") == {"s": "work"}
        await stage.mock.wait_for(lambda mock: mock.turns[0].outcome == DONE)
        found = await call(stage, "GET", f"/v1/responses/{name}")
        assert (found.json["status"], account(found)) == ("completed", "work")
        line = stage.lines[0].split()
        assert line[1:4] == ["200", "work", "hard"]
        assert line[-2:] == ["background", "response"]

    run(test, tmp_path)


def test_a_stream_is_relayed_as_it_comes(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await posted(stage, stream=True)
        assert answer.types[:3] == [
            "response.created", "response.queued", "response.in_progress",
        ]  # fmt: skip
        assert answer.types[-1] == DONE
        assert answer.text == "You said: hello"
        assert (account(answer), answer.header("x-codexlb-attempts")) == ("work", "1")
        name = answer.events[0].data["response"]["id"]
        assert rows(stage, "previous_response") == {name: "work"}
        again = await call(stage, "GET", f"/v1/responses/{name}?stream=true&starting_after=1")
        assert answer.body.endswith(again.body)
        assert again.types[0] == "response.in_progress"
        [sent] = [r for r in stage.mock.api_requests if r.method == "POST"]
        assert json.loads(sent.body)["stream"] is True

    run(test, tmp_path)


def test_it_is_pinned_before_the_client_has_its_id(tmp_path: Path) -> None:
    more = asyncio.Event()
    event = b'data: {"type":"response.created","response":{"id":"resp_1"}}\n\n'

    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.start(200, [("content-type", "text/event-stream")])
        await asked.send(b": hello\n\n" + event[:20])
        await more.wait()
        await asked.send(event[20:])
        await asked.gone()

    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}"), ("Content-Length", str(len(BODY)))]
            await exchange.send(request_head("POST", RESPONSES, lines) + BODY)
            more.set()
            await exchange.head()
            assert rows(stage, "previous_response") == {"resp_1": "work"}
            received = b""
            while len(received) < len(b": hello\n\n" + event):
                received += await exchange.piece()
            assert received == b": hello\n\n" + event

    against(reply, test, tmp_path)


def test_a_client_that_leaves_ends_the_request_upstream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(background=True) as exchange:
            await exchange.head()
            await exchange.until("response.in_progress")
            exchange.leave()
        await stage.mock.wait_for(lambda mock: mock.api_requests[0].left)
        # It is made all the same: that is what it is for.
        assert stage.mock.turns[0].outcome is None
        name = next(iter(rows(stage, "previous_response")))
        stopped = await call(stage, "POST", f"/v1/responses/{name}/cancel")
        assert stopped.json["status"] == "cancelled"
        assert "client left" in stage.lines[0]

    run(test, tmp_path, TurnRule(delta_delay=30))


def test_where_it_goes(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        keys = stage.gateway.services.keys
        keys.pin(Key("session", "s"), "spare")
        keys.pin(Key("conversation", "conv_1"), "home")
        assert account(await posted(stage, headers=session("s"))) == "spare"
        assert account(await posted(stage, conversation="conv_1")) == "home"
        first = await posted(stage, headers=session("s"), conversation="conv_1")
        assert account(first) == "home"
        assert rows(stage, "session")["s"] == "home"  # what it names decides, the session follows
        chained = await posted(stage, previous_response_id=first.json["id"])
        assert account(chained) == "home"
        file, owner = await uploaded(stage, b"x", *session("t"))
        assert account(await posted(stage, input=naming(file))) == owner
        before = len(api_asked(stage))
        stage.gateway.services.keys.pin(Key("file", file), "work")
        refused = await posted(stage, conversation="conv_1", input=naming(file))
        assert (refused.status, refused.error["code"]) == (400, "continuity_owner_conflict")
        assert account(refused) is refused.header("x-codexlb-attempts") is None
        lost = await posted(stage, previous_response_id="resp_x", store=False)
        assert lost.error["code"] == "previous_response_not_found"
        assert len(api_asked(stage)) == before
        # Turns and background responses of one conversation meet.
        assert account(await stage.turn(headers=session("s"))) == "home"

    run(test, tmp_path)


def test_new_ones_go_around_as_first_turns_do(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answers = [await posted(stage) for _ in range(3)]
        assert [account(answer) for answer in answers] == ["work", "home", "spare"]
        assert account(await stage.turn()) == "work"
        made = [await call(stage, "POST", "/v1/conversations", {}) for _ in range(2)]
        assert [account(answer) for answer in made] == ["home", "spare"]

    run(test, tmp_path)


def test_an_unknown_response_is_asked_for(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.gateway.services.keys.pin(Key("session", "x"), "home")
        first = await stage.turn(headers=session("x"), stream=False)
        stage.gateway.services.keys.drop(Key("previous_response", first.json["id"]))
        answer = await posted(stage, previous_response_id=first.json["id"])
        assert (answer.status, account(answer)) == (200, "home")
        unknown = await posted(stage, previous_response_id="resp_nobody")
        assert (unknown.status, unknown.error["code"]) == (400, "previous_response_not_found")

    run(test, tmp_path)


LIMITED = ErrorSpec(status=429, code="rate_limit_exceeded", headers={"retry-after": "30"})


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (401, "invalid_api_key", "2"),
        (403, None, "2"),
        (429, "rate_limit_exceeded", "2"),
        (503, None, "2"),
        (404, "model_not_found", "2"),
    ],
)
def test_a_refusal_leads_to_the_next_account(
    tmp_path: Path, status: int, code: str | None, attempts: str
) -> None:
    async def test(stage: Stage) -> None:
        answer = await posted(stage, headers=session("s"))
        assert (answer.status, account(answer)) == (200, "home")
        assert answer.header("x-codexlb-attempts") == attempts
        assert rows(stage, "session") == {"s": "home"}
        assert "2 attempts" in " ".join(stage.lines[0].split())

    assert len(against(refusing(status, code), test, tmp_path)) == 1


def refusing(status: int, code: str | None = None) -> Reply:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(status, {"error": {"message": "No.", "code": code}})

    return reply


FIRST = '[selection]\npolicy = "first"\n'


def test_what_may_have_begun_is_sent_again_once_at_most(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.configure("", {"home": "enabled = false", "spare": "enabled = false"})
        answer = await posted(stage)
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        stage.configure(FIRST + "[reconnect]\nreplays = 0\n")
        answer = await posted(stage)
        assert (answer.status, answer.header("x-codexlb-attempts")) == (503, "1")
        stage.configure(FIRST)
        acting = await posted(stage, tools=[{"type": "mcp", "server_label": "a"}])
        assert (acting.status, acting.header("x-codexlb-attempts")) == (503, "1")
        assert api_asked(stage) == []

    assert len(against(refusing(502), test, tmp_path)) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_what_may_have_been_taken_is_never_sent_again(tmp_path: Path, *, stream: bool) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        if stream:
            await asked.start(200, [("content-type", "text/event-stream")])
            await asked.send(b": hello\n\n")

    async def test(stage: Stage) -> None:
        answer = await posted(stage, stream=stream)
        if stream:  # an end that HTTP/1.1 cannot tell from a break: nothing was said of a response
            assert (answer.status, answer.body) == (200, b": hello\n\n")
        else:
            assert (answer.status, answer.error["code"]) == (502, "upstream_closed")
            assert answer.header("x-should-retry") == "false"
        assert answer.header("x-codexlb-attempts") == "1"
        assert api_asked(stage) == []

    assert len(against(reply, test, tmp_path)) == 1


def test_a_stream_that_breaks_before_it_tells_of_a_response(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        head = [("content-type", "text/event-stream"), ("content-length", "99")]
        await asked.start(200, head)
        await asked.send(b": hello\n\n")

    async def test(stage: Stage) -> None:
        answer = await posted(stage, stream=True)
        assert (answer.status, answer.error["code"]) == (502, "upstream_closed")

    assert len(against(reply, test, tmp_path)) == 1


def test_an_account_that_cannot_be_reached_leads_to_the_next(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await posted(stage)
        assert (answer.status, account(answer)) == (200, "home")
        assert answer.header("x-codexlb-attempts") == "1"

    with closed_port() as port:
        run(test, tmp_path, urls={"work": f"http://127.0.0.1:{port}/v1"})


def test_an_owner_that_cannot_serve(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await posted(stage, headers=session("s"))
        assert (await stage.command("accounts", "disable", "work")).returncode == 0
        refused = await posted(stage, previous_response_id=first.json["id"])
        assert (refused.status, refused.error["code"]) == (503, "owner_unavailable")
        moved = await posted(stage, headers=session("s"))
        assert account(moved) == "home"
        encrypted = {"type": "reasoning", "summary": [], "encrypted_content": "enc:home:x"}
        assert (await stage.command("accounts", "disable", "home")).returncode == 0
        # It goes as it is, so its reasoning would be nothing but noise elsewhere.
        stays = await posted(stage, headers=session("s"), input=[encrypted])
        assert (stays.status, stays.error["code"]) == (503, "owner_unavailable")

    run(test, tmp_path)


def test_no_client_credential_goes_along(tmp_path: Path) -> None:
    lines = [
        ("Authorization", "Bearer sk-client-LEAK"),
        ("ChatGPT-Account-Id", "LEAK"),
        ("Cookie", "LEAK"),
        ("Via", "LEAK"),
        ("Idempotency-Key", "LEAK"),
        ("originator", "codex_exec"),
    ]

    async def test(stage: Stage) -> None:
        assert (await posted(stage, headers=lines)).status == 200
        [sent] = stage.mock.api_requests
        assert "LEAK" not in repr(sent.headers)
        told = {name.lower(): value for name, value in sent.headers}
        assert told["authorization"] == "Bearer sk-test-work"
        assert (told["originator"], told["content-type"]) == ("codex_exec", "application/json")

    run(test, tmp_path)
