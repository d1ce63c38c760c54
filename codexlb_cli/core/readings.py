"""Reads an account's limits out of what an upstream sends: headers, events, errors, documents.

Each reader returns what one answer said, or None if it said nothing; `Limits.updated` adds it to
what is known. Nonsense is left out, part by part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codexlb_cli.core.amounts import duration, flag, moment, number
from codexlb_cli.core.windows import LONGEST_LIMIT_SECONDS, Credits, Limits, Rate, Window

CODEX_LIMIT = "codex"
"""The limit whose windows these are; what is said of others is ignored."""


def is_codex_limit(event: Mapping[str, object]) -> bool:
    """Whether a `codex.rate_limits` event speaks of the limit "codex", or names none."""
    name = event.get("metered_limit_name") or event.get("limit_name") or CODEX_LIMIT
    return isinstance(name, str) and name.lower() == CODEX_LIMIT


def from_headers(headers: Iterable[tuple[str, object]], now: float) -> Limits | None:
    """Read `x-codex-*` and `x-ratelimit-*` headers of an upgrade, an answer or an error frame."""
    given = {name.lower(): value for name, value in headers}

    def window(name: str) -> Window | None:
        prefix = f"x-codex-{name}-"
        keys = ("used-percent", "window-minutes", "reset-at", "reset-after-seconds")
        return _window(*(given.get(prefix + key) for key in keys), now=now)

    def rate(name: str) -> Rate | None:
        keys = ("limit", "remaining", "reset")
        return _rate(*(given.get(f"x-ratelimit-{key}-{name}") for key in keys), now=now)

    credit = {key: given.get(f"x-codex-credits-{key.replace('_', '-')}") for key in _CREDIT_KEYS}
    return _if_any(
        Limits(
            primary=window("primary"),
            secondary=window("secondary"),
            requests=rate("requests"),
            tokens=rate("tokens"),
            credits=_credits(credit),
            plan=_word(given.get("x-codex-plan-type")),
            seen_at=now,
        )
    )


def from_event(event: Mapping[str, object], now: float) -> Limits | None:
    """Read a `codex.rate_limits` event."""
    if not is_codex_limit(event):
        return None
    limits = _mapping(event.get("rate_limits"))

    def window(name: str) -> Window | None:
        found = _mapping(limits.get(name))
        keys = ("used_percent", "window_minutes", "reset_at", "reset_after_seconds")
        return _window(*(found.get(key) for key in keys), now=now)

    return _account(event, limits, window("primary"), window("secondary"), now)


def from_usage(document: object, now: float) -> Limits | None:
    """Read the usage document (`GET .../wham/usage`)."""
    given = _mapping(document)
    limits = _mapping(given.get("rate_limit"))

    def window(name: str) -> Window | None:
        found = _mapping(limits.get(f"{name}_window"))
        seconds = number(found.get("limit_window_seconds"))
        minutes = None if seconds is None else seconds / 60
        keys = ("reset_at", "reset_after_seconds")
        rest = (found.get(key) for key in keys)
        return _window(found.get("used_percent"), minutes, *rest, now=now)

    return _account(given, limits, window("primary"), window("secondary"), now)


def from_error(
    error: Mapping[str, object], headers: Mapping[str, object], now: float
) -> Limits | None:
    """Read an error and the headers that came with it; until when it holds is `failures`' affair.

    Args:
        error: the error object.
        headers: of the answer or the error frame.
        now: seconds since the epoch.
    """
    told = from_headers(headers.items(), now) or Limits(seen_at=now)
    plan = Limits(plan=_word(error.get("plan_type")), seen_at=now)
    return _if_any(told.updated(plan))


_CREDIT_KEYS = ("has_credits", "unlimited", "balance")


def _account(
    given: Mapping[str, object],
    limits: Mapping[str, object],
    primary: Window | None,
    secondary: Window | None,
    now: float,
) -> Limits | None:
    reached, allowed = flag(limits.get("limit_reached")), flag(limits.get("allowed"))
    if allowed is False:
        reached = True
    return _if_any(
        Limits(
            primary=primary,
            secondary=secondary,
            credits=_credits(_mapping(given.get("credits"))),
            plan=_word(given.get("plan_type")),
            reached=reached,
            seen_at=now,
        )
    )


def _if_any(told: Limits) -> Limits | None:
    return None if told == Limits(seen_at=told.seen_at) else told


def _window(
    used: object, minutes: object, reset_at: object, reset_after: object, *, now: float
) -> Window | None:
    percent, length, after = number(used), number(minutes), number(reset_after)
    if percent is None:
        return None
    # A span is right on a clock that is off, too.
    at = now + after if after is not None else moment(reset_at)
    if percent == 0 and not length and not at:  # how Codex tells that there is no such window
        return None
    return Window(
        used_percent=min(percent, 100.0),
        seen_at=now,
        minutes=length or None,
        resets_at=min(at, now + LONGEST_LIMIT_SECONDS) if at else None,
    )


def _rate(limit: object, remaining: object, reset: object, *, now: float) -> Rate | None:
    most, rest = number(limit), number(remaining)
    if not most or rest is None:
        return None
    seconds = number(reset)
    if seconds is None and isinstance(reset, str):
        seconds = duration(reset)
    at = None if seconds is None else now + min(seconds, LONGEST_LIMIT_SECONDS)
    return Rate(limit=most, remaining=rest, seen_at=now, resets_at=at)


def _credits(given: Mapping[str, object]) -> Credits | None:
    has, unlimited = flag(given.get("has_credits")), flag(given.get("unlimited"))
    if has is None or unlimited is None:
        return None
    balance = given.get("balance")
    named = balance if isinstance(balance, int | float | str) else None
    return Credits(has, unlimited, None if named is None else _word(str(named)))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _word(value: object) -> str | None:
    """Return a short text that may be shown; None for anything else."""
    short = isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable()
    return value if isinstance(value, str) and short else None
