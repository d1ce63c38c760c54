"""What was learned about accounts, written and read again."""

from __future__ import annotations

import json
import sqlite3

import pytest

from codexlb_cli.core.accounts import FRESH, AccountState
from codexlb_cli.core.windows import Credits, Limits, Rate, Window
from codexlb_cli.store.cooldowns import states_in, write_state
from codexlb_cli.store.running import MemoryStore

LIMITS = Limits(
    primary=Window(42.5, 1000.0, 300, 2000.0),
    secondary=Window(7, 1000.0),
    requests=Rate(60, 59, 1000.0, 1001.0),
    tokens=Rate(150_000, 1, 1000.0),
    credits=Credits(has_credits=True, unlimited=False, balance="9.99"),
    plan="plus",
    reached=True,
    reached_until=2000.0,
    seen_at=1000.0,
)


@pytest.mark.parametrize("limits", [Limits(), LIMITS, Limits(plan="free")])
def test_states_and_limits_are_read_as_they_were_written(limits: Limits) -> None:
    state = AccountState(limited_until=5.0, counted=(1.0, 2.0), limits=limits)
    store = MemoryStore()
    store.submit(write_state("work", state))
    assert store.find(states_in) == {"work": state}
    store.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"limited_until": 5.0}', AccountState(limited_until=5.0)),
        ('{"limited_until": 5.0, "limits": null}', AccountState(limited_until=5.0)),
        ('{"limits": {"primary": {"used_percent": 1}}}', FRESH),
        ('{"limits": {"of_a_later_version": 1}}', FRESH),
        ('{"limits": [1]}', FRESH),
        ("[]", FRESH),
        ("{", FRESH),
    ],
)
def test_a_row_of_another_version_is_read_as_far_as_it_can_be(
    text: str, expected: AccountState
) -> None:
    store = MemoryStore()

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO accounts (name, state) VALUES ('work', ?)", (text,))

    store.submit(write)
    assert store.find(states_in) == {"work": expected}
    store.close()


def test_a_row_is_plain_json() -> None:
    store = MemoryStore()
    store.submit(write_state("work", AccountState(limits=LIMITS)))
    (text,) = store.find(lambda c: c.execute("SELECT state FROM accounts").fetchone())
    assert json.loads(text)["limits"]["primary"]["used_percent"] == 42.5
    store.close()
