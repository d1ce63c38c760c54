"""What passes between a WebSocket client and the gateway: its frames, and those of our own.

The client's frames are those of OpenAI's WebSocket mode: `response.create`, and events about a
response that is under way, such as `response.steer` and Codex's `response.interrupt`. Error frames
always carry a status, since Codex ignores those without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import client_status, error_object, passed_on
from codexlb_cli.core.failures import Failure, error_within
from codexlb_cli.core.frames import (
    METADATA_EVENT,
    RATE_LIMITS_EVENT,
    Body,
    InvalidBodyError,
    Member,
    joined,
    parse_object,
    split_members,
)
from codexlb_cli.core.handshake import client_headers
from codexlb_cli.core.headers import TURN_STATE_HEADER, Header, check_header
from codexlb_cli.core.limits import rate_limits_event

CREATE = "response.create"
MOST_STREAMS = 32
"""Distinct `stream_id`s on one socket, as the upstream has it; the unnamed lane does not count."""
MOST_ACTIVE = 16
"""Turns that run at a time on one socket; further ones wait."""

KEEPALIVE_FRAME = '{"type":"keepalive"}'
"""An event of an unknown type, which Codex takes as a sign of life; pings it does not."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ATTEMPTS = "x-codexlb-attempts"
_ACCOUNT = "x-codexlb-account"
_UPGRADE_HEADERS = ("openai-model", "openai-version", "x-models-etag", "x-reasoning-included")
"""What a client would have read from the upstream's 101, which comes after its own."""


@dataclass(frozen=True, slots=True, repr=False)
class ClientFrame:
    """A client's frame.

    Attributes:
        kind: its type.
        body: its members.
        text: as it came.
        stream_id: the lane that it names; None for the unnamed one.
    """

    kind: str
    body: Body
    text: str
    stream_id: str | None = None

    @property
    def about(self) -> str | None:
        """The response that an event is about; None if it names none."""
        for name in ("response_id", "previous_response_id"):
            value = self.body.get(name)
            if isinstance(value, str) and value:
                return value
        return None


def read_frame(text: str) -> ClientFrame:
    """Read a client's text frame.

    Raises:
        InvalidBodyError: it is no JSON object, has no known type, or names an impossible lane.
    """
    body = parse_object(text, "the frame")
    kind = body.get("type")
    if not isinstance(kind, str) or not kind.startswith("response."):
        raise InvalidBodyError(
            "`type` must be `response.create` or an event about a response", param="type"
        )
    return ClientFrame(kind, body, text, _stream_id(body))


def _stream_id(body: Body) -> str | None:
    value = body.get("stream_id")
    if value is None:
        return None
    if not isinstance(value, str) or _STREAM_ID.fullmatch(value) is None:
        raise InvalidBodyError(
            "`stream_id` must have 1 to 256 letters, digits, `_`, `-` and `.`",
            param="stream_id",
            code="invalid_stream_id",
        )
    return value


def too_many_streams() -> ClientError:
    """Say that a socket has had its number of lanes."""
    text = f"this WebSocket has used {MOST_STREAMS} `stream_id`s; use one of them, or a new socket"
    return ClientError("websocket_stream_limit_reached", text, param="stream_id")


def no_such_response(frame: ClientFrame) -> ClientError:
    """Say that an event is about no response that this socket knows."""
    named = "response_id" if frame.body.get("response_id") else "previous_response_id"
    text = "the event is about no response that runs on this WebSocket, or ran on it last"
    return ClientError("response_not_found", text, param=named)


def over_http() -> ClientError:
    """Say that an event cannot reach its response."""
    text = "the account that serves this response is spoken to over HTTP, which takes no events"
    return ClientError("not_supported", text)


def turn_of(body: Body, handshake: Iterable[Header], *, first: bool) -> tuple[Body, list[Header]]:
    """Return a frame's body and headers as a request over HTTP would carry them.

    The turn state travels in `client_metadata` here and in a header there (Codex CLI 0.169), and
    lives for one turn, so that of the handshake is only for the first.

    Args:
        body: of the frame.
        handshake: the header lines of the client's upgrade.
        first: whether it is the first turn of the socket.

    Raises:
        InvalidHeader: the turn state holds what no header may.
    """
    headers = [h for h in handshake if first or h[0].lower() != TURN_STATE_HEADER]
    metadata = body.get("client_metadata")
    state = metadata.get(TURN_STATE_HEADER) if isinstance(metadata, dict) else None
    if not isinstance(state, str):
        return body, headers
    check_header(TURN_STATE_HEADER, state)
    members = split_members(body.members["client_metadata"].raw)
    kept = {name: m for name, m in members.items() if name != TURN_STATE_HEADER}
    rest = Member({name: m.value for name, m in kept.items()}, joined(kept))
    headers = [h for h in headers if h[0].lower() != TURN_STATE_HEADER]
    if state.isascii():  # else it is none that an upstream gave
        headers.append((TURN_STATE_HEADER, state))
    return Body({**body.members, "client_metadata": rest}), headers


