"""The SQLite file: what must survive a restart, as commands read and change it.

Schema changes raise `SCHEMA_VERSION`; a newer file is left alone. `running` is the gateway's side.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from codexlb_cli.errors import ConfigError

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, reset_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS owners (
    source TEXT NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL, updated REAL NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_updated ON owners (source, updated);
CREATE INDEX IF NOT EXISTS owners_account ON owners (account, source, updated);
CREATE TABLE IF NOT EXISTS reasoning (
    digest TEXT PRIMARY KEY, account TEXT NOT NULL, updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reasoning_updated ON reasoning (updated);
CREATE TABLE IF NOT EXISTS turns (
    id INTEGER PRIMARY KEY, ended_at REAL NOT NULL, account TEXT, model TEXT, service_tier TEXT,
    source TEXT NOT NULL, session TEXT NOT NULL, status INTEGER, outcome TEXT NOT NULL,
    error INTEGER NOT NULL, attempts INTEGER NOT NULL, input INTEGER, cached INTEGER,
    output INTEGER, reasoning INTEGER, total INTEGER, first_event_ms INTEGER,
    total_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS turns_ended ON turns (ended_at);
"""

Write = Callable[[sqlite3.Connection], None]
T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]


def database_path(state_folder: Path) -> Path:
    """Return where the database of a state folder lies."""
    return state_folder / "state.sqlite3"


def open_for_writing(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the database, creating the folder (0700), the file (0600) and the schema.

    Args:
        path: of the database.
        busy_seconds: how long each statement waits for another process that writes.

    Raises:
        sqlite3.Error: the file is no database, of a newer schema, or cannot be written.
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _version(connection)
        connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(
    state_folder: Path, busy_seconds: float = BUSY_SECONDS
) -> Iterator[sqlite3.Connection | None]:
    """Open the database read-only; yields None if there is none yet.

    Args:
        state_folder: where it lies.
        busy_seconds: how long each statement waits for another process that has it to itself.

    Raises:
        sqlite3.Error: the file is no database, or cannot be read.
    """
    path = database_path(state_folder)
    if not path.exists():
        yield None
        return
    # A reader of a WAL database makes files of its own, unless it may take the file as it is.
    # Without a log nobody has it open, so there is nothing more to see.
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
    with closing(sqlite3.connect(uri, uri=True, timeout=busy_seconds)) as connection:
        # Version 0: a gateway that starts just now has not made the tables yet.
        yield connection if _version(connection) else None


class NewerSchemaError(sqlite3.DatabaseError):
    """The database was made by a newer version of this program."""


def _version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 if there are none.

    Raises:
        NewerSchemaError: they are newer than this program.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(f"schema {version} is newer than {SCHEMA_VERSION}")
    return int(version)


def unusable(path: Path, what: str, exc: sqlite3.Error | OSError) -> ConfigError:
    """Return the error of a command that cannot use the database.

    Args:
        path: of the database.
        what: what cannot be done, such as "owners cannot be read".
        exc: why.
    """
    reason = str(exc.strerror if isinstance(exc, OSError) else exc).lower()
    return ConfigError(f"{what}: {reason}", hint=_way_out(path, reason, exc))


def _way_out(path: Path, reason: str, exc: sqlite3.Error | OSError) -> str:
    """Return what to do; a database is moved away only where it is broken itself."""
    if isinstance(exc, NewerSchemaError):
        return f"update codexlb: a newer version of it wrote `{path}`"
    if "locked" in reason:
        return f"try again when nothing else has `{path}` open"
    if "full" in reason or "no space" in reason:
        return f"make room on the disk of `{path}`"
    if isinstance(exc, OSError) or "readonly" in reason or "unable to open" in reason:
        return f"make `{path}` readable and writable for you: ls -l {path.parent}"
    return f"stop the gateway and move `{path}` away; it holds owners and limits, no credentials"


def change_marker(state_folder: Path) -> Path:
    """Return the file that commands touch after a change, so that a running gateway notices."""
    return state_folder / "changed"


def tell_gateway(state_folder: Path, now: float) -> None:
    """Let a running gateway look at the database again, at its next request.

    Raises:
        OSError: the marker cannot be written.
    """
    change_marker(state_folder).write_text(f"{now}\n")
