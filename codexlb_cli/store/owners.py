"""Which account owns which session or cache key, across restarts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from codexlb_cli.store.database import Write, reading

LIFETIME_SECONDS = 30 * 24 * 3600.0
"""An owner that was not used for this long is forgotten."""
MOST_LOADED = 100_000


def read_owners(state_folder: Path, now: float) -> list[tuple[str, str, str, float]]:
    """Return (source, key, account, updated) of the owners that are alive, oldest first."""
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT source, key, account, updated FROM owners WHERE updated > ?"
                " ORDER BY updated DESC LIMIT ?",
                (now - LIFETIME_SECONDS, MOST_LOADED),
            ).fetchall()
    except sqlite3.Error:
        return []
    return rows[::-1]


def write_owner(source: str, key: str, account: str, now: float) -> Write:
    """Return a write that stores the owner of one key."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO owners (source, key, account, updated) VALUES (?, ?, ?, ?)",
            (source, key, account, now),
        )

    return write


def forget_old(now: float) -> Write:
    """Return a write that removes the owners that have outlived their time."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM owners WHERE updated <= ?", (now - LIFETIME_SECONDS,))

    return write
