"""Which conversation a turn belongs to, how strongly it is bound, and what its key remembers.

Evidence is read from the request before the header filter. Session ids and cache keys are
compared, never interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codexlb_cli.core.accounts import Availability, Standing
from codexlb_cli.core.frames import Body, checked_text, objects_within
from codexlb_cli.core.headers import SESSION_NAMES, TURN_STATE_HEADER, Header
from codexlb_cli.core.reconnect import Strength

NO_REPLAY_SECONDS = 30.0
"""A key whose last turn gave up gets no replay for this long: its client retries by itself."""
PASSING_LIMIT_SECONDS = 60.0
OWNER_FAILS_TURNS = 3
OWNER_FAILS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Key:
    """What a turn is keyed by.

    Attributes:
        source: `previous_response`, `session`, `prompt_cache`, ... the evidence.
        value: the client's value; "" for an unkeyed turn.
    """

    source: str
    value: str

    @property
    def strength(self) -> Strength:
        """How strongly turns of this key are bound to their owner account."""
        return STRENGTHS[self.source]


STRENGTHS = {
    "previous_response": Strength.HARD,
    "session": Strength.HARD,
    "turn_state": Strength.HARD,
    "prompt_cache": Strength.SOFT,
    "none": Strength.NONE,
}

UNKEYED = Key("none", "")

_LANE_SOURCES = frozenset({"session", "prompt_cache"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """The affinity evidence of one request, strongest first.

    Attributes:
        keys: the keys that it names; never empty, `UNKEYED` if it names none.
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
        return next((k for k in self.keys if k.source in _LANE_SOURCES), UNKEYED)


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
    keys = [
        Key(source, value)
        for source, value in (
            ("previous_response", previous),
            ("session", session),
            ("turn_state", turn_state),
            ("prompt_cache", cache_key),
        )
        if value
    ]
    return Evidence(
        keys=tuple(keys) or (UNKEYED,),
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


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is remembered of one key.

    Attributes:
        owner: the account that owns it; None if it has only been seen.
        bound: whether a `response.create` was sent there: only then does a hard key stick.
        gave_up_at: when its last turn gave up; None if that one completed.
        failures: how many of its turns failed in a row.
        failing_since: when the first of these failed.
    """

    owner: str | None = None
    bound: bool = False
    gave_up_at: float | None = None
    failures: int = 0
    failing_since: float | None = None

    def may_replay(self, now: float) -> bool:
        """Whether the gateway may replay a turn of this key at `now`."""
        return self.gave_up_at is None or now - self.gave_up_at >= NO_REPLAY_SECONDS

    @property
    def owner_keeps_failing(self) -> bool:
        """Whether the owner counts as failed for this key: three turns over at least 60 s."""
        return (
            self.failures >= OWNER_FAILS_TURNS
            and self.failing_since is not None
            and self.gave_up_at is not None
            and self.gave_up_at - self.failing_since >= OWNER_FAILS_SECONDS
        )

    def failed(self, now: float) -> KeyRecord:
        """Return the record after a turn that gave up."""
        since = now if self.failing_since is None else self.failing_since
        return replace(self, gave_up_at=now, failures=self.failures + 1, failing_since=since)

    def completed(self, account: str) -> KeyRecord:
        """Return the record after a turn that `account` completed."""
        return KeyRecord(owner=account, bound=True)


def owner_after(
    key: Key, record: KeyRecord, account: str, home: Standing | None, now: float
) -> str:
    """Return who owns a key after `account` completed a turn of it.

    Args:
        key: the key.
        record: what was known of it.
        account: the account that completed the turn.
        home: the standing of the earlier owner; None if it is not configured.
        now: seconds since the epoch.
    """
    settled = key.strength is Strength.SOFT and record.bound and record.owner is not None
    if settled and record.owner is not None and keeps_soft_owner(home, now):
        return record.owner
    return account


def keeps_soft_owner(owner: Standing | None, now: float) -> bool:
    """Whether a soft key stays with its owner although another account completed its turn.

    An exclusion that holds for one request never rewrites a soft row: the next turn goes home. One
    that lasts does, so that the cache is built where the turns will be.

    Args:
        owner: the standing of the owner; None if it is no longer configured.
        now: seconds since the epoch.
    """
    if owner is None:
        return False
    if owner.state is Availability.LIMITED:
        return owner.until is not None and owner.until - now <= PASSING_LIMIT_SECONDS
    return owner.usable or owner.state is Availability.FULL


def anchor_lost(evidence: Evidence, *, on_socket: bool, live: bool, owner_known: bool) -> bool:
    """Whether the response that a turn continues can no longer be reached.

    A response that was made with `store: false` lives on the socket that made it. One that nobody
    knows is asked for upstream, unless this turn's `store: false` says that it is not stored.

    Args:
        evidence: of the request.
        on_socket: whether the response was made with `store: false`.
        live: whether it still is the latest of a live socket.
        owner_known: whether the account that stores it is known.
    """
    if evidence.previous_response is None:
        return False
    if on_socket:
        return not live
    return evidence.anchored and not owner_known


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
