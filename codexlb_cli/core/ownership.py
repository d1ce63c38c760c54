"""Who owns a turn: what is remembered of its keys, and which of them decides.

Memory comes in as a function, so that the gateway and `inspect` decide alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from codexlb_cli.core.accounts import Availability, Standing
from codexlb_cli.core.affinity import ANCHORS, UNKEYED, Evidence, Key
from codexlb_cli.core.client_errors import ClientError, previous_response_not_found
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.frames import Body
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import TurnFacts

NO_REPLAY_SECONDS = 30.0
"""A key whose last turn gave up gets no replay for this long: its client retries by itself."""
PASSING_LIMIT_SECONDS = 60.0
OWNER_FAILS_TURNS = 3
OWNER_FAILS_SECONDS = 60.0


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

    @classmethod
    def stored(cls, owner: str) -> KeyRecord:
        """Return what is known of a key whose owner was stored by an earlier run."""
        return cls(owner=owner, bound=True)

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


def owner_after(key: Key, record: KeyRecord, account: str, pool: Pool) -> str:
    """Return who owns a key after `account` completed a turn of it.

    Args:
        key: the key.
        record: what was known of it.
        account: the account that completed the turn.
        pool: the accounts, as the turn's model leaves them.
    """
    home = record.owner
    if key.strength is not Strength.SOFT or not record.bound or home is None:
        return account
    passing = pool.has_model(home) and keeps_soft_owner(pool.standing_of(home), pool.now)
    return home if passing else account


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


NEW = KeyRecord()
"""What is known of a key that was never seen."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What one key of a request says.

    Attributes:
        key: the key.
        owner: the account that it names; None if nobody is known to own it.
        role: `decides`, `agrees` with the owner, `overruled` by a stronger key, or `unknown`.
    """

    key: Key
    owner: str | None
    role: str


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns a turn, and which key says so.

    Attributes:
        key: the key that decides; `UNKEYED` if none does.
        record: what is remembered of it.
        asks: whether nobody knows who stores the previous response, so that the accounts are
            asked for it in order.
        hint: the account to ask first; None if nothing points to one.
        witnesses: one per key of the request, the strongest first.
        conflict: the accounts that anchors name, where they name several.
    """

    key: Key
    record: KeyRecord
    asks: bool = False
    hint: str | None = None
    witnesses: tuple[Witness, ...] = ()
    conflict: tuple[str, ...] = ()

    @property
    def owner(self) -> str | None:
        """The account that owns the turn; None if a first turn may choose."""
        return self.record.owner

    @property
    def error(self) -> ClientError | None:
        """What the client is told where the anchors of one request lie in several accounts."""
        if not self.conflict:
            return None
        names = " and ".join(f"`{name}`" for name in self.conflict)
        return ClientError(
            "continuity_owner_conflict",
            f"what this request refers to lies in different accounts: {names}",
        )


def resolve(evidence: Evidence, known: Callable[[Key], KeyRecord]) -> Ownership:
    """Say who owns a turn.

    The strongest key with a known owner decides; anchors (a previous response, a conversation, a
    file) win over a session and a turn state, and may not contradict each other. Without an owner
    the strongest key that can be claimed decides. A soft key says nothing where a hard one is.

    Args:
        evidence: of the request.
        known: what is remembered of a key.
    """
    records = [(key, known(key)) for key in evidence.keys]
    owned = [(k, r) for k, r in records if r.owner is not None]
    anchors = dict.fromkeys(
        r.owner for k, r in owned if k.source in ANCHORS and r.bound and r.owner
    )
    hard = [(k, r) for k, r in owned if k.strength is Strength.HARD]
    asked = next((k for k, r in records if k.source == "previous_response" and not r.owner), None)
    if asked is not None and not anchors:
        key, record, hint = asked, NEW, next((r.owner for _, r in owned), None)
        return Ownership(key, record, True, hint, _witnesses(records, key, None))
    key, record = hard[0] if hard else _claimable(records)
    return Ownership(
        key=key,
        record=record,
        witnesses=_witnesses(records, key, record.owner),
        conflict=tuple(anchors) if len(anchors) > 1 else (),
    )


