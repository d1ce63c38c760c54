"""`codexlb usage`: what the recorded turns used, by account, model, day or session."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.console import WIDTH, escape, iso_utc, table
from codexlb_cli.errors import UsageError

if TYPE_CHECKING:
    from codexlb_cli.core.prices import Cost
    from codexlb_cli.core.usage_report import Group, Report, Used

UNKNOWN = "-"
_SHORTEST_NAME = 12
_SESSIONS = 50
"""How many sessions are listed unless a limit is given."""
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
_COUNTS = ("requests", "errors", "attempts", "input", "cached", "output", "reasoning")
_MOMENT = "`7d`, `24h`, `2026-01-01` or `2026-01-01T12:00Z`"


class By(StrEnum):
    """What the groups are."""

    ACCOUNT = "account"
    MODEL = "model"
    DAY = "day"
    SESSION = "session"


def usage(
    ctx: typer.Context,
    *,
    by: Annotated[By, typer.Option("--by", help="What to add up.")] = By.ACCOUNT,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From when: 7d, 24h, a date or a time, in UTC.")
    ] = "7d",
    until: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Until when, which is not included; now by default."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="How many groups at most, 0 for all; 50 for sessions by default."
        ),
    ] = None,
    as_json: JsonFlag = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV with a header line, without the total.")
    ] = False,
) -> None:
    """Show what recorded turns used: requests, errors, tokens, and cost where a price is known."""
    from codexlb_cli.config.policies import prices_of
    from codexlb_cli.core.usage_report import report
    from codexlb_cli.store.usage import read_usage

    if as_json and as_csv:
        raise UsageError("`--json` and `--csv` cannot be used together")
    if limit is not None and limit < 0:
        raise UsageError(f"`--limit` must be 0 or more, not {limit}")
    most = limit if limit is not None else _SESSIONS if by is By.SESSION else 0
    context = CommandContext.of(ctx)
    now = time.time()
    begin = _moment("--since", since, now)
    # What ends in this very moment counts, although the end is not included.
    end = _moment("--until", until, now) if until is not None else now + 1
    if begin >= end:
        raise UsageError("`--since` must be before `--until`")
    settings = context.settings
    rows = read_usage(context.places.state_folder, by.value, begin, end)
    found = report(rows, by.value, prices_of(settings))
    shown = found.groups[:most] if most else found.groups
    as_of = settings.usage.prices_as_of
    if as_json:
        period = (begin, now if until is None else end)
        context.console.json(_document(found, shown, by, period, as_of))
    elif not found.groups:
        context.console.note(f"no turn was recorded since {iso_utc(begin)}")
        if not settings.usage.keep_days:
            context.console.note("`[usage] keep_days` is 0, so nothing is recorded")
    elif as_csv:
        context.console.answer(_csv(shown, by))
    else:
        context.console.answer(_table(found, shown, by))
    if len(shown) < len(found.groups):
        context.console.note(
            f"only {most} of {len(found.groups)} are listed; `--limit 0` lists all"
        )
    if found.groups and not as_json:
        _note_costs(context, found.total, as_of)


def _moment(option: str, text: str, now: float) -> float:
    from codexlb_cli.core.period import moment

    try:
        return moment(text, now)
    except ValueError:
        raise UsageError(f"`{option}` must be {_MOMENT}, not `{text}`") from None


def _note_costs(context: CommandContext, total: Used, as_of: str) -> None:
    """Say how old the prices are, and what the costs leave out."""
    console, cost = context.console, total.cost
    if cost.usd is not None:
        dated = f"as of {as_of}" if as_of else "without a date (`[usage] prices_as_of`)"
        console.note(f"prices: from the configuration, {dated}; they may be outdated")
    if cost.unknown:
        turns = "1 answered turn" if cost.unknown == 1 else f"{cost.unknown} answered turns"
        why = "no price, or no token numbers"
        console.note(f"the cost of {turns} is not known: {why}; see `[prices.MODEL]`")


def _document(
    found: Report, shown: Iterable[Group], by: By, period: tuple[float, float], as_of: str
) -> dict[str, Any]:
    from codexlb_cli.core.prices import CURRENCY

    begin, end = period
    return {
        "schema": "codexlb.usage/1",
        "by": by.value,
        "since": iso_utc(begin),
        "until": iso_utc(end),
        "prices": {"currency": CURRENCY, "per_tokens": 1_000_000, "as_of": as_of or None},
        "groups": [
            {"name": group.name, "source": group.source, **_numbers(group.used)} for group in shown
        ],
        "total": _numbers(found.total),
    }


def _numbers(used: Used) -> dict[str, Any]:
    counts = {name: getattr(used, name) for name in _COUNTS}
    cost = used.cost
    return {
        **counts,
        "cost": None if cost.usd is None else round(cost.usd, 6),
        "cost_unknown": cost.unknown,
    }


def _table(found: Report, shown: Iterable[Group], by: By) -> str:
    from codexlb_cli.inspect.layout import shortened

    rows = [(_name(group, by), *_cells(group.used)) for group in shown]
    lines = [
        (by.value.upper(), *(name.upper() for name in _COUNTS), "COST USD"),
        *rows,
        ("total", *_cells(found.total)),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = max(_SHORTEST_NAME, WIDTH - sum(width + 2 for width in widths[1:]))
    headers, *cells = (
        (shortened(name, room), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)))
        for name, *numbers in lines
    )
    return table(headers, cells)


def _name(group: Group, by: By) -> str:
    name = UNKNOWN if not group.name else escape(group.name)
    own = by is not By.SESSION or group.source in ("session", "none")
    return name if own else f"{group.source} {name}"


def _cells(used: Used) -> tuple[str, ...]:
    return (*(_count(getattr(used, name)) for name in _COUNTS), _cost(used.cost))


def _count(number: int | None) -> str:
    """Return a number of turns or tokens; a long one in millions, or in millions of millions."""
    if number is None:
        return UNKNOWN
    if number >= 10**12:
        return f"{number / 10**12:.1f}T"
    return str(number) if number < 10**8 else f"{number / 10**6:.1f}M"


def _cost(cost: Cost) -> str:
    if cost.usd is None:
        return UNKNOWN
    digits = 2 if cost.usd >= 1 else 4
    return f"{'>= ' if cost.unknown else ''}{cost.usd:.{digits}f}"


def _csv(groups: Iterable[Group], by: By) -> str:
    """Return CSV (RFC 4180); an empty cell is an unknown number."""
    text = io.StringIO()
    writer = csv.writer(text)
    names: Sequence[str] = ("source", "session") if by is By.SESSION else (by.value,)
    writer.writerow([*names, *_COUNTS, "cost_usd", "cost_unknown"])
    for group in groups:
        texts = (group.source, group.name) if by is By.SESSION else (group.name,)
        numbers = _numbers(group.used).values()
        cells = (_plain(number) if isinstance(number, float) else number for number in numbers)
        writer.writerow([*(_safe(text or "") for text in texts), *cells])
    return text.getvalue().removesuffix("\n")  # the console ends it


def _plain(number: float) -> str:
    """Return an amount without an exponent."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, in ASCII."""
    return escape(f"'{text}" if text.startswith(_FORMULAS) else text)
