"""The events of a response as the chunks of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codexlb_cli.core.chat_answer import (
    Object,
    call_object,
    call_of,
    chat_logprobs,
    chat_usage,
    citations,
    finish_reason,
    head,
    objects,
    parts_of,
    response_in,
    text_in,
    text_of,
)
from codexlb_cli.core.chat_request import ChatForm
from codexlb_cli.core.frames import ITEM_DONE_EVENT

ITEM_ADDED_EVENT = "response.output_item.added"

_TEXT_DELTAS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
}
_TEXT_DONE = {
    "response.output_text.done": ("content", "text"),
    "response.refusal.done": ("refusal", "refusal"),
}
_CALL_DELTAS = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})

STREAMED_EVENTS = frozenset(
    {*_OPENING, *_TEXT_DELTAS, *_TEXT_DONE, *_CALL_DELTAS, ITEM_ADDED_EVENT, ITEM_DONE_EVENT}
)
"""The events that matter to a stream of chunks, besides the terminal ones."""


@dataclass(slots=True)
class _Part:
    """A part of a message: what of it was sent, and where it begins in the content."""

    begins: int
    sent: int = 0
    logprobs: int = 0


@dataclass(slots=True)
class _Call:
    """A tool call: its place among the calls, its kind, and how much of its argument was sent."""

    index: int
    kind: str
    sent: int = 0


class ChatStream:
    """Makes the chunks of one chat completion, in order.

    What deltas left out is made up for when a part or an item is done, so that the deltas put
    together are the whole.

    Args:
        form: how the client wants it.
    """

    def __init__(self, form: ChatForm) -> None:
        self._form = form
        self._response: Mapping[str, Any] = {}
        self._begun = False
        self._content = 0
        self._parts: dict[str, _Part] = {}
        self._calls: dict[str, _Call] = {}
        self._call_ids: set[str] = set()
        self._citations: list[Object] = []

    def event(self, kind: str, event: Mapping[str, Any]) -> list[Object]:
        """Return the chunks that an event of `STREAMED_EVENTS` makes; mostly one, often none."""
        if kind in _TEXT_DELTAS:
            text, logprobs = text_of(event, "delta"), event.get("logprobs")
            return self._text(_TEXT_DELTAS[kind], event, text, logprobs)
        if kind in _CALL_DELTAS:
            return self._argument(_key(event), text_of(event, "delta"))
        if kind in _TEXT_DONE:
            member, name = _TEXT_DONE[kind]
            return self._rest(member, event, text_of(event, name))
        if kind in _OPENING:
            self._response = response_in(event) or self._response
        item = event.get("item")
        if not isinstance(item, dict):
            return []
        if kind == ITEM_ADDED_EVENT:
            return self._call_begins(_key(event), item)
        return self._item_done(_key(event), item) if kind == ITEM_DONE_EVENT else []

    def finish(self, response: Mapping[str, Any]) -> list[Object]:
        """Return the last chunks.

        Args:
            response: the response of the terminal event; it has not failed.
        """
        chunks: list[Object] = []
        told = self._begun  # some upstreams send the items only with the last event
        for index, item in enumerate(objects(response.get("output"))):
            if not told:
                chunks += self._item_done(str(index), item)
            elif (call := call_of(item)) is not None and call[1] not in self._call_ids:
                chunks += self._item_done(f"last {index}", item)
        self._response = {**self._response, **response}
        if not self._begun:
            chunks.append(self._chunk(self._opening(content="")))
        if self._citations:
            chunks.append(self._chunk({"annotations": self._citations}))
        reason = finish_reason(self._response, called=bool(self._calls), form=self._form)
        chunks.append(self._chunk({}, reason=reason))
        usage = chat_usage(self._response)
        if self._form.include_usage and usage is not None:
            last = head("chat.completion.chunk", self._response)
            chunks.append(last | {"choices": [], "usage": usage})
        return chunks

    def _text(
        self, member: str, event: Mapping[str, Any], text: str, logprobs: object
    ) -> list[Object]:
        part = self._part(event)
        found = chat_logprobs(logprobs) if self._form.logprobs else []
        part.sent += len(text)
        part.logprobs += len(found)
        if member == "content":
            self._content += len(text)
        if not text and not found:
            return []
        return self._delta({member: text}, {"content": found, "refusal": None} if found else None)

    def _rest(self, member: str, event: Mapping[str, Any], text: str) -> list[Object]:
        """Send what deltas left out of a part that is done."""
        part = self._part(event)
        return self._text(
            member, event, text[part.sent :], objects(event.get("logprobs"))[part.logprobs :]
        )

    def _part(self, event: Mapping[str, Any]) -> _Part:
        key = f"{_key(event)}.{event.get('content_index')}"
        return self._parts.setdefault(key, _Part(self._content))

    def _item_done(self, key: str, item: Object) -> list[Object]:
        chunks = self._call_begins(key, item)
        found = call_of(item)
        if found is not None and key in self._calls:
            chunks += self._argument(key, found[3][self._calls[key].sent :])
        for number, part in enumerate(parts_of(item)):
            text = text_in(part)
            if text is not None:
                where = {**part, "output_index": key, "content_index": number}
                chunks += self._rest(text[0], where, text[1])
                self._citations += citations(part, self._part(where).begins)
        return chunks

    def _call_begins(self, key: str, item: Object) -> list[Object]:
        found = call_of(item)
        if found is None or key in self._calls:
            return []
        kind, call_id, name, _ = found
        if self._form.functions and (self._calls or kind != "function"):
            return []  # the deprecated form tells of one function
        call = self._calls[key] = _Call(len(self._calls), kind)
        self._call_ids.add(call_id)
        opened = call_object(kind, call_id, name, "")
        if self._form.functions:
            return self._delta({"function_call": opened["function"]})
        return self._delta({"tool_calls": [{"index": call.index, **opened}]})

    def _argument(self, key: str, text: str) -> list[Object]:
        call = self._calls.get(key)
        if call is None or not text:
            return []
        call.sent += len(text)
        inner = {("arguments" if call.kind == "function" else "input"): text}
        if self._form.functions:
            return self._delta({"function_call": inner})
        return self._delta({"tool_calls": [{"index": call.index, call.kind: inner}]})

    def _delta(self, delta: Object, logprobs: Object | None = None) -> list[Object]:
        """Return the chunk of a delta, after the one with the role if it is the first."""
        first: list[Object] = []
        if not self._begun:
            first = [self._chunk(self._opening(content="" if "content" in delta else None))]
        return [*first, self._chunk(delta, logprobs)]

    def _opening(self, *, content: str | None) -> Object:
        self._begun = True
        return {"role": "assistant", "content": content, "refusal": None}

    def _chunk(
        self, delta: Object, logprobs: Object | None = None, reason: str | None = None
    ) -> Object:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = head("chat.completion.chunk", self._response) | {"choices": [choice]}
        return chunk | {"usage": None} if self._form.include_usage else chunk


def _key(event: Mapping[str, Any]) -> str:
    """Return where an event's item stands in the output; ids may change within a stream."""
    return str(event.get("output_index"))
