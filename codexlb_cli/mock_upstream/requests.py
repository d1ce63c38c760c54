"""A turn's request: its fields, read from JSON of any shape, and the errors for the wrong ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codexlb_cli.core.frames import objects_within
from codexlb_cli.mock_upstream.rules import ErrorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ENCRYPTED = re.compile(r"enc:([^:]*):")


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, error: ErrorSpec) -> None:
        super().__init__(error.label)
        self.error = error


def invalid_request(
    message: str, *, code: str | None = None, param: str | None = None
) -> RefusedError:
    """Return the refusal of a malformed request."""
    kind = "invalid_request_error"
    return RefusedError(ErrorSpec(status=400, type=kind, code=code, message=message, param=param))


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a turn asks for, as far as the mock cares.

    Attributes:
        items: the input as a list of items; a plain string is one user message.
        stored: `store`, true if omitted.
        wants_logprobs: whether the log probabilities of the text are included.
        text_format: `text.format`; empty if the request has none.
        stream_id: the lane; None for the default one.
        background: whether it is made whether the client waits or not.
        conversation: the id of the conversation that it is added to; None if it names none.
        body_bytes: the size of the request.
    """

    model: str
    items: list[dict[str, Any]] = field(repr=False)
    warm_up: bool = False
    stored: bool = True
    streamed: bool = False
    previous_response_id: str | None = None
    stream_id: str | None = None
    wants_encrypted_reasoning: bool = False
    wants_logprobs: bool = False
    text_format: dict[str, Any] = field(default_factory=dict, repr=False)
    tools: list[Any] = field(default_factory=list, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    prompt_cache_key: str | None = None
    background: bool = False
    conversation: str | None = None
    body_bytes: int = 0

    @property
    def wants_json(self) -> bool:
        """Whether the text must be JSON."""
        return self.text_format.get("type") in ("json_object", "json_schema")

    @property
    def wanted_schema(self) -> dict[str, Any]:
        """The schema that the JSON must follow; that of any object if there is none."""
        schema = self.text_format.get("schema")
        return schema if isinstance(schema, dict) and schema else {"type": "object"}

    def last_user_text(self) -> str:
        """The text of the last user message; empty if there is none."""
        for item in reversed(self.items):
            if item.get("role") == "user":
                return _text(item.get("content"))
        return ""

    def answers_a_tool_call(self) -> bool:
        """Whether a tool's output came after the last user message."""
        for item in reversed(self.items):
            if item.get("type") in {"function_call_output", "custom_tool_call_output"}:
                return True
            if item.get("role") == "user":
                return False
        return False

    def compacts(self) -> bool:
        """Whether it asks for a compaction: Codex expects that item alone, then the end."""
        return bool(self.items) and self.items[-1].get("type") == "compaction_trigger"

    def tool_definitions(self) -> Iterator[dict[str, Any]]:
        """Every tool: of `tools`, of `additional_tools` items, and those within namespaces."""
        yield from _flattened(self.tools)
        for item in self.items:
            if item.get("type") == "additional_tools":
                yield from _flattened(item.get("tools"))

    def foreign_encrypted_content(self, account: str) -> bool:
        """Whether an item carries content that another account encrypted."""
        for item in self.items:
            content = item.get("encrypted_content")
            bound = _ENCRYPTED.match(content) if isinstance(content, str) else None
            if bound is not None and bound[1] != account:
                return True
        return False


def file_ids(items: list[dict[str, Any]]) -> Iterator[str]:
    """Return the ids of the files that items name."""
    for item in objects_within(items, ("content", "output")):
        name = item.get("file_id")
        if isinstance(name, str):
            yield name


def parse_request(body: object, body_bytes: int) -> TurnRequest:
    """Read a `response.create` or the body of a `POST …/responses`.

    Raises:
        RefusedError: a field has the wrong type, or the model is missing.
    """
    if not isinstance(body, dict):
        raise invalid_request("The request body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid_request(
            "Missing required parameter: 'model'.", code="missing_required_parameter", param="model"
        )
    stream_id = body.get("stream_id")
    if stream_id is not None and not (
        isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id)
    ):
        raise invalid_request(
            "The 'stream_id' field must be a non-empty string with at most 256 characters and may "
            "only contain letters, numbers, underscores, hyphens, and periods.",
            code="invalid_stream_id",
            param="stream_id",
        )
    check_words(body)
    include = _typed(body, "include", list) or []
    text_format = (_typed(body, "text", dict) or {}).get("format")
    return TurnRequest(
        model=model,
        items=_items(body.get("input")),
        warm_up=_typed(body, "generate", bool) is False,
        stored=_typed(body, "store", bool) is not False,
        streamed=_typed(body, "stream", bool) is True,
        previous_response_id=_typed(body, "previous_response_id", str),
        stream_id=stream_id,
        wants_encrypted_reasoning="reasoning.encrypted_content" in include,
        wants_logprobs="message.output_text.logprobs" in include,
        text_format=text_format if isinstance(text_format, dict) else {},
        tools=_typed(body, "tools", list) or [],
        metadata=_typed(body, "metadata", dict) or {},
        prompt_cache_key=_typed(body, "prompt_cache_key", str),
        background=_typed(body, "background", bool) is True,
        conversation=_conversation(body.get("conversation")),
        body_bytes=body_bytes,
    )


