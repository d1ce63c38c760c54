"""A response as a chat completion: the answer in one piece, and what streams have in common.

What an upstream sends may have any shape: what is not as it should be is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from codexlb_cli.core.chat_request import ChatForm
from codexlb_cli.core.events import ended_with_error, error_object
from codexlb_cli.core.failures import Fault, error_within, refusal

Object = dict[str, Any]

_STATUSES = {Fault.LIMIT: 429, Fault.REQUEST: 400, Fault.CLIENT_STATE: 400, Fault.TURN: 400}
"""The status of a response that failed, by whose fault it is; 500 for all others."""


def chat_completion(response: Mapping[str, Any], done: Sequence[Any], form: ChatForm) -> Object:
    """Return the chat completion that says what a response says.

    Args:
        response: the response of the terminal event.
        done: the items that were done before: some upstreams leave them out of the response.
        form: how the client wants it.
    """
    items = objects(response.get("output") or list(done))
    message, logprobs = _message(items, form)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs if form.logprobs else None,
        "finish_reason": finish_reason(response, called=_called(message), form=form),
    }
    completion = head("chat.completion", response) | {"choices": [choice]}
    usage = chat_usage(response)
    if usage is not None:
        completion["usage"] = usage
    if response.get("moderation") is not None:
        completion["moderation"] = response["moderation"]
    return completion


def head(kind: str, response: Mapping[str, Any]) -> Object:
    """Return what a completion and its chunks say of a response first.

    Args:
        kind: `chat.completion` or `chat.completion.chunk`.
        response: the response.
    """
    created = response.get("created_at")
    head: Object = {
        "id": f"chatcmpl-{text_of(response, 'id').removeprefix('resp_')}",
        "object": kind,
        "created": int(created) if is_number(created) else 0,
        "model": text_of(response, "model"),
        "system_fingerprint": None,
    }
    if isinstance(response.get("service_tier"), str):
        head["service_tier"] = response["service_tier"]
    return head


def finish_reason(response: Mapping[str, Any], *, called: bool, form: ChatForm) -> str:
    """Return why the model stopped.

    Args:
        response: the response of the terminal event.
        called: whether it calls a tool.
        form: how the client wants its answer.
    """
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        filtered = isinstance(details, dict) and details.get("reason") == "content_filter"
        return "content_filter" if filtered else "length"
    if called:
        return "function_call" if form.functions else "tool_calls"
    return "stop"


def chat_usage(response: Mapping[str, Any]) -> Object | None:
    """Return what the turn used; None if the response does not say."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    given, made = (usage.get(f"{side}_tokens_details") for side in ("input", "output"))
    given = given if isinstance(given, dict) else {}
    made = made if isinstance(made, dict) else {}
    prompt, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    prompt_details = {"cached_tokens": _count(given, "cached_tokens")}
    if is_number(given.get("cache_write_tokens")):
        prompt_details["cache_write_tokens"] = given["cache_write_tokens"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": _count(usage, "total_tokens") or prompt + completion,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {"reasoning_tokens": _count(made, "reasoning_tokens")},
    }


def ended_badly(kind: str, event: Mapping[str, Any]) -> tuple[int, Mapping[str, object]] | None:
    """Return status and error object of a terminal event that tells an error; None of others.

    A response that failed is one: chat completions have no such state.

    Args:
        kind: the event's type.
        event: the event.
    """
    if kind == "error":
        return ended_with_error(event)
    response = response_in(event)
    if kind != "response.failed" and response.get("status") != "failed":
        return None
    error = error_within(response)
    fault = refusal(response, 0.0).row.fault
    status = _STATUSES.get(fault, 500) if error.get("code") else 500
    return status, error_object(error, status)


