"""The frame: a request body, taken apart at its top level and put together for the WebSocket.

Values are kept as the client wrote them, byte for byte: numbers, key order and unknown fields
reach the upstream unchanged. Only the members that exist for HTTP alone are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json.decoder import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn

_FRAME_START = '{"type":"response.create"'

HTTP_ONLY_MEMBERS = ("type", "stream", "background", "background_options", "stream_id")
"""Members of a body that never go into the frame (`type` is set, `stream` is implied)."""

TERMINAL_EVENTS = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.done", "error"}
)

CREATED_EVENT = "response.created"
ITEM_DONE_EVENT = "response.output_item.done"
METADATA_EVENT = "response.metadata"
RATE_LIMITS_EVENT = "codex.rate_limits"
STEER_EVENTS = "response.steer."
"""What these begin with answers a `response.steer`; it may come between turns."""
STEER_FAILED_EVENT = "response.steer.failed"
TRAILING_EVENT = "response.done"
"""Undocumented; some upstreams send it after the terminal event. It never starts a turn."""

_SIDE_EFFECTS = ("mcp", "code_interpreter", "computer")
_SPACE = " \t\n\r"


class InvalidBodyError(ValueError):
    """A body that cannot become a frame.

    Attributes:
        param: the member that is at fault; None if it is the whole.
        code: the error code that the client sees.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request"):
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True, repr=False)
class Member:
    """One top-level member of a body: its value, and its text as the client wrote it."""

    value: Any
    raw: str


@dataclass(frozen=True, slots=True, repr=False)
class Body:
    """A request body.

    Attributes:
        members: by name, in the client's order.
    """

    members: Mapping[str, Member]

    def get(self, name: str) -> Any:
        """Return the value of a member; None if it is missing."""
        member = self.members.get(name)
        return None if member is None else member.value

    def text(self, name: str) -> str | None:
        """Return a member that must be a string; None if it is missing, null or empty.

        Raises:
            InvalidBodyError: it is something else.
        """
        value = self.get(name)
        if value is None or value == "":
            return None
        return checked_text(value, name)

    def flag(self, name: str) -> bool:
        """Return a member that must be a boolean; False if it is missing or null.

        Raises:
            InvalidBodyError: it is something else.
        """
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidBodyError(f"`{name}` must be true or false", param=name)
        return bool(value)


def checked_text(value: object, name: str) -> str:
    """Return `value` if it is a string that can be sent and stored.

    Raises:
        InvalidBodyError: it is no string, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidBodyError(f"`{name}` must be a string", param=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidBodyError(f"`{name}` is not valid Unicode", param=name) from None
    return value


def parse_body(data: bytes) -> Body:
    """Take a JSON request body apart.

    Raises:
        InvalidBodyError: it is no UTF-8, no JSON, or no object.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidBodyError("the request body is not valid UTF-8") from None
    return parse_object(text, "the request body")


def parse_object(text: str, what: str) -> Body:
    """Take a JSON object of a client's apart.

    Args:
        text: the JSON.
        what: how an error calls it.

    Raises:
        InvalidBodyError: it is no JSON, or no object.
    """
    try:
        return Body(split_members(text))
    except JSONDecodeError as exc:
        if text.lstrip(_SPACE)[:1] != "{":
            raise InvalidBodyError(f"{what} must be a JSON object") from None
        where = f"line {exc.lineno}, column {exc.colno}"
        raise InvalidBodyError(f"{what} is not valid JSON ({where})") from None
    except RecursionError:
        raise InvalidBodyError(f"{what} is nested too deeply") from None
    except ValueError:
        # Python refuses to read integers of more than 4300 digits.
        raise InvalidBodyError(f"{what} holds a number that is too long") from None


def split_members(text: str) -> dict[str, Member]:
    """Split a JSON object into its members, each with its raw text; the last of a name wins.

    Raises:
        JSONDecodeError: `text` is not one JSON object.
        RecursionError: it is nested too deeply.
    """
    members: dict[str, Member] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise JSONDecodeError("an object is expected", text, at)
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        _end(text, at + 1)
        return members
    while True:
        if text[at : at + 1] != '"':
            raise JSONDecodeError("a member name is expected", text, at)
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("a colon is expected", text, at)
        start = _skip(text, at + 1)
        value, at = _DECODER.raw_decode(text, start)
        members[name] = Member(value, text[start:at])
        at = _skip(text, at)
        delimiter = text[at : at + 1]
        if delimiter == "}":
            _end(text, at + 1)
            return members
        if delimiter != ",":
            raise JSONDecodeError("a comma is expected", text, at)
        at = _skip(text, at + 1)


