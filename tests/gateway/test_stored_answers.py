"""What accounts answer to calls about what is stored: refusals, broken connections, streams."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from codexlb_cli.core.affinity import Key
from codexlb_cli.mock_upstream.rules import TurnRule
from tests.gateway.filing import Asked, Reply, account, against, api_asked, call
from tests.support.client import connection, request_head
from tests.support.gateway import Stage, closed_port, run

BODY = {"model": "mock", "input": "hello"}


def refusing(status: int, code: str | None = None) -> Reply:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(status, {"error": {"message": "No.", "code": code}})

    return reply


async def breaking(asked: Asked) -> None:
    """Take the whole request, and end the connection without a word."""
    await asked.read_all()


def has_response(stage: Stage) -> str:
    """Let the gateway know a response of the account `work`; returns its path."""
    stage.gateway.services.keys.pin(Key("previous_response", "resp_1"), "work")
    return "/v1/responses/resp_1"


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, None), (429, None), (503, None)]
)
def test_a_refusal_leads_to_the_next_account(tmp_path: Path, status: int, code: str | None) -> None:
    async def test(stage: Stage) -> None:
        for path in ("/v1/responses/input_tokens", "/v1/responses/compact"):
            answer = await call(stage, "POST", path, BODY)
            assert (answer.status, account(answer)) == (200, "home")

    seen = against(refusing(status, code), test, tmp_path)
    assert json.loads(seen[0].body) == BODY


def test_an_account_that_cannot_be_reached_leads_to_the_next(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for path in ("/v1/responses/input_tokens", "/v1/conversations"):
            answer = await call(stage, "POST", path, BODY)
            assert (answer.status, account(answer)) == (200, "home")
        # A response lies with its account, whoever else is there.
        answer = await call(stage, "GET", has_response(stage))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")

    with closed_port() as port:
        run(test, tmp_path, urls={"work": f"http://127.0.0.1:{port}/v1"})


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("/v1/responses/input_tokens", True),
        ("/v1/responses/compact", False),
        ("/v1/conversations", False),
    ],
)
def test_what_may_have_been_taken_is_not_sent_again(
    tmp_path: Path, path: str, *, again: bool
) -> None:
    async def test(stage: Stage) -> None:
        answer = await call(stage, "POST", path, BODY)
        if again:
            assert (answer.status, account(answer)) == (200, "home")
            return
        assert (answer.status, answer.error["code"]) == (502, "upstream_closed")
        assert answer.header("x-should-retry") == "false"
        assert api_asked(stage) == []

    assert len(against(breaking, test, tmp_path)) == 1


@pytest.mark.parametrize(("status", "passed"), [(400, 400), (409, 409), (401, 503), (500, 503)])
def test_what_the_owner_says(tmp_path: Path, status: int, passed: int) -> None:
    async def test(stage: Stage) -> None:
        answer = await call(stage, "GET", has_response(stage))
        assert (answer.status, account(answer)) == (passed, "work")
        assert api_asked(stage) == []
        if status == 401:
            assert answer.error["code"] == "owner_unavailable"
            assert "this response belongs to account `work`" in answer.error["message"]

    against(refusing(status), test, tmp_path)


def test_one_that_could_not_tell_outweighs_those_that_do_not_know(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await call(stage, "GET", "/v1/responses/resp_x")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        gone = await call(stage, "DELETE", "/v1/responses/resp_x")
        assert gone.status == 503
        assert {method for _, method, _ in api_asked(stage)} == {"GET"}

    against(refusing(503), test, tmp_path)


# Streams that are taken up again


def test_a_stream_is_taken_up_where_it_was_left(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        posted = await stage.turn(background=True, stream=False)
        path = f"/v1/responses/{posted.json['id']}"
        await stage.mock.wait_for(lambda mock: mock.turns[0].outcome == "response.completed")
        whole = await call(stage, "GET", f"{path}?stream=true")
        assert whole.header("content-type") == "text/event-stream; charset=utf-8"
        assert whole.types[0] == "response.created"
        assert whole.types[-1] == "response.completed"
        numbers = [event.data["sequence_number"] for event in whole.events]
        assert numbers == list(range(len(numbers)))
        target = f"{path}?stream=true&starting_after=3&include%5B%5D=a%2Cb"
        rest = await call(stage, "GET", target)
        assert [event.data["sequence_number"] for event in rest.events] == numbers[4:]
        assert whole.body.endswith(rest.body)
        assert api_asked(stage)[-1] == ("work", "GET", target)

    run(test, tmp_path)


def test_a_stream_arrives_as_it_comes_and_ends_with_its_client(tmp_path: Path) -> None:
    more, ended = asyncio.Event(), asyncio.Event()

    async def reply(asked: Asked) -> None:
        await asked.start(200, [("content-type", "text/event-stream"), ("set-cookie", "a=b")])
        await asked.send(b"data: one\r\n\r\n: odd\n")
        await more.wait()
        await asked.send(b"data: two\n\n")
        assert await asked.gone()
        ended.set()

    async def test(stage: Stage) -> None:
        target = has_response(stage) + "?stream=true"
        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}")]
            await exchange.send(request_head("GET", target, lines))
            await exchange.head()
            assert exchange.status == 200
            assert "set-cookie" not in dict(exchange.headers)
            assert await exchange.piece() == b"data: one\r\n\r\n: odd\n"
            more.set()
            assert await exchange.piece() == b"data: two\n\n"
            exchange.leave()
        await ended.wait()

    against(reply, test, tmp_path)


def test_a_stream_that_breaks_off_breaks_off(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        head = [("content-type", "text/event-stream"), ("content-length", "99")]
        await asked.start(200, head)
        await asked.send(b"data: one\n\n")

    async def test(stage: Stage) -> None:
        answer = await call(stage, "GET", has_response(stage) + "?stream=true")
        assert (answer.status, answer.body, answer.complete) == (200, b"data: one\n\n", False)

    against(reply, test, tmp_path)


def test_a_background_response_is_cancelled(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        posted = await stage.turn(background=True, stream=False)
        assert posted.json["status"] == "queued"
        path = f"/v1/responses/{posted.json['id']}"
        stopped = await call(stage, "POST", f"{path}/cancel")
        assert stopped.json["status"] == "cancelled"
        assert (await call(stage, "GET", path)).json["status"] == "cancelled"
        assert [method for _, method, _ in api_asked(stage)] == ["POST", "POST", "GET"]

    run(test, tmp_path, TurnRule(delay=30))
