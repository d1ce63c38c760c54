"""The SQLite file: what must survive a restart. One writer thread, nothing on the hot path.

A database that cannot be opened or written never fails a request: the gateway goes on from memory
and says so once. Schema changes raise `SCHEMA_VERSION`; a newer file is left alone.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, reset_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS owners (
    source TEXT NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL, updated REAL NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_updated ON owners (updated);
CREATE TABLE IF NOT EXISTS reasoning (
    digest TEXT PRIMARY KEY, account TEXT NOT NULL, updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reasoning_updated ON reasoning (updated);
"""

Write = Callable[[sqlite3.Connection], None]


def database_path(state_folder: Path) -> Path:
    """Return where the database of a state folder lies."""
    return state_folder / "state.sqlite3"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the database, creating the folder (0700), the file (0600) and the schema.

    Raises:
        sqlite3.Error: the file is no database, of a newer schema, or cannot be written.
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is newer than {SCHEMA_VERSION}")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(state_folder: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the database read-only; yields None if there is none yet."""
    path = database_path(state_folder)
    if not path.exists():
        yield None
        return
    # A reader of a WAL database makes files of its own, unless it may take the file as it is.
    # Without a log nobody has it open, so there is nothing more to see.
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        yield connection


class Writer:
    """The one thread that writes; everything queued together is one transaction.

    Args:
        path: the database file.
        warn: called once, from the writer's thread, when the database cannot be used.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._queue: queue.SimpleQueue[tuple[Write, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="codexlb-store", daemon=True)
        self._broken = False
        self._thread.start()

    def submit(self, write: Write) -> Future[None]:
        """Queue a write; the future is done when it is committed, or given up."""
        future: Future[None] = Future()
        self._queue.put((write, future))
        return future

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join(BUSY_SECONDS * 2)

    def _run(self) -> None:
        connection = self._open()
        ended = False
        while not ended:
            batch, ended = self._take()
            if batch and connection is not None:
                self._commit(connection, [write for write, _ in batch])
            for _, future in batch:
                future.set_result(None)
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection | None:
        try:
            return open_for_writing(self._path)
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)
            return None

    def _take(self) -> tuple[list[tuple[Write, Future[None]]], bool]:
        batch: list[tuple[Write, Future[None]]] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, connection: sqlite3.Connection, writes: list[Write]) -> None:
        try:
            with connection:
                for write in writes:
                    write(connection)
        except (sqlite3.Error, ValueError) as exc:  # ValueError: text that is no Unicode
            self._give_up(exc)

    def _give_up(self, exc: Exception) -> None:
        if not self._broken:
            self._broken = True
            self._warn(
                f"`{self._path}` cannot be written ({exc}); sessions and cooldowns may not "
                "survive a restart"
            )