UNOWNED = Ownership(UNKEYED, NEW)
"""What is known of a turn before anything was looked up."""


@dataclass(frozen=True, slots=True)
class Seated:
    """What is known of the socket that made the previous response with `store: false`.

    Attributes:
        account: the account of the live socket whose latest response it is; None if there is none.
        made: whether the response was made on a socket here, not long ago.
    """

    account: str | None = None
    made: bool = False


def plan_error(ownership: Ownership, evidence: Evidence, seated: Seated) -> ClientError | None:
    """Return why nothing is sent for a turn, whatever the accounts are; None if it may start."""
    if anchor_lost(
        evidence,
        on_socket=seated.made,
        live=seated.account is not None,
        owner_known=not ownership.asks,
    ):
        return previous_response_not_found()
    return ownership.error


def facts_of(
    ownership: Ownership,
    evidence: Evidence,
    lane: KeyRecord,
    seated: Seated,
    *,
    now: float,
    acts: bool,
    deadline: float,
    resends: bool = False,
) -> TurnFacts:
    """Return what `turn` needs to know of a turn.

    Args:
        ownership: who owns it.
        evidence: of the request.
        lane: what is remembered of its conversation.
        seated: where its previous response lives.
        now: seconds since the epoch.
        acts: whether a replay might do twice what hosted tools do.
        deadline: when the first event is due at the latest, seconds since the epoch.
        resends: whether the client sends its full input again when a chain of its is lost.
    """
    record = ownership.record
    anchored = seated.account is not None
    movable = ownership.key.source in ("session", "turn_state")
    return TurnFacts(
        strength=Strength.HARD if anchored else ownership.key.strength,
        owner=seated.account or record.owner,
        bound=anchored or record.bound,
        portable=evidence.portable,
        replayable=not acts and record.may_replay(now) and lane.may_replay(now),
        anchored=anchored,
        owner_failed=movable and lane.owner_keeps_failing,
        failures=max(record.failures, lane.failures),
        asks=ownership.asks and not anchored,
        hint=ownership.hint,
        resends=resends and evidence.previous_response is not None,
        deadline=deadline,
    )


class Mobility(StrEnum):
    """When another account than its owner may serve the turns of a key."""

    NEVER = "never"
    """What the key names lies in the account."""
    ACCOUNT_FAILURE = "account_failure"
    """Where the account itself fails, and the turn is portable; never because a socket closed."""
    OWNER_CANNOT_SERVE = "owner_cannot_serve"
    """Whenever the owner cannot serve a turn now; the next one goes home."""


def mobility(key: Key, policy: ReconnectPolicy) -> Mobility:
    """Return when the turns of an owned key may go to another account.

    Args:
        key: the key.
        policy: the configured policy.
    """
    if key.strength is Strength.SOFT:
        return Mobility.OWNER_CANNOT_SERVE
    if key.source in ANCHORS or policy.on_account_failure != "move":
        return Mobility.NEVER
    return Mobility.ACCOUNT_FAILURE


def outlasts(body: Body) -> bool:
    """Whether the account stores the response of this request, so that it outlasts its socket."""
    return body.get("store") is not False


def _claimable(records: list[tuple[Key, KeyRecord]]) -> tuple[Key, KeyRecord]:
    """Return the strongest key that a first turn may claim; a foreign turn state binds nothing."""
    free = [(k, r) for k, r in records if k.source != "turn_state"]
    return free[0] if free else (UNKEYED, NEW)


def _witnesses(
    records: list[tuple[Key, KeyRecord]], decides: Key, owner: str | None
) -> tuple[Witness, ...]:
    def role(key: Key, record: KeyRecord) -> str:
        if key == decides:
            return "decides"
        if record.owner is None:
            return "unknown"
        return "agrees" if record.owner == owner else "overruled"

    return tuple(Witness(k, r.owner, role(k, r)) for k, r in records)
