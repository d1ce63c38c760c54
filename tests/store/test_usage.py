"""Usage rows: what is stored is what is added up; old ones are forgotten bit by bit."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.affinity import UNKEYED, Key
from codexlb_cli.core.prices import Price
from codexlb_cli.core.usage import UNKNOWN, Tokens, TurnRecord
from codexlb_cli.core.usage_report import Dimension, Sums, report
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.database import SCHEMA, database_path, open_for_writing
from codexlb_cli.store.usage import (
    FORGOTTEN_AT_ONCE,
    forget_every_turn,
    forget_turns,
    read_usage,
    sums_query,
    write_turn,
)

NOW = 1_800_000_000.0
DAY = 86_400.0
PRICES = {"m1": Price(2.0, 0.5, 8.0), "m2@flex": Price(1.0, 1.0, 1.0)}

counts = st.none() | st.integers(0, 1_000)
records = st.builds(
    TurnRecord,
    ended_at=st.integers(0, 40).map(lambda n: NOW - n * DAY / 8),
    account=st.sampled_from([None, "work", "home"]),
    model=st.sampled_from([None, "m1", "m2"]),
    lane=st.sampled_from([UNKEYED, Key("session", "s"), Key("prompt_cache", "s")]),
    status=st.sampled_from([None, 200, 503]),
    outcome=st.sampled_from(["completed", "client_left", "queue_full"]),
    attempts=st.integers(0, 2),
    tokens=st.builds(
        Tokens, input=counts, cached=counts, output=counts, reasoning=counts, total=counts
    ),
    first_event_ms=counts,
    total_ms=st.integers(0, 10_000),
    service_tier=st.sampled_from([None, "default", "flex"]),
)


@contextmanager
def in_memory(rows: Sequence[TurnRecord]) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        for row in rows:
            write_turn(row)(connection)
        yield connection


def turn(ended_at: float, account: str = "work") -> TurnRecord:
    return TurnRecord(ended_at, account, "m1", UNKEYED, 200, "completed", 1)


def times(connection: sqlite3.Connection) -> list[float]:
    return [at for (at,) in connection.execute("SELECT ended_at FROM turns ORDER BY id")]


def group_of(row: TurnRecord, by: Dimension) -> tuple[str | None, str | None]:
    match by:
        case "account":
            return None, row.account
        case "model":
            return None, row.model
        case "day":
            return None, datetime.fromtimestamp(row.ended_at, UTC).date().isoformat()
    return row.lane.source, row.lane.value


def naive_cost(row: TurnRecord) -> float | None:
    """What one turn costs; None if that is not known."""
    tier = "" if row.service_tier in (None, "default") else f"@{row.service_tier}"
    price = PRICES.get(f"{row.model}{tier}")
    tokens = row.tokens
    if price is None or tokens.input is None or tokens.output is None:
        return None
    cached = tokens.cached or 0
    fresh = tokens.input - cached
    return (fresh * price.input + cached * price.cached + tokens.output * price.output) / 1e6


def total(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


@settings(deadline=None)
@given(st.lists(records, max_size=30), st.sampled_from(get_args(Dimension)), st.integers(0, 40))
def test_sums_are_those_of_a_naive_count(
    rows: list[TurnRecord], by: Dimension, since_ago: int
) -> None:
    since, until = NOW - since_ago * DAY / 8, NOW - DAY / 4
    # Tokens without a first event do not exist: they come with an event.
    rows = [r if r.first_event_ms is not None else untold(r) for r in rows]
    with in_memory(rows) as connection:
        found = map(Sums._make, connection.execute(sums_query(by), (since, until)).fetchall())
        shown = report(found, by, PRICES)
    meant = [row for row in rows if since <= row.ended_at < until]
    groups: defaultdict[tuple[str | None, str | None], list[TurnRecord]] = defaultdict(list)
    for row in meant:
        groups[group_of(row, by)].append(row)
    assert {(g.source, g.name) for g in shown.groups} == set(groups)
    for label, used, turns in [
        *(((g.source, g.name), g.used, groups[g.source, g.name]) for g in shown.groups),
        (("total", ""), shown.total, meant),
    ]:
        costs = [cost for t in turns if (cost := naive_cost(t)) is not None]
        assert used.requests == len(turns), label
        assert used.errors == sum(t.outcome == "queue_full" for t in turns)
        assert used.attempts == sum(t.attempts for t in turns)
        assert used.input == total([t.tokens.input for t in turns])
        assert used.cached == total([t.tokens.cached for t in turns])
        assert used.output == total([t.tokens.output for t in turns])
        assert used.reasoning == total([t.tokens.reasoning for t in turns])
        assert used.cost.usd == (pytest.approx(sum(costs)) if costs else None)
        assert used.cost.unknown == sum(t.first_event_ms is not None for t in turns) - len(costs)


def untold(row: TurnRecord) -> TurnRecord:
    return TurnRecord(
        row.ended_at, row.account, row.model, row.lane, row.status, row.outcome, row.attempts
    )


def test_every_field_is_stored(tmp_path: Path) -> None:
    tokens = Tokens(10, 4, 3, 2, 13)
    lane = Key("session", "s\nt")
    row = TurnRecord(NOW, "work", "m", lane, 200, "failed", 2, tokens, 120, 900, "flex")
    with closing(open_for_writing(database_path(tmp_path))) as connection, connection:
        write_turn(row)(connection)
        write_turn(TurnRecord(NOW, None, None, UNKEYED, None, "client_left", 0))(connection)
        stored = connection.execute("SELECT * FROM turns ORDER BY id").fetchall()
    assert stored == [
        (1, NOW, "work", "m", "flex", "session", "s\nt", 200, "failed", 1, 2, 10, 4, 3, 2, 13, 120,
         900),
        (2, NOW, None, None, None, "none", "", None, "client_left", 0, 0, *[None] * 6, 0),
    ]  # fmt: skip
    assert Tokens() == UNKNOWN


def test_old_turns_are_forgotten() -> None:
    with in_memory([turn(NOW - 2), turn(NOW - 1), turn(NOW)]) as connection:
        forget_turns(NOW - 1, 100)(connection)
        assert times(connection) == [NOW]


def test_more_turns_than_are_kept_are_forgotten_the_first_recorded_first() -> None:
    with in_memory([turn(NOW + n) for n in (3, 1, 2)]) as connection:
        forget_turns(0, 2)(connection)
        assert times(connection) == [NOW + 1, NOW + 2]
        forget_turns(0, 2)(connection)
        assert times(connection) == [NOW + 1, NOW + 2]


def test_much_is_forgotten_bit_by_bit() -> None:
    more = 7
    with in_memory([turn(NOW)] * (FORGOTTEN_AT_ONCE + more)) as connection:
        forget_turns(NOW, 10**6)(connection)
        assert len(times(connection)) == more
        forget_every_turn(connection)
        assert times(connection) == []


def test_forgetting_needs_no_scan() -> None:
    with in_memory([]) as connection:
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        forget_turns(NOW, 5)(connection)
        connection.set_trace_callback(None)
        deletes = [text for text in seen if text.startswith("DELETE")]
        plans = [
            str(step[3])
            for text in deletes
            for step in connection.execute(f"EXPLAIN QUERY PLAN {text}")
        ]
    assert len(deletes) == 2
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
    assert any("turns_ended" in plan for plan in plans)


def test_a_broken_database_says_so(tmp_path: Path) -> None:
    database_path(tmp_path).write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="usage cannot be read: file is not a database"):
        read_usage(tmp_path, "account", 0, NOW)


def test_no_database_is_no_usage(tmp_path: Path) -> None:
    assert read_usage(tmp_path, "account", 0, NOW) == []
