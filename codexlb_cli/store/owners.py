"""Which account owns which session or cache key, and made which reasoning, across restarts."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from codexlb_cli.store.database import Write, reading

LIFETIME_SECONDS = 30 * 24 * 3600.0
"""What was not used for this long is forgotten."""
MOST_LOADED = 100_000


def read_owners(state_folder: Path, now: float) -> list[tuple[str, str, str, float]]:
    """Return (source, key, account, updated) of the owners that are alive, oldest first."""
    return _newest(state_folder, "SELECT source, key, account, updated FROM owners", now)


def read_reasoning(state_folder: Path, now: float) -> list[tuple[str, str]]:
    """Return (digest, account) of the encrypted reasoning that is remembered, oldest first."""
    return _newest(state_folder, "SELECT digest, account FROM reasoning", now)


def write_owner(source: str, key: str, account: str, now: float) -> Write:
    """Return a write that stores the owner of one key."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO owners (source, key, account, updated) VALUES (?, ?, ?, ?)",
            (source, key, account, now),
        )

    return write


def write_reasoning(digest: str, account: str, now: float) -> Write:
    """Return a write that stores which account made an item of encrypted reasoning."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO reasoning (digest, account, updated) VALUES (?, ?, ?)",
            (digest, account, now),
        )

    return write


def forget_old(now: float) -> Write:
    """Return a write that removes what has outlived its time."""

    def write(connection: sqlite3.Connection) -> None:
        for table in ("owners", "reasoning"):
            connection.execute(
                f"DELETE FROM {table} WHERE updated <= ?",  # noqa: S608 - our own names
                (now - LIFETIME_SECONDS,),
            )

    return write


def _newest(state_folder: Path, query: str, now: float) -> list[tuple[Any, ...]]:
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return []
            rows = connection.execute(
                f"{query} WHERE updated > ? ORDER BY updated DESC LIMIT ?",
                (now - LIFETIME_SECONDS, MOST_LOADED),
            ).fetchall()
    except sqlite3.Error:
        return []
    return rows[::-1]
