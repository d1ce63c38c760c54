"""What is remembered of keys, and when it is written."""

from __future__ import annotations

import asyncio

import pytest

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.affinity import Key, read_evidence
from codexlb_cli.core.frames import parse_body
from codexlb_cli.core.selection import Pool
from codexlb_cli.gateway.keys import TOUCH_SECONDS, Keys, Recent
from codexlb_cli.store.database import Query, T, Write
from codexlb_cli.store.owners import find_owners, remove_owner, write_owner
from codexlb_cli.store.running import MemoryStore, Written

NOW = 1_800_000_000.0
ACCOUNTS = (Account("work"), Account("home"))


@pytest.mark.parametrize("source", ["session", "prompt_cache"])
def test_the_row_of_a_key_that_is_still_used_stays_young(source: str) -> None:
    now = [NOW]
    store = MemoryStore()
    keys, key = Keys(store, lambda: now[0]), Key(source, "k")

    def turn() -> None:
        keys.claim(key, "work")
        keys.bind([key], "work")
        keys.responded([key], "work")
        keys.completed([key], "work", Pool(ACCOUNTS, now[0]))

    turn()
    now[0] += TOUCH_SECONDS / 2
    turn()
    now[0] += TOUCH_SECONDS / 2
    turn()
    nobody: dict[Key, tuple[str, float]] = {}
    found = asyncio.run(store.read(find_owners([key], now[0]), nobody))
    assert found == {key: ("work", NOW + TOUCH_SECONDS)}


def test_a_claim_ends_with_the_last_turn_that_shares_it() -> None:
    keys = Keys(MemoryStore(), lambda: NOW)
    evidence = read_evidence([("session-id", "s")], parse_body(b"{}"))
    key = keys.enter(evidence).key
    keys.claim(key, "work")
    assert keys.enter(evidence).owner == "work"
    keys.leave(key)
    assert keys.record(key).owner == "work"
    keys.leave(key)
    assert keys.record(key).owner is None


def test_what_was_used_least_recently_is_forgotten() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(name) for name in "abc"] == [1, None, 3]
    assert len(recent) == 2


class LosingStore(MemoryStore):
    """A store that loses what is written while `loses` is set."""

    loses = False

    def submit(self, write: Write) -> Written:
        if not self.loses:
            return super().submit(write)
        lost = Written()
        lost.set_result(False)
        return lost


def recalled(keys: Keys, key: Key) -> str | None:
    asyncio.run(keys.recall([key]))
    return keys.record(key).owner


def test_what_could_not_be_stored_is_not_forgotten() -> None:
    store = LosingStore()
    keys = Keys(store, lambda: NOW)
    stored, lost = Key("session", "stored"), Key("session", "lost")
    keys.responded([stored], "work")
    store.loses = True
    keys.responded([lost], "home")
    store.loses = False
    store.submit(remove_owner(stored))
    for _ in range(2):
        keys.forget()
        assert recalled(keys, stored) is None
        assert recalled(keys, lost) == "home"
    keys.responded([lost], "home")  # the next turn writes it
    nobody: dict[Key, tuple[str, float]] = {}
    found = asyncio.run(store.read(find_owners([lost], NOW), nobody))
    assert found == {lost: ("home", NOW)}
    store.submit(remove_owner(lost))
    keys.forget()
    assert recalled(keys, lost) is None


def test_everything_is_written_again_where_the_file_is_another_one() -> None:
    store = MemoryStore()
    keys, key = Keys(store, lambda: NOW), Key("session", "s")
    keys.responded([key], "work")
    store.submit(remove_owner(key))
    store.epoch += 1
    keys.forget()
    assert recalled(keys, key) == "work"
    keys.responded([key], "work")
    nobody: dict[Key, tuple[str, float]] = {}
    assert asyncio.run(store.read(find_owners([key], NOW), nobody)) == {key: ("work", NOW)}


class SlowStore(MemoryStore):
    """A store that cannot tell while `silent`."""

    silent = False

    async def read(self, query: Query[T], empty: T) -> T | None:
        return None if self.silent else await super().read(query, empty)


@pytest.mark.parametrize("source", ["session", "conversation"])
def test_an_owner_that_a_slow_disk_could_not_tell_is_not_given_up(source: str) -> None:
    async def test() -> None:
        store, key = SlowStore(), Key(source, "k")
        store.submit(write_owner(key, "home", NOW))
        keys = Keys(store, lambda: NOW)
        store.silent = True
        await keys.recall([key])
        assert keys.record(key).owner is None
        keys.claim(key, "work")
        keys.bind([key], "work")
        assert keys.responded([key], "work") is None, "nothing is written over what is there"
        keys.completed([key], "work", Pool(ACCOUNTS, NOW))
        await keys.recall([key])
        assert keys.record(key).owner == "work", "until it can be read, the memory has to do"
        store.silent = False
        await keys.recall([key])
        assert keys.record(key).owner == "home"
        assert store.find(find_owners([key], NOW)) == {key: ("home", NOW)}

    asyncio.run(test())


def test_what_a_slow_disk_never_had_is_written_once_it_says_so() -> None:
    async def test() -> None:
        store, key = SlowStore(), Key("session", "k")
        keys = Keys(store, lambda: NOW)
        store.silent = True
        await keys.recall([key])
        keys.responded([key], "work")
        store.silent = False
        await keys.recall([key])
        assert keys.record(key).owner == "work"
        assert keys.responded([key], "work") is not None
        assert store.find(find_owners([key], NOW)) == {key: ("work", NOW)}

    asyncio.run(test())


def test_what_was_dropped_is_not_found_again_before_it_is_gone_from_the_disk() -> None:
    class Late(MemoryStore):
        """A store whose writes have not happened yet."""

        def submit(self, write: Write) -> Written:
            return Written()

    store, key = Late(), Key("file", "f")
    MemoryStore.submit(store, write_owner(key, "home", NOW))
    keys = Keys(store, lambda: NOW)
    assert recalled(keys, key) == "home"
    keys.drop(key)
    assert recalled(keys, key) is None
