"""Events that the gateway itself writes into a stream, and how an upstream's error is passed on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from codexlb_cli.core.client_errors import ClientError, error_type
from codexlb_cli.core.failures import Failure, error_within
from codexlb_cli.core.frames import Member, joined, split_members
from codexlb_cli.core.handshake import client_headers, header_text
from codexlb_cli.core.headers import Header

CODEX_RETRIED_CODE = "server_error"
"""A `response.failed` code that Codex retries with back-off."""

SSE_COMMENT = b": keep-alive\n\n"
CODEX_KEEPALIVE = b'data: {"type":"keepalive"}\n\n'
"""Codex's idle timer is reset by JSON events only, unknown types included."""


def is_codex(headers: Sequence[Header]) -> bool:
    """Whether the client is the Codex CLI, by its originator or user-agent."""
    for name, value in headers:
        if name.lower() in ("originator", "user-agent") and value.lower().startswith("codex"):
            return True
    return False


def error_object(error: Mapping[str, object], status: int | None) -> dict[str, object]:
    """Return an upstream's error object with the four fields that every envelope has.

    What JSON cannot write, such as a number beyond what a double takes, is left out.
    """
    default = error_type("", status if status is not None else 500)
    told = {name: value for name, value in error.items() if _writable(value)}
    message, kind = told.get("message"), told.get("type")
    return {
        **told,
        "message": message if message and isinstance(message, str) else _NO_MESSAGE,
        "type": kind if kind and isinstance(kind, str) else default,
        "code": told.get("code"),
        "param": told.get("param"),
    }


def client_status(status: object, default: int) -> int:
    """Return the HTTP status under which an upstream's error with `status` is passed on.

    Never 401: it would make Codex use up its user's own refresh token.
    """
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        return default
    return 502 if status == 401 else status


def passed_on(failure: Failure) -> tuple[int, list[Header], dict[str, object]]:
    """Return status, headers and body of an upstream's own error, for an HTTP client."""
    default = 500 if failure.error.get("type") == "server_error" else 400
    status = client_status(failure.status, default)
    headers = client_headers(failure.headers.items())
    retry_after = header_text(failure.headers.get("retry-after"))
    if retry_after is not None:
        headers.append(("retry-after", retry_after))
    return status, headers, {"error": error_object(failure.error, status)}


def ended_with_error(frame: Mapping[str, object]) -> tuple[int, dict[str, object]]:
    """Return status and error object of the error frame that ends a response."""
    status = client_status(frame.get("status", frame.get("status_code")), 502)
    return status, error_object(error_within(frame), status)


def whole_response(text: str, done: Sequence[str]) -> str:
    """Return the response that a terminal event tells of, as JSON, with all of its output.

    The backend of ChatGPT plans tells the items while they are made, and sends the last event with
    an empty `output`, which clients that stream do not look at (NousResearch/hermes-agent#5689).

    Args:
        text: the event.
        done: the `response.output_item.done` events before it.
    """
    response = split_members(text).get("response")
    if response is None:
        return "{}"
    if not done or not isinstance(response.value, dict) or response.value.get("output"):
        return response.raw
    items = sorted(map(split_members, done), key=_place)
    output = ",".join(item["item"].raw for item in items if "item" in item)
    return joined({**split_members(response.raw), "output": Member([], f"[{output}]")})


def terminal_event(
    error: Mapping[str, object], last: Mapping[str, object], *, codex: bool, final: bool = False
) -> tuple[str, str]:
    """Return type and JSON of the one terminal event that ends a broken SSE stream.

    Args:
        error: `message`, `type`, `code` and `param`.
        last: the last event that was sent: its sequence number and response id are carried on.
        codex: whether the client is Codex, which ignores `error` events over SSE but retries
            after `response.failed`; all others raise on the superset form.
        final: whether it is the upstream's word about the request itself: Codex is told its code;
            everything else gets a code that Codex retries.
    """
    last_number = last.get("sequence_number")
    number = last_number + 1 if isinstance(last_number, int) else 0
    if codex:
        code = (final and error.get("code")) or CODEX_RETRIED_CODE
        event: dict[str, object] = {
            "type": "response.failed",
            "sequence_number": number,
            "response": {
                "id": last.get("response_id"),
                "object": "response",
                "status": "failed",
                "error": {"code": code, "message": error["message"]},
                "output": [],
            },
        }
    else:
        flat = {name: error[name] for name in ("code", "message", "param")}
        nested = {name: error[name] for name in ("type", "code", "message", "param")}
        event = {"type": "error", "sequence_number": number, **flat, "error": nested}
    return str(event["type"]), json.dumps(event, separators=(",", ":"))


def our_error(error: ClientError) -> Mapping[str, object]:
    """Return one of our errors in the form that `terminal_event` takes."""
    inner = error.envelope()["error"]
    assert isinstance(inner, dict)
    return inner


_NO_MESSAGE = "the upstream refused the request"


def _writable(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _place(members: Mapping[str, Member]) -> float:
    """Return where an item stands in the output; at the end if its event does not say."""
    index = members.get("output_index")
    return index.value if index is not None and isinstance(index.value, int) else math.inf
