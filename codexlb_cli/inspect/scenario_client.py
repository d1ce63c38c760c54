"""What the client of a scenario sends, and what it reads out of an answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codexlb_cli.core.frames import TERMINAL_EVENTS
from codexlb_cli.core.headers import Header
from codexlb_cli.errors import ConfigError
from codexlb_cli.inspect.scenario_file import RequestTable

LOST = "connection lost"
"""The outcome of a request whose answer ended early: the gateway was killed."""
_INCLUDE = ["reasoning.encrypted_content"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client read of an answer.

    Attributes:
        outcome: the type of the terminal event, or the code of the error.
        response_id: of the response; None if there was none.
        turn: the input that was sent and the items that came back, for a full history.
    """

    outcome: str
    response_id: str | None = None
    turn: list[Any] = field(default_factory=list)


def composed(
    number: int, request: RequestTable, heard: Mapping[int, Heard]
) -> tuple[list[Header], dict[str, Any]]:
    """Return the headers and the body of a request.

    Args:
        number: of the request, from 1.
        request: its table.
        heard: the answers of earlier requests.

    Raises:
        ConfigError: it continues a request that got no response.
    """
    headers = [("content-type", "application/json"), *request.headers.items()]
    if request.session is not None:
        headers.append(("session-id", request.session))
    body: dict[str, Any] = {
        "model": request.model,
        "input": [*_history(request, heard), _message(request)],
        "stream": request.stream,
    }
    if request.history:
        body["include"] = _INCLUDE
    optional = {
        "prompt_cache_key": request.cache_key,
        "conversation": request.conversation,
        "previous_response_id": _continued(number, request, heard),
        "store": request.store,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    if request.tools:
        body["tools"] = [{"type": kind} for kind in request.tools]
    return headers, body


def hear(status: int, body: bytes, sent: Mapping[str, Any]) -> Heard:
    """Read a whole answer.

    Args:
        status: the HTTP status.
        body: all of it.
        sent: the body of the request.
    """
    if status != 200:
        error = json_object(body).get("error")
        error = error if isinstance(error, dict) else {}
        return Heard(str(error.get("code") or error.get("type") or status))
    if sent.get("stream"):
        events = [json_object(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
        last = events[-1] if events else {}
        kind = str(last.get("type") or LOST)
        terminal = sum(event.get("type") in TERMINAL_EVENTS for event in events)
        if terminal != 1 or kind not in TERMINAL_EVENTS:
            kind = f"{terminal} terminal events"  # no expectation allows that
        if kind == "error":
            kind = str(last.get("code") or kind)
        responses = [e["response"] for e in (last, *events) if isinstance(e.get("response"), dict)]
        response: dict[str, Any] = responses[0] if responses else {}
    else:
        response = json_object(body)
        kind = f"response.{response.get('status', 'completed')}"
    items = response.get("output")
    return Heard(
        outcome=kind,
        response_id=response.get("id"),
        turn=[*sent["input"], *(items if isinstance(items, list) else [])],
    )


def _message(request: RequestTable) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "input_text", "text": request.input}]
    if request.file is not None:
        content.insert(0, {"type": "input_file", "file_id": request.file})
    return {"type": "message", "role": "user", "content": content}


def _history(request: RequestTable, heard: Mapping[int, Heard]) -> Sequence[Any]:
    return [item for number in request.history for item in heard[number].turn]


def _continued(number: int, request: RequestTable, heard: Mapping[int, Heard]) -> str | None:
    if not isinstance(request.continues, int):
        return request.continues
    response_id = heard[request.continues].response_id
    if response_id is None:
        raise ConfigError(
            f"request {number} continues request {request.continues}, which got no response"
        )
    return response_id


def json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; empty if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