def split_items(text: str) -> Iterator[Member]:
    """Yield the items of a JSON array, each with its raw text.

    Args:
        text: the array, without space around it, that was read before: a member's raw text.
    """
    at = _skip(text, 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield Member(value, text[at:end])
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def create_frame(
    body: Body, client_metadata: Mapping[str, str], *, unreadable: Collection[str] = ()
) -> str:
    """Return the `response.create` frame for `body`.

    Args:
        body: the request.
        client_metadata: what moved from headers into the frame; a value already in the body wins.
        unreadable: digests of the encrypted reasoning that is left out, because another account
            made it; see `reasoning_digests`.
    """
    parts = [_FRAME_START]
    metadata = _merged_metadata(body, client_metadata)
    for name, member in body.members.items():
        if name in HTTP_ONLY_MEMBERS or (name == "client_metadata" and metadata is not None):
            continue
        raw = member.raw
        if unreadable and name == "input":
            raw = _without_reasoning(raw, unreadable)
        parts.append(f"{json.dumps(name)}:{raw}")
    if metadata is not None:
        parts.append(f'"client_metadata":{metadata}')
    return ",".join(parts) + "}"


def post_body(frame: str) -> str:
    """Return the body of the POST that asks for what a frame of `create_frame` asks for.

    Raises:
        ValueError: it is another frame; HTTP has nothing like it.
    """
    if not frame.startswith(_FRAME_START):
        raise ValueError("no frame that creates a response")
    return '{"stream":true' + frame.removeprefix(_FRAME_START)


def reasoning_digests(body: Body) -> list[str]:
    """Return a digest for each input item of encrypted reasoning, in order.

    Only the account that made it can read it; the digest is what is remembered of it.
    """
    found = (reasoning_digest(item) for item in _objects(body.get("input")))
    return [digest for digest in found if digest is not None]


def reasoning_digest(item: object) -> str | None:
    """Return the digest of an item of encrypted reasoning; None for every other item."""
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return None
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content:
        return None
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def has_side_effects(body: Body) -> bool:
    """Whether the turn carries hosted tools with side effects, so that a replay may act twice.

    mcp, code_interpreter, computer use and the hosted shell; tools also stand in
    `additional_tools` input items and in namespaces.
    """
    carried = [item for item in _objects(body.get("input")) if _carries_tools(item)]
    tools = objects_within([*_objects(body.get("tools")), *carried], ("tools",))
    return any(_acts(tool) for tool in tools)


def objects_within(value: Any, members: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects in `value` and in the named members of those objects, however deep.

    In document order, but for what lies in several members of one object.
    """
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            yield value
            waiting.extend(value.get(member) for member in members)


def parse_event(text: str) -> tuple[str, dict[str, Any]]:
    """Return the `type` of an upstream event, "" if it has none, and the event.

    Raises:
        ValueError: the frame is not one JSON object, or is absurd: too deep, too long a number.
    """
    try:
        event = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(event, dict):
        raise ValueError("not an object")
    kind = event.get("type")
    return (kind if isinstance(kind, str) else ""), event


def is_response_event(kind: str) -> bool:
    """Whether an event shows that the upstream works on the turn.

    Telemetry (`response.metadata`, `codex.*`), answers to a steer and unknown types never count.
    """
    if kind == METADATA_EVENT or kind.startswith(STEER_EVENTS):
        return False
    return kind.startswith("response.")


def has_successor(kind: str, event: Mapping[str, Any]) -> bool:
    """Whether another response follows by itself on the same socket, since the client steered.

    A steered response ends as incomplete, and `response.created` of its successor comes next.
    """
    response = event.get("response")
    details = response.get("incomplete_details") if isinstance(response, dict) else None
    reason = details.get("reason") if isinstance(details, dict) else None
    return kind == "response.incomplete" and reason == "steered"


def _merged_metadata(body: Body, moved: Mapping[str, str]) -> str | None:
    """Return the new `client_metadata`; None if the body's own goes out as it is."""
    own = body.get("client_metadata")
    if not moved or not (own is None or isinstance(own, dict)):
        return None
    members = split_members(body.members["client_metadata"].raw) if own else {}
    added = {n: Member(v, json.dumps(v)) for n, v in moved.items() if n not in members}
    return joined({**members, **added})


def joined(members: Mapping[str, Member]) -> str:
    """Return the JSON object with these members, their values as they were written."""
    return "{" + ",".join(f"{json.dumps(n)}:{m.raw}" for n, m in members.items()) + "}"


def _without_reasoning(raw: str, unreadable: Collection[str]) -> str:
    """Return an input array without the reasoning of these digests, the other items untouched."""
    if not raw.startswith("["):
        return raw
    kept = [m.raw for m in split_items(raw) if reasoning_digest(m.value) not in unreadable]
    return "[" + ",".join(kept) + "]"


def _objects(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _carries_tools(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "additional_tools"


def _acts(tool: Mapping[str, Any]) -> bool:
    kind = tool.get("type")
    if not isinstance(kind, str):
        return False
    if kind == "shell":
        environment = tool.get("environment")
        return not (isinstance(environment, dict) and environment.get("type") == "local")
    return kind.startswith(_SIDE_EFFECTS)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACE and at < len(text):
        at += 1
    return at


def _end(text: str, at: int) -> None:
    at = _skip(text, at)
    if at != len(text):
        raise JSONDecodeError("nothing is expected after the object", text, at)


def _no_constant(name: str) -> NoReturn:
    raise JSONDecodeError(f"{name} is no JSON", name, 0)


_DECODER = JSONDecoder(parse_constant=_no_constant)
