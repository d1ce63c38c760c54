"""Adding up what turns used: the sums of the store become groups with a cost, and a total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, NamedTuple

from codexlb_cli.core.prices import FREE, Cost, Price, cost_of, price_of

Dimension = Literal["account", "model", "day", "session"]

_EPOCH = date(1970, 1, 1)


class Sums(NamedTuple):
    """Turns of one group, one model and one service tier, added up; None where all are unknown.

    Attributes:
        source: what a session's key was taken from; None for other groups.
        group: the account, model, session, or day (whole days since the epoch).
        answered: how many turns got a first event.
        measured: for how many input and output are known; `priced_*` are their tokens alone.
    """

    source: str | None
    group: str | int | None
    model: str | None
    service_tier: str | None
    requests: int
    errors: int
    attempts: int
    input: int | None
    cached: int | None
    output: int | None
    reasoning: int | None
    answered: int
    measured: int
    priced_input: int | None
    priced_cached: int | None
    priced_output: int | None


@dataclass(frozen=True, slots=True)
class Used:
    """What the turns of one group used; None where it is unknown for all of them."""

    requests: int = 0
    errors: int = 0
    attempts: int = 0
    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None
    cost: Cost = FREE

    def __add__(self, other: Used) -> Used:
        return Used(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            attempts=self.attempts + other.attempts,
            input=_sum(self.input, other.input),
            cached=_sum(self.cached, other.cached),
            output=_sum(self.output, other.output),
            reasoning=_sum(self.reasoning, other.reasoning),
            cost=self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True)
class Group:
    """One line of the report.

    Attributes:
        source: what a session's key was taken from; None for other groups.
        name: the account, model, day (`2026-02-06`) or session; None where a turn had none.
        used: what its turns used.
    """

    source: str | None
    name: str | None
    used: Used


@dataclass(frozen=True, slots=True)
class Report:
    """What was used: by group, the most requests first (days in order), and in total."""

    groups: tuple[Group, ...]
    total: Used


def report(rows: Iterable[Sums], by: Dimension, prices: Mapping[str, Price]) -> Report:
    """Add up rows of the store.

    Args:
        rows: each group may stand in several: one for every model and service tier.
        by: what the groups are.
        prices: by name of the model.
    """
    found: dict[tuple[str | None, str | None], Used] = {}
    total = Used()
    for row in rows:
        used = _used(row, prices)
        key = (row.source, _day(row.group) if isinstance(row.group, int) else row.group)
        found[key] = found[key] + used if key in found else used
        total += used
    groups = [Group(source, name, used) for (source, name), used in found.items()]
    groups.sort(key=lambda g: (g.name is None, g.name or "", g.source or ""))
    if by != "day":
        groups.sort(key=lambda g: -g.used.requests)
    return Report(tuple(groups), total)


def _used(row: Sums, prices: Mapping[str, Price]) -> Used:
    cost = cost_of(
        price_of(row.model, row.service_tier, prices),
        answered=row.answered,
        measured=row.measured,
        tokens=(row.priced_input or 0, row.priced_cached or 0, row.priced_output or 0),
    )
    return Used(
        requests=row.requests,
        errors=row.errors,
        attempts=row.attempts,
        input=row.input,
        cached=row.cached,
        output=row.output,
        reasoning=row.reasoning,
        cost=cost,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).isoformat()
