"""openai-python through `codexlb serve`: what is stored, background responses, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.running import KEYS, ServingGateway, serving

openai = pytest.importorskip("openai", reason="needs openai-python: make test-clients")

pytestmark = [pytest.mark.clients, pytest.mark.timeout(60)]

CLIENT_KEY = "sk-client-LEAK"
SLOW = "mock-slow-one"


@pytest.fixture
def mock() -> Iterator[RunningMock]:
    script = Script((TurnRule(model=SLOW, delta_delay=30),))
    with running_mock(script=script, accounts=KEYS, strict=True) as running:
        yield running
        assert CLIENT_KEY not in repr([r.headers for r in running.upstream.api_requests])


@pytest.fixture
def gateway(mock: RunningMock, tmp_path: Path) -> Iterator[ServingGateway]:
    with serving(tmp_path, mock.base_url) as running:
        yield running
    assert CLIENT_KEY not in running.log


@pytest.fixture
def client(gateway: ServingGateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=CLIENT_KEY, max_retries=0) as connected:
        yield connected


def test_a_stored_response(client: Any) -> None:
    made = client.responses.create(model="mock", input="remember me")
    assert client.responses.retrieve(made.id).output_text == "You said: remember me"
    [item] = client.responses.input_items.list(made.id)
    assert item.content[0].text == "remember me"
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.retrieve(made.id)
    assert gone.value.body["message"] == f"Response with id '{made.id}' not found."


def test_a_background_response(client: Any, mock: RunningMock) -> None:
    raw = client.responses.with_raw_response.create(model="mock", input="later", background=True)
    assert raw.headers["x-codexlb-attempts"] == "1"
    made = raw.parse()
    assert made.status == "queued"
    mock.wait_for(lambda upstream: upstream.turns[0].outcome == "response.completed")
    done = client.responses.retrieve(made.id)
    assert (done.status, done.output_text) == ("completed", "You said: later")


def test_a_background_stream_that_is_left_and_taken_up_again(client: Any) -> None:
    seen = []
    with client.responses.create(
        model="mock", input="one two three", background=True, stream=True
    ) as stream:
        for event in stream:
            seen.append(event)
            if len(seen) == 4:
                break
    name = seen[0].response.id
    last = seen[-1].sequence_number
    rest = list(client.responses.retrieve(name, stream=True, starting_after=last))
    events = [*seen, *rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == "You said: one two three"


def test_a_background_response_is_cancelled(client: Any) -> None:
    made = client.responses.create(model=SLOW, input="never", background=True)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


def test_tokens_and_compaction(client: Any) -> None:
    assert client.responses.input_tokens.count(model="mock", input="hello").input_tokens > 0
    session = {"session-id": "s"}
    raw = client.responses.with_raw_response.compact(
        model="mock", input="hello", extra_headers=session
    )
    assert raw.parse().object == "response.compaction"
    items = raw.http_response.json()["output"]
    again = client.responses.create(model="mock", input=items, extra_headers=session)
    assert again.status == "completed"


def test_a_conversation(client: Any) -> None:
    talk = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "first"}], metadata={"a": "1"}
    )
    client.responses.create(model="mock", input="second", conversation=talk.id)
    items = list(client.conversations.items.list(talk.id, order="asc"))
    texts = [item.content[0].text for item in items]
    assert texts == ["first", "second", "You said: second"]
    one = client.conversations.items.retrieve(items[0].id, conversation_id=talk.id)
    assert one.id == items[0].id
    client.conversations.items.create(
        talk.id, items=[{"type": "message", "role": "user", "content": "third"}]
    )
    client.conversations.items.delete(items[0].id, conversation_id=talk.id)
    assert client.conversations.update(talk.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert client.conversations.retrieve(talk.id).metadata == {"b": "2"}
    assert client.conversations.delete(talk.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(talk.id)


def test_what_is_passed_on(client: Any) -> None:
    [made] = client.embeddings.create(model="mock", input="abc").data
    assert made.embedding == [3.0, 0.5, -0.25]
    assert not client.moderations.create(input="hello").results[0].flagged
    store = client.vector_stores.create(name="a")
    assert client.vector_stores.retrieve(store.id).name == "a"
    assert client.vector_stores.delete(store.id).deleted
    with client.audio.speech.with_streaming_response.create(
        model="mock", voice="alloy", input="hi"
    ) as spoken:
        assert b"".join(spoken.iter_bytes()) == b"hi" * 1000
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_1")
    with pytest.raises(openai.InternalServerError) as refused:
        client.realtime.client_secrets.create()
    assert (refused.value.status_code, refused.value.code) == (501, "not_supported")


def test_the_owner_is_found_after_a_restart(mock: RunningMock, tmp_path: Path) -> None:
    ids: list[str] = []
    for _ in range(2):
        with (
            serving(tmp_path, mock.base_url) as gateway,
            openai.OpenAI(base_url=gateway.base_url, api_key=CLIENT_KEY) as client,
        ):
            if not ids:
                ids = [client.responses.create(model="mock", input=t).id for t in "abcd"]
            before = len(mock.upstream.api_requests)
            for name in ids:
                assert client.responses.retrieve(name).id == name
            assert len(mock.upstream.api_requests) == before + len(ids)
    assert len({r.account for r in mock.upstream.api_requests}) == 2
