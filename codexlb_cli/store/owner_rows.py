"""Owner rows as a person asks for them: listed, looked up, forgotten. `owners` is the gateway's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from codexlb_cli.core.affinity import LIFETIMES, Key
from codexlb_cli.store.database import (
    database_path,
    open_for_writing,
    reading,
    tell_gateway,
    unusable,
)
from codexlb_cli.store.owners import find_owners, find_reasoning, forget_old


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """Who owns a key.

    Attributes:
        key: the key.
        account: the account's name; it may no longer be configured.
        used: when it was last written, seconds since the epoch. The row of a key that is in use is
            written again once a day, so this may be a day early.
    """

    key: Key
    account: str
    used: float

    @property
    def expires(self) -> float:
        """When it is forgotten unless it is used, seconds since the epoch."""
        return self.used + LIFETIMES[self.key.source]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which owner rows are meant: those that fit everything that is given.

    Attributes:
        sources: where the keys come from.
        account: whose they are; None for every account.
        keys: which keys; a session stands for all its threads too. None for every key.
    """

    sources: tuple[str, ...] = tuple(LIFETIMES)
    account: str | None = None
    keys: tuple[Key, ...] | None = None

    def conditions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield SQL conditions with their values; no row fits two, and each has an index."""
        for condition, values in self._key_conditions():
            if self.account is None:
                yield condition, values
            else:
                yield f"{condition} AND account = ?", (*values, self.account)

    def _key_conditions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        if self.keys is None:
            for source in self.sources:
                yield "source = ?", (source,)
            return
        for key in self.keys:
            yield "source = ? AND key = ?", (key.source, key.value)
            if key.source == "session":  # a thread stands after a line feed
                bounds = (f"{key.value}\n", f"{key.value}\v")
                yield "source = ? AND key >= ? AND key < ?", (key.source, *bounds)


def read_rows(
    state_folder: Path, selection: Selection, now: float, limit: int | None = None
) -> list[OwnerRow]:
    """Return owner rows that are alive, the last used first.

    Args:
        state_folder: where the database lies.
        selection: which rows.
        now: seconds since the epoch.
        limit: how many at most; None for all.

    Raises:
        ConfigError: the database cannot be read.
    """
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return []
            found = [
                _newest(connection, condition, values, now, limit)
                for condition, values in selection.conditions()
            ]
    except (sqlite3.Error, OSError) as exc:
        raise unusable(database_path(state_folder), "owners cannot be read", exc) from exc
    rows = sorted(chain.from_iterable(found), key=lambda row: row.used, reverse=True)
    return rows[:limit]


def recall(
    state_folder: Path,
    keys: Sequence[Key],
    digests: Sequence[str],
    now: float,
    warn: Callable[[str], None],
) -> tuple[dict[Key, str], dict[str, str]]:
    """Return what a gateway would recall for a request: owners, and who made which reasoning.

    Args:
        state_folder: where the database lies.
        keys: of the request.
        digests: of the encrypted reasoning in its input.
        now: seconds since the epoch.
        warn: is told if the database cannot be read; then nothing is known.
    """
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return {}, {}
            owners = find_owners(keys, now)(connection)
            made = find_reasoning(digests, now)(connection)
    except (sqlite3.Error, OSError) as exc:
        warn(f"`{database_path(state_folder)}` cannot be read ({exc}), so owners are unknown")
        return {}, {}
    return {key: account for key, (account, _) in owners.items()}, made


def forget_rows(state_folder: Path, selection: Selection, now: float) -> int:
    """Delete owner rows, in a running gateway too; returns how many were alive.

    Raises:
        ConfigError: the database cannot be written.
    """
    path = database_path(state_folder)
    try:
        if not path.exists():
            return 0
        with closing(open_for_writing(path)) as connection, connection:
            forget_old(now)(connection)
            forgotten = sum(
                connection.execute(f"DELETE FROM owners WHERE {condition}", values).rowcount  # noqa: S608 - our own words
                for condition, values in selection.conditions()
            )
        if forgotten:
            tell_gateway(state_folder, now)
    except (sqlite3.Error, OSError) as exc:
        raise unusable(path, "owners cannot be forgotten", exc) from exc
    return forgotten


def newest_query(condition: str) -> str:
    """Return the SQL for the rows that fit a condition and are young enough, newest first."""
    return (
        f"SELECT source, key, account, updated FROM owners WHERE {condition} AND updated > ?"  # noqa: S608 - our own words
        " ORDER BY updated DESC, key DESC LIMIT ?"
    )


def _newest(
    connection: sqlite3.Connection,
    condition: str,
    values: tuple[str, ...],
    now: float,
    limit: int | None,
) -> list[OwnerRow]:
    oldest = now - LIFETIMES[values[0]]
    most = -1 if limit is None else limit
    rows = connection.execute(newest_query(condition), (*values, oldest, most))
    return [OwnerRow(Key(source, key), account, used) for source, key, account, used in rows]
