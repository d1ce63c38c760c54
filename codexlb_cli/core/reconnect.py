"""What follows an upstream close: the move, the account, the wait, and a verdict per account.

`after_close` runs the close table. The gateway performs its outcome; `simulate close` prints the
same value. The law that no row and no setting can break: a single close code alone never excludes
a hard turn's owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from codexlb_cli.core.accounts import Availability
from codexlb_cli.core.client_errors import Shortage, nobody_can_serve
from codexlb_cli.core.closes import CloseRow, HardMove, ReconnectPolicy, SoftMove, Wait
from codexlb_cli.core.selection import (
    Pool,
    Reason,
    Verdict,
    in_order_after,
    policy_reason,
    unusable_reason,
    verdicts,
)


class Phase(StrEnum):
    """How far a turn has come on its socket."""

    IDLE = "idle"
    """No turn in flight."""
    SENT = "sent"
    """response.create was sent, no response event has come."""
    CREATED = "created"
    """The first response event was received."""
    STREAMING = "streaming"
    """Output was written to the client."""


class Strength(StrEnum):
    """How strongly a turn is bound to its owner account."""

    HARD = "hard"
    SOFT = "soft"
    NONE = "none"


class Move(StrEnum):
    """What a turn does next."""

    RECONNECT = "reconnect"
    """The same account."""
    FAIL_OVER = "fail_over"
    """Another account."""
    GIVE_UP = "give_up"


NOTHING = "nothing"
"""What a client sees of a replay: no error, only `x-codexlb-attempts: 2`."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A turn whose socket closed.

    Attributes:
        closed: the account whose socket closed.
        phase: how far the turn had come.
        strength: its affinity.
        owner: the account that owns its key; None for unkeyed turns and unowned soft keys.
        replays: how often its frame was sent again already.
        replayable: False for anchored turns and turns with side effects of hosted tools.
        dial_failed: accounts that this turn could not dial; each is dialled once per turn.
    """

    closed: str
    phase: Phase
    strength: Strength
    owner: str | None = None
    replays: int = 0
    replayable: bool = True
    dial_failed: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows a close, and why.

    Attributes:
        affinity: the strength it was decided for.
        owner: the owner; None for unkeyed turns.
        move: reconnect, fail over or give up.
        account: the account that is dialled first; None when giving up.
        replay: whether the turn's frame is sent again.
        delay_seconds: the upper bound of the jittered wait before the dial.
        reason: a stable reason code.
        client_sees: `nothing`, or the code of the error.
        verdicts: one per configured account.
    """

    affinity: Strength
    owner: str | None
    move: Move
    account: str | None
    replay: bool
    delay_seconds: float
    reason: str
    client_sees: str
    verdicts: tuple[Verdict, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The accounts to dial, in order."""
        return tuple(v.account for v in self.verdicts if v.verdict != "excluded")


def after_close(
    row: CloseRow, situation: Situation, pool: Pool, policy: ReconnectPolicy
) -> Outcome:
    """Decide what follows a close.

    Args:
        row: the row of the received code, from `closes.close_row`.
        situation: the turn.
        pool: the accounts; the evidence of this close is not in it yet: a cooldown that a close
            causes applies from the next turn on.
        policy: the configured policy.
    """
    match situation.phase:
        case Phase.CREATED | Phase.STREAMING:
            return _give_up(situation, pool, "response_started", "upstream_closed")
        case Phase.IDLE:
            return _idle(situation, pool, policy)
        case Phase.SENT:
            pass
    gives_up = (
        row.hard is HardMove.GIVE_UP
        if situation.strength is Strength.HARD
        else row.soft is SoftMove.GIVE_UP
    )
    if gives_up:
        return _give_up(situation, pool, row.reason, row.client_sees)
    if situation.replays >= policy.replays or not situation.replayable:
        return _give_up(situation, pool, row.reason, "upstream_unavailable")
    if situation.strength is Strength.HARD:
        # Affinity decided where the row would have sent a free turn elsewhere.
        kept = row.soft is not SoftMove.SAME_ACCOUNT
        reason = "hard_affinity_keeps_owner" if kept else row.reason
        return _owner(situation, pool, policy, policy.bound(row.wait), reason)
    if row.soft is SoftMove.SAME_ACCOUNT:
        return _same_account(situation, pool, policy, policy.bound(row.wait), row.reason)
    return _another_account(situation, pool, policy, row)


def owner_wait(pool: Pool, owner: str, policy: ReconnectPolicy) -> float | None:
    """Return how long a keyed turn waits for its owner, in seconds.

    0 if the owner can be used now; None if it cannot, and will not be back within
    `[affinity] wait_up_to`.
    """
    if pool.usable(owner):
        return 0.0
    known = pool.standing_of(owner)
    if known is None or known.state is not Availability.LIMITED or known.until is None:
        return None
    wait = known.until - pool.now
    return wait if wait <= policy.wait_up_to else None


def _idle(situation: Situation, pool: Pool, policy: ReconnectPolicy) -> Outcome:
    if situation.strength is Strength.HARD:
        return _owner(situation, pool, policy, 0.0, "idle_socket_retired")
    return _same_account(situation, pool, policy, 0.0, "idle_socket_retired")


def _owner(
    situation: Situation, pool: Pool, policy: ReconnectPolicy, bound: float, reason: str
) -> Outcome:
    owner = situation.owner or situation.closed
    wait = owner_wait(pool, owner, policy)
    if wait is None:
        return _give_up_for(situation, pool, owner, reason)
    others = {a.name: Reason.NOT_OWNER for a in pool.accounts if a.name != owner}
    return _go(
        situation,
        pool,
        [(owner, Reason.OWNER)],
        excluded=others,
        delay=max(bound, wait),
        reason=reason,
    )


def _same_account(
    situation: Situation, pool: Pool, policy: ReconnectPolicy, bound: float, reason: str
) -> Outcome:
    closed = situation.closed
    others = _others(situation, pool)
    keyed = situation.strength is Strength.SOFT and situation.owner == closed
    wait = owner_wait(pool, closed, policy) if keyed else 0.0 if pool.usable(closed) else None
    if wait is not None:
        stays = Reason.OWNER if keyed else Reason.POLICY
        tried = [(closed, stays), *others]
        return _go(
            situation,
            pool,
            tried,
            excluded=_failed_dials(situation),
            delay=max(bound, wait),
            reason=reason,
        )
    if others:
        return _go(
            situation, pool, others, excluded=_failed_dials(situation), delay=0.0, reason=reason
        )
    return _give_up_for(situation, pool, closed, reason)


def _another_account(
    situation: Situation, pool: Pool, policy: ReconnectPolicy, row: CloseRow
) -> Outcome:
    closed = situation.closed
    others = _others(situation, pool)
    if others:
        excluded = {**_failed_dials(situation), closed: Reason.CLOSED}
        return _go(situation, pool, others, excluded=excluded, delay=0.0, reason=row.reason)
    keyed = situation.strength is Strength.SOFT and situation.owner == closed
    wait = owner_wait(pool, closed, policy) if keyed else None
    if wait is not None or pool.usable(closed):
        alone: Wait = "short" if row.wait == "none" else row.wait
        tried = [(closed, str(Reason.ONLY_USABLE_ACCOUNT))]
        failed = _failed_dials(situation)
        return _go(
            situation,
            pool,
            tried,
            excluded=failed,
            delay=max(policy.bound(alone), wait or 0.0),
            reason=row.reason,
        )
    return _give_up_for(situation, pool, closed, row.reason)


def _others(situation: Situation, pool: Pool) -> list[tuple[str, str]]:
    return [
        (name, policy_reason(pool, name))
        for name in in_order_after(pool, situation.closed)
        if name != situation.closed and name not in situation.dial_failed
    ]


def _failed_dials(situation: Situation) -> dict[str, str]:
    return dict.fromkeys(situation.dial_failed - {situation.closed}, str(Reason.DIAL_FAILED))


def _go(
    situation: Situation,
    pool: Pool,
    tried: list[tuple[str, str]],
    *,
    excluded: Mapping[str, str],
    delay: float,
    reason: str,
) -> Outcome:
    account = tried[0][0]
    return Outcome(
        affinity=situation.strength,
        owner=_shown_owner(situation),
        move=Move.RECONNECT if account == situation.closed else Move.FAIL_OVER,
        account=account,
        replay=situation.phase is Phase.SENT,
        # No turn is in flight, so none waits: when the next one comes is not known.
        delay_seconds=0.0 if situation.phase is Phase.IDLE else delay,
        reason=reason,
        client_sees=NOTHING,
        verdicts=verdicts(pool, tried, excluded),
    )


def _give_up_for(situation: Situation, pool: Pool, name: str, reason: str) -> Outcome:
    """Give up because of the state of the account that should have served."""
    hard = situation.strength is Strength.HARD
    shortage = Shortage([name] if hard else [a.name for a in pool.accounts], name if hard else None)
    sees = nobody_can_serve(shortage, pool).code
    return _give_up(situation, pool, unusable_reason(pool, name) or reason, sees)


def _give_up(situation: Situation, pool: Pool, reason: str, client_sees: str) -> Outcome:
    otherwise: dict[str, str] = {}
    if situation.strength is Strength.HARD:
        owner = situation.owner or situation.closed
        otherwise = {a.name: Reason.NOT_OWNER for a in pool.accounts if a.name != owner}
    return Outcome(
        affinity=situation.strength,
        owner=_shown_owner(situation),
        move=Move.GIVE_UP,
        account=None,
        replay=False,
        delay_seconds=0.0,
        reason=reason,
        client_sees=client_sees,
        verdicts=verdicts(pool, [], {}, otherwise=otherwise),
    )


def _shown_owner(situation: Situation) -> str | None:
    return None if situation.strength is Strength.NONE else situation.owner
