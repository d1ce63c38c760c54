"""The database of a running gateway: one thread writes, one reads, nothing on the hot path.

A database that cannot be used never fails a request: the gateway goes on from memory, says so
once, and tries again after a while.
"""

from __future__ import annotations

import asyncio
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


class Store(Protocol):
    """What a gateway needs of its database.

    Attributes:
        epoch: rises when writes were lost: what was stored before may be missing on disk.
    """

    epoch: int

    def submit(self, write: Write) -> Future[None]:
        """Queue a write; the future is done when it is committed, or given up."""

    async def committed(self, write: Future[None]) -> None:
        """Wait for a write, but not for long."""

    async def read(self, query: Query[T], default: T) -> T:
        """Return what `query` finds; `default` if the database cannot tell soon."""

    def close(self) -> None:
        """Write what is queued and end."""


class Database:
    """The database of a running gateway.

    Args:
        path: the file.
        warn: called once, from any thread, when the database cannot be used.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = 0
        self._path = path
        self._warn = warn
        self._clock = clock
        self._warned = False
        self._lags = False
        self._again_at = 0.0
        self._unreadable_until = 0.0
        self._queue: queue.SimpleQueue[tuple[Write, Future[None]] | None] = queue.SimpleQueue()
        self._submitted = 0
        self._settled = 0
        self._asked = 0
        self._answered = 0
        self._lost = False
        self._reader: sqlite3.Connection | None = None
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="codexlb-read")
        self._thread = threading.Thread(target=self._run, name="codexlb-store", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a write or a read is queued or under way."""
        return self._submitted != self._settled or self._asked != self._answered

    def submit(self, write: Write) -> Future[None]:
        """Queue a write; the future is done when it is committed, or given up."""
        future: Future[None] = Future()
        self._submitted += 1
        self._queue.put((write, future))
        return future

    async def committed(self, write: Future[None]) -> None:
        """Wait for a write, 100 ms at most; not at all while the database is known to lag."""
        if self._lags or write.done():
            return
        done, _ = await asyncio.wait([asyncio.wrap_future(write)], timeout=PATIENCE_SECONDS)
        if not done:
            self._lags = True
            self._degrade("is locked or slow")

    async def read(self, query: Query[T], default: T) -> T:
        """Return what `query` finds; `default` if the database cannot tell within 100 ms."""
        if self._clock() < self._unreadable_until:
            return default
        self._asked += 1
        reading = self._reads.submit(self._read, query, default)
        found = asyncio.wrap_future(reading)
        reading.add_done_callback(self._was_read)  # after the loop was told
        done, _ = await asyncio.wait([found], timeout=PATIENCE_SECONDS)
        return found.result() if done else default

    def close(self) -> None:
        """Write what is queued and end the threads."""
        self._queue.put(None)
        self._thread.join(BUSY_SECONDS * 2)
        self._reads.submit(self._end_reading)
        self._reads.shutdown(wait=True)

    # The reading thread

    def _read(self, query: Query[T], default: T) -> T:
        try:
            if self._reader is None:
                if not self._path.exists():
                    return default
                uri = f"{self._path.absolute().as_uri()}?mode=ro"
                self._reader = sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS)
            if self._reader.execute("PRAGMA user_version").fetchone() == (0,):
                return default  # the writer has not made the tables yet
            return query(self._reader)
        except sqlite3.Error as exc:
            self._unreadable_until = self._clock() + AGAIN_SECONDS
            self._end_reading()
            self._degrade(f"cannot be read ({exc})")
            return default

    def _was_read(self, _reading: Future[T]) -> None:
        self._answered += 1

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # The writing thread

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        ended = False
        while not ended:
            batch, ended = self._take()
            if batch and self._clock() >= self._again_at:
                connection = self._commit(connection, [write for write, _ in batch])
            elif batch:
                self._lost = True
            for _, future in batch:
                future.set_result(None)
            self._settled += len(batch)
            self._lags = self._lags and connection is None
        if connection is not None:
            connection.close()

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

    def _commit(
        self, connection: sqlite3.Connection | None, writes: list[Write]
    ) -> sqlite3.Connection | None:
        """Write a batch as one transaction; returns the connection, None if it is of no use."""
        try:
            connection = connection or open_for_writing(self._path)
            with connection:
                for write in writes:
                    write(connection)
            if self._lost:
                self.epoch += 1
                self._lost = False
        except (sqlite3.Error, OSError, ValueError) as exc:  # ValueError: text that is no Unicode
            self.epoch += 1
            self._again_at = self._clock() + AGAIN_SECONDS
            self._degrade(f"cannot be written ({exc})")
            if connection is not None:
                connection.close()
            return None
        return connection

    def _degrade(self, how: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"`{self._path}` {how}; going on from memory, so what is learned meanwhile may not "
                "survive a restart"
            )


class MemoryStore:
    """A store without a file, for simulations: everything happens at once."""

    def __init__(self) -> None:
        self.epoch = 0
        self._connection = sqlite3.connect(":memory:")
        self._connection.executescript(SCHEMA)

    def submit(self, write: Write) -> Future[None]:
        """Write."""
        with self._connection:
            write(self._connection)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    async def committed(self, write: Future[None]) -> None:
        """Nothing is left to wait for."""

    def find(self, query: Query[T]) -> T:
        """Return what `query` finds."""
        return query(self._connection)

    async def read(self, query: Query[T], default: T) -> T:  # noqa: ARG002 - it can always tell
        """Return what `query` finds."""
        return self.find(query)

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()
