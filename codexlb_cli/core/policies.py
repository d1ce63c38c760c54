"""Selection policies: which ready account a turn gets that no account owns yet.

A policy is a small function by its public name: it ranks one candidate, and the lowest rank is
chosen. Policies order first turns only; after a close or a failed dial the order is that of the
configuration. In-flight turns and earlier choices are those at the moment of the choice, so that
parallel turns spread instead of storming the account that has just become free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from codexlb_cli.core.windows import Limits, Window

PLAN_SIZES: Mapping[str, float] = {"free": 0.2, "go": 0.5, "pro": 10.0}
"""How much a plan's windows hold, compared with `plus`, which is 1 like every other plan. A rough
guess: `weight` corrects it."""
MOST_URGENT = 20.0
"""A window is that many times as urgent at most, however soon it resets."""

Rank = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """How much each account has had of its share, for `weighted`: start-time fair queueing.

    An account that was away does not catch up on what it missed: it joins where the others are.

    Attributes:
        finished: the virtual time at which an account has had its last turn's share, by name.
        now: the virtual time: that at which the last turn was chosen.
    """

    finished: Mapping[str, float] = field(default_factory=dict)
    now: float = 0.0

    def start(self, name: str) -> float:
        """Return the virtual time at which the account's next turn begins."""
        return max(self.finished.get(name, 0.0), self.now)

    def after(self, name: str, weight: float) -> Shares:
        """Return the shares after a turn that the account was chosen for.

        Args:
            name: the account.
            weight: its weight; an account with 0 uses up no share.
        """
        start = self.start(name)
        cost = 1.0 / weight if weight > 0 else 0.0
        return replace(self, finished={**self.finished, name: start + cost}, now=start)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ready account, as a policy sees it.

    Attributes:
        name: the account's.
        place: in the configuration.
        in_flight: how many turns it has now.
        last_chosen: a rising number for each choice; 0 if it was never chosen.
        weight: as configured.
        priority: as configured; lower is better.
        share: the virtual time at which its next share begins; see `Shares`.
        budget: how much it has to give; see `budget`.
    """

    name: str
    place: int
    in_flight: int = 0
    last_chosen: int = 0
    weight: float = 1.0
    priority: int = 0
    share: float = 0.0
    budget: float = 1.0


def first(candidate: Candidate) -> Rank:
    """Choose in configuration order: drain one account before the next."""
    return (candidate.place,)


def round_robin(candidate: Candidate) -> Rank:
    """Choose the account that was chosen least recently."""
    return (candidate.last_chosen,)


def least_busy(candidate: Candidate) -> Rank:
    """Choose the account with the fewest turns in flight."""
    return (candidate.in_flight,)


def most_remaining(candidate: Candidate) -> Rank:
    """Choose the account with the most budget, shared among the turns that it has in flight."""
    return (-candidate.budget / (candidate.in_flight + 1),)


def weighted(candidate: Candidate) -> Rank:
    """Choose so that each account gets its part of all turns: its weight of all weights."""
    return (candidate.share,)


Policy = Callable[[Candidate], Rank]
PolicyName = Literal["first", "round_robin", "least_busy", "most_remaining", "weighted"]
POLICIES: Mapping[PolicyName, Policy] = {
    "first": first,
    "round_robin": round_robin,
    "least_busy": least_busy,
    "most_remaining": most_remaining,
    "weighted": weighted,
}
DEFAULT_POLICY: PolicyName = "most_remaining"


def choose(policy: PolicyName, candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate that is best by priority, then by policy.

    Whoever has weight 0 comes last, whatever else is said of it. Ties go to the fewest turns in
    flight, then to the least recently chosen, then to configuration order.

    Args:
        policy: a name of `POLICIES`.
        candidates: at least one.
    """
    rank = POLICIES[policy]
    return min(
        candidates,
        key=lambda c: (
            c.weight == 0,
            c.priority,
            rank(c),
            c.in_flight,
            c.last_chosen,
            c.place,
        ),
    )


def capacity(limits: Limits, weight: float = 1.0) -> float:
    """Return how much an account's windows hold, compared with those of `plus`.

    Args:
        limits: what is known of its limits.
        weight: as configured; 0 counts as 1.
    """
    return PLAN_SIZES.get((limits.plan or "").lower(), 1.0) * (weight or 1.0)


def budget(limits: Limits, now: float, weight: float = 1.0) -> float:
    """Return how much an account has to give, for `most_remaining`: 1 for an untouched `plus`.

    That is the part which is left of the tighter window, the more urgent the sooner it resets,
    since what is left then is lost, times the size of the plan and the weight. An account whose
    limits are unknown counts as untouched.

    Args:
        limits: what is known of its limits.
        now: seconds since the epoch.
        weight: as configured; 0 counts as 1.
    """
    size = capacity(limits, weight)
    left = [(1.0 - w.used(now) / 100, _urgency(w, now)) for _, w in limits.windows]
    left += [(rate.left(now), 1.0) for _, rate in limits.rates]
    if not left:
        return size
    tighter, urgency = min(left, key=lambda pair: (pair[0], pair[1]))
    return size * tighter * urgency


def _urgency(window: Window, now: float) -> float:
    """Return how many times as fast as planned a window may be used up before it resets."""
    if window.resets_at is None or window.minutes is None or window.over(now):
        return 1.0
    length = window.minutes * 60
    to_go = min(max(window.resets_at - now, length / MOST_URGENT), length)
    return length / to_go
