"""Waiting times: upper bounds, full jitter, doubling, and the pace of dials. Seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: a wait is drawn between 0 and `bound(n)`."""

    base: float
    longest: float

    def bound(self, repetitions: int) -> float:
        """The upper bound of the wait after `repetitions` earlier waits."""
        return doubled(self.base, repetitions, self.longest)


def doubled(base: float, repetitions: int, longest: float) -> float:
    """Return `base` doubled `repetitions` times, `longest` at most."""
    if base <= 0:
        return 0.0
    return min(base * 2.0 ** min(repetitions, 62), longest)


@dataclass(frozen=True, slots=True)
class DialPace:
    """A token bucket for the dials of one account: a burst, then one at a time, evenly spaced.

    Upstreams answer upgrades with 403 when sockets are opened too fast.

    Attributes:
        next_free: when the bucket is full again; 0 for an account that never dialled.
    """

    next_free: float = 0.0

    BURST = 8
    SPACING_SECONDS = 1.0

    def dial(self, now: float) -> tuple[float, DialPace]:
        """Return 0 and the pace after this dial, or how long to wait before asking again."""
        full_at = max(self.next_free, now) + self.SPACING_SECONDS
        wait = full_at - now - self.BURST * self.SPACING_SECONDS
        return (wait, self) if wait > 0 else (0.0, DialPace(full_at))
