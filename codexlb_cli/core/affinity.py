"""Which conversation a turn belongs to, and how strongly each piece of evidence binds it.

Evidence is read from the request before the header filter. Session ids and cache keys are
compared, never interpreted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codexlb_cli.core.frames import Body, checked_text, objects_within
from codexlb_cli.core.headers import SESSION_NAMES, TURN_STATE_HEADER, Header
from codexlb_cli.core.reconnect import Strength


@dataclass(frozen=True, slots=True)
class Key:
    """What a turn is keyed by.

    Attributes:
        source: `previous_response`, `session`, `prompt_cache`, ... the evidence.
        value: the client's value, of a turn state its digest; "" for an unkeyed turn.
        passing: whether it ends with a client's socket, so that it is not stored.
    """

    source: str
    value: str
    passing: bool = False

    @property
    def strength(self) -> Strength:
        """How strongly turns of this key are bound to their owner account."""
        return STRENGTHS[self.source]


STRENGTHS = {
    "previous_response": Strength.HARD,
    "conversation": Strength.HARD,
    "file": Strength.HARD,
    "turn_state": Strength.HARD,
    "session": Strength.HARD,
    "prompt_cache": Strength.SOFT,
    "none": Strength.NONE,
}
"""Every source of affinity, the strongest first."""

_DAY = 24 * 3600.0
LIFETIMES = {
    "previous_response": 30 * _DAY,  # as long as the upstream stores a response
    "conversation": 365 * _DAY,
    "file": 365 * _DAY,
    "turn_state": _DAY,  # a turn state lives for one turn
    "session": 30 * _DAY,
    "prompt_cache": 30 * _DAY,
}
"""How long an owner is remembered after its key was last used, in seconds."""

ANCHORS = frozenset({"previous_response", "conversation", "file"})
"""Sources that name what lies in one account: they never move, and only they can conflict."""

UNKEYED = Key("none", "")
MOST_FILES = 256
"""How many files of one request are looked at."""

_LANE_SOURCES = ("session", "conversation", "prompt_cache")
_CONVERSATION_SOURCES = ("session", "prompt_cache")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The affinity evidence of one request, strongest first.

    Attributes:
        keys: the keys that it names; empty if it names none.
        conversation_key: what the outbound `session-id` is made from; None if there is nothing.
        turn_state: the turn state that the client sent back; None if it sent none.
        portable: whether the turn may move to another account at all.
        previous_response: the response that the turn continues; None if it continues none.
        anchored: whether it continues one with `store: false`.
    """

    keys: tuple[Key, ...]
    conversation_key: str | None
    turn_state: str | None
    portable: bool
    previous_response: str | None
    anchored: bool

    @property
    def lane(self) -> Key:
        """The key of the lane: what successive turns of one conversation have in common."""
        return self._first(_LANE_SOURCES)

    @property
    def stored(self) -> tuple[Key, ...]:
        """The keys whose owner this turn tells: what it names, and its conversation."""
        named = [k for k in self.keys if k.source in ("conversation", "file")]
        own = self._first(_CONVERSATION_SOURCES)
        return (*named, own) if own is not UNKEYED else tuple(named)

    def _first(self, sources: Sequence[str]) -> Key:
        found = {key.source: key for key in reversed(self.keys)}
        return next((found[source] for source in sources if source in found), UNKEYED)


def read_evidence(headers: Sequence[Header], body: Body) -> Evidence:
    """Read the affinity evidence of a request.

    Raises:
        InvalidBodyError: a member that names a conversation has the wrong type.
    """
    previous = body.text("previous_response_id")
    cache_key = body.text("prompt_cache_key")
    conversation = _conversation(body)
    session = session_key(headers)
    turn_state = _header(headers, TURN_STATE_HEADER)
    named = [
        Key(source, value)
        for source, value in (
            ("previous_response", previous),
            ("conversation", conversation),
            *(("file", name) for name in _files(body.get("input"))),
        )
        if value
    ]
    if turn_state:
        named.append(turn_state_key(turn_state))
    named += [
        Key(source, value)
        for source, value in (("session", session), ("prompt_cache", cache_key))
        if value
    ]
    return Evidence(
        keys=tuple(named),
        conversation_key=cache_key or conversation,
        turn_state=turn_state,
        portable=(
            previous is None
            and conversation is None
            and not _pinned(body.get("input"))
            and not _holds_state(body.get("tools"))
        ),
        previous_response=previous,
        anchored=previous is not None and body.get("store") is False,
    )


