"""Owner rows as commands read and delete them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from codexlb_cli.core.affinity import LIFETIMES, Key, keys_meant, turn_state_key
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.database import change_marker, database_path, open_for_writing
from codexlb_cli.store.owner_rows import OwnerRow, Selection, forget_rows, newest_query, read_rows
from codexlb_cli.store.owners import write_owner

NOW = 1_800_000_000.0
ROWS = [
    OwnerRow(Key("session", "s1"), "work", NOW - 5),
    OwnerRow(Key("session", "s1\nt1"), "home", NOW - 4),
    OwnerRow(Key("session", "s12"), "work", NOW - 3),
    OwnerRow(Key("prompt_cache", "s1"), "home", NOW - 2),
    OwnerRow(turn_state_key("given"), "work", NOW - 1),
    OwnerRow(Key("session", "old"), "work", NOW - LIFETIMES["session"]),
]
"""The last used last, and one that outlived its time."""
NEWEST = ROWS[-2::-1]


def fill(folder: Path, rows: Iterable[OwnerRow] = ROWS) -> None:
    with closing(open_for_writing(database_path(folder))) as connection, connection:
        for row in rows:
            write_owner(row.key, row.account, row.used)(connection)


def meant(text: str, *sources: str) -> Selection:
    return Selection(keys=keys_meant(text, sources or tuple(LIFETIMES)))


SELECTIONS: dict[str, tuple[Selection, list[OwnerRow]]] = {
    "everything": (Selection(), NEWEST),
    "a source": (Selection(("session",)), [ROWS[2], ROWS[1], ROWS[0]]),
    "an account": (Selection(account="home"), [ROWS[3], ROWS[1]]),
    "both": (Selection(("session",), "work"), [ROWS[2], ROWS[0]]),
    "a key of several sources, with its threads": (meant("s1"), [ROWS[3], ROWS[1], ROWS[0]]),
    "a thread as it is listed": (meant("s1\\nt1"), [ROWS[1]]),
    "a turn state by its value": (meant("given"), [ROWS[4]]),
    "a turn state by its digest": (meant(ROWS[4].key.value), [ROWS[4]]),
    "a key of one source": (meant("s1", "prompt_cache"), [ROWS[3]]),
    "a key and an account": (
        Selection(account="home", keys=keys_meant("s1", ("session",))),
        [ROWS[1]],
    ),
    "unknown": (meant("s"), []),
    "what no file can hold": (meant("\udcff\ud800"), []),
    "expired": (meant("old"), []),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_is_selected_is_read_and_forgotten(tmp_path: Path, name: str) -> None:
    selection, expected = SELECTIONS[name]
    fill(tmp_path)
    assert read_rows(tmp_path, selection, NOW) == expected
    assert read_rows(tmp_path, selection, NOW, 1) == expected[:1]
    assert not change_marker(tmp_path).exists()
    assert forget_rows(tmp_path, selection, NOW) == len(expected)
    assert change_marker(tmp_path).exists() is bool(expected)
    assert read_rows(tmp_path, selection, NOW) == []
    assert read_rows(tmp_path, Selection(), NOW) == [r for r in NEWEST if r not in expected]


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert read_rows(folder, Selection(), NOW) == []
    assert forget_rows(folder, Selection(), NOW) == 0
    assert not folder.exists()


def test_a_database_without_tables_yet(tmp_path: Path) -> None:
    database_path(tmp_path).touch()
    assert read_rows(tmp_path, Selection(), NOW) == []


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    fill(tmp_path)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    assert read_rows(tmp_path, Selection(), NOW) == NEWEST
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = database_path(tmp_path)
    path.write_bytes(b"no database at all, but long enough for one" * 100)
    with pytest.raises(ConfigError, match="owners cannot be read: file is not a database") as read:
        read_rows(tmp_path, Selection(), NOW)
    with pytest.raises(ConfigError, match="owners cannot be forgotten"):
        forget_rows(tmp_path, Selection(), NOW)
    assert read.value.hint is not None
    assert str(path) in read.value.hint


@pytest.mark.parametrize(
    "selection",
    [selection for selection, _ in SELECTIONS.values()],
    ids=list(SELECTIONS),
)
def test_no_question_reads_the_whole_table(tmp_path: Path, selection: Selection) -> None:
    fill(tmp_path)
    with closing(open_for_writing(database_path(tmp_path))) as connection:
        for condition, values in selection.conditions():
            query = f"EXPLAIN QUERY PLAN {newest_query(condition)}"
            plan = [row[3] for row in connection.execute(query, (*values, 0, 1))]
            assert plan[0].startswith("SEARCH owners USING "), plan
            bounded = "key=?" in plan[0] or "key>?" in plan[0] or "updated>?" in plan[0]
            assert bounded, plan
            sorts = [step for step in plan[1:] if "B-TREE" in step]
            assert sorts == [] or selection.keys is not None, plan
            assert (selection.account is None) or ("account=?" in plan[0]) or selection.keys
