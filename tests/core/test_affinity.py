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
    KeyRecord,
    anchor_lost,
    keeps_soft_owner,
    owner_after,
    read_evidence,
    session_key,
    unreadable_reasoning,
)
from codexlb_cli.core.frames import Body, InvalidBodyError, parse_body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.reconnect import Strength
from tests.core.header_table import SESSION_ROW
from tests.core.pools import NOW, pool


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
    assert evidence.keys[0] == key
    assert evidence.keys[0].strength is strength


def test_every_key_is_told_strongest_first() -> None:
    evidence = read(SESSION, STATE, prompt_cache_key="c", previous_response_id="r")
    assert [k.source for k in evidence.keys] == [
        "previous_response", "session", "turn_state", "prompt_cache",
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


# --- what a key remembers --------------------------------------------------------------------


def test_a_key_that_gave_up_gets_no_replay_for_thirty_seconds() -> None:
    assert KeyRecord().may_replay(NOW)
    record = KeyRecord("work", bound=True).failed(NOW)
    assert [record.may_replay(NOW + s) for s in (0, 29.9, 30, 31)] == [False, False, True, True]
    assert record.owner == "work"
    assert record.bound
    again = record.failed(NOW + 40)
    assert not again.may_replay(NOW + 69)
    assert again.may_replay(NOW + 70)


def test_three_failed_turns_over_a_minute_are_the_owners_failure() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 30):
        record = record.failed(NOW + second)
        assert not record.owner_keeps_failing
    record = record.failed(NOW + 60)
    assert record.owner_keeps_failing
    assert record.failures == 3


def test_three_quick_failures_are_not() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 1, 2):
        record = record.failed(NOW + second)
    assert not record.owner_keeps_failing


def test_a_completed_turn_forgets_failures() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 40, 80):
        record = record.failed(NOW + second)
    done = record.completed("home")
    assert done == KeyRecord("home", bound=True)
    assert done.may_replay(NOW + 80)
    assert not done.failed(NOW + 200).owner_keeps_failing


@pytest.mark.parametrize(
    ("state", "keeps"),
    [
        ("ready", True), ("cooling", True), ("back_soon", True), ("limited", True),
        ("limited_for_long", False), ("needs_login", False), ("disabled", False),
    ],
)  # fmt: skip
def test_what_holds_for_one_request_never_rewrites_a_soft_row(state: str, keeps: bool) -> None:
    standing = pool("work", work=state).standing_of("work")
    assert keeps_soft_owner(standing, NOW) is keeps
    assert not keeps_soft_owner(None, NOW)


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


@pytest.mark.parametrize(
    ("members", "on_socket", "live", "owner_known", "lost"),
    [
        ({}, False, False, False, False),
        ({"previous_response_id": "r"}, True, True, False, False),
        ({"previous_response_id": "r"}, True, False, False, True),
        ({"previous_response_id": "r", "store": False}, True, False, False, True),
        ({"previous_response_id": "r", "store": False}, False, False, True, False),
        ({"previous_response_id": "r", "store": False}, False, False, False, True),
        ({"previous_response_id": "r"}, False, False, False, False),
    ],
)
def test_when_the_response_that_a_turn_continues_is_lost(
    members: dict[str, Any], on_socket: bool, live: bool, owner_known: bool, lost: bool
) -> None:
    evidence = read(**members)
    assert anchor_lost(evidence, on_socket=on_socket, live=live, owner_known=owner_known) is lost


def test_items_may_be_nested_as_deep_as_json_may() -> None:
    deep = '{"content":[' * 400 + '{"file_id":"f"}' + "]}" * 400
    assert not read_evidence([], parse_body(f'{{"input":[{deep}]}}'.encode())).portable


@pytest.mark.parametrize(
    ("source", "bound", "state", "owner"),
    [
        ("session", True, "ready", "home"),
        ("prompt_cache", False, "ready", "home"),
        ("prompt_cache", True, "ready", "work"),
        ("prompt_cache", True, "disabled", "home"),
    ],
)
def test_who_owns_a_key_after_another_account_completed_a_turn(
    source: str, bound: bool, state: str, owner: str
) -> None:
    known = pool("work", "home", work=state).standing_of("work")
    record = KeyRecord("work", bound=bound)
    assert owner_after(Key(source, "k"), record, "home", known, NOW) == owner
    assert owner_after(Key(source, "k"), record, "home", None, NOW) == "home"