def on_socket(evidence: Evidence, socket: str) -> Evidence:
    """Return the evidence of a turn that came over a client's WebSocket.

    The socket is itself a session if the turn names no conversation otherwise.

    Args:
        evidence: of its frame and of the socket's handshake.
        socket: a name that no other socket has.
    """
    if evidence.lane is not UNKEYED:
        return evidence
    return replace(evidence, keys=(*evidence.keys, Key("session", socket, passing=True)))


def turn_state_key(value: str) -> Key:
    """Return the key of a turn state; what is remembered of it is a digest."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Key("turn_state", digest)


def keys_meant(text: str, sources: Iterable[str]) -> tuple[Key, ...]:
    r"""Return the keys that a person may mean by what a client sent.

    Args:
        text: a client's value, or as it is listed: a session with its thread as `SESSION\nTHREAD`,
            a turn state by its digest. Text of the command line: bytes that are no UTF-8 are
            surrogates.
        sources: where the key may come from.
    """
    try:
        # The gateway reads header values as ISO-8859-1, so they are remembered that way.
        header = text.encode("utf-8", "surrogateescape").decode("latin-1").strip(" \t")
    except UnicodeEncodeError:
        return ()  # nothing that could have been sent
    body = [text] if not any("\ud800" <= c <= "\udfff" for c in text) else []
    values = {
        "session": [header, header.replace("\\n", "\n", 1)],
        "turn_state": [turn_state_key(header).value, header],
    }
    return tuple(
        dict.fromkeys(Key(source, v) for source in sources for v in values.get(source, body))
    )


def session_key(headers: Sequence[Header]) -> str | None:
    """Return the session that the headers name; None if they name none.

    The first of `SESSION_NAMES`, together with thread-id: sub-agents that share a session do not
    share a lane.
    """
    for name in SESSION_NAMES:
        value = _header(headers, name)
        if value:
            thread = _header(headers, "thread-id")
            return f"{value}\n{thread}" if thread else value
    return None


def unreadable_reasoning(
    digests: Iterable[str], account: str, *, made_by: Callable[[str], str | None], home: str | None
) -> list[str]:
    """Return the encrypted reasoning that `account` cannot read, since another account made it.

    Args:
        digests: of the items of encrypted reasoning in the input.
        account: the account that serves.
        made_by: which account made the reasoning of a digest; None if that is not known.
        home: the account that owns the turn's key: what nobody is known to have made is its own.
    """
    return [d for d in digests if (made_by(d) or home or account) != account]


def _header(headers: Sequence[Header], name: str) -> str | None:
    return next((v.strip(" \t") for n, v in headers if n.lower() == name and v.strip(" \t")), None)


def _conversation(body: Body) -> str | None:
    value = body.get("conversation")
    if isinstance(value, dict):
        value = value.get("id")
    return checked_text(value, "conversation") or None if value is not None else None


def _files(value: Any) -> list[str]:
    """Return the ids of files that input items name, each once."""
    found: dict[str, None] = {}
    for item in objects_within(value, ("content", "output")):
        name = item.get("file_id")
        if item.get("type") in _FILE_TYPES and isinstance(name, str) and name:
            found[checked_text(name, "file_id")] = None
    return list(found)[:MOST_FILES]


_FILE_TYPES = frozenset({"input_file", "input_image", "computer_screenshot"})
_PINNED_TYPES = frozenset(
    {
        "item_reference", "compaction", "code_interpreter_call", "computer_call",
        "computer_call_output", "mcp_approval_request", "mcp_approval_response",
    }
)  # fmt: skip


def _pinned(value: Any) -> bool:
    """Whether input items lie in an account: files, references, compactions, hosted tools."""
    return any(
        item.get("type") in _PINNED_TYPES or isinstance(item.get("file_id"), str)
        for item in objects_within(value, ("content", "output"))
    )


def _holds_state(value: Any) -> bool:
    """Whether hosted tools name what lies in an account: containers, files, vector stores."""
    inner = ("container", "environment", "input_image_mask", "tools")
    return any(
        tool.get("file_ids")
        or tool.get("vector_store_ids")
        or any(isinstance(tool.get(n), str) for n in ("container", "container_id", "file_id"))
        for tool in objects_within(value, inner)
    )
