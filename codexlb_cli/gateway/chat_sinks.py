"""How a turn is written to a client of the chat API: as chunks, or as one chat completion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from codexlb_cli.core.chat_answer import chat_completion, ended_badly, response_in
from codexlb_cli.core.chat_request import ChatForm
from codexlb_cli.core.chat_stream import STREAMED_EVENTS, ChatStream
from codexlb_cli.core.events import SSE_COMMENT
from codexlb_cli.core.frames import ITEM_DONE_EVENT
from codexlb_cli.gateway.sinks import Send, StreamSink, WholeSink, json_object

DONE = b"data: [DONE]\n\n"
"""What ends a stream that came to its end, and no other."""


class ChatStreamSink(StreamSink):
    """Writes a turn as the chunks of a chat completion.

    Args:
        send: ASGI's send.
        form: how the client wants it.
        keepalive_seconds: after how much silence a keep-alive is written.
    """

    def __init__(self, send: Send, form: ChatForm, keepalive_seconds: float) -> None:
        super().__init__(send, SSE_COMMENT, keepalive_seconds)
        self._chunks = ChatStream(form)

    async def event(self, kind: str, text: str) -> None:
        """Write the chunks that an event makes; most events of reasoning make none."""
        if kind in STREAMED_EVENTS:
            chunks = self._chunks.event(kind, json_object(text))
            if chunks:
                await self.more(_data(chunks))

    async def finish(self, kind: str, text: str) -> None:
        """Write the last chunks, or the error that the response ended with."""
        event = json_object(text)
        bad = ended_badly(kind, event)
        if bad is not None:
            await self.last(self.ending(bad[1], final=False))
        else:
            await self.last(_data(self._chunks.finish(response_in(event))) + DONE)

    def ending(self, error: Mapping[str, object], *, final: bool) -> bytes:  # noqa: ARG002
        """Return the error in the form that the OpenAI SDKs raise on, whoever it is about."""
        return _data([{"error": error}])


class ChatSink(WholeSink):
    """Writes a turn as one chat completion.

    Args:
        send: ASGI's send.
        form: how the client wants it.
    """

    def __init__(self, send: Send, form: ChatForm) -> None:
        super().__init__(send)
        self._form = form
        self._done: list[Any] = []

    async def event(self, kind: str, text: str) -> None:
        """Keep the items that are done."""
        if kind == ITEM_DONE_EVENT:
            self._done.append(json_object(text).get("item"))

    async def finish(self, kind: str, text: str) -> None:
        """Write the completion; a response that failed is an error, for chat has no such answer."""
        event = json_object(text)
        bad = ended_badly(kind, event)
        if bad is not None:
            await self.refuse(*bad)
        else:
            await self.answer(chat_completion(response_in(event), self._done, self._form))


def _data(objects: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(
        b"data: " + json.dumps(o, separators=(",", ":")).encode() + b"\n\n" for o in objects
    )
