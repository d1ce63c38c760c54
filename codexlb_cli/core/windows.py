"""What an upstream says of an account's limits, and what follows from it at a given time.

A window that has reset counts as unused without being told. A window that is used up limits its
account only where the upstream named the time of its reset: nobody is shut out on a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

LONGEST_LIMIT_SECONDS = 366 * 24 * 3600.0
"""A reset more than a year away is nonsense; hints beyond it are clamped."""
STALE_SECONDS = 600.0
"""What is older is shown as stale, and asked for again where that is possible."""
LIMIT_REACHED = "limit_reached"
"""The reason where the upstream says that a limit is reached, but no window is used up."""
WINDOW_REASONS = {
    "primary": "primary_window_used_up",
    "secondary": "secondary_window_used_up",
}


@dataclass(frozen=True, slots=True)
class Window:
    """One of an account's usage windows, as it was last told.

    Attributes:
        used_percent: from 0 to 100.
        seen_at: when it was told, seconds since the epoch.
        minutes: how long it is; None if that was not told.
        resets_at: when it begins anew; None if that was not told.
    """

    used_percent: float
    seen_at: float
    minutes: float | None = None
    resets_at: float | None = None

    def label(self, place: str) -> str:
        """Return how it is called: by its length, `5h` or `7d`, else by its place."""
        if self.minutes is None:
            return place
        hours, minutes = divmod(round(self.minutes), 60)
        if minutes:
            return f"{round(self.minutes)}min"
        return f"{hours // 24}d" if hours >= 48 and hours % 24 == 0 else f"{hours}h"

    def over(self, now: float) -> bool:
        """Whether it has begun anew since it was told; for sure after its own length."""
        ends_at = self.resets_at
        if ends_at is None and self.minutes is not None:
            ends_at = self.seen_at + self.minutes * 60
        return ends_at is not None and ends_at <= now

    def used(self, now: float) -> float:
        """Return how much is used, in percent."""
        return 0.0 if self.over(now) else self.used_percent

    def used_up(self, now: float) -> bool:
        """Whether nothing is left until a time that is known."""
        return self.resets_at is not None and self.used(now) >= 100

    def stale(self, now: float) -> bool:
        """Whether it was told too long ago to be relied on; that it has reset is certain."""
        return not self.over(now) and now - self.seen_at > STALE_SECONDS


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate limit of an API key, as its headers told it. It fills up evenly until its reset.

    Attributes:
        limit: how much there is when it is full.
        remaining: how much was left.
        seen_at: when it was told, seconds since the epoch.
        resets_at: when it is full again; None if that was not told.
    """

    limit: float
    remaining: float
    seen_at: float
    resets_at: float | None = None

    def left(self, now: float) -> float:
        """Return how much of it is left, from 0 to 1."""
        told = min(self.remaining / self.limit, 1.0)
        if self.resets_at is None:
            return told
        if self.resets_at <= now:
            return 1.0
        to_go = (self.resets_at - now) / max(self.resets_at - self.seen_at, 1e-3)
        return told + (1.0 - told) * (1.0 - min(to_go, 1.0))

    def stale(self, now: float) -> bool:
        """Whether it was told too long ago to be relied on."""
        full = self.resets_at is not None and self.resets_at <= now
        return not full and now - self.seen_at > STALE_SECONDS


@dataclass(frozen=True, slots=True)
class Credits:
    """What an account may use beyond its windows.

    Attributes:
        has_credits: whether there are any.
        unlimited: whether they do not end.
        balance: how many, in the upstream's words; None if that was not told.
    """

    has_credits: bool
    unlimited: bool
    balance: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """All that is known of an account's limits; None where nothing was told.

    Attributes:
        primary: the short window, mostly 5 hours.
        secondary: the long one, mostly a week.
        requests: an API key's rate of requests.
        tokens: an API key's rate of tokens.
        credits: what goes beyond the windows.
        plan: such as `plus`.
        reached: whether the upstream says that a limit is reached.
        reached_until: until when that goes; None if it is not reached, or named no time.
        seen_at: when anything was told last, seconds since the epoch.
    """

    primary: Window | None = None
    secondary: Window | None = None
    requests: Rate | None = None
    tokens: Rate | None = None
    credits: Credits | None = None
    plan: str | None = None
    reached: bool | None = None
    reached_until: float | None = None
    seen_at: float | None = None

    @property
    def windows(self) -> Iterator[tuple[str, Window]]:
        """Yield name and window, the short one first."""
        for name, window in (("primary", self.primary), ("secondary", self.secondary)):
            if window is not None:
                yield name, window

    @property
    def rates(self) -> Iterator[tuple[str, Rate]]:
        """Yield name and rate of an API key."""
        for name, rate in (("requests", self.requests), ("tokens", self.tokens)):
            if rate is not None:
                yield name, rate

    def used_up(self, now: float) -> tuple[str, float] | None:
        """Return why and until when the account is used up; None if it is not.

        A window with nothing left shuts its account out until it resets, unless credits go on
        where it ends. Of two, the one that resets last is named.
        """
        found = []
        if self.reached_until is not None and self.reached_until > now:
            found.append((self.reached_until, LIMIT_REACHED))
        if found or not self._goes_beyond:
            found += [
                (window.resets_at, WINDOW_REASONS[name])
                for name, window in self.windows
                if window.resets_at is not None and window.used_up(now)
            ]
        if not found:
            return None
        until, reason = max(found, key=lambda pair: (pair[0], pair[1] != LIMIT_REACHED))
        return reason, until

    @property
    def _goes_beyond(self) -> bool:
        return self.credits is not None and (self.credits.unlimited or self.credits.has_credits)

    def stale(self, now: float) -> bool:
        """Whether a window is missing or was told too long ago: it is worth asking."""
        windows = [window for _, window in self.windows]
        return not windows or any(window.stale(now) for window in windows)

    def updated(self, told: Limits) -> Limits:
        """Return these limits with what was told now; what was not told stays.

        Args:
            told: what one answer of the upstream said.
        """
        merged = Limits(
            primary=_continued(self.primary, told.primary),
            secondary=_continued(self.secondary, told.secondary),
            requests=told.requests or self.requests,
            tokens=told.tokens or self.tokens,
            credits=told.credits or self.credits,
            plan=told.plan or self.plan,
            reached=self.reached,
            reached_until=self.reached_until,
            seen_at=told.seen_at if told.seen_at is not None else self.seen_at,
        )
        if told.reached is None or told.seen_at is None:
            return merged
        until = merged._fullest_resets_at(told.seen_at) if told.reached else None
        return replace(merged, reached=told.reached, reached_until=until)

    def _fullest_resets_at(self, now: float) -> float | None:
        """Return when the window resets of which the most is used; None if none names a time."""
        ends = [(w.used(now), w.resets_at) for _, w in self.windows if w.resets_at is not None]
        return max((end for end in ends if end[1] > now), default=(0.0, None))[1]


UNKNOWN = Limits()
"""Nothing was told yet."""


def _continued(before: Window | None, told: Window | None) -> Window | None:
    """Return the window that was told; what it leaves out holds while it is the same window."""
    if before is None or told is None:
        return told or before
    minutes = told.minutes if told.minutes is not None else before.minutes
    resets_at = told.resets_at
    same = before.minutes == minutes and not before.over(told.seen_at)
    if resets_at is None and same:
        resets_at = before.resets_at
    return replace(told, minutes=minutes, resets_at=resets_at)
