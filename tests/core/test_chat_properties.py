"""Every well-formed chat body becomes a body that the upstream takes, and no body is a bug."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.chat_request import CHAT_MEMBERS
from codexlb_cli.core.frames import InvalidBodyError, create_frame
from codexlb_cli.core.requests import read_request
from codexlb_cli.mock_upstream.requests import parse_request

words = st.text(max_size=6)
names = st.sampled_from(["weather", "search", "run"])


def part(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


text_parts = part("text", text=words)
input_parts = st.one_of(
    text_parts,
    part("image_url", image_url=st.fixed_dictionaries({"url": words}, optional={"detail": words})),
    part("file", file=st.fixed_dictionaries({}, optional={"file_id": words, "filename": words})),
)
schemas = st.dictionaries(words, st.integers() | words, max_size=3)
functions = st.fixed_dictionaries(
    {"name": names},
    optional={"description": words, "parameters": schemas, "strict": st.none() | st.booleans()},
)
formats = st.fixed_dictionaries({"name": names, "schema": schemas})
tools = st.one_of(
    part("function", function=functions),
    part("custom", custom=st.fixed_dictionaries({"name": names}, optional={"description": words})),
)


def content(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return words | st.lists(parts, min_size=1, max_size=3)


def said(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"role": st.just(role), "content": content(parts)})


@st.composite
def call_rounds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An assistant's calls, and what came of each."""
    calls, outputs = [], []
    for number in range(draw(st.integers(1, 3))):
        call_id = f"call_{draw(st.integers(0, 10**6))}_{number}"
        name, argument = draw(names), draw(words)
        if draw(st.booleans()):
            inner: dict[str, Any] = {"function": {"name": name, "arguments": argument}}
        else:
            inner = {"custom": {"name": name, "input": argument}}
        calls.append({"id": call_id, "type": next(iter(inner)), **inner})
        output = draw(content(text_parts))
        outputs.append({"role": "tool", "tool_call_id": call_id, "content": output})
    told = draw(st.none() | words)
    return [{"role": "assistant", "content": told, "tool_calls": calls}, *outputs]


rounds = st.one_of(
    said("system", text_parts).map(lambda message: [message]),
    said("developer", text_parts).map(lambda message: [message]),
    said("user", input_parts).map(lambda message: [message]),
    said("assistant", text_parts).map(lambda message: [message]),
    call_rounds(),
)
bodies = st.fixed_dictionaries(
    {
        "model": st.just("mock"),
        "messages": st.lists(rounds, min_size=1, max_size=4).map(lambda found: list(chain(*found))),
    },
    optional={
        "tools": st.lists(tools, max_size=3),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}])
        | part("json_schema", json_schema=formats),
        "reasoning_effort": st.sampled_from([None, "none", "low", "high"]),
        "verbosity": st.sampled_from([None, "low"]),
        "max_completion_tokens": st.none() | st.integers(1, 10**6),
        "temperature": st.floats(0, 2),
        "logprobs": st.booleans(),
        "store": st.none() | st.booleans(),
        "stream": st.booleans(),
        "metadata": st.dictionaries(words, words, max_size=2),
        "n": st.sampled_from([None, 1]),
        "stop": st.none(),
        "seed": st.integers(),
        "prompt_cache_key": words,
    },
)


@given(bodies)
def test_what_is_well_formed_is_taken_upstream(chat: dict[str, Any]) -> None:
    asked = read_request([], json.dumps(chat).encode(), chat=True)
    frame = json.loads(create_frame(asked.body, {}))
    request = parse_request(frame, 0)
    assert request.stored is bool(chat.get("store"))
    assert asked.stream is chat.get("stream", False)
    assert {name: member.value for name, member in asked.body.members.items()} == {
        name: json.loads(member.raw) for name, member in asked.body.members.items()
    }
    assert [tool["name"] for tool in request.tool_definitions()] == [
        tool[tool["type"]]["name"] for tool in chat.get("tools", [])
    ]


@given(bodies)
def test_nothing_that_was_said_is_lost(chat: dict[str, Any]) -> None:
    asked = read_request([], json.dumps(chat).encode(), chat=True)
    items = asked.body.get("input")
    assert _texts(items) == _texts(chat["messages"])
    for kind in ("function_call", "custom_tool_call"):
        made = [item for item in items if item["type"] == kind]
        answered = [item for item in items if item["type"] == f"{kind}_output"]
        assert [item["call_id"] for item in made] == [item["call_id"] for item in answered]


def _texts(value: object) -> list[str]:
    """All that was said or written, in order, whatever the members are called."""
    if isinstance(value, list):
        return [text for element in value for text in _texts(element)]
    if not isinstance(value, dict):
        return []
    found: list[str] = []
    for name in _WRITTEN:
        inner = value.get(name)
        found += [inner] if isinstance(inner, str) and inner else _texts(inner)
    return found


_WRITTEN = (
    "content", "output", "text", "arguments", "input", "tool_calls", "function", "custom",
)  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "function", "name", "tool_calls"]),
        inner | st.sampled_from(["user", "assistant", "tool", "function", "text"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([name for rule in CHAT_MEMBERS for name in rule.names]),
        anything,
        max_size=6,
    ),
    bodies,
)
def test_no_body_is_a_bug(odd: dict[str, Any], chat: dict[str, Any]) -> None:
    try:
        asked = read_request([], json.dumps({**chat, **odd}).encode(), chat=True)
    except InvalidBodyError as exc:
        assert exc.code == "invalid_request"  # noqa: PT017 - most are refused, some are not
        assert (exc.param or "model").split(".")[0].split("[")[0] in {**chat, **odd}  # noqa: PT017
    else:
        create_frame(asked.body, {}).encode()
