from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.mock_upstream.answers import compose
from codexlb_cli.mock_upstream.requests import parse_request
from codexlb_cli.mock_upstream.rules import TurnRule

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer"},
            "why": {"type": "string"},
        },
        "required": ["city", "unit", "days", "undescribed"],
    },
}
EXEC_COMMAND = {"type": "function", "name": "exec_command", "parameters": {}}
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi there"}]}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "42"}


def text_of(rule: TurnRule, **fields: object) -> list[str]:
    return list(compose(parse_request({"model": "mock", **fields}, 0), rule).pieces)


def call_of(rule: TurnRule, **fields: object) -> tuple[str, object] | None:
    calls = compose(parse_request({"model": "mock", **fields}, 0), rule).calls
    assert len(calls) <= 1
    return (calls[0].name, json.loads(calls[0].arguments)) if calls else None


@pytest.mark.parametrize("value", ["Hi there", [USER], [{"role": "user", "content": "Hi there"}]])
def test_the_answer_echoes_the_input(value: object) -> None:
    assert text_of(TurnRule(), input=value) == ["You ", "said: ", "Hi ", "there"]


@given(text=st.text(), deltas=st.integers(1, 50))
def test_a_number_of_deltas_is_kept(text: str, deltas: int) -> None:
    pieces = text_of(TurnRule(text=text, deltas=deltas))
    assert len(pieces) == deltas
    assert "".join(pieces).startswith(text.rstrip())


@given(text=st.text())
def test_no_text_is_lost_between_deltas(text: str) -> None:
    assert "".join(text_of(TurnRule(text=text))) == text


def test_the_length_of_deltas() -> None:
    assert [len(piece) for piece in text_of(TurnRule(deltas=3, delta_bytes=100))] == [100] * 3


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ([], None),
        ([{"type": "web_search"}, "nonsense", {"type": "function", "name": 7}], None),
        ([WEATHER, EXEC_COMMAND], ("exec_command", {"cmd": "echo hello-from-tool"})),
        (
            [
                {
                    "type": "namespace",
                    "name": "functions",
                    "tools": [{"type": "custom", "name": "exec"}],
                }
            ],
            ("exec_command", {"cmd": "echo hello-from-tool"}),
        ),
        (
            [{"type": "function", "name": "shell"}],
            ("shell", {"command": ["echo", "hello-from-tool"]}),
        ),
        ([WEATHER], ("weather", {"city": "mock", "unit": "C", "days": 1, "undescribed": "mock"})),
        ([{"type": "function", "name": "bare"}], ("bare", {})),
    ],
)
def test_the_tool_that_is_called(tools: list[Any], call: tuple[str, object] | None) -> None:
    assert call_of(TurnRule(tool=True), input="x", tools=tools) == call
    items = [{"type": "additional_tools", "role": "developer", "tools": tools}, USER]
    assert call_of(TurnRule(tool=True), input=items) == call


def test_a_named_tool_with_its_arguments() -> None:
    rule = TurnRule(tool="weather", arguments='{"city": "Rome"}')
    assert call_of(rule, tools=[EXEC_COMMAND, WEATHER]) == ("weather", {"city": "Rome"})
    assert call_of(rule, tools=[EXEC_COMMAND]) is None


@pytest.mark.parametrize(
    ("items", "calls"),
    [([USER], True), ([OUTPUT], False), ([USER, OUTPUT], False), ([USER, OUTPUT, USER], True)],
)
def test_a_tool_is_called_once_for_each_message(items: list[Any], calls: bool) -> None:
    called = call_of(TurnRule(tool=True), input=items, tools=[EXEC_COMMAND])
    assert (called is not None) is calls


def test_a_warm_up_has_an_empty_answer() -> None:
    answer = compose(parse_request({"model": "mock", "generate": False}, 0), TurnRule(tool=True))
    assert answer.empty
