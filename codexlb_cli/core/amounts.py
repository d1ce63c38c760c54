"""Amounts as upstreams write them, in JSON and in headers: numbers, times and durations.

What cannot be read is None: an upstream's nonsense is never a limit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|[smhd])", re.IGNORECASE)
_FIRST_MILLISECONDS = 1e11
"""What is larger is no number of seconds since the epoch: that would be the year 5138."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def flag(value: object) -> bool | None:
    """Read a truth value, as JSON or as the text of a header has it; None if it is none."""
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())


def number(value: object, most: float = 1e12) -> float | None:
    """Return a finite, sane number from JSON or a header; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if 0 <= amount < most else None


def moment(value: object) -> float | None:
    """Read a time: seconds or milliseconds since the epoch, or ISO 8601 (UTC where no zone is)."""
    seconds = number(value, most=1e14)
    if seconds is not None:
        return seconds / 1000 if seconds >= _FIRST_MILLISECONDS else seconds
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if date is None:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def duration(text: str) -> float | None:
    """Read "6m0s" or "20 ms" in seconds; None if it names no amount."""
    parts = [(float(n), u.lower()) for n, u in _PARTS.findall(text)]
    if not parts:
        return None
    # "minutes" begins like "milliseconds", which the pattern spells out.
    return number(sum(n * _UNITS["ms" if u.startswith("mi") else u] for n, u in parts))
