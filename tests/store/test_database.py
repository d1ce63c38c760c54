"""The database: one writer, a file for its owner alone, and never a failed request."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from codexlb_cli.core.accounts import FRESH, AccountState
from codexlb_cli.core.affinity import LIFETIMES, Key
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.cooldowns import (
    read_resets,
    read_states,
    reset_account,
    write_state,
)
from codexlb_cli.store.database import (
    SCHEMA_VERSION,
    change_marker,
    database_path,
    open_for_writing,
    reading,
)
from codexlb_cli.store.owners import (
    REASONING_SECONDS,
    find_owners,
    find_reasoning,
    forget_old,
    write_owner,
    write_reasoning,
)
from codexlb_cli.store.running import Database

NOW = 1_800_000_000.0
LIMITED = AccountState(
    limited_until=NOW + 42,
    limited_reason="rate_limit_exceeded",
    counted=(NOW - 1, NOW),
    login_reason="invalid_api_key",
    refused_credential="0a1b2c3d",
)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


KEYS = [Key("session", n) for n in ("s1", "old", "new")] + [Key("prompt_cache", "k")]
S1 = KEYS[0]


def owners(folder: Path, now: float = NOW) -> dict[Key, tuple[str, float]]:
    """The owner rows of the keys above that are alive."""
    with reading(folder) as connection:
        return {} if connection is None else find_owners(KEYS, now)(connection)


def _writer(folder: Path, warnings: list[str]) -> Database:
    return Database(database_path(folder), warnings.append)


def test_states_and_owners_survive_a_restart(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", LIMITED))
    writer.submit(write_owner(Key("session", "s1"), "work", NOW))
    writer.submit(write_owner(Key("prompt_cache", "k"), "home", NOW + 1)).result(10)
    assert read_states(folder) == {"work": LIMITED}
    writer.close()

    assert read_states(folder) == {"work": LIMITED}
    assert owners(folder) == {S1: ("work", NOW), Key("prompt_cache", "k"): ("home", NOW + 1)}
    assert warnings == []


def test_the_last_write_of_a_key_wins(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_owner(Key("session", "s1"), "work", NOW))
    writer.submit(write_owner(Key("session", "s1"), "home", NOW + 5))
    writer.close()
    assert owners(folder) == {S1: ("home", NOW + 5)}


def test_owners_that_outlived_their_time_are_forgotten(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_owner(Key("session", "old"), "work", NOW - LIFETIMES["session"]))
    writer.submit(write_owner(Key("session", "new"), "work", NOW))
    writer.submit(write_reasoning("aa", "work", NOW - REASONING_SECONDS))
    writer.submit(write_reasoning("bb", "home", NOW))
    writer.submit(forget_old(NOW))
    writer.close()
    with reading(folder) as connection:
        assert connection is not None
        long_ago = NOW - REASONING_SECONDS - 1
        assert find_reasoning(["aa", "bb"], long_ago)(connection) == {"bb": "home"}
    assert list(owners(folder, long_ago)) == [Key("session", "new")]


def test_the_file_is_for_its_owner_alone(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", FRESH)).result(10)
    writer.close()
    assert stat.S_IMODE(database_path(folder).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_read_where_nothing_was_written(folder: Path) -> None:
    assert read_states(folder) == {}
    assert read_resets(folder) == {}
    assert owners(folder) == {}
    assert not folder.exists()


def test_a_reset_clears_the_state_and_leaves_a_mark(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", LIMITED)).result(10)
    reset_account(folder, "work", NOW)
    assert read_states(folder) == {"work": FRESH}
    assert read_resets(folder) == {"work": NOW}
    assert change_marker(folder).exists()
    # What the gateway learns later does not take the time of the reset away.
    writer.submit(write_state("work", LIMITED)).result(10)
    writer.close()
    assert read_resets(folder) == {"work": NOW}


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 10])
def test_a_broken_file_is_left_alone_and_warned_of_once(
    folder: Path, warnings: list[str], content: bytes
) -> None:
    folder.mkdir()
    path = database_path(folder)
    path.write_bytes(content)
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", LIMITED)).result(10)
    writer.submit(write_state("home", LIMITED)).result(10)
    writer.close()

    assert path.read_bytes() == content
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert read_resets(folder) is None
    assert read_states(folder, warnings.append) == {}
    assert "cannot be read" in warnings[1]
    with pytest.raises(ConfigError, match="cannot be reset"):
        reset_account(folder, "work", NOW)


def test_a_newer_schema_is_left_alone(folder: Path, warnings: list[str]) -> None:
    connection = open_for_writing(database_path(folder))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", LIMITED)).result(10)
    writer.close()
    assert len(warnings) == 1
    assert read_states(folder) == {}


def test_a_state_of_another_shape_counts_as_fresh(folder: Path, warnings: list[str]) -> None:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO accounts (name, state) VALUES ('work', '[1]')")
        connection.execute("INSERT INTO accounts (name, state) VALUES ('home', '{\"x\": 1}')")

    writer = _writer(folder, warnings)
    writer.submit(write)
    writer.close()
    assert read_states(folder) == {"work": FRESH, "home": FRESH}


def test_reading_leaves_no_trace(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    writer.submit(write_state("work", LIMITED)).result(10)
    writer.close()
    before = sorted(path.name for path in folder.iterdir())
    assert read_states(folder) == {"work": LIMITED}
    assert sorted(path.name for path in folder.iterdir()) == before == ["state.sqlite3"]


def test_text_that_is_no_unicode_ends_no_writer(folder: Path, warnings: list[str]) -> None:
    writer = _writer(folder, warnings)
    assert writer.submit(write_owner(Key("session", "\ud800"), "work", NOW)).result(10) is False
    writer.close()
    assert len(warnings) == 1
