"""What a turn is answered with: an echo, a scripted text, or a tool call. Pure, no chance."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.rules import TurnRule

_ECHOED_CHARACTERS = 2000
_DEFAULT_DELTAS = 8
_FILLER = "The quick brown fox jumps over the lazy dog. "

# Codex runs `exec_command` also where it lists only the custom tool `exec`.
_COMMAND_TOOLS: dict[str, tuple[str, dict[str, object]]] = {
    "exec_command": ("exec_command", {"cmd": "echo hello-from-tool"}),
    "shell": ("shell", {"command": ["echo", "hello-from-tool"]}),
    "exec": ("exec_command", {"cmd": "echo hello-from-tool"}),
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        name: its name.
        arguments: a function's arguments as JSON text, or a custom tool's input.
        custom: whether the tool is a custom one.
    """

    name: str
    arguments: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the items of a response hold.

    Attributes:
        pieces: the text, one element per delta.
        calls: tool calls, instead of a message.
        refusal: a refusal, instead of the text.
        logprobs: whether every delta has its log probability.
        reasoning: whether a reasoning item comes first.
        empty: no item at all, for a warm-up.
        compaction: a compaction item and nothing else, which stands for what the input held.
    """

    pieces: Sequence[str] = ()
    calls: Sequence[ToolCall] = ()
    refusal: str | None = None
    logprobs: bool = False
    reasoning: bool = False
    empty: bool = False
    compaction: bool = False


def compose(request: TurnRequest, rule: TurnRule) -> Answer:
    """Return the answer to a request under a rule."""
    if request.warm_up:
        return Answer(empty=True)
    if request.compacts():
        return Answer(compaction=True)
    reasoning = rule.reasoning or request.wants_encrypted_reasoning
    if rule.tool and not request.answers_a_tool_call():
        call = _tool_call(request, rule)
        if call is not None:
            return Answer(calls=(call,) * rule.calls, reasoning=reasoning)
    if rule.refusal is not None:
        return Answer(refusal=rule.refusal, reasoning=reasoning)
    if rule.text is not None:
        text = rule.text
    elif request.answers_a_tool_call():
        text = "The tool has answered, so this turn is done."
    elif request.wants_json:
        text = json.dumps(_made_up_value(request.wanted_schema))
    else:
        text = f"You said: {request.last_user_text()[:_ECHOED_CHARACTERS]}"
    pieces = _pieces(text, rule.deltas, rule.delta_bytes)
    return Answer(pieces, reasoning=reasoning, logprobs=request.wants_logprobs)


def _pieces(text: str, count: int | None, length: int | None) -> Sequence[str]:
    if length is not None:
        filler = (_FILLER * (length // len(_FILLER) + 1))[:length]
        return (filler,) * (count or _DEFAULT_DELTAS)
    if count is None:
        return re.findall(r"\s*\S+\s*", text) or [text]
    words = re.findall(r"\s*\S+\s*", text) or [text]
    if len(words) < count:
        return [*words[:-1], words[-1] + " ", *["and "] * (count - len(words) - 1), "so on"]
    # The last piece takes what is left over, so that the text is whole.
    return [*words[: count - 1], "".join(words[count - 1 :])]


def _tool_call(request: TurnRequest, rule: TurnRule) -> ToolCall | None:
    tools = {
        name: tool
        for tool in request.tool_definitions()
        if isinstance(name := tool.get("name"), str)
    }
    if isinstance(rule.tool, str):
        if rule.tool not in tools:
            return None
        if tools[rule.tool].get("type") == "custom":
            return ToolCall(rule.tool, rule.arguments or "mock input", custom=True)
        return ToolCall(rule.tool, rule.arguments or _made_up_arguments(tools[rule.tool]))
    for name, (called, arguments) in _COMMAND_TOOLS.items():
        if name in tools:
            return ToolCall(called, rule.arguments or json.dumps(arguments))
    for name, tool in tools.items():
        if tool.get("type") == "function":
            return ToolCall(name, rule.arguments or _made_up_arguments(tool))
    return None


def _made_up_arguments(tool: dict[str, Any]) -> str:
    return json.dumps(_made_up_object(tool.get("parameters")))


def _made_up_object(schema: object) -> dict[str, object]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    required = schema.get("required") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    names = (name for name in required if isinstance(name, str))
    return {name: _made_up_value(properties.get(name)) for name in names}


def _made_up_value(schema: object) -> object:
    if not isinstance(schema, dict):
        return "mock"
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    if kind == "object":
        return _made_up_object(schema)
    made_up: dict[str, object] = {
        "integer": 1, "number": 1, "boolean": False, "array": [], "null": None,
    }  # fmt: skip
    return made_up.get(kind, "mock") if isinstance(kind, str) else "mock"
