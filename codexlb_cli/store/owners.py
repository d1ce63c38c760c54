"""Which account owns which key, and made which encrypted reasoning, across restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from codexlb_cli.core.affinity import LIFETIMES, Key
from codexlb_cli.store.database import Query, Write

REASONING_SECONDS = 30 * 24 * 3600.0
"""How long it is remembered who made an item of encrypted reasoning."""
_VARIABLES = 500
"""How many values one query takes."""


def find_owners(keys: Sequence[Key], now: float) -> Query[dict[Key, tuple[str, float]]]:
    """Return a query for the owners of `keys` that are alive, with the time of the last use."""

    def query(connection: sqlite3.Connection) -> dict[Key, tuple[str, float]]:
        found: dict[Key, tuple[str, float]] = {}
        for key in keys:
            row = connection.execute(
                "SELECT account, updated FROM owners WHERE source = ? AND key = ?",
                (key.source, key.value),
            ).fetchone()
            if row is not None and row[1] > now - LIFETIMES[key.source]:
                found[key] = (row[0], row[1])
        return found

    return query


def find_reasoning(digests: Sequence[str], now: float) -> Query[dict[str, str]]:
    """Return a query for the accounts that made the encrypted reasoning of these digests."""

    def query(connection: sqlite3.Connection) -> dict[str, str]:
        found: dict[str, str] = {}
        for some in _chunks(digests):
            marks = ",".join("?" * len(some))
            rows = connection.execute(
                f"SELECT digest, account FROM reasoning WHERE updated > ? AND digest IN ({marks})",  # noqa: S608 - question marks
                (now - REASONING_SECONDS, *some),
            )
            found.update(rows.fetchall())
        return found

    return query


def write_owner(key: Key, account: str, now: float) -> Write:
    """Return a write that stores the owner of one key."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO owners (source, key, account, updated) VALUES (?, ?, ?, ?)",
            (key.source, key.value, account, now),
        )

    return write


def remove_owner(key: Key) -> Write:
    """Return a write that forgets the owner of one key."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM owners WHERE source = ? AND key = ?", (key.source, key.value)
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
        for source, seconds in LIFETIMES.items():
            connection.execute(
                "DELETE FROM owners WHERE source = ? AND updated <= ?", (source, now - seconds)
            )
        connection.execute("DELETE FROM reasoning WHERE updated <= ?", (now - REASONING_SECONDS,))

    return write


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while some := list(islice(rest, _VARIABLES)):
        yield some