def response_in(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the response that an event tells of; an empty one if it tells of none."""
    response = event.get("response")
    return response if isinstance(response, dict) else {}


def chat_logprobs(logprobs: object) -> list[Object]:
    """Return log probabilities with the bytes of every token, which some events leave out."""
    return [
        {
            **_with_bytes(entry),
            "top_logprobs": [_with_bytes(top) for top in objects(entry.get("top_logprobs"))],
        }
        for entry in objects(logprobs)
    ]


def citations(part: Mapping[str, Any], offset: int) -> list[Object]:
    """Return the citations of a part of a message.

    Args:
        part: the part.
        offset: how many characters of the completion's content stand before it.
    """
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": _count(annotation, "start_index") + offset,
                "end_index": _count(annotation, "end_index") + offset,
                "title": text_of(annotation, "title"),
                "url": text_of(annotation, "url"),
            },
        }
        for annotation in objects(part.get("annotations"))
        if annotation.get("type") == "url_citation"  # chat knows no others
    ]


def call_of(item: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Return kind, id, name and argument text of an item that calls a tool of the client.

    None for every other item. The kind is `function` or `custom`.
    """
    match item.get("type"):
        case "function_call":
            kind, argument = "function", "arguments"
        case "custom_tool_call":
            kind, argument = "custom", "input"
        case _:
            return None
    return kind, text_of(item, "call_id"), text_of(item, "name"), text_of(item, argument)


def call_object(kind: str, call_id: str, name: str, argument: str) -> Object:
    """Return a tool call of a message."""
    inner = {"name": name, ("arguments" if kind == "function" else "input"): argument}
    return {"id": call_id, "type": kind, kind: inner}


def parts_of(item: Mapping[str, Any]) -> list[Object]:
    """Return the parts of a message; none for every other item."""
    return objects(item.get("content")) if item.get("type") == "message" else []


def text_in(part: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the member of the chat message that a part goes into, and its text."""
    match part.get("type"):
        case "output_text":
            return "content", text_of(part, "text")
        case "refusal":
            return "refusal", text_of(part, "refusal")
    return None


def objects(value: object) -> list[Object]:
    """Return the objects among the elements of an array; none if it is no array."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def text_of(value: Mapping[str, Any], name: str) -> str:
    """Return a member that is a string; "" if it is not."""
    member = value.get(name)
    return member if isinstance(member, str) else ""


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number; one beyond what a double takes is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _message(items: Sequence[Object], form: ChatForm) -> tuple[Object, Object | None]:
    told: dict[str, str] = {}
    annotations: list[Object] = []
    logprobs: list[Object] = []
    for part in _parts(items):
        found = text_in(part)
        if found is None:
            continue
        member, text = found
        if member == "content":
            annotations += citations(part, len(told.get("content", "")))
            logprobs += chat_logprobs(part.get("logprobs"))
        told[member] = told.get(member, "") + text
    calls = [call_object(*call) for item in items if (call := call_of(item)) is not None]
    if form.functions:  # the deprecated form tells of one function
        calls = [call for call in calls if call["type"] == "function"][:1]
    content, refusal = told.get("content", ""), told.get("refusal") or None
    message: Object = {
        "role": "assistant",
        "content": content or (None if calls or refusal else ""),
        "refusal": refusal,
        "annotations": annotations,
    }
    if calls and form.functions:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return message, {"content": logprobs, "refusal": None} if logprobs else None


def _parts(items: Sequence[Object]) -> Iterator[Object]:
    for item in items:
        yield from parts_of(item)


def _called(message: Mapping[str, Any]) -> bool:
    return "tool_calls" in message or "function_call" in message


def _with_bytes(entry: Object) -> Object:
    token = text_of(entry, "token")
    known, logprob = entry.get("bytes"), entry.get("logprob")
    return {
        "token": token,
        "bytes": known if isinstance(known, list) else list(token.encode("utf-8", "replace")),
        "logprob": logprob if is_number(logprob) else None,
    }


def _count(value: Mapping[str, Any], name: str) -> int:
    member = value.get(name)
    return int(member) if is_number(member) else 0
