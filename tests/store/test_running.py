"""The database of a running gateway when it fails: one warning, no wait, and writing again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from codexlb_cli.core.affinity import Key
from codexlb_cli.store.database import database_path, open_for_writing, reading
from codexlb_cli.store.owners import find_owners, write_owner
from codexlb_cli.store.running import AGAIN_SECONDS, Database
from tests.support.gateway import Clock

NOW = 1_800_000_000.0
T = TypeVar("T")
Found = dict[Key, tuple[str, float]]
NOBODY: Found = {}


def session(name: str) -> Key:
    return Key("session", name)


class Stand:
    """A database in a folder of its own, with a clock that stands still."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = database_path(folder)
        self.clock = Clock(0.0)
        self.warnings: list[str] = []
        self.opens: Callable[[Path], sqlite3.Connection] = partial(
            open_for_writing, busy_seconds=0.0
        )
        self.database = Database(self.path, self.warnings.append, self.clock, self.connect)
        self._closed = False

    def connect(self, path: Path) -> sqlite3.Connection:
        return self.opens(path)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.database.close()

    def write(self, name: str, account: str = "work") -> bool:
        """Write an owner; whether it was committed."""
        return self.database.submit(write_owner(session(name), account, NOW)).result(10)

    async def read(self, name: str) -> str | None:
        """What the running gateway reads."""
        found = await self.database.read(find_owners([session(name)], NOW), NOBODY)
        return found[session(name)][0] if found else None

    def reads_settled(self) -> None:
        """Wait for the attempts to read that nobody waited for."""
        self.database._reads.submit(int).result(10)

    def read_now(self, name: str) -> str | None:
        return asyncio.run(self.read(name))

    def stored(self, name: str) -> bool:
        """Whether another process finds it."""
        with reading(self.folder) as connection:
            assert connection is not None
            return bool(find_owners([session(name)], NOW)(connection))

    def over(self) -> None:
        """Let so much time go by that the database is tried again."""
        self.clock.advance(AGAIN_SECONDS)

    def assert_one_warning(self, how: str) -> None:
        means = "going on from memory, so what is learned meanwhile may not survive a restart"
        assert self.warnings == [f"`{self.path}` {how}; {means}"]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path / "state")
    yield stand
    stand.close()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that must not wait for anything."""
    with closing(coroutine):
        try:
            coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
    raise AssertionError("it waits")


def overwrite(path: Path, content: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def remove(stand: Stand) -> None:
    for path in stand.folder.iterdir():
        path.unlink()


def test_a_full_disk(stand: Stand) -> None:
    pages: list[int] = []

    def connect(path: Path) -> sqlite3.Connection:
        connection = open_for_writing(path)
        if not pages:
            pages.append(connection.execute("PRAGMA page_count").fetchone()[0])
            connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return connection

    stand.opens = connect
    names = [f"s{number}" + "x" * 500 for number in range(40)]
    written = [stand.write(name) for name in names]
    full = written.index(False)
    assert not any(written[full:])
    stand.assert_one_warning("cannot be written (database or disk is full)")
    assert stand.read_now(names[0]) == "work"
    assert stand.database.epoch == 0

    stand.over()  # there is room again
    assert all(stand.write(name) for name in names[full:])
    assert all(stand.stored(name) for name in names)
    assert stand.database.epoch == 0  # the rows from before are there
    assert len(stand.warnings) == 1


def lock(path: Path, *, alone: bool) -> sqlite3.Connection:
    """Hold the database as another process would."""
    connection = sqlite3.connect(path, isolation_level=None)
    if alone:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_database_that_another_process_writes(stand: Stand) -> None:
    assert stand.write("before")
    assert stand.read_now("before") == "work"
    with closing(lock(stand.path, alone=False)):
        assert not stand.write("s1")
        stand.over()
        assert not stand.write("s2")
        assert stand.read_now("before") == "work"
    stand.assert_one_warning("cannot be written (database is locked)")
    assert not stand.write("s3")  # it is left alone for a while
    stand.over()
    assert stand.write("s4")
    assert [stand.stored(name) for name in ("before", "s1", "s3", "s4")] == [
        True,
        False,
        False,
        True,
    ]
    assert len(stand.warnings) == 1


def test_a_database_that_another_process_has_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with closing(open_for_writing(database_path(folder))) as connection, connection:
        write_owner(session("before"), "home", NOW)(connection)
    held = lock(database_path(folder), alone=True)
    stand = Stand(folder)

    async def asked() -> None:
        assert await stand.read("before") is None  # this one has waited
        for _ in range(3):
            assert at_once(stand.read("before")) is None
        stand.over()
        # The attempt that finds it locked still, or mended, is not waited for either.
        assert at_once(stand.read("before")) is None
        assert at_once(stand.read("before")) is None

    try:
        asyncio.run(asked())
        assert not stand.write("s")
        assert len(stand.warnings) == 1
        assert "locked" in stand.warnings[0]
        stand.reads_settled()  # found it locked
    finally:
        stand.reads_settled()  # while it is locked: an attempt under way must not find it mended
        held.close()
        stand.over()
        assert stand.write("s")
        asyncio.run(found_again(stand, "before", "home"))
        stand.close()
    assert len(stand.warnings) == 1


async def found_again(stand: Stand, name: str, account: str) -> None:
    """Find a row once an attempt that nobody waits for has found the database mended."""
    stand.reads_settled()
    stand.over()
    assert at_once(stand.read(name)) is None
    stand.reads_settled()
    assert await stand.read(name) == account


def test_only_one_request_waits_for_a_write(stand: Stand) -> None:
    held, go_on = threading.Event(), threading.Event()
    assert stand.write("s")

    def slow(connection: sqlite3.Connection) -> None:
        held.set()
        go_on.wait(20)

    async def requests() -> None:
        first = stand.database.submit(slow)
        assert await asyncio.to_thread(held.wait, 10)
        await stand.database.committed(first)
        assert not first.done()
        for _ in range(3):
            at_once(stand.database.committed(stand.database.submit(slow)))
        go_on.set()
        assert await asyncio.wrap_future(first)

    asyncio.run(requests())
    stand.assert_one_warning("is locked or slow")
    assert stand.write("s")


def test_a_request_that_waited_to_read_does_not_wait_to_write(stand: Stand) -> None:
    held, go_on = threading.Event(), threading.Event()
    assert stand.write("s")

    def slow(connection: sqlite3.Connection) -> str:
        held.set()
        go_on.wait(20)
        return "found"

    def stuck(connection: sqlite3.Connection) -> None:
        go_on.wait(20)

    async def requests() -> None:
        assert await stand.database.read(slow, "default") is None
        assert held.is_set()
        at_once(stand.database.committed(stand.database.submit(stuck)))
        assert at_once(stand.read("s")) is None
        stand.over()
        assert at_once(stand.read("s")) is None
        go_on.set()

    asyncio.run(requests())
    stand.reads_settled()
    assert stand.read_now("s") == "work"  # the last attempt has found it mended
    stand.assert_one_warning("is locked or slow")


BROKEN: dict[str, Callable[[Path], None]] = {
    "no database": lambda path: overwrite(path, b"no database" * 400),
    "overwritten in the middle": lambda path: overwrite(
        path, b"\xa5" * (path.stat().st_size - 4096), 4096
    ),
    "truncated": lambda path: os.truncate(path, 5000),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_from_the_start(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "state"
    with closing(open_for_writing(database_path(folder))) as connection, connection:
        for number in range(200):
            write_owner(session(f"s{number}"), "home", NOW)(connection)
    BROKEN[kind](database_path(folder))
    broken = database_path(folder).read_bytes()
    stand = Stand(folder)
    try:
        stand.read_now("s1")
        results = [stand.write(f"n{number}" + "x" * 900) for number in range(20)]
        assert not all(results)
        stand.over()
        stand.read_now("s2")
        assert not stand.write("s199" + "x" * 900)
        assert len(stand.warnings) == 1
        assert str(stand.path) in stand.warnings[0]
        if kind == "no database":
            assert database_path(folder).read_bytes() == broken

        remove(stand)
        stand.over()
        assert stand.write("s")
        assert stand.stored("s")
        assert stand.read_now("s") == "work"
        assert len(stand.warnings) == 1
    finally:
        stand.close()


def test_what_replaces_a_broken_file_is_another_one(stand: Stand) -> None:
    assert stand.write("s")
    with closing(sqlite3.connect(stand.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(stand.path, b"\xa5" * (stand.path.stat().st_size - 4096), 4096)
    for number in range(20):  # until it has to look at a page again
        stand.write(f"s{number}" + "x" * 900)
    assert len(stand.warnings) == 1
    remove(stand)
    stand.over()
    assert stand.write("t")
    assert stand.database.epoch == 1  # what was stored before is to be stored again


@pytest.mark.parametrize("everything", [False, True])
def test_a_database_that_is_deleted(stand: Stand, everything: bool) -> None:
    assert stand.write("before")
    assert stand.read_now("before") == "work"
    if everything:
        remove(stand)
        stand.folder.rmdir()
    else:
        stand.path.unlink()
    assert stand.read_now("before") == "work"  # the file lives until it is closed
    assert stand.write("s")
    stand.assert_one_warning("was removed or replaced")
    assert stand.database.epoch == 1
    assert (stand.stored("s"), stand.stored("before")) == (True, False)
    assert stand.read_now("before") is None
    assert stand.read_now("s") == "work"
    stand.close()
    with closing(sqlite3.connect(stand.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(stand.warnings) == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    stand = Stand(tmp_path / "state")
    assert not stand.write("s")
    assert stand.read_now("s") is None
    stand.assert_one_warning("cannot be written (file exists)")
    (tmp_path / "state").unlink()
    stand.over()
    assert stand.write("s")
    stand.close()


def test_two_threads_that_fail_at_once_warn_once(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        database_path(folder).write_bytes(b"no database" * 400)
        stand = Stand(folder)
        write = stand.database.submit(write_owner(session("s"), "work", NOW))
        stand.read_now("s")
        assert write.result(10) is False
        stand.close()
        assert len(stand.warnings) == 1