def check_words(body: dict[str, Any]) -> None:
    """Refuse the words of the chat API, as the upstream does.

    Raises:
        RefusedError: a member, a part or a tool is one of a chat completion.
    """
    for name in _CHAT_MEMBERS & body.keys():
        message = f"Unsupported parameter: '{name}'. It belongs to chat completions."
        raise invalid_request(message, code="unsupported_parameter", param=name)
    for index, item in enumerate(_objects(body.get("input"))):
        if item.get("role") == "tool" or "tool_calls" in item:
            raise _invalid_value(f"input[{index}]")
        for number, part in enumerate(_objects(item.get("content"))):
            if part.get("type") in _CHAT_PARTS:
                raise _invalid_value(f"input[{index}].content[{number}].type")
    for index, tool in enumerate(_objects(body.get("tools"))):
        if "name" not in tool and {"function", "custom"} & tool.keys():
            param = f"tools[{index}].name"
            message = f"Missing required parameter: '{param}'."
            raise invalid_request(message, code="missing_required_parameter", param=param)


_CHAT_MEMBERS = frozenset(
    {
        "messages", "functions", "function_call", "max_tokens", "max_completion_tokens",
        "response_format", "reasoning_effort", "verbosity", "web_search_options", "logprobs", "n",
        "stop", "seed", "logit_bias", "frequency_penalty", "presence_penalty", "prediction",
        "modalities", "audio",
    }
)  # fmt: skip
_CHAT_PARTS = frozenset({"text", "image_url", "file"})


def _invalid_value(param: str) -> RefusedError:
    return invalid_request(f"Invalid value for '{param}'.", code="invalid_value", param=param)


def _objects(value: object) -> list[dict[str, Any]]:
    return [v if isinstance(v, dict) else {} for v in value] if isinstance(value, list) else []


def _conversation(value: object) -> str | None:
    name = value.get("id") if isinstance(value, dict) else value
    if name is not None and not isinstance(name, str):
        raise invalid_request(
            "Invalid type for 'conversation'.", code="invalid_type", param="conversation"
        )
    return name


def _typed(body: dict[str, Any], key: str, kind: type[Any]) -> Any:
    value = body.get(key)
    if value is not None and not isinstance(value, kind):
        raise invalid_request(f"Invalid type for '{key}'.", code="invalid_type", param=key)
    return value


def _items(value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid_request("Invalid type for 'input'.", code="invalid_type", param="input")
    return value


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join(part for part in parts if isinstance(part, str))


def _flattened(tools: object) -> Iterator[dict[str, Any]]:
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, dict):
            continue
        if tool.get("type") == "namespace":
            # Namespaces do not nest; one level bounds the walk.
            inner = tool.get("tools")
            yield from (t for t in (inner if isinstance(inner, list) else []) if _is_tool(t))
        else:
            yield tool


def _is_tool(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") != "namespace"
