"""The usage of all plans as one: what Codex shows in its status, in the shape that it reads.

That is the document of `GET .../wham/usage` (`RateLimitStatusPayload` in openai/codex,
`backend-client`), which an upstream tells of one account. Codex takes whole numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from codexlb_cli.core.accounts import FRESH, USAGE_LIMIT, Account, Availability, limit_in_force
from codexlb_cli.core.policies import capacity
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.windows import LIMIT_REACHED, WINDOW_REASONS, Credits, Limits, Window

USUAL_MINUTES = {"primary": 300.0, "secondary": 10_080.0}
"""How long a window is taken to be whose length was not told."""
NO_PLAN = "unknown"
"""The plan of a pool that has none: Codex wants a word."""
_MOST_DIGITS = 20
"""Of a balance: `1e999999` is a number, and a megabyte when it is written out."""
REACHED = {"type": "rate_limit_reached"}

_USED_UP = {
    USAGE_LIMIT,
    "insufficient_quota",
    "usage_not_included",
    LIMIT_REACHED,
    *WINDOW_REASONS.values(),
}


@dataclass(frozen=True, slots=True)
class PlanUsage:
    """One plan as the pool's usage counts it.

    Attributes:
        limits: what was told of it.
        size: how much it holds, against the others.
        shut_until: until when it serves nothing because it is used up; None if it serves.
    """

    limits: Limits
    size: float
    shut_until: float | None


@dataclass(frozen=True, slots=True)
class PoolWindow:
    """A window of the pool.

    Attributes:
        used_percent: the part of all plans that is used.
        seconds: its length.
        resets_at: when the first of it comes back, seconds since the epoch.
    """

    used_percent: float
    seconds: int
    resets_at: float

    def document(self, now: float) -> dict[str, int]:
        """Return it as Codex reads it: whole numbers, and 100 only when nothing at all is left."""
        resets_at = math.ceil(self.resets_at)
        part = math.floor(self.used_percent) if self.used_percent > 99 else round(self.used_percent)
        return {
            "used_percent": part,
            "limit_window_seconds": self.seconds,
            "reset_after_seconds": max(resets_at - math.floor(now), 0),
            "reset_at": resets_at,
        }


def usage_document(pool: Pool) -> dict[str, Any]:
    """Return the pool's usage as Codex reads an account's.

    Who has three plans wants to know how much of all of it is left, when the next part comes back,
    and whether a turn would be served now. So:

    - A window is used up to the mean over the plans, each counted by its size and weight. A plan
      that is used up in one window serves nothing, whatever its other window says, so it counts as
      used up in both.
    - A window resets when the first plan of which something is used gets it back.
    - The limit is reached only when no account can serve: each that is in use is used up. An
      account without a limit, such as an API key, is never used up.
    - Accounts that are disabled or must sign in are no part of the pool. Those of which no window
      was told, such as API keys, count in no window.
    - The plan is the largest. Credits add up.
    """
    accounts = [a for a in pool.accounts if pool.standing(a).state not in _AWAY]
    told = [_plan(pool, account) for account in accounts]
    reached = bool(told) and all(plan.shut_until is not None for plan in told)
    primary, secondary = _windows(told, pool.now)
    credit = _credits([plan.limits.credits for plan in told if plan.limits.credits is not None])
    return {
        "plan_type": _largest(told),
        "rate_limit": {
            "allowed": not reached,
            "limit_reached": reached,
            "primary_window": None if primary is None else primary.document(pool.now),
            "secondary_window": None if secondary is None else secondary.document(pool.now),
        },
        "credits": credit,
        "additional_rate_limits": None,
        "rate_limit_reached_type": REACHED if reached else None,
    }


_AWAY = (Availability.DISABLED, Availability.NEEDS_LOGIN)


def _plan(pool: Pool, account: Account) -> PlanUsage:
    state = pool.states.get(account.name, FRESH)
    limit = limit_in_force(state, pool.now)
    shut = limit[1] if limit is not None and limit[0] in _USED_UP else None
    return PlanUsage(state.limits, capacity(state.limits, account.weight), shut)


def _windows(plans: Sequence[PlanUsage], now: float) -> tuple[PoolWindow | None, PoolWindow | None]:
    """Return the short and the long window of the pool.

    Windows are put together by their length, not their place: a free plan's only window may be a
    week. Of more than two lengths, the two count that most of the pool has.
    """
    found: dict[int, list[tuple[PlanUsage, Window]]] = {}
    for plan, seconds, window in _each(plans):
        found.setdefault(seconds, []).append((plan, window))
    sizes = {seconds: sum(plan.size for plan, _ in group) for seconds, group in found.items()}
    kept = sorted(sorted(found, key=lambda seconds: (-sizes[seconds], seconds))[:2])
    made = [_window(seconds, found[seconds], now) for seconds in kept]
    if len(made) == 2:
        return made[0], made[1]
    if not made:
        return None, None
    only_second = all(plan.limits.primary is None for plan, _ in found[kept[0]])
    return (None, made[0]) if only_second else (made[0], None)


def _each(plans: Sequence[PlanUsage]) -> Iterator[tuple[PlanUsage, int, Window]]:
    for plan in plans:
        for place, window in plan.limits.windows:
            minutes = window.minutes or USUAL_MINUTES[place]
            yield plan, max(round(minutes * 60), 1), window


def _window(seconds: int, group: Sequence[tuple[PlanUsage, Window]], now: float) -> PoolWindow:
    parts = [(plan.size, *_part(plan, window, now)) for plan, window in group]
    size = sum(size for size, _, _ in parts)
    back = [at for _, used, at in parts if used > 0 and at is not None]
    ends = back or [at for _, _, at in parts if at is not None]
    return PoolWindow(
        used_percent=sum(size * used for size, used, _ in parts) / size,
        seconds=seconds,
        resets_at=min(ends, default=now + seconds),
    )


def _part(plan: PlanUsage, window: Window, now: float) -> tuple[float, float | None]:
    """Return how much of a plan's window is used, and when that comes back."""
    if plan.shut_until is not None:
        return 100.0, plan.shut_until
    ends = None if window.over(now) else window.resets_at
    return window.used(now), ends


def _largest(plans: Sequence[PlanUsage]) -> str:
    named = [(capacity(plan.limits), plan.limits.plan) for plan in plans if plan.limits.plan]
    return max(named, key=lambda pair: pair[0], default=(0.0, NO_PLAN))[1] or NO_PLAN


def _credits(told: Sequence[Credits]) -> Mapping[str, object] | None:
    if not told:
        return None
    return {
        "has_credits": any(credit.has_credits for credit in told),
        "unlimited": any(credit.unlimited for credit in told),
        "balance": _sum([credit.balance for credit in told if credit.balance is not None]),
    }


def _sum(balances: Sequence[str]) -> str | None:
    """Add up balances; those that are no number are in words that nobody can add up."""
    amounts = []
    for balance in balances:
        try:
            amounts.append(Decimal(balance))
        except InvalidOperation:
            continue
    sane = [a for a in amounts if a.is_finite() and abs(a.adjusted()) <= _MOST_DIGITS]
    return format(sum(sane), "f") if sane else None
