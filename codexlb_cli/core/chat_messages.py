"""The messages of a chat completion as input items of the Responses API."""

from __future__ import annotations

from typing import Any

from codexlb_cli.core.nodes import Node

Item = dict[str, Any]


def input_items(messages: Node) -> list[Item]:
    """Return the input items that say what the messages say, in order.

    Raises:
        InvalidBodyError: a message is malformed, or says what input items cannot.
    """
    conversation = _Conversation()
    for message in messages.elements():
        conversation.add(message)
    if not conversation.items:
        raise messages.wrong("holds no message")
    return conversation.items


class _Conversation:
    """Input items, and what later messages refer to.

    Attributes:
        items: the items so far.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._custom_calls: set[str] = set()
        self._function_calls: dict[str, str] = {}
        self._participants: dict[str, object] = {}

    def add(self, message: Node) -> None:
        """Take the next message.

        Raises:
            InvalidBodyError: it cannot be said with input items.
        """
        role = message.get("role")
        match role.text():
            case "system" | "developer" | "user" as spoken:
                self._tell_apart(spoken, message)
                self._say(spoken, _input_content(message.get("content")))
            case "assistant":
                self._tell_apart("assistant", message)
                self._assistant(message)
            case "tool":
                self._tool(message)
            case "function":
                self._function(message)
            case _:
                raise role.wrong("is no role of a message")

    def _tell_apart(self, role: str, message: Node) -> None:
        """Refuse names that tell participants of one role apart: input items have no names."""
        name = message.get("name")
        if self._participants.setdefault(role, name.value) != name.value:
            raise name.wrong("tells participants of one role apart, which Responses cannot")

    def _say(self, role: str, content: object) -> None:
        self.items.append({"type": "message", "role": role, "content": content})

    def _assistant(self, message: Node) -> None:
        audio = message.get("audio")
        if audio.value is not None:
            raise audio.wrong("refers to audio, which Responses has not")
        calls, legacy = message.get("tool_calls"), message.get("function_call")
        content = _output_content(message)
        if content:
            self._say("assistant", content)
        elif calls.value in (None, []) and legacy.value is None:
            if message.get("content").value is None:
                raise message.get("content").wrong("is missing")
            self._say("assistant", "")
        if calls.value is not None:
            for call in calls.elements():
                self._call(call)
        if legacy.value is not None:
            self._legacy_call(legacy)

    def _call(self, call: Node) -> None:
        call_id, kind = call.get("id").text(), call.get("type")
        if kind.value == "custom":
            custom = call.get("custom")
            self._custom_calls.add(call_id)
            self.items.append(
                {
                    "type": "custom_tool_call",
                    "call_id": call_id,
                    "name": custom.get("name").text(),
                    "input": custom.get("input").text(),
                }
            )
        elif kind.value in ("function", None):  # some clients leave the type out
            self._function_call(call.get("function"), call_id)
        else:
            raise kind.wrong("must be `function` or `custom`")

    def _legacy_call(self, call: Node) -> None:
        """Take a call of the deprecated form, which has no id: it gets one of its place."""
        call_id = f"function_call_{len(self.items)}"
        self._function_calls[call.get("name").text()] = call_id
        self._function_call(call, call_id)

    def _function_call(self, function: Node, call_id: str) -> None:
        self.items.append(
            {
                "type": "function_call",
                "call_id": call_id,
                "name": function.get("name").text(),
                "arguments": function.get("arguments").text(),
            }
        )

    def _tool(self, message: Node) -> None:
        call_id = message.get("tool_call_id").text()
        custom = call_id in self._custom_calls
        self._output(call_id, message, "custom_tool_call" if custom else "function_call")

    def _function(self, message: Node) -> None:
        name = message.get("name")
        call_id = self._function_calls.get(name.text())
        if call_id is None:
            raise name.wrong("names no function that was called before")
        self._output(call_id, message, "function_call")

    def _output(self, call_id: str, message: Node, kind: str) -> None:
        content = message.get("content")
        output = "" if content.value is None else _input_content(content)
        self.items.append({"type": f"{kind}_output", "call_id": call_id, "output": output})


def _input_content(content: Node) -> object:
    if isinstance(content.value, str):
        return content.value
    if not isinstance(content.value, list):
        raise content.wrong("must be a string or an array of parts")
    return [_input_part(part) for part in content.elements()]


def _input_part(part: Node) -> Item:
    kind = part.get("type")
    match kind.text():
        case "text":
            converted = {"type": "input_text", "text": part.get("text").text()}
        case "image_url":
            image = part.get("image_url")
            url, detail = image.get("url").text(), image.get("detail").value
            converted = {"type": "input_image", "image_url": url, "detail": detail or "auto"}
        case "file":
            file = part.get("file").members()
            given = {name: value for name, value in file.items() if value is not None}
            converted = {**given, "type": "input_file"}
        case "input_audio":
            raise part.wrong("is audio, which messages of Responses cannot hold")
        case _:
            raise kind.wrong("must be `text`, `image_url` or `file`")
    cached = part.get("prompt_cache_breakpoint").value
    return converted if cached is None else {**converted, "prompt_cache_breakpoint": cached}


def _output_content(message: Node) -> object:
    """Return what an assistant said: a string, or parts; "" or [] if that is nothing."""
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content.value, str) and refusal.value is None:
        return content.value
    parts: list[Item] = []
    if isinstance(content.value, str):
        parts += [{"type": "output_text", "text": content.value}] if content.value else []
    elif content.value is not None:
        if not isinstance(content.value, list):
            raise content.wrong("must be a string or an array of parts")
        parts += [_output_part(part) for part in content.elements()]
    if refusal.value is not None:
        parts.append({"type": "refusal", "refusal": refusal.text()})
    return parts


def _output_part(part: Node) -> Item:
    kind = part.get("type")
    match kind.text():
        case "text":
            return {"type": "output_text", "text": part.get("text").text()}
        case "refusal":
            return {"type": "refusal", "refusal": part.get("refusal").text()}
    raise kind.wrong("must be `text` or `refusal`")
