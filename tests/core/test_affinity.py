"""Which conversation a turn belongs to, whether it may move, and what its key remembers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import (
    UNKEYED,
    Evidence,
    Key,
    read_evidence,
    session_key,
    unreadable_reasoning,
)
from codexlb_cli.core.frames import Body, InvalidBodyError, parse_body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.ownership import NEW, resolve
from codexlb_cli.core.reconnect import Strength
from tests.core.header_table import SESSION_ROW


def body(**members: Any) -> Body:
    return parse_body(json.dumps(members).encode())


def read(*headers: Header, **members: Any) -> Evidence:
    return read_evidence(headers, body(**members))


SESSION = ("Session-Id", "s1")
STATE = ("x-codex-turn-state", "ts")


@pytest.mark.parametrize(
    ("headers", "members", "key", "strength"),
    [
        ([], {}, Key("none", ""), Strength.NONE),
        ([], {"prompt_cache_key": "c"}, Key("prompt_cache", "c"), Strength.SOFT),
        ([SESSION], {"prompt_cache_key": "c"}, Key("session", "s1"), Strength.HARD),
        (
            [SESSION],
            {"prompt_cache_key": "c", "previous_response_id": "r"},
            Key("previous_response", "r"),
            Strength.HARD,
        ),
        ([("x-client-request-id", "a"), ("thread-id", "t")], {}, Key("none", ""), Strength.NONE),
        ([("session-id", " ")], {"prompt_cache_key": ""}, Key("none", ""), Strength.NONE),
        ([], {"prompt_cache_key": None, "previous_response_id": None}, UNKEYED, Strength.NONE),
    ],
)
def test_the_key_that_decides(
    headers: list[Header], members: dict[str, Any], key: Key, strength: Strength
) -> None:
    evidence = read(*headers, **members)
    assert resolve(evidence, lambda _: NEW).key == key
    assert key.strength is strength


def test_every_key_is_told_strongest_first() -> None:
    evidence = read(SESSION, STATE, prompt_cache_key="c", previous_response_id="r")
    assert [k.source for k in evidence.keys] == [
        "previous_response", "turn_state", "session", "prompt_cache",
    ]  # fmt: skip
    assert [k.strength for k in evidence.keys] == [Strength.HARD] * 3 + [Strength.SOFT]
    assert evidence.turn_state == "ts"
    assert evidence.lane == Key("session", "s1")
    assert read(prompt_cache_key="c", previous_response_id="r").lane == Key("prompt_cache", "c")
    assert read(previous_response_id="r").lane == UNKEYED


@pytest.mark.parametrize("position", range(len(SESSION_ROW)))
def test_the_first_name_of_the_row_names_the_session(position: int) -> None:
    headers = [(name.title(), f"v-{name}") for name in reversed(SESSION_ROW[position:])]
    assert session_key(headers) == f"v-{SESSION_ROW[position]}"


def test_sub_agents_that_share_a_session_have_keys_of_their_own() -> None:
    shared = session_key([SESSION])
    first = session_key([SESSION, ("Thread-Id", "t1")])
    second = session_key([("thread-id", "t2"), SESSION])
    assert len({shared, first, second}) == 3
    assert first == session_key([("THREAD-ID", " t1 "), ("session-id", "s1")])
    assert session_key([("thread-id", "t1")]) is None
    assert session_key([("session-id", ""), ("session_id", "s2")]) == "s2"


@given(*[st.text("ab", max_size=3)] * 4)
def test_session_and_thread_are_never_confused(a: str, b: str, c: str, d: str) -> None:
    one = session_key([("session-id", a), ("thread-id", b)])
    two = session_key([("session-id", c), ("thread-id", d)])
    assert (one == two) == ((a, b) == (c, d) or (a == "" and c == ""))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, None),
        ({"prompt_cache_key": "c"}, "c"),
        ({"conversation": "conv"}, "conv"),
        ({"conversation": {"id": "conv"}}, "conv"),
        ({"prompt_cache_key": "c", "conversation": "conv"}, "c"),
        ({"conversation": None}, None),
        ({"conversation": {}}, None),
    ],
)
def test_what_the_outbound_session_is_made_from(
    members: dict[str, Any], expected: str | None
) -> None:
    assert read(**members).conversation_key == expected


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"previous_response_id": 1}, "previous_response_id"),
        ({"previous_response_id": ["r"]}, "previous_response_id"),
        ({"prompt_cache_key": {}}, "prompt_cache_key"),
        ({"conversation": 5}, "conversation"),
        ({"conversation": {"id": 5}}, "conversation"),
        ({"conversation": ["c"]}, "conversation"),
    ],
)
def test_evidence_of_a_wrong_type_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        read(**members)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("members", "anchored"),
    [
        ({"previous_response_id": "r", "store": False}, True),
        ({"previous_response_id": "r", "store": True}, False),
        ({"previous_response_id": "r"}, False),
        ({"store": False}, False),
        ({"previous_response_id": "", "store": False}, False),
    ],
)
def test_unstored_responses_live_on_the_socket_that_made_them(
    members: dict[str, Any], anchored: bool
) -> None:
    assert read(**members).anchored is anchored


def message(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(content)}


PINNED_INPUT: list[dict[str, Any]] = [
    message({"type": "input_text", "text": "a"}, {"type": "input_file", "file_id": "file-1"}),
    message({"type": "input_image", "file_id": "file-1"}),
    {"type": "item_reference", "id": "msg_1"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "code_interpreter_call", "container_id": "cntr_1"},
    {"type": "computer_call", "call_id": "c"},
    {"type": "computer_call_output", "output": {"type": "computer_screenshot"}},
    {"type": "mcp_approval_response", "approval_request_id": "m"},
    {"type": "function_call_output", "output": [{"type": "input_image", "file_id": "file-1"}]},
    {"type": "custom_tool_call_output", "output": [{"type": "input_file", "file_id": "file-1"}]},
]
FREE_INPUT: list[dict[str, Any]] = [
    message({"type": "input_text", "text": "file_id"}),
    message({"type": "input_image", "image_url": "data:,", "file_id": None}),
    message({"type": "input_file", "file_data": "data:,", "filename": "a"}),
    {"role": "user", "content": "text"},
    {"type": "function_call", "name": "f", "arguments": '{"file_id": "a"}'},
    {"type": "function_call_output", "output": "file_id"},
    {"type": "reasoning", "encrypted_content": "x", "summary": []},
    {"type": "compaction_trigger"},
]
PINNED_TOOLS: list[dict[str, Any]] = [
    {"type": "code_interpreter", "container": "cntr_1"},
    {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}},
    {"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "image_generation", "input_image_mask": {"file_id": "file-1"}},
    {"type": "namespace", "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
]
FREE_TOOLS: list[dict[str, Any]] = [
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "web_search"},
    {
        "type": "function",
        "name": "f",
        "parameters": {"properties": {"file_id": {}, "container": {}}, "required": ["file_id"]},
    },
]


@pytest.mark.parametrize("item", PINNED_INPUT, ids=lambda item: json.dumps(item)[:90])
def test_input_that_lies_in_an_account_is_not_portable(item: dict[str, Any]) -> None:
    assert read(SESSION, input=[*FREE_INPUT, item]).portable is False


def test_input_that_lies_in_the_request_is_portable() -> None:
    assert read(SESSION, input=FREE_INPUT).portable is True
    assert read(SESSION, input="hello").portable is True
    assert read(SESSION).portable is True


@pytest.mark.parametrize("tool", PINNED_TOOLS, ids=json.dumps)
def test_tools_that_name_hosted_state_are_not_portable(tool: dict[str, Any]) -> None:
    assert read(SESSION, tools=[*FREE_TOOLS, tool]).portable is False


def test_tools_without_state_are_portable() -> None:
    assert read(SESSION, tools=FREE_TOOLS).portable is True


@pytest.mark.parametrize(
    "members", [{"previous_response_id": "r"}, {"conversation": "c"}, {"conversation": {"id": "c"}}]
)
def test_chained_turns_are_not_portable(members: dict[str, Any]) -> None:
    assert read(SESSION, **members).portable is False


# --- reasoning -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "home", "unreadable"),
    [
        ("work", "work", ["of-home"]),
        ("home", "work", ["of-work", "unknown"]),
        ("home", "home", ["of-work"]),
        ("spare", None, ["of-work", "of-home"]),
    ],
)
def test_reasoning_is_readable_by_the_account_that_made_it(
    account: str, home: str | None, unreadable: list[str]
) -> None:
    makers = {"of-work": "work", "of-home": "home"}
    digests = ["of-work", "of-home", "unknown"]
    assert unreadable_reasoning(digests, account, made_by=makers.get, home=home) == unreadable


def test_items_may_be_nested_as_deep_as_json_may() -> None:
    deep = '{"content":[' * 400 + '{"file_id":"f"}' + "]}" * 400
    assert not read_evidence([], parse_body(f'{{"input":[{deep}]}}'.encode())).portable
