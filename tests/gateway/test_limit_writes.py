"""Limits come with every turn; the disk is not asked as often."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any

from codexlb_cli.config.load import demo_settings
from codexlb_cli.core.accounts import Effect, Evidence
from codexlb_cli.core.windows import Limits, Window
from codexlb_cli.gateway.accounts import LIMITS_WRITTEN_SECONDS, Accounts
from codexlb_cli.gateway.memory import MadeUpCredentials
from codexlb_cli.store.cooldowns import states_in
from codexlb_cli.store.running import MemoryStore, Written
from tests.support.virtual import VirtualLoop


class CountingStore(MemoryStore):
    """A store that counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def submit(self, write: Callable[[sqlite3.Connection], None]) -> Written:
        self.writes += 1
        return super().submit(write)

    def percent(self, name: str = "work") -> float | None:
        state = self.find(states_in).get(name)
        window = None if state is None else state.limits.primary
        return None if window is None else window.used_percent


def played(test: Callable[[Accounts, CountingStore], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        store = CountingStore()
        accounts = Accounts(
            lambda: demo_settings(environ={}),
            MadeUpCredentials(),
            {},
            store=store,
            state_folder=None,
            now=asyncio.get_running_loop().time,
            warn=lambda _: None,
        )
        await test(accounts, store)
        store.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())


def used(percent: float) -> Limits:
    now = asyncio.get_running_loop().time()
    return Limits(primary=Window(percent, now, 300, now + 900), seen_at=now)


def test_many_events_are_one_write() -> None:
    async def test(accounts: Accounts, store: CountingStore) -> None:
        for percent in range(50):
            accounts.learn("work", used(percent))
            accounts.learn("home", used(percent))
        assert store.writes == 0
        await asyncio.sleep(LIMITS_WRITTEN_SECONDS + 0.1)
        assert (store.writes, store.percent("work"), store.percent("home")) == (2, 49, 49)
        await asyncio.sleep(60)
        assert store.writes == 2
        accounts.learn("work", used(51))
        await asyncio.sleep(LIMITS_WRITTEN_SECONDS + 0.1)
        assert (store.writes, store.percent()) == (3, 51)

    played(test)


def test_what_shuts_out_or_lets_in_is_written_at_once() -> None:
    async def test(accounts: Accounts, store: CountingStore) -> None:
        accounts.learn("work", used(99))
        accounts.learn("work", used(100))
        assert (store.writes, store.percent()) == (1, 100)
        accounts.learn("work", used(1))
        assert (store.writes, store.percent()) == (2, 1)
        await asyncio.sleep(60)
        assert store.writes == 2, "what was written with it is not written again"

    played(test)


def test_another_change_takes_the_limits_along() -> None:
    async def test(accounts: Accounts, store: CountingStore) -> None:
        accounts.learn("work", used(7))
        accounts.blame("work", Evidence(Effect.COOLED, "forbidden", seconds=9))
        assert (store.writes, store.percent()) == (1, 7)

    played(test)


def test_the_end_writes_what_is_left_and_a_kill_does_not() -> None:
    async def test(accounts: Accounts, store: CountingStore) -> None:
        accounts.learn("work", used(7))
        accounts.write_limits()
        assert (store.writes, store.percent()) == (1, 7)
        accounts.learn("work", used(8))
        accounts.leave_unwritten()
        await asyncio.sleep(60)
        assert (store.writes, store.percent()) == (1, 7)

    played(test)
