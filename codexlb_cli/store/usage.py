"""What each turn used, one row per turn: written behind by the gateway, added up for people."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from codexlb_cli.core.usage import TurnRecord
from codexlb_cli.core.usage_report import Dimension, Sums
from codexlb_cli.store.database import Write, database_path, reading, unusable

FORGOTTEN_AT_ONCE = 2_000
"""How many rows one write forgets at most: others wait for it."""

_GROUPS: dict[Dimension, str] = {
    "account": "NULL, account",
    "model": "NULL, model",
    "day": "NULL, CAST(ended_at / 86400 AS INTEGER)",
    "session": "source, session",
}
_SUMS = """
    count(*), sum(error), sum(attempts), sum(input), sum(cached), sum(output), sum(reasoning),
    count(first_event_ms), count(input + output),
    sum(input) FILTER (WHERE output IS NOT NULL),
    sum(cached) FILTER (WHERE input + output IS NOT NULL),
    sum(output) FILTER (WHERE input IS NOT NULL)
"""


def write_turn(record: TurnRecord) -> Write:
    """Return a write that remembers what a turn used."""

    def write(connection: sqlite3.Connection) -> None:
        tokens = record.tokens
        connection.execute(
            "INSERT INTO turns (ended_at, account, model, service_tier, source, session, status,"
            " outcome, error, attempts, input, cached, output, reasoning, total, first_event_ms,"
            " total_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.ended_at,
                record.account,
                record.model,
                record.service_tier,
                record.lane.source,
                record.session,
                record.status,
                record.outcome,
                record.is_error,
                record.attempts,
                tokens.input,
                tokens.cached,
                tokens.output,
                tokens.reasoning,
                tokens.total,
                record.first_event_ms,
                record.total_ms,
            ),
        )

    return write


def forget_turns(oldest: float, most: int) -> Write:
    """Return a write that forgets some of the rows that are not to be kept; a part of many.

    Args:
        oldest: turns that ended then or before are forgotten.
        most: how many rows are kept.
    """

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM turns WHERE id IN"
            " (SELECT id FROM turns WHERE ended_at <= ? ORDER BY ended_at LIMIT ?)",
            (oldest, FORGOTTEN_AT_ONCE),
        )
        connection.execute(
            "DELETE FROM turns WHERE id IN (SELECT id FROM turns"
            " WHERE id <= (SELECT max(id) FROM turns) - ? ORDER BY id LIMIT ?)",
            (most, FORGOTTEN_AT_ONCE),
        )

    return write


def forget_every_turn(connection: sqlite3.Connection) -> None:
    """Forget what turns used."""
    connection.execute("DELETE FROM turns")


def sums_query(by: Dimension) -> str:
    """Return the SQL for the sums of the turns of a period: from, until but not including."""
    group = _GROUPS[by]
    return (
        f"SELECT {group}, model, service_tier, {_SUMS} FROM turns"  # noqa: S608 - our own words
        f" WHERE ended_at >= ? AND ended_at < ? GROUP BY {group}, model, service_tier"
    )


def read_usage(state_folder: Path, by: Dimension, since: float, until: float) -> list[Sums]:
    """Return what the turns of a period used.

    Args:
        state_folder: where the database lies.
        by: what the groups are.
        since: seconds since the epoch.
        until: not included.

    Raises:
        ConfigError: the database cannot be read.
    """
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return []
            return list(map(Sums._make, connection.execute(sums_query(by), (since, until))))
    except (sqlite3.Error, OSError) as exc:
        raise unusable(database_path(state_folder), "usage cannot be read", exc) from exc
