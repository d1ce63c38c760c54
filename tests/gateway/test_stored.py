"""Stored responses and conversations through the gateway: each goes to where it lies."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.affinity import Key
from tests.gateway.filing import CLOSE, account, api_asked, call, naming, rows, upload, uploaded
from tests.support.client import Answer, request
from tests.support.gateway import Stage, run, session

PREFIX = pytest.mark.parametrize("prefix", ["/v1", "/backend-api/codex"])
CLIENT_LINES = [
    ("Authorization", "Bearer sk-client-LEAK"),
    ("Cookie", "a=sk-client-LEAK"),
    ("OpenAI-Organization", "org-LEAK"),
    ("X-Api-Key", "sk-client-LEAK"),
    ("X-Forwarded-For", "10.0.0.LEAK"),
    ("Idempotency-Key", "LEAK"),
    ("x-codex-turn-metadata", '{"path": "/home/LEAK"}'),
    ("X-Stainless-OS", "LEAK"),
    ("Connection", "x-hop, close"),
    ("x-hop", "LEAK"),
    ("OpenAI-Beta", "responses=experimental, responses_websockets=1, assistants=v2"),
    ("User-Agent", "OpenAI/Python 2"),
    ("Accept", "application/json"),
]


async def answered(stage: Stage, home: str, **members: Any) -> str:
    """Have `home` make a response, and return its id."""
    response = f"bind-{home}"
    stage.gateway.services.keys.pin(Key("session", response), home)
    answer = await stage.turn(headers=session(response), stream=False, **members)
    assert (answer.status, account(answer)) == (200, home)
    name: str = answer.json["id"]
    return name


async def conversation(stage: Stage, home: str, **members: Any) -> str:
    stage.gateway.services.keys.pin(Key("session", f"bind-{home}"), home)
    body = json.dumps(members).encode()
    lines = [("Content-Length", str(len(body))), CLOSE, *session(f"bind-{home}")]
    answer = await request(stage.port, "POST", "/v1/conversations", lines, body)
    assert (answer.status, account(answer)) == (200, home), answer.body
    name: str = answer.json["id"]
    return name


def forget(stage: Stage) -> None:
    """Make the gateway forget all owners, as `owners forget` would."""
    with sqlite3.connect(stage.state_folder / "state.sqlite3") as connection:
        connection.execute("DELETE FROM owners")
    connection.close()
    stage.gateway.services.keys.forget()


@PREFIX
def test_the_life_of_a_stored_response(tmp_path: Path, prefix: str) -> None:
    async def test(stage: Stage) -> None:
        name = await answered(stage, "home", input="first words")
        path = f"{prefix}/responses/{name}"
        seen = await call(stage, "GET", path)
        assert (seen.status, seen.json["id"], seen.json["status"]) == (200, name, "completed")
        assert account(seen) == "home"
        assert seen.header("x-request-id")
        assert seen.header("x-codexlb-attempts") is None
        items = await call(stage, "GET", f"{path}/input_items?order=asc&limit=5")
        assert items.json["data"][0]["content"] == [{"type": "input_text", "text": "first words"}]
        cancelled = await call(stage, "POST", f"{path}/cancel")
        assert cancelled.status == 400
        assert "synchronous" in cancelled.error["message"]
        gone = await call(stage, "DELETE", path)
        assert (gone.status, gone.json["deleted"]) == (200, True)
        assert api_asked(stage) == [
            ("home", "GET", f"/v1/responses/{name}"),
            ("home", "GET", f"/v1/responses/{name}/input_items?order=asc&limit=5"),
            ("home", "POST", f"/v1/responses/{name}/cancel"),
            ("home", "DELETE", f"/v1/responses/{name}"),
        ]
        store = stage.gateway.services.store
        await store.committed(store.submit(lambda _: None))
        assert name not in rows(stage, "previous_response")
        missing = await call(stage, "GET", path)
        assert (missing.status, missing.error["type"]) == (404, "invalid_request_error")
        assert missing.error["message"] == f"Response with id '{name}' not found."
        # Nobody is known to have it now, so everybody was asked.
        assert [a for a, *_ in api_asked(stage)[4:]] == ["work", "home", "spare"]
        assert stage.lines[1].split()[1:3] == ["200", "home"]
        assert f"GET {prefix}/responses/" in " ".join(stage.lines[1].split())

    run(test, tmp_path)


@PREFIX
def test_the_life_of_a_conversation(tmp_path: Path, prefix: str) -> None:
    async def test(stage: Stage) -> None:
        made = await call(stage, "POST", f"{prefix}/conversations", {"metadata": {"a": "1"}})
        assert (made.status, account(made)) == (200, "work")
        name = made.json["id"]
        assert rows(stage, "conversation") == {name: "work"}
        path = f"{prefix}/conversations/{name}"
        for _ in range(3):  # turns that name nothing go around
            await stage.turn()
        turn = await stage.turn(conversation=name, input="to remember")
        assert account(turn) == "work"
        added = {"items": [{"type": "message", "role": "user", "content": "by hand"}]}
        assert (await call(stage, "POST", f"{path}/items", added)).status == 200
        items = (await call(stage, "GET", f"{path}/items?order=asc")).json["data"]
        texts = [item["content"][0]["text"] for item in items]
        assert texts == ["to remember", "You said: to remember", "by hand"]
        item = items[0]["id"]
        assert (await call(stage, "GET", f"{path}/items/{item}")).json["id"] == item
        assert (await call(stage, "DELETE", f"{path}/items/{item}")).json["id"] == name
        assert len((await call(stage, "GET", f"{path}/items")).json["data"]) == 2
        changed = await call(stage, "POST", path, {"metadata": {"b": "2"}})
        assert changed.json["metadata"] == {"b": "2"}
        assert (await call(stage, "GET", path)).json["metadata"] == {"b": "2"}
        gone = await call(stage, "DELETE", path)
        assert gone.json["deleted"] is True
        assert {who for who, *_ in api_asked(stage)} == {"work"}
        store = stage.gateway.services.store
        await store.committed(store.submit(lambda _: None))
        assert rows(stage, "conversation") == {}
        assert (await call(stage, "GET", path)).status == 404

    run(test, tmp_path)


def test_owners_outlive_the_gateway(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            response = await answered(stage, "spare")
            kept = await conversation(stage, "home")
            posted = await stage.turn(
                background=True, stream=False, headers=session("bind-home"), input="later"
            )
        async with stage.serving():
            for path, home in (
                (f"/v1/responses/{response}", "spare"),
                (f"/v1/conversations/{kept}", "home"),
                (f"/v1/responses/{posted.json['id']}", "home"),
            ):
                before = len(api_asked(stage))
                answer = await call(stage, "GET", path)
                assert (answer.status, account(answer)) == (200, home)
                assert len(api_asked(stage)) == before + 1

    run(test, tmp_path, serve=False)


@pytest.mark.parametrize(
    ("method", "tail", "first"),
    [
        ("GET", "", []),
        ("GET", "/input_items", []),
        ("DELETE", "", ["GET"]),
        ("POST", "/cancel", ["GET"]),
    ],
)
def test_a_response_that_nobody_knows_is_asked_for(
    tmp_path: Path, method: str, tail: str, first: list[str]
) -> None:
    async def test(stage: Stage) -> None:
        name = await answered(stage, "spare")
        forget(stage)
        answer = await call(stage, method, f"/v1/responses/{name}{tail}")
        assert account(answer) == "spare"
        assert answer.status == (400 if tail == "/cancel" else 200)
        target = f"/v1/responses/{name}"
        if first:  # found by reading: nobody but its account is asked to change anything
            looked = [(who, "GET", target) for who in ("work", "home", "spare")]
            assert api_asked(stage) == [*looked, ("spare", method, target + tail)]
        else:
            assert api_asked(stage) == [
                (who, method, target + tail) for who in ("work", "home", "spare")
            ]
        if method == "GET":
            assert rows(stage, "previous_response") == {name: "spare"}
            assert account(await call(stage, "GET", target)) == "spare"
            assert len(api_asked(stage)) == 4

    run(test, tmp_path)


def test_a_conversation_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        name = await conversation(stage, "home")
        forget(stage)
        items = {"items": [{"type": "message", "role": "user", "content": "hello"}]}
        answer = await call(stage, "POST", f"/v1/conversations/{name}/items", items)
        assert (answer.status, account(answer)) == (200, "home")
        assert api_asked(stage)[1:] == [
            ("work", "GET", f"/v1/conversations/{name}"),
            ("home", "GET", f"/v1/conversations/{name}"),
            ("home", "POST", f"/v1/conversations/{name}/items"),
        ]
        assert account(await stage.turn(conversation=name)) == "home"
        for path in ("/v1/conversations/conv_x", "/v1/conversations/conv_x/items/msg_1"):
            assert (await call(stage, "DELETE", path)).status == 404

    run(test, tmp_path)


def test_what_lives_on_a_socket_is_asked_of_nobody(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        name = await answered(stage, "home", store=False)
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
            answer = await call(stage, method, f"/v1/responses/{name}{tail}")
            assert answer.status == 404
            assert answer.error["message"] == f"Response with id '{name}' not found."
        assert api_asked(stage) == []
        counted = await call(
            stage, "POST", "/v1/responses/input_tokens",
            {"model": "mock", "input": "x", "previous_response_id": name},
        )  # fmt: skip
        assert (counted.status, counted.error["code"]) == (400, "previous_response_not_found")
        assert api_asked(stage) == []

    run(test, tmp_path)


BODY = {"model": "mock", "input": "hello"}


@pytest.mark.parametrize("path", ["/v1/responses/input_tokens", "/v1/responses/compact"])
def test_what_a_body_names_decides_first(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        response, talk = await answered(stage, "spare"), await conversation(stage, "home")
        file, owner = await uploaded(stage)
        assert owner == "work"

        async def sent(headers: list[tuple[str, str]], **members: Any) -> Answer:
            return await stage.post(
                json.dumps({**BODY, **members}).encode(), headers=headers, path=path
            )

        for members, home in (
            ({"previous_response_id": response}, "spare"),
            ({"conversation": talk}, "home"),
            ({"input": naming(file)}, "work"),
        ):
            answer = await sent(session("bind-home" if home != "home" else "bind-spare"), **members)
            assert (answer.status, account(answer)) == (200, home), answer.body
        before = len(api_asked(stage))
        refused = await sent([], previous_response_id=response, conversation=talk)
        assert (refused.status, refused.error["code"]) == (400, "continuity_owner_conflict")
        refused = await sent([], conversation={"id": talk}, input=naming(file))
        assert refused.error["code"] == "continuity_owner_conflict"
        assert len(api_asked(stage)) == before

    run(test, tmp_path)


def test_a_response_that_a_body_names_and_nobody_knows(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        response = await answered(stage, "home")
        forget(stage)
        named = {**BODY, "previous_response_id": response}
        for _ in range(2):
            answer = await call(stage, "POST", "/v1/responses/input_tokens", named)
            assert (answer.status, account(answer)) == (200, "home")
        assert [who for who, *_ in api_asked(stage)] == ["work", "home", "home"]
        unknown = {**BODY, "previous_response_id": "resp_nobody"}
        answer = await call(stage, "POST", "/v1/responses/compact", unknown)
        assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert [who for who, *_ in api_asked(stage)][3:] == ["work", "home", "spare"]

    run(test, tmp_path)


def test_files_of_a_conversation_must_lie_where_it_does(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.turn()  # so that the next upload goes elsewhere
        made = await upload(stage)
        file, owner = made.json["id"], account(made)
        items = {"items": naming(file)}
        talk = await call(stage, "POST", "/v1/conversations", items)
        assert (talk.status, account(talk)) == (200, owner)
        other = await conversation(stage, "spare" if owner != "spare" else "work")
        refused = await call(stage, "POST", f"/v1/conversations/{other}/items", items)
        assert (refused.status, refused.error["code"]) == (400, "continuity_owner_conflict")

    run(test, tmp_path)


def test_a_compacted_session_stays_with_its_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.turn()
        body = json.dumps(BODY).encode()
        made = await stage.post(body, headers=session("s"), path="/v1/responses/compact")
        home = account(made)
        assert made.json["object"] == "response.compaction"
        assert rows(stage, "session")["s"] == home
        for _ in range(2):
            await stage.turn()
        turn = await stage.turn(headers=session("s"), input=made.json["output"])
        assert (turn.status, account(turn)) == (200, home)
        # Counting tokens makes nothing, so it binds nothing.
        await stage.post(body, headers=session("t"), path="/v1/responses/input_tokens")
        assert "t" not in rows(stage, "session")

    run(test, tmp_path)


def test_parallel_calls_of_a_new_session_share_an_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        sent = [
            stage.post(json.dumps(BODY).encode(), headers=session("s"), path=path)
            for path in ("/v1/responses/compact", "/v1/responses/input_tokens")
            for _ in range(3)
        ]
        answers = await asyncio.gather(*sent)
        assert len({account(answer) for answer in answers}) == 1

    run(test, tmp_path)


def test_only_what_it_should_reaches_the_upstream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        body = gzip.compress(json.dumps({**BODY, "unknown": 1.0}).encode())
        more = [("Content-Encoding", "gzip"), *session("s")]
        answer = await stage.post(
            body, headers=[*CLIENT_LINES, *more], path="/v1/responses/compact"
        )
        assert answer.status == 200, answer.body
        [sent] = stage.mock.api_requests
        assert json.loads(sent.body) == {**BODY, "unknown": 1.0}
        assert sorted(name.lower() for name, _ in sent.headers) == [
            "accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
            "openai-beta", "session-id", "user-agent", "x-client-request-id",
        ]  # fmt: skip
        lines = {name.lower(): value for name, value in sent.headers}
        assert lines["authorization"] == "Bearer sk-test-work"
        assert lines["openai-beta"] == "assistants=v2"
        assert lines["session-id"] == "s"
        assert "LEAK" not in repr(sent.headers) + repr(stage.lines)

    run(test, tmp_path)


BAD_BODIES: dict[str, tuple[bytes, list[tuple[str, str]], str]] = {
    "no JSON": (b'{"model":', [], "invalid_request"),
    "no object": (b"[1]", [], "invalid_request"),
    "a wrong type": (b'{"previous_response_id": 5}', [], "invalid_request"),
    "an unknown coding": (b"{}", [("Content-Encoding", "br")], "invalid_request"),
    "too large": (b"{" + b" " * 2000 + b"}", [], "request_too_large"),
    "too large when decoded": (
        gzip.compress(b"{" + b" " * 2000 + b"}"),
        [("Content-Encoding", "gzip")],
        "request_too_large",
    ),
    "a bad header": (b"{}", [("x-note", "a\x01b")], "invalid_header"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bodies_that_are_sent_to_nobody(tmp_path: Path, case: str) -> None:
    body, headers, code = BAD_BODIES[case]

    async def test(stage: Stage) -> None:
        for path in (
            "/v1/responses/input_tokens",
            "/v1/responses/compact",
            "/v1/conversations",
            "/v1/conversations/conv_1",
            "/v1/conversations/conv_1/items",
        ):
            answer = await stage.post(body, headers=headers, path=path)
            assert (answer.status, answer.error["code"]) == (400, code)
            assert answer.header("x-request-id") or code == "invalid_header"
        assert api_asked(stage) == []

    run(test, tmp_path, more="[limits]\nrequest_bytes = 1000\n")


@pytest.mark.parametrize("name", ["..", "a%2Fb", "a%3Fb", "%20", "a" * 300])
def test_what_is_no_id(tmp_path: Path, name: str) -> None:
    async def test(stage: Stage) -> None:
        for path in (f"/v1/responses/{name}/cancel", f"/v1/conversations/{name}/items"):
            answer = await call(stage, "POST", path, {})
            assert answer.status in (400, 404)
            assert answer.error["code"] in ("not_found", "invalid_request")
        assert api_asked(stage) == []

    run(test, tmp_path)
