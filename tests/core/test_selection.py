"""Which accounts are tried, in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import AccountState, Availability
from codexlb_cli.core.selection import (
    Pool,
    Reason,
    first_choice,
    in_order_after,
    unkeyed_account,
    unusable_reason,
    verdicts,
)
from tests.core.pools import NOW, pool, pools

FOUR = ("work", "home", "spare", "team")


@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        (None, "work home spare team"),
        ("work", "home spare team work"),
        ("spare", "team work home spare"),
        ("team", "work home spare team"),
        ("gone", "work home spare team"),
    ],
)
def test_configuration_order_after_the_one_that_closed(closed: str | None, expected: str) -> None:
    assert in_order_after(pool(*FOUR), closed) == expected.split()


def test_cooling_accounts_come_after_every_ready_one_by_earliest_end() -> None:
    accounts = pool(*FOUR)
    states = {
        "work": AccountState(cooling_until=NOW + 9, cooling_reason="a"),
        "spare": AccountState(cooling_until=NOW + 3, cooling_reason="b"),
    }
    accounts = replace(accounts, states=states)
    assert in_order_after(accounts, "home") == ["team", "home", "spare", "work"]
    assert first_choice(accounts) == ["home", "team", "spare", "work"]


def test_if_all_are_cooling_the_earliest_end_is_first() -> None:
    states = {
        "work": AccountState(cooling_until=NOW + 9),
        "home": AccountState(cooling_until=NOW + 3),
    }
    accounts = replace(pool("work", "home"), states=states)
    assert first_choice(accounts) == ["home", "work"]
    assert unkeyed_account(accounts) == "home"


@pytest.mark.parametrize("state", ["limited", "disabled", "needs_login"])
def test_unusable_accounts_are_left_out(state: str) -> None:
    accounts = pool("work", "home", work=state)
    assert in_order_after(accounts, None) == first_choice(accounts) == ["home"]
    assert unkeyed_account(accounts) == "home"
    assert not accounts.usable("work")
    assert unusable_reason(accounts, "work") == state


@pytest.mark.parametrize(
    ("in_flight", "last_chosen", "expected"),
    [
        ({}, {}, "work home spare team"),
        ({"work": 1}, {}, "home spare team work"),
        ({"work": 1, "home": 1, "team": 1}, {}, "spare team work home"),
        ({}, {"work": 3, "home": 2, "spare": 4}, "team work home spare"),
        ({}, {"work": 3, "home": 2, "spare": 4, "team": 9}, "home spare team work"),
        ({"home": 1}, {"work": 3, "spare": 1, "team": 2}, "spare team work home"),
    ],
)
def test_a_first_turn_goes_to_the_least_busy_then_the_least_recent(
    in_flight: dict[str, int], last_chosen: dict[str, int], expected: str
) -> None:
    accounts = replace(pool(*FOUR), in_flight=in_flight, last_chosen=last_chosen)
    assert first_choice(accounts) == expected.split()
    assert in_order_after(accounts, None) == list(FOUR), "load plays no part after a close"


def test_a_busy_ready_account_comes_before_an_idle_cooling_one() -> None:
    accounts = replace(pool("work", "home", work="cooling"), in_flight={"home": 9})
    assert first_choice(accounts) == ["home", "work"]


def test_the_account_of_an_unkeyed_request_offline() -> None:
    assert unkeyed_account(pool("work", "home", work="cooling")) == "home"
    assert unkeyed_account(pool("work", "home", work="limited", home="disabled")) == "work"
    assert unkeyed_account(Pool((), NOW)) is None


def test_why_an_account_cannot_serve() -> None:
    accounts = replace(
        pool("work", "home", missing=frozenset({"work"})), without_model=frozenset({"home"})
    )
    assert unusable_reason(accounts, "work") == "credential_missing"
    assert unusable_reason(accounts, "home") == "model_unavailable"
    assert unusable_reason(accounts, "ghost") == "gone"
    assert unusable_reason(pool("work", work="cooling"), "work") is None


def test_verdicts_tell_the_order_then_the_excluded_in_configuration_order() -> None:
    accounts = pool(*FOUR, spare="limited")
    found = verdicts(
        accounts,
        [("team", "policy"), ("home", "policy")],
        {"work": Reason.CLOSED},
    )
    assert [(v.account, v.verdict, v.reason, v.until) for v in found] == [
        ("team", "picked", "policy", None),
        ("home", "next", "policy", None),
        ("work", "excluded", "closed", None),
        ("spare", "excluded", "limited", NOW + 42),
    ]


@given(pools(), st.sampled_from([None, *FOUR]))
def test_the_orders_hold_every_usable_account_once(accounts: Pool, closed: str | None) -> None:
    usable = {a.name for a in accounts.accounts if accounts.usable(a.name)}
    for order in (in_order_after(accounts, closed), first_choice(accounts)):
        assert len(order) == len(set(order))
        assert set(order) == usable
        known = [accounts.standing_of(name) for name in order]
        states = [s.state for s in known if s is not None]
        ready = states.count(Availability.READY)
        assert states[:ready] == [Availability.READY] * ready
    if closed in usable and len(usable) > 1:
        ready_others = [
            n for n in usable - {closed}
            if (s := accounts.standing_of(n)) and s.state is Availability.READY
        ]  # fmt: skip
        assert not ready_others or in_order_after(accounts, closed)[0] in ready_others


@given(pools())
def test_usable_and_its_reason_agree(accounts: Pool) -> None:
    for name in (*FOUR, "ghost"):
        assert (unusable_reason(accounts, name) is None) == accounts.usable(name)
