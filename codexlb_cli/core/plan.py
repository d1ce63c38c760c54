"""Where a turn starts: the accounts it may go to, in order, how long it waits, or why it cannot.

`turn` performs a plan and `inspect route` prints it; both get it from `opening`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from codexlb_cli.core.client_errors import (
    ClientError,
    Shortage,
    no_accounts,
    nobody_can_serve,
)
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.reconnect import Strength, owner_wait
from codexlb_cli.core.selection import (
    Pool,
    Reason,
    Verdict,
    first_choice,
    in_order_after,
    policy_reason,
    verdicts,
)
from codexlb_cli.core.turn_events import TurnFacts


class Start(StrEnum):
    """Why a turn starts where it does, or does not start."""

    UNKEYED = "unkeyed"
    FIRST_TURN = "first_turn"
    OWNER = "owner"
    OWNER_IS_WAITED_FOR = "owner_is_waited_for"
    OWNER_CANNOT_SERVE = "owner_cannot_serve"
    OWNER_KEEPS_FAILING = "owner_keeps_failing"
    ACCOUNT_FAILED = "account_failed"
    UNKNOWN_RESPONSE = "unknown_response"
    FULL = "full"
    NO_ACCOUNTS = "no_accounts"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a turn starts, and why.

    Attributes:
        reason: a stable reason code.
        candidates: the accounts to dial, in order; empty if nobody may serve now.
        wait_seconds: how long the turn waits for the first of them.
        moved_from: the owner that a hard turn leaves because its account failed; None if none.
        queued_for: full accounts that are waited for, where no other may serve.
        error: what the client is told if the turn can neither start nor wait.
        verdicts: one per configured account.
    """

    reason: Start
    candidates: tuple[str, ...] = ()
    wait_seconds: float = 0.0
    moved_from: str | None = None
    queued_for: tuple[str, ...] = ()
    error: ClientError | None = None
    verdicts: tuple[Verdict, ...] = ()


def opening(facts: TurnFacts, pool: Pool, policy: ReconnectPolicy) -> Plan:
    """Plan the first dial of a turn.

    Args:
        facts: what is known of the turn.
        pool: the accounts as they are now.
        policy: the configured policy.
    """
    if not any(account.enabled for account in pool.accounts):
        return _refused(pool, Start.NO_ACCOUNTS, no_accounts(pool))
    if facts.asks and facts.hint is not None and not pool.usable(facts.hint):
        # The conversation lies there, so its responses do: nobody else could say that they don't.
        return _at_owner(facts.hint, replace(facts, portable=False), pool, policy)
    if facts.asks:
        return _freely(_hint_first(first_choice(pool), facts.hint), pool, Start.UNKNOWN_RESPONSE)
    owner = facts.owner
    if owner is None:
        keyed = facts.strength is not Strength.NONE
        return _freely(first_choice(pool), pool, Start.FIRST_TURN if keyed else Start.UNKEYED)
    if facts.is_hard:
        return _at_owner(owner, facts, pool, policy)
    wait = owner_wait(pool, owner, policy)
    if wait is None or pool.crowded(owner):
        return _freely(first_choice(pool), pool, Start.OWNER_CANNOT_SERVE, waits_for=owner)
    others = [name for name in in_order_after(pool, owner) if name != owner]
    return _to_owner(owner, wait, pool, others)


def with_models(pool: Pool, *, is_hard: bool) -> Pool:
    """Forget which accounts lack the model where that must not decide.

    A missing model is no failure of an account, so it never takes a hard turn from its owner;
    and where no account has it, the upstream's own error is the answer. An account whose
    configuration keeps the model from it is not asked for it even then.
    """
    if is_hard:
        return replace(pool, without_model=frozenset(), not_taking=frozenset())
    if not any(pool.usable(account.name) for account in pool.accounts):
        return replace(pool, without_model=frozenset())
    return pool


def new_homes(
    owner: str, candidates: Sequence[str], facts: TurnFacts, policy: ReconnectPolicy
) -> list[str]:
    """Return where a hard turn may move when its account fails; empty where it may not."""
    if policy.on_account_failure != "move" or not facts.portable:
        return []
    return [name for name in candidates if name != owner]


