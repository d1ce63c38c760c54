"""Stored responses and conversations: which calls are taken, and what they name and leave."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import Key, read_evidence
from codexlb_cli.core.frames import Body, InvalidBodyError, parse_body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.stored import (
    BACKGROUND,
    CONVERSATION,
    RESPONSE,
    STORED,
    StoredCall,
    StoredRow,
    is_portable,
    made_key,
    no_such,
    pins,
    read_named,
    read_stored,
    response_within,
)

SESSION: list[Header] = [("session-id", "s")]
IDS = {"id": "x_1", "item_id": "msg_1"}

# method, path; the source of its key, whether it is located, binds its session, may be repeated
PATHS = {
    ("POST", "/responses/input_tokens"): (None, False, False, True),
    ("POST", "/responses/compact"): (None, False, True, False),
    ("GET", "/responses/x_1"): (RESPONSE, False, False, True),
    ("DELETE", "/responses/x_1"): (RESPONSE, True, False, True),
    ("POST", "/responses/x_1/cancel"): (RESPONSE, True, False, True),
    ("GET", "/responses/x_1/input_items"): (RESPONSE, False, False, True),
    ("POST", "/conversations"): (None, False, True, False),
    ("GET", "/conversations/x_1"): (CONVERSATION, False, False, True),
    ("POST", "/conversations/x_1"): (CONVERSATION, True, False, True),
    ("DELETE", "/conversations/x_1"): (CONVERSATION, True, False, True),
    ("GET", "/conversations/x_1/items"): (CONVERSATION, False, False, True),
    ("POST", "/conversations/x_1/items"): (CONVERSATION, True, False, False),
    ("GET", "/conversations/x_1/items/msg_1"): (CONVERSATION, False, False, True),
    ("DELETE", "/conversations/x_1/items/msg_1"): (CONVERSATION, True, False, True),
}


def row_of(method: str, path: str) -> StoredRow:
    return next(row for row in STORED if (row.method, row.path) == (method, path))


def read(row: StoredRow, query: str = "") -> StoredCall:
    names = {name: value for name, value in IDS.items() if f"{{{name}}}" in row.path}
    call = read_stored(row, names, query)
    assert call is not None
    return call


def test_every_call_keeps_its_method_and_path() -> None:
    made = {}
    for row in STORED:
        call = read(row)
        source = call.key.source if call.key else None
        assert call.key is None or call.key.value == "x_1"
        made[call.method, call.path] = (source, call.locates, row.binds, call.repeatable)
        assert call.takes_body is (row.method == "POST")
    assert made == PATHS


def test_what_is_located_is_read_first() -> None:
    for row in STORED:
        call = read(row)
        if call.locates:
            assert call.looks.method == "GET"
            assert call.looks.path == "/" + call.path.split("/")[1] + "/x_1"
            assert (call.looks.takes_body, call.looks.key) == (False, call.key)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a b", "x" * 257])
def test_what_is_no_id(name: str) -> None:
    row = row_of("GET", "/conversations/{id}/items/{item_id}")
    assert read_stored(row, {"id": name, "item_id": "msg_1"}) is None
    assert read_stored(row, {"id": "conv_1", "item_id": name}) is None


@pytest.mark.parametrize(
    ("query", "works"), [("", False), ("stream=true&starting_after=3", True), ("stream=1", False)]
)
def test_a_stream_may_be_silent_for_long(query: str, *, works: bool) -> None:
    assert read(row_of("GET", "/responses/{id}"), query).works is works


def named(call: StoredCall, body: dict[str, Any], headers: list[Header] = SESSION) -> list[Key]:
    data = json.dumps(body).encode()
    return list(read_named(call, headers, data).evidence.keys)


FILES = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]


def test_what_a_body_names_comes_before_the_session() -> None:
    call = read(row_of("POST", "/responses/compact"))
    assert named(call, {"previous_response_id": "resp_1", "input": FILES}) == [
        Key(RESPONSE, "resp_1"),
        Key("file", "file-1"),
        Key("session", "s"),
    ]
    assert named(read(row_of("POST", "/conversations")), {"items": FILES}) == [
        Key("file", "file-1"),
        Key("session", "s"),
    ]


def test_where_the_path_names_something_the_session_says_nothing() -> None:
    call = read(row_of("POST", "/conversations/{id}/items"))
    assert named(call, {"items": FILES, "prompt_cache_key": "k"}) == [
        Key(CONVERSATION, "x_1"),
        Key("file", "file-1"),
    ]
    assert read_named(call, SESSION, b"").evidence.keys == (Key(CONVERSATION, "x_1"),)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"conversation": 5}', b"\xff"])
def test_bodies_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(InvalidBodyError):
        read_named(read(row_of("POST", "/responses/compact")), [], data)


@pytest.mark.parametrize(
    ("body", "portable"),
    [
        ({"input": "x"}, True),
        ({"conversation": "c"}, False),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, False),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, False),
        ({"input": [{"type": "reasoning", "encrypted_content": None}]}, True),
    ],
)
def test_what_may_move_with_its_session(body: dict[str, Any], *, portable: bool) -> None:
    parsed = parse_body(json.dumps(body).encode())
    assert is_portable(read_evidence(SESSION, parsed), parsed) is portable


def pinned(method: str, path: str, body: dict[str, Any], document: object) -> set[str]:
    call = read(row_of(method, path))
    found = read_named(call, SESSION, json.dumps(body).encode())
    return {f"{key.source} {key.value}" for key in pins(call, found.evidence, document)}


@pytest.mark.parametrize(
    ("method", "path", "body", "document", "expected"),
    [
        ("GET", "/responses/{id}", {}, None, {"previous_response x_1"}),
        ("POST", "/responses/{id}/cancel", {}, None, {"previous_response x_1"}),
        ("DELETE", "/responses/{id}", {}, None, set()),
        ("DELETE", "/conversations/{id}", {}, None, set()),
        ("DELETE", "/conversations/{id}/items/{item_id}", {}, None, {"conversation x_1"}),
        ("POST", "/conversations", {}, {"id": "conv_2"}, {"session s", "conversation conv_2"}),
        ("POST", "/conversations", {}, {"id": "a/b"}, {"session s"}),
        ("POST", "/conversations", {}, [], {"session s"}),
        ("POST", "/responses/compact", {"prompt_cache_key": "k"}, None, {"session s"}),
        ("POST", "/responses/input_tokens", {"conversation": "c"}, None, {"conversation c"}),
        ("POST", "/responses/input_tokens", {}, None, set()),
    ],
)
def test_what_is_remembered(
    method: str, path: str, body: dict[str, Any], document: object, expected: set[str]
) -> None:
    assert pinned(method, path, body, document) == expected


def test_what_a_background_response_leaves() -> None:
    evidence = read_evidence(SESSION, Body({}))
    kept = pins(StoredCall(BACKGROUND), evidence, {"id": "resp_1"})
    assert set(kept) == {Key("session", "s"), Key(RESPONSE, "resp_1")}
    assert made_key(BACKGROUND, None) is None
    assert StoredCall(BACKGROUND).path == "/responses"


@given(st.text() | st.sampled_from(['{"response": {"id": "r"}}', '{"response": 5}', "[" * 9999]))
def test_what_an_event_tells_of(event: str) -> None:
    found = response_within(event)
    assert found is None or json.loads(event)["response"] == found


def test_what_nobody_stores() -> None:
    error = no_such(read(row_of("GET", "/responses/{id}")))
    assert (error.status, error.code) == (404, "not_found")
    assert error.message == "Response with id 'x_1' not found."
