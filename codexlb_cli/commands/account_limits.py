"""An account's limits and turns as `accounts list` and `accounts show` present them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from codexlb_cli.commands.live import Live
from codexlb_cli.console import duration, iso_utc, table
from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.windows import Credits, Limits, Rate, Window

_CELLS = 10


def limits_document(limits: Limits, live: Live | None, now: float) -> dict[str, Any]:
    """Return what `--json` says of an account's limits and turns.

    `in_flight` and `last_error` are null where no gateway runs.
    """
    error = live.last_error if live else None
    return {
        "plan": limits.plan,
        "windows": [_window_document(name, window, now) for name, window in limits.windows],
        "rates": [_rate_document(name, rate, now) for name, rate in limits.rates],
        "credits": None if limits.credits is None else _credits_document(limits.credits),
        "in_flight": live.in_flight if live else None,
        "last_error": None if error is None else {"reason": error[0], "at": iso_utc(error[1])},
    }


def limits_table(states: Sequence[tuple[str, AccountState]], now: float) -> str | None:
    """Return a table of all windows and rates that are known; None if none is."""
    rows = []
    for name, state in states:
        plan = state.limits.plan or "-"
        rows += [(name, plan, *cells) for cells in _cells(state.limits, now)]
    if not rows:
        return None
    return table(("NAME", "PLAN", "LIMIT", "USED", "RESETS", "SEEN"), rows)


def turns_table(names: Sequence[str], live: Mapping[str, Live], now: float) -> str | None:
    """Return a table of turns in flight and last errors; None where no gateway runs."""
    rows = [
        (name, str(live[name].in_flight), _last_error(live[name], now))
        for name in names
        if name in live
    ]
    return table(("NAME", "IN FLIGHT", "LAST ERROR"), rows) if rows else None


def limit_facts(limits: Limits, live: Live | None, now: float) -> Iterator[tuple[str, str]]:
    """Yield what `accounts show` says of an account's limits and turns, as far as it is known."""
    if limits.plan is not None:
        yield "plan", limits.plan
    for label, used, resets, seen in _cells(limits, now):
        parts = [" ".join(used.split())]
        if resets != "-":
            parts.append(f"resets {resets}" if resets.startswith("in ") else resets)
        if seen.startswith("stale"):
            parts.append(seen)
        yield label, ", ".join(parts)
    if limits.credits is not None:
        yield "credits", _credits(limits.credits)
    if live is not None:
        yield "in flight", str(live.in_flight)
        yield "last error", _last_error(live, now)


def bar(used_percent: float) -> str:
    """Return a bar of ten cells: none for nothing, all of them only for everything."""
    cells = math.ceil(used_percent / 100 * _CELLS)
    if used_percent < 100:
        cells = min(cells, _CELLS - 1)
    return f"[{'#' * cells}{'-' * (_CELLS - cells)}]"


def _cells(limits: Limits, now: float) -> Iterator[tuple[str, str, str, str]]:
    """Yield label, use, reset and age of every window and rate."""
    for name, window in limits.windows:
        resets = "has reset" if window.over(now) else _until(window.resets_at, now)
        age = _age(window.seen_at, now, stale=window.stale(now))
        yield window.label(name), _used(window.used(now)), resets, age
    for name, rate in limits.rates:
        used = 100 * (1 - rate.left(now))
        age = _age(rate.seen_at, now, stale=rate.stale(now))
        yield name, _used(used), _until(rate.resets_at, now), age


def _used(percent: float) -> str:
    return f"{bar(percent)} {math.ceil(percent):>3} %"


def _until(resets_at: float | None, now: float) -> str:
    if resets_at is None:
        return "-"
    return f"in {duration(resets_at - now)}" if resets_at > now else "has reset"


def _age(seen_at: float, now: float, *, stale: bool) -> str:
    told = f"{duration(max(now - seen_at, 0.0))} ago"
    return f"stale, {told}" if stale else told


def _credits(held: Credits) -> str:
    if held.unlimited:
        return "unlimited"
    if not held.has_credits:
        return "none"
    return held.balance or "some"


def _last_error(live: Live, now: float) -> str:
    if live.last_error is None:
        return "-"
    reason, at = live.last_error
    return f"{reason}, {_age(at, now, stale=False)}"


def _window_document(name: str, window: Window, now: float) -> dict[str, Any]:
    over = window.over(now)
    return {
        "name": name,
        "minutes": window.minutes,
        "used_percent": window.used(now),
        "resets_at": None if over or window.resets_at is None else iso_utc(window.resets_at),
        "seen_at": iso_utc(window.seen_at),
        "stale": window.stale(now),
    }


def _rate_document(name: str, rate: Rate, now: float) -> dict[str, Any]:
    full = rate.resets_at is None or rate.resets_at <= now
    return {
        "name": name,
        "limit": rate.limit,
        "remaining": math.floor(rate.left(now) * rate.limit),
        "resets_at": None if full or rate.resets_at is None else iso_utc(rate.resets_at),
        "seen_at": iso_utc(rate.seen_at),
        "stale": rate.stale(now),
    }


def _credits_document(held: Credits) -> dict[str, Any]:
    return {
        "has_credits": held.has_credits,
        "unlimited": held.unlimited,
        "balance": held.balance,
    }