def wait_for_failed(
    until: float | None, facts: TurnFacts, pool: Pool, policy: ReconnectPolicy
) -> float | None:
    """Return how long a hard turn waits for its failed account; None if it does not.

    Args:
        until: when the account may be used again; None if that is not known.
        facts: what is known of the turn.
        pool: the accounts.
        policy: the configured policy.
    """
    if policy.on_account_failure != "wait" or until is None or until > facts.deadline:
        return None
    return max(0.0, until - pool.now)


def _at_owner(owner: str, facts: TurnFacts, pool: Pool, policy: ReconnectPolicy) -> Plan:
    others = new_homes(owner, first_choice(pool), facts, policy)
    if facts.owner_failed and others:  # with nowhere to go the owner is tried: nothing stays dead
        return _moved(owner, others, pool, Start.OWNER_KEEPS_FAILING)
    wait = owner_wait(pool, owner, policy)
    if pool.full(owner) or (wait is not None and pool.crowded(owner)):
        return _queued(pool, [owner], owner)
    if wait is not None:
        return _to_owner(owner, wait, pool, [])
    if others:
        return _moved(owner, others, pool, Start.ACCOUNT_FAILED)
    known = pool.standing_of(owner)
    wait = wait_for_failed(known.until if known else None, facts, pool, policy)
    if wait is not None and pool.crowded(owner):
        return _queued(pool, [owner], owner)
    if wait is not None:
        return _to_owner(owner, wait, pool, [])
    return _refused(pool, Start.ACCOUNT_FAILED, _shortage(owner, facts, pool, policy), owner)


def _shortage(owner: str, facts: TurnFacts, pool: Pool, policy: ReconnectPolicy) -> ClientError:
    """Say who might have served: everybody where the turn could have moved, else its owner."""
    moves = policy.on_account_failure == "move" and facts.portable
    names = [account.name for account in pool.accounts] if moves else [owner]
    return nobody_can_serve(Shortage(names, owner), pool)


def _to_owner(owner: str, wait: float, pool: Pool, others: Sequence[str]) -> Plan:
    tried = [(owner, str(Reason.OWNER)), *((name, policy_reason(pool, name)) for name in others)]
    excluded = {a.name: str(Reason.NOT_OWNER) for a in pool.accounts if not others}
    return Plan(
        Start.OWNER_IS_WAITED_FOR if wait > 0 else Start.OWNER,
        candidates=(owner, *others),
        wait_seconds=wait,
        verdicts=verdicts(pool, tried, excluded),
    )


def _moved(owner: str, others: Sequence[str], pool: Pool, reason: Start) -> Plan:
    tried = [(name, policy_reason(pool, name)) for name in others]
    excluded = {owner: str(Reason.OWNER_FAILED)} if pool.usable(owner) else {}
    return Plan(
        reason,
        candidates=tuple(others),
        moved_from=owner,
        verdicts=verdicts(pool, tried, excluded),
    )


def _freely(
    candidates: Sequence[str], pool: Pool, reason: Start, *, waits_for: str | None = None
) -> Plan:
    if candidates:
        tried = [(name, policy_reason(pool, name)) for name in candidates]
        return Plan(reason, tuple(candidates), verdicts=verdicts(pool, tried, {}))
    full = [a.name for a in pool.accounts if pool.full(a.name)]
    if full:
        return _queued(pool, [waits_for] if waits_for in full and waits_for else full)
    return _refused(pool, reason, nobody_can_serve(Shortage([a.name for a in pool.accounts]), pool))


def _queued(pool: Pool, names: Sequence[str], owner: str | None = None) -> Plan:
    return Plan(Start.FULL, queued_for=tuple(names), verdicts=_nobody(pool, owner))


def _refused(pool: Pool, reason: Start, error: ClientError, owner: str | None = None) -> Plan:
    return Plan(reason, error=error, verdicts=_nobody(pool, owner))


def _nobody(pool: Pool, owner: str | None) -> tuple[Verdict, ...]:
    others = {a.name: str(Reason.NOT_OWNER) for a in pool.accounts if owner not in (None, a.name)}
    return verdicts(pool, [], {}, otherwise=others)


def _hint_first(candidates: Sequence[str], hint: str | None) -> list[str]:
    return sorted(candidates, key=lambda name: name != hint)
