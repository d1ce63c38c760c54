"""Moments as a person names them: `7d`, `24h`, `2026-01-01`. Everything is UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_WRITTEN = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?")

_LAST = 253_402_214_400.0
"""The last day of the year 9999."""


def moment(text: str, now: float) -> float:
    """Return what `text` names, in seconds since the epoch.

    Args:
        text: a time ago (`30m`, `24h`, `7d`, `2w`), a date, which begins at midnight, or a date
            with a time; without a zone they are UTC.
        now: seconds since the epoch.

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(now - int(ago[1]) * _SECONDS[ago[2]], 0.0)
    if _WRITTEN.fullmatch(text) is None:
        raise ValueError("names no moment")
    written = datetime.fromisoformat(text)
    seconds = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < _LAST:
        raise ValueError("is out of range")
    return seconds
