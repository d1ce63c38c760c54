"""What the mock stores: responses, conversations; and its endpoints that store nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import httpx2
import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import http_client, open_socket, run
from tests.support.client import parse_events

BODY = {"model": "mock", "input": "hello"}


async def post(
    client: httpx2.AsyncClient, mock: MockUpstream, path: str, **members: Any
) -> httpx2.Response:
    return await client.post(f"{mock.base_url}{path}", json=members)


async def get(client: httpx2.AsyncClient, mock: MockUpstream, path: str) -> Any:
    return (await client.get(f"{mock.base_url}{path}")).json()


def test_a_response_is_stored_with_its_input_for_its_account_alone() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            items = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
            made = (await post(work, mock, "/responses", **{**BODY, "input": items})).json()
            path = f"/responses/{made['id']}"
            assert await get(work, mock, path) == made
            listed = await get(work, mock, f"{path}/input_items?order=asc")
            told = [(i["role"], i["content"][0]["type"]) for i in listed["data"]]
            assert told == [("user", "input_text"), ("assistant", "output_text")]
            newest = await get(work, mock, f"{path}/input_items?limit=1")
            assert (newest["data"][0]["role"], newest["has_more"]) == ("assistant", True)
            last = await get(work, mock, f"{path}/input_items?after={newest['last_id']}")
            assert (last["data"][0]["role"], last["has_more"]) == ("user", False)
            for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
                answer = await home.request(method, f"{mock.base_url}{path}{tail}")
                assert answer.status_code == 404
            gone = await work.delete(f"{mock.base_url}{path}")
            assert gone.json() == {"id": made["id"], "object": "response", "deleted": True}
            missing = await get(work, mock, path)
            assert missing["error"]["message"] == f"Response with id '{made['id']}' not found."
            chained = await post(work, mock, "/responses", previous_response_id=made["id"], **BODY)
            assert chained.json()["error"]["code"] == "previous_response_not_found"

    run(test)


def test_of_a_large_response_only_the_id_is_kept() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            made = (await post(client, mock, "/responses", **BODY)).json()["id"]
            answer = await client.get(f"{mock.base_url}/responses/{made}")
            assert answer.status_code == 404
            chained = await post(client, mock, "/responses", previous_response_id=made, **BODY)
            assert chained.status_code == 200

    run(test, TurnRule(completed_bytes=2**21))


def test_what_a_socket_made_is_stored_unless_it_says_otherwise() -> None:
    async def test(mock: MockUpstream) -> None:
        async with open_socket(mock) as socket, http_client() as client:
            for store, status in ((True, 200), (False, 404)):
                done = (await socket.turn(store=store))[-1]["response"]
                answer = await client.get(f"{mock.base_url}/responses/{done['id']}")
                assert answer.status_code == status
                if store:
                    assert answer.json() == done

    run(test)


def test_a_background_response_goes_through_its_states() -> None:
    states: list[str] = []

    async def sleep(_seconds: float) -> None:
        async with http_client() as client:
            name = mocks[0].turns[0].response_id
            states.append((await get(client, mocks[0], f"/responses/{name}"))["status"])

    mocks: list[MockUpstream] = []

    async def test(mock: MockUpstream) -> None:
        mocks.append(mock)
        async with http_client() as client:
            made = (await post(client, mock, "/responses", background=True, **BODY)).json()
            assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
            await mock.wait_for(lambda mock: mock.turns[0].outcome == "response.completed")
            found = await get(client, mock, f"/responses/{made['id']}")
            assert (found["status"], found["background"]) == ("completed", True)
            assert found["output"][0]["content"][0]["text"] == "You said: hello"
        assert states[0] == "queued"
        assert set(states[1:]) == {"in_progress"}

    run(test, TurnRule(delay=1, delta_delay=1), sleep=sleep)


def test_its_events_are_followed_from_any_on() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            body = {"background": True, "stream": True, **BODY}
            whole = await client.post(f"{mock.base_url}/responses", json=body)
            events = [event.data for event in parse_events(whole.content)]
            kinds = [event["type"] for event in events]
            assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
            assert kinds[-1] == "response.completed"
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            path = f"{mock.base_url}/responses/{events[0]['response']['id']}"
            rest = await client.get(f"{path}?stream=true&starting_after=4")
            assert [event.data for event in parse_events(rest.content)] == events[5:]
            bad = await client.get(f"{path}?stream=true&starting_after=x")
            assert bad.status_code == 400
            plain = (await post(client, mock, "/responses", **BODY)).json()["id"]
            answer = await client.get(f"{mock.base_url}/responses/{plain}?stream=true")
            assert answer.status_code == 400

    run(test)


def test_a_background_response_is_cancelled() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            made = (await post(client, mock, "/responses", background=True, **BODY)).json()["id"]
            for _ in range(2):
                stopped = await post(client, mock, f"/responses/{made}/cancel")
                assert stopped.json()["status"] == "cancelled"
            events = await client.get(f"{mock.base_url}/responses/{made}?stream=true")
            assert len(parse_events(events.content)) == 2
            plain = (await post(client, mock, "/responses", **BODY)).json()["id"]
            assert (await post(client, mock, f"/responses/{plain}/cancel")).status_code == 400
        assert mock.turns[0].outcome == "cancelled"

    run(test, TurnRule(delay=30, times=1))


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (TurnRule(error=ErrorSpec(status=429, code="rate_limit_exceeded")), None),
        (TurnRule(error=ErrorSpec(status=500), when="streaming", after=1), "failed"),
        (TurnRule(close=1011, when="streaming", after=1), "failed"),
    ],
)
def test_a_background_response_that_goes_wrong(rule: TurnRule, status: str | None) -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            answer = await post(client, mock, "/responses", background=True, **BODY)
            if status is None:
                assert (answer.status_code, mock.api_requests[0].status) == (429, 429)
                return
            await mock.wait_for(lambda mock: mock.turns[0].outcome is not None)
            path = f"/responses/{answer.json()['id']}"
            async with asyncio.timeout(5):
                await client.get(f"{mock.base_url}{path}?stream=true")
            assert (await get(client, mock, path))["status"] == status

    run(test, rule)


def test_a_conversation_takes_up_what_is_said() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            items = [{"type": "message", "role": "user", "content": "first"}]
            made = await post(work, mock, "/conversations", items=items, metadata={"a": "1"})
            talk = made.json()
            assert (talk["object"], talk["metadata"]) == ("conversation", {"a": "1"})
            path = f"/conversations/{talk['id']}"
            async with open_socket(mock) as socket:
                done = (await socket.turn(conversation=talk["id"], input="second"))[-1]
            assert done["response"]["conversation"] == {"id": talk["id"]}
            body = {"conversation": {"id": talk["id"]}, "background": True}
            await post(work, mock, "/responses", **{**BODY, **body})
            await mock.wait_for(lambda mock: mock.turns[-1].outcome == "response.completed")
            listed = await get(work, mock, f"{path}/items?order=asc")
            texts = [item["content"][0]["text"] for item in listed["data"]]
            assert texts == [
                "first", "second", "You said: second", "hello", "You said: hello",
            ]  # fmt: skip
            ids = [item["id"] for item in listed["data"]]
            assert len(set(ids)) == 5
            assert (await get(work, mock, f"{path}/items/{ids[0]}"))["id"] == ids[0]
            left = await work.delete(f"{mock.base_url}{path}/items/{ids[0]}")
            assert left.json()["id"] == talk["id"]
            assert (await work.get(f"{mock.base_url}{path}/items/{ids[0]}")).status_code == 404
            for method in ("GET", "POST", "DELETE"):
                answer = await home.request(method, f"{mock.base_url}{path}", json={})
                assert answer.status_code == 404
            foreign = await post(home, mock, "/responses", conversation=talk["id"], **BODY)
            assert foreign.status_code == 404
            assert (await work.delete(f"{mock.base_url}{path}")).json()["deleted"] is True
            gone = await post(work, mock, "/responses", conversation=talk["id"], **BODY)
            assert gone.json()["error"]["message"].startswith("Conversation with id")
            elsewhere = await post(work, mock, "/responses", conversation="conv_other", **BODY)
            assert elsewhere.status_code == 200

    run(test)


def test_tokens_are_counted_and_windows_compacted() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            counted = (await post(work, mock, "/responses/input_tokens", **BODY)).json()
            assert counted["object"] == "response.input_tokens"
            assert counted["input_tokens"] > 0
            compacted = (await post(work, mock, "/responses/compact", **BODY)).json()
            assert compacted["object"] == "response.compaction"
            user, blob = compacted["output"]
            assert (user["role"], blob["type"]) == ("user", "compaction")
            window = {"model": "mock", "input": compacted["output"]}
            assert (await post(work, mock, "/responses", **window)).status_code == 200
            refused = await post(home, mock, "/responses", **window)
            assert refused.json()["error"]["code"] == "invalid_encrypted_content"
            refused = await post(home, mock, "/responses/compact", **window)
            assert refused.json()["error"]["code"] == "invalid_encrypted_content"

    run(test)


def test_endpoints_that_store_no_response() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            plain = (await post(work, mock, "/embeddings", model="m", input="abc")).json()
            packed = await post(
                work, mock, "/embeddings", model="m", input=["abc"], encoding_format="base64"
            )
            raw = base64.b64decode(packed.json()["data"][0]["embedding"])
            assert list(struct.unpack("<3f", raw)) == plain["data"][0]["embedding"]
            judged = (await post(work, mock, "/moderations", input=["a", "b"])).json()
            assert [result["flagged"] for result in judged["results"]] == [False, False]
            store = (await post(work, mock, "/vector_stores", name="a")).json()["id"]
            assert len((await get(work, mock, "/vector_stores"))["data"]) == 1
            assert (await get(home, mock, "/vector_stores"))["data"] == []
            url = f"{mock.base_url}/vector_stores/{store}"
            assert (await home.get(url)).status_code == 404
            head = await work.head(url)
            assert (head.status_code, head.content) == (200, b"")
            assert (await work.delete(url)).json()["deleted"] is True
            spoken = await post(work, mock, "/audio/speech", input="hi")
            assert spoken.headers["content-type"] == "audio/mpeg"
            assert (await get(work, mock, "/embeddings"))["error"]["type"]
        async with http_client("nobody") as nobody:
            refused = await post(nobody, mock, "/embeddings", model="m", input="a")
            assert refused.json()["error"]["code"] == "invalid_api_key"

    run(test)


def test_what_was_received_is_recorded() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            await post(client, mock, "/embeddings?x=1", model="m", input="a")
            await get(client, mock, "/responses/resp_x")
        told = [(r.account, r.method, r.target, r.status) for r in mock.api_requests]
        assert told == [
            ("work", "POST", "/v1/embeddings?x=1", 200),
            ("work", "GET", "/v1/responses/resp_x", 404),
        ]
        assert json.loads(mock.api_requests[0].body) == {"model": "m", "input": "a"}

    run(test)


@pytest.mark.parametrize(
    ("path", "members", "param"),
    [
        ("/conversations", {"items": 5}, "items"),
        ("/responses/compact", {"input": "x"}, "model"),
        ("/responses", {"model": "m", "conversation": 5}, "conversation"),
    ],
)
def test_malformed_calls(path: str, members: dict[str, Any], param: str) -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            answer = await post(client, mock, path, **members)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    run(test)
