"""The database of a running gateway: one thread writes, one reads, nothing on the hot path.

A database that cannot be used never fails a request: the gateway goes on from memory, says so
once, and tries again after a while.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from codexlb_cli.store.database import (
    BUSY_SECONDS,
    SCHEMA,
    Query,
    T,
    Write,
    open_for_writing,
)

PATIENCE_SECONDS = 0.1
"""How long a turn waits for the database, at most."""
AGAIN_SECONDS = 30.0
"""After a failure the database is left alone for this long."""
SLOW_AGAIN_SECONDS = 1.0
"""One that was merely too slow is asked again after this time, though nobody waits for it."""
_SLOW = "is locked or slow"

FileIdentity = tuple[int, int] | None
_LOST: FileIdentity = (0, 0)
"""Of a file whose rows are lost: no other has it, so what replaces it is another one."""
Written = Future[bool]
"""A write under way: True once it is committed, False once it is given up."""


class Store(Protocol):
    """What a gateway needs of its database.

    Attributes:
        epoch: rises when another file takes the place of the one that was written so far.
    """

    epoch: int

    def submit(self, write: Write) -> Written:
        """Queue a write; the future is done when it is committed, or given up."""

    async def committed(self, write: Written) -> None:
        """Wait for a write, but not for long."""

    async def read(self, query: Query[T], empty: T) -> T | None:
        """Return what `query` finds.

        Returns:
            `empty` where nothing was stored yet; None if the database cannot tell soon.
        """

    def close(self) -> None:
        """Write what is queued and end."""


class Database:
    """The database of a running gateway.

    Args:
        path: the file.
        warn: called once, from any thread, when the database cannot be used.
        clock: monotonic seconds.
        connect: opens the file for writing.
    """

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[Path], sqlite3.Connection] = open_for_writing,
    ) -> None:
        self.epoch = 0
        self._path = path
        self._warn = warn
        self._clock = clock
        self._connect = connect
        self._warned = threading.Lock()  # taken by the first warning, and kept
        self._queue: queue.SimpleQueue[tuple[Write, Written] | None] = queue.SimpleQueue()
        self._submitted = 0
        self._settled = 0
        self._asked = 0
        self._answered = 0
        self._written_file: FileIdentity = None
        self._is_new = not path.exists()
        self._opened = threading.Event()  # set by the writer's first attempt, however it ended
        self._lags = False
        self._again_at = 0.0
        self._reader: sqlite3.Connection | None = None
        self._read_file: FileIdentity = None
        self._reads_lag = False
        self._unreadable_until = 0.0
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="codexlb-read")
        self._thread = threading.Thread(target=self._run, name="codexlb-store", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a write or a read is queued or under way."""
        return self._submitted != self._settled or self._asked != self._answered

    def submit(self, write: Write) -> Written:
        """Queue a write; the future is done when it is committed, or given up."""
        future = Written()
        self._submitted += 1
        self._queue.put((write, future))
        return future

    async def committed(self, write: Written) -> None:
        """Wait for a write, 100 ms at most; not at all while the database is known to lag."""
        if self._lags or write.done():
            return
        done, _ = await asyncio.wait([asyncio.wrap_future(write)], timeout=PATIENCE_SECONDS)
        if not done:
            self._lags = True
            if self._opened.is_set():  # making a new file may take a slow disk longer
                self._degrade(_SLOW)

    async def read(self, query: Query[T], empty: T) -> T | None:
        """Return what `query` finds; None if the database cannot tell within 100 ms.

        After a failure it is left alone for a while. Where it was too slow, nobody waits for the
        attempt that finds it mended either.
        """
        now = self._clock()
        if self._is_new and not self._opened.is_set():
            return empty
        if now < self._unreadable_until:
            return None
        waits = not self._reads_lag
        if not waits:
            self._unreadable_until = now + SLOW_AGAIN_SECONDS
        self._asked += 1
        reading = self._reads.submit(self._read, query, empty, now)
        found = asyncio.wrap_future(reading)
        reading.add_done_callback(self._was_read)  # after the loop was told
        if not waits:
            return None
        done, _ = await asyncio.wait([found], timeout=PATIENCE_SECONDS)
        if done:
            return found.result()
        self._too_slow(now)
        self._degrade(_SLOW)
        return None

    def close(self) -> None:
        """Write what is queued and end the threads."""
        self._queue.put(None)
        self._thread.join(BUSY_SECONDS * 2)
        self._reads.submit(self._end_reading)
        self._reads.shutdown(wait=True)

    # The reading thread

    def _read(self, query: Query[T], empty: T, asked_at: float) -> T | None:
        # What a killed gateway left behind is put right by the writer, and locked meanwhile.
        self._opened.wait(PATIENCE_SECONDS / 2)
        try:
            reader = self._open_reader()
            if reader is None or reader.execute("PRAGMA user_version").fetchone() == (0,):
                return empty  # the writer has not made the tables yet
            found = query(reader)
        except sqlite3.Error as exc:
            self._end_reading()
            self._unreadable_until = self._clock() + AGAIN_SECONDS
            if "locked" in str(exc):  # all the patience went into that
                self._too_slow(self._clock())
            self._degrade(f"cannot be read ({exc})")
            return None
        if self._reads_lag and self._clock() - asked_at <= PATIENCE_SECONDS:
            self._reads_lag = False
            self._unreadable_until = 0.0
        return found

    def _open_reader(self) -> sqlite3.Connection | None:
        """Return a connection to the file that lies there now; the old one if none does."""
        lies_there = identity(self._path)
        if lies_there is not None and lies_there != self._read_file:
            self._end_reading()
            at_rest = not os.access(self._path.parent, os.W_OK)
            # Where nobody can write, a reader cannot make the files that it reads with either; and
            # it looks anew each time, since it would not notice that somebody can.
            uri = f"{self._path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
            self._reader = sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS)
            self._read_file = None if at_rest else lies_there
        return self._reader

    def _was_read(self, _reading: Future[T]) -> None:
        self._answered += 1

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._read_file = None

    def _too_slow(self, now: float) -> None:
        """A request has waited long enough: it does not wait for its write, nor does any other."""
        self._lags = self._reads_lag = True
        self._unreadable_until = now + SLOW_AGAIN_SECONDS

    # The writing thread

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        ended = False
        while not ended:
            batch, ended = self._take()
            started = self._clock()
            if batch and started >= self._again_at:
                connection = self._commit(connection, [write for write, _ in batch])
            written = connection is not None and started >= self._again_at
            slow = self._clock() - started > PATIENCE_SECONDS
            self._lags = self._lags and (slow or not written)
            for _, future in batch:
                future.set_result(written)
            self._settled += len(batch)
            self._opened.set()
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[tuple[Write, Written]], bool]:
        batch: list[tuple[Write, Written]] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(
        self, connection: sqlite3.Connection | None, writes: list[Write]
    ) -> sqlite3.Connection | None:
        """Write a batch as one transaction; returns the connection, None if it is of no use."""
        try:
            if connection is not None and identity(self._path) != self._written_file:
                # Nothing fails: SQLite goes on with a file that no restart will find.
                self._abandon(connection)
                connection = None
            if connection is None:
                connection = self._connect(self._path)
                before, self._written_file = self._written_file, identity(self._path)
                self.epoch += before not in (None, self._written_file)
            with connection:
                for write in writes:
                    write(connection)
        except (sqlite3.Error, OSError, ValueError) as exc:  # ValueError: text that is no Unicode
            self._again_at = self._clock() + AGAIN_SECONDS
            if type(exc) is sqlite3.DatabaseError and self._written_file is not None:
                self._written_file = _LOST  # malformed, or no database any more
            reason = exc.strerror if isinstance(exc, OSError) else exc
            self._degrade(f"cannot be written ({str(reason).lower()})")
            if connection is not None:
                connection.close()
            return None
        return connection

    def _abandon(self, connection: sqlite3.Connection) -> None:
        """Leave a database that was removed or replaced.

        Raises:
            OSError: what is left of it cannot be removed.
        """
        connection.close()
        self._written_file = _LOST
        self._degrade("was removed or replaced")
        if identity(self._path) is None:
            for part in ("-wal", "-shm"):  # of no use without it, and the reader still uses them
                self._path.with_name(f"{self._path.name}{part}").unlink(missing_ok=True)

    # Both threads, and the event loop

    def _degrade(self, how: str) -> None:
        if self._warned.acquire(blocking=False):
            self._warn(
                f"`{self._path}` {how}; going on from memory, so what is learned meanwhile may not "
                "survive a restart"
            )


def identity(path: Path) -> FileIdentity:
    """Return what tells a file from another that took its place; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class MemoryStore:
    """A store without a file, for simulations: everything happens at once."""

    def __init__(self) -> None:
        self.epoch = 0
        self._connection = sqlite3.connect(":memory:")
        self._connection.executescript(SCHEMA)

    def submit(self, write: Write) -> Written:
        """Write."""
        with self._connection:
            write(self._connection)
        done = Written()
        done.set_result(True)
        return done

    async def committed(self, write: Written) -> None:
        """Nothing is left to wait for."""

    def find(self, query: Query[T]) -> T:
        """Return what `query` finds."""
        return query(self._connection)

    async def read(self, query: Query[T], empty: T) -> T | None:  # noqa: ARG002 - it can tell
        """Return what `query` finds."""
        return self.find(query)

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()