def with_stream(text: str, stream_id: str | None) -> str:
    """Return an upstream's event as an event of a client's lane."""
    if stream_id is None:
        return text
    members = text.lstrip()[1:].lstrip()
    comma = "" if members.startswith("}") else ","
    return f'{{"stream_id":{json.dumps(stream_id)}{comma}{members}'


def without_stream(frame: ClientFrame) -> str:
    """Return a client's event as it goes upstream, where no lane has a name."""
    if "stream_id" not in frame.body.members:
        return frame.text
    return joined({n: m for n, m in frame.body.members.items() if n != "stream_id"})


def error_frame(error: ClientError, headers: Iterable[Header], stream_id: str | None) -> str:
    """Return one of our errors as a frame."""
    return _frame(error.status, error.envelope(), [*error.headers(), *headers], stream_id)


def passed_frame(
    failure: Failure, headers: Iterable[Header], stream_id: str | None
) -> tuple[int, str]:
    """Return status and frame of the upstream's own error that came before any response."""
    status, own, body = passed_on(failure)
    return status, _frame(status, body, [*own, *headers], stream_id)


def status_of(event: Mapping[str, object]) -> int:
    """Return the status of an upstream's error event, as its client is told: never 401."""
    return client_status(event.get("status", event.get("status_code")), 502)


def last_frame(
    event: Mapping[str, object], headers: Iterable[Header], stream_id: str | None
) -> str:
    """Return the upstream's own error that ended a response.

    Args:
        event: the error event.
        headers: of the answer.
        stream_id: the client's lane.
    """
    status = status_of(event)
    body = {"error": error_object(error_within(event), status)}
    told = event.get("headers")
    own = client_headers(told.items()) if isinstance(told, Mapping) else []
    return _frame(status, body, [*own, *headers], stream_id)


def _frame(
    status: int, body: Mapping[str, object], headers: Iterable[Header], stream_id: str | None
) -> str:
    frame: dict[str, object] = {"type": "error", "status": status}
    if stream_id is not None:
        frame["stream_id"] = stream_id
    return _json({**frame, **body, "headers": dict(headers)})


class Told:
    """What a client's socket was told beside its responses: nothing of it is told twice.

    The client's upgrade is answered before the upstream's is, so what that says comes as events;
    so does what an upstream that is spoken to over HTTP says in headers.
    """

    def __init__(self) -> None:
        self._headers: dict[str, str] = {}
        self._limits: str | None = None
        self._limits_came = False

    def saw(self, kind: str, event: Mapping[str, object]) -> None:
        """Note an event of the upstream's that goes to the client."""
        if kind == RATE_LIMITS_EVENT:
            self._limits_came = True
        told = event.get("headers")
        if kind == METADATA_EVENT and isinstance(told, Mapping):
            self._headers.update(client_headers(told.items()))

    def events(self, headers: Iterable[Header]) -> list[str]:
        """Return the events that say what an answer's head says over HTTP, where it is news.

        A replay is always told.

        Args:
            headers: of the answer: the upstream's, and our own.
        """
        head = dict(headers)
        news = {n: head[n] for n in _UPGRADE_HEADERS if n in head}
        news = {n: v for n, v in news.items() if self._headers.get(n) != v}
        self._headers.update(news)
        if head.get(_ATTEMPTS, "1") != "1":
            news |= {n: head[n] for n in (_ACCOUNT, _ATTEMPTS) if n in head}
        events = [_json({"type": METADATA_EVENT, "headers": news})] if news else []
        limits = rate_limits_event(head)
        if limits is not None and not self._limits_came and _json(limits) != self._limits:
            self._limits = _json(limits)
            events.append(self._limits)
        self._limits_came = False
        return events


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
