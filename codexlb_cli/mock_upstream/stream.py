"""The events of one response, numbered and encoded. Pure: what to send, never when or where."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from codexlb_cli.mock_upstream.wire import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codexlb_cli.mock_upstream.answers import Answer, ToolCall
    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.rules import FailedSpec, HeaderValue, RateLimits

Event = tuple[str, bytes]
"""The event's type and its JSON."""

TEXT_DELTA = "response.output_text.delta"
REFUSAL_DELTA = "response.refusal.delta"
ARGUMENTS_DELTA = "response.function_call_arguments.delta"
INPUT_DELTA = "response.custom_tool_call_input.delta"
DELTAS = frozenset({TEXT_DELTA, REFUSAL_DELTA, ARGUMENTS_DELTA, INPUT_DELTA})


@dataclass(slots=True)
class ResponseStream:
    """Encodes one response. `sequence_number` counts from 0 over all its `response.*` events.

    Args:
        response_id: the id; the items' ids are derived from it.
        account: who serves; named in `metadata`, and in encrypted content.
        request: what is answered.
        answer: with what.
        created_at: when, in seconds since the epoch.
    """

    response_id: str
    account: str
    request: TurnRequest
    answer: Answer
    created_at: int
    output: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] | None = None
    _numbers: count[int] = field(default_factory=count)

    def metadata(self, headers: Mapping[str, HeaderValue]) -> Event:
        """`response.metadata`: headers that concern the turn, in-band."""
        return self._event("response.metadata", headers=headers)

    def queued_document(self) -> dict[str, Any]:
        """The response before anybody works on it."""
        return self._response("queued")

    def queued(self) -> Iterator[Event]:
        """What a background response begins with: `response.created` and `response.queued`."""
        response = self.queued_document()
        yield self._event("response.created", response=response)
        yield self._event("response.queued", response=response)

    def opening(self) -> Iterator[Event]:
        """`response.created`, unless it was queued, and `response.in_progress`."""
        response = self._response("in_progress")
        if not self.request.background:
            yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def items(self) -> Iterator[Event]:
        """The events of the output items; afterwards `output` holds the items."""
        if self.answer.empty:
            return
        if self.answer.compaction:
            yield from self._encrypted("compaction", "cmp")
            return
        if self.answer.reasoning:
            yield from self._encrypted("reasoning", "rs", summary=[])
        for number, call in enumerate(self.answer.calls):
            yield from self._call(call, f"_{number}" if number else "")
        if not self.answer.calls:
            yield from self._message()

    def completed(self, least_bytes: int = 0) -> Event:
        """`response.completed`, with `instructions` filled up to `least_bytes`."""
        response = self._response("completed", usage=self._usage())
        if least_bytes:
            response["instructions"] = "x" * max(0, least_bytes - len(to_json(response)))
        return self._event("response.completed", response=response)

    def failed(self, failure: FailedSpec) -> Event:
        """`response.failed`."""
        error = {"code": failure.code, "message": failure.message}
        return self._event("response.failed", response=self._response("failed", error=error))

    def incomplete(self, reason: str) -> Event:
        """`response.incomplete`."""
        details = {"reason": reason}
        response = self._response("incomplete", usage=self._usage(), incomplete_details=details)
        return self._event("response.incomplete", response=response)

    def error(self, error: Mapping[str, object]) -> Event:
        """`error` as the HTTP stream has it: flat, with a sequence number."""
        fields = {name: error.get(name) for name in ("code", "message", "param")}
        return self._event("error", **fields)

    def _event(self, name: str, /, **fields: object) -> Event:
        payload = {"type": name, **fields, "sequence_number": next(self._numbers)}
        if self.request.stream_id is not None:
            payload["stream_id"] = self.request.stream_id
        return name, to_json(payload)

    def _item_events(self, item: dict[str, Any], **unfinished: object) -> tuple[Event, int]:
        index = len(self.output)
        added = self._event(
            "response.output_item.added", output_index=index, item=item | unfinished
        )
        return added, index

    def _finished(self, item: dict[str, Any], index: int) -> Event:
        self.output.append(item)
        return self._event("response.output_item.done", output_index=index, item=item)

    def _encrypted(self, kind: str, prefix: str, **fields: object) -> Iterator[Event]:
        item: dict[str, Any] = {
            "id": self._id(prefix),
            "type": kind,
            **fields,
            "encrypted_content": f"enc:{self.account}:{self._id(prefix)}",
        }
        added, index = self._item_events(item)
        yield added
        yield self._finished(item, index)

    def _call(self, call: ToolCall, suffix: str) -> Iterator[Event]:
        kind, argument, delta = "function_call", "arguments", ARGUMENTS_DELTA
        if call.custom:
            kind, argument, delta = "custom_tool_call", "input", INPUT_DELTA
        item = {
            "id": self._id("ctc" if call.custom else "fc") + suffix,
            "type": kind,
            "status": "completed",
            argument: call.arguments,
            "call_id": self._id("call") + suffix,
            "name": call.name,
        }
        added, index = self._item_events(item, status="in_progress", **{argument: ""})
        yield added
        where = {"item_id": item["id"], "output_index": index}
        half = len(call.arguments) // 2
        for piece in (call.arguments[:half], call.arguments[half:]):
            yield self._event(delta, **where, delta=piece)
        told = {argument: call.arguments} | ({} if call.custom else {"name": call.name})
        yield self._event(delta.replace(".delta", ".done"), **where, **told)
        yield self._finished(item, index)

    def _message(self) -> Iterator[Event]:
        message_id, refusal = self._id("msg"), self.answer.refusal
        part: dict[str, Any]
        if refusal is not None:
            part, empty = {"type": "refusal", "refusal": refusal}, {"refusal": ""}
        else:
            text, logprobs = "".join(self.answer.pieces), self._logprobs(*self.answer.pieces)
            part = {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}
            empty = {"text": ""}
        item = {
            "id": message_id,
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
        added, index = self._item_events(item, status="in_progress", content=[])
        yield added
        where = {"item_id": message_id, "output_index": index, "content_index": 0}
        yield self._event("response.content_part.added", **where, part=part | empty)
        if refusal is not None:
            half = len(refusal) // 2
            for piece in (refusal[:half], refusal[half:]):
                yield self._event(REFUSAL_DELTA, **where, delta=piece)
            yield self._event("response.refusal.done", **where, refusal=refusal)
        else:
            yield from self._text_deltas(message_id, index)
            yield self._event("response.output_text.done", **where, text=text, logprobs=logprobs)
        yield self._event("response.content_part.done", **where, part=part)
        yield self._finished(item, index)

    def _logprobs(self, *pieces: str) -> list[dict[str, Any]]:
        """Return log probabilities as if every piece were a token; none unless they are wanted."""
        if not self.answer.logprobs:
            return []
        return [
            {"token": p, "bytes": list(p.encode(errors="replace")), "logprob": -0.5,
             "top_logprobs": []}
            for p in pieces
        ]  # fmt: skip

    def _text_deltas(self, message_id: str, index: int) -> Iterator[Event]:
        # The hot path of benchmarks: strings are joined, nothing is walked by the JSON encoder.
        head = (
            f'{{"type":"{TEXT_DELTA}","item_id":"{message_id}","output_index":{index},'
            f'"content_index":0,"delta":'
        )
        lane = self.request.stream_id
        tail = "}" if lane is None else f',"stream_id":"{lane}"}}'
        for piece in self.answer.pieces:
            number = next(self._numbers)
            logprobs = to_json(self._logprobs(piece)).decode() if self.answer.logprobs else "[]"
            delta = (
                f'{head}{encode_basestring(piece)},"logprobs":{logprobs},'
                f'"sequence_number":{number}{tail}'
            )
            yield TEXT_DELTA, delta.encode(errors="replace")

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self.response_id.removeprefix('resp_')}"

    def _usage(self) -> dict[str, Any]:
        request, answer = self.request, self.answer
        given = 0 if request.warm_up else max(1, request.body_bytes // 4)
        cached = given // 2 if request.previous_response_id else 0
        thought = 16 if answer.reasoning else 0
        written = 0 if answer.empty else thought + max(1, len(answer.pieces))
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": given + written,
        }

    def _response(self, status: str, **fields: object) -> dict[str, Any]:
        request = self.request
        response: dict[str, Any] = {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": request.background,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": request.model,
            "output": list(self.output),
            "parallel_tool_calls": True,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {"effort": "medium", "summary": None},
            "service_tier": "default",
            "store": request.stored,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None,
            "user": None,
            "metadata": request.metadata | {"account": self.account},
        } | fields
        if request.conversation is not None:
            response["conversation"] = {"id": request.conversation}
        if status not in {"queued", "in_progress"}:
            self.final = response
        return response


def rate_limits_event(limits: RateLimits) -> Event:
    """`codex.rate_limits`, as the ChatGPT backend sends it over a WebSocket."""
    windows = {
        name: window.model_dump(exclude_none=True)
        for name, window in (("primary", limits.primary), ("secondary", limits.secondary))
        if window is not None
    }
    allowed = {"allowed": limits.allowed, "limit_reached": limits.limit_reached}
    payload = {
        "type": "codex.rate_limits",
        "plan_type": limits.plan_type,
        "rate_limits": allowed | windows,
    }
    return "codex.rate_limits", to_json(payload)


def rate_limit_headers(limits: RateLimits) -> dict[str, str]:
    """The same values as the `x-codex-*` headers of an HTTP response."""
    headers = {}
    for name, window in (("primary", limits.primary), ("secondary", limits.secondary)):
        if window is not None:
            for key, value in window.model_dump(exclude_none=True).items():
                headers[f"x-codex-{name}-{key.replace('_', '-')}"] = str(value)
    return headers
