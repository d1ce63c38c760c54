"""The usage of all plans as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import FRESH, Account, AccountState
from codexlb_cli.core.pool_usage import usage_document
from codexlb_cli.core.readings import from_usage
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.windows import Credits, Limits, Window
from tests.core.pools import LIMITED, LIMITED_FOR_LONG, NEEDS_LOGIN, NOW

HOUR = 3600
FIVE_HOURS, WEEK = 5 * HOUR, 7 * 24 * HOUR
API_KEY = FRESH


def window(used: float, resets_in: float | None = HOUR, seconds: float = FIVE_HOURS) -> Window:
    return Window(used, NOW, seconds / 60, None if resets_in is None else NOW + resets_in)


def week(used: float, resets_in: float | None = 100 * HOUR) -> Window:
    return window(used, resets_in, WEEK)


def plan(
    primary: Window | None = None,
    secondary: Window | None = None,
    name: str | None = "plus",
    credit: Credits | None = None,
) -> AccountState:
    limits = Limits(primary=primary, secondary=secondary, plan=name, credits=credit, seen_at=NOW)
    return replace(FRESH, limits=limits)


def document(*states: AccountState, **options: dict[int, Any]) -> dict[str, Any]:
    """The document of accounts with these states; options by the account's number."""
    accounts = tuple(
        Account(f"a{n}", **{key: values[n] for key, values in options.items() if n in values})
        for n in range(len(states))
    )
    return usage_document(Pool(accounts, NOW, {f"a{n}": s for n, s in enumerate(states)}))


def told(*states: AccountState, **options: dict[int, Any]) -> list[tuple[int, int, int] | None]:
    """Percent, length and seconds until the reset of both windows."""
    limits = document(*states, **options)["rate_limit"]
    windows = [limits["primary_window"], limits["secondary_window"]]
    for found in windows:
        assert found is None or found["reset_at"] == NOW + found["reset_after_seconds"]
    keys = ("used_percent", "limit_window_seconds", "reset_after_seconds")
    return [None if w is None else tuple(w[key] for key in keys) for w in windows]


def test_the_document_of_one_plan_is_what_was_told_of_it() -> None:
    state = plan(window(42), week(7), credit=Credits(True, False, "9.99"))
    assert document(state) == {
        "plan_type": "plus",
        "rate_limit": {
            "allowed": True,
            "limit_reached": False,
            "primary_window": {
                "used_percent": 42,
                "limit_window_seconds": FIVE_HOURS,
                "reset_after_seconds": HOUR,
                "reset_at": int(NOW) + HOUR,
            },
            "secondary_window": {
                "used_percent": 7,
                "limit_window_seconds": WEEK,
                "reset_after_seconds": 100 * HOUR,
                "reset_at": int(NOW) + 100 * HOUR,
            },
        },
        "credits": {"has_credits": True, "unlimited": False, "balance": "9.99"},
        "additional_rate_limits": None,
        "rate_limit_reached_type": None,
    }


def test_a_window_is_used_to_the_mean_and_resets_when_the_first_part_comes_back() -> None:
    assert told(plan(window(80, 3 * HOUR), week(30)), plan(window(20, 2 * HOUR), week(10))) == [
        (50, FIVE_HOURS, 2 * HOUR),
        (20, WEEK, 100 * HOUR),
    ]
    # What is unused gives nothing back.
    assert told(plan(window(80, 3 * HOUR)), plan(window(0, HOUR))) == [
        (40, FIVE_HOURS, 3 * HOUR),
        None,
    ]


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({}, 9),
        ({"weight": {0: 9.0}}, 43),
        ({"weight": {0: 0.0}}, 9),
        ({"enabled": {1: False}}, 89),
        ({"enabled": {0: False}}, 1),
    ],
)
def test_a_plan_counts_by_its_size_and_its_weight(options: dict[str, Any], used: int) -> None:
    # 89 of plus, which counts once, and 1 of pro, which counts 10 times.
    found = told(plan(window(89)), plan(window(1), name="pro"), **options)[0]
    assert found == (used, FIVE_HOURS, HOUR)


def test_a_plan_that_is_used_up_in_one_window_serves_nothing_of_the_other() -> None:
    assert told(
        plan(window(0, HOUR), week(100, 9 * HOUR)), plan(window(40, 3 * HOUR), week(0))
    ) == [
        (70, FIVE_HOURS, 3 * HOUR),
        (50, WEEK, 9 * HOUR),
    ]
    # As it is with a usage limit that an error told, and unlike with a rate limit.
    used_up = replace(LIMITED_FOR_LONG, limits=plan(window(10, HOUR)).limits)
    assert told(used_up, plan(window(40, 3 * HOUR)))[0] == (70, FIVE_HOURS, 2 * HOUR)
    slowed = replace(LIMITED, limits=plan(window(10, HOUR)).limits)
    assert told(slowed, plan(window(40, 3 * HOUR)))[0] == (25, FIVE_HOURS, HOUR)


def test_credits_go_on_where_a_window_ends() -> None:
    state = plan(window(100), credit=Credits(True, False, "5"))
    assert document(state)["rate_limit"]["limit_reached"] is False


@pytest.mark.parametrize(
    ("states", "reached"),
    [
        ([plan(window(100))], True),
        ([plan(window(100)), LIMITED_FOR_LONG], True),
        ([plan(window(100)), NEEDS_LOGIN], True),
        ([plan(window(100)), plan(window(99.9))], False),
        ([plan(window(100)), API_KEY], False),
        ([plan(window(100)), LIMITED], False),
        ([plan(window(100, None))], False),
        ([plan(window(100, -1))], False),
        ([NEEDS_LOGIN], False),
        ([], False),
    ],
)
def test_the_limit_is_reached_when_no_account_can_serve(
    states: list[AccountState], reached: bool
) -> None:
    found = document(*states)
    assert found["rate_limit"]["limit_reached"] is reached
    assert found["rate_limit"]["allowed"] is not reached
    assert (found["rate_limit_reached_type"] is not None) is reached


def test_what_is_nearly_used_up_is_not_shown_as_used_up() -> None:
    assert told(plan(window(99.9)))[0] == (99, FIVE_HOURS, HOUR)
    assert told(plan(window(99.9)), plan(window(100)))[0] == (99, FIVE_HOURS, HOUR)


def test_a_window_that_has_reset_is_unused() -> None:
    assert told(plan(window(80, -1), week(30)))[0] == (0, FIVE_HOURS, FIVE_HOURS)


@pytest.mark.parametrize(
    ("states", "lengths"),
    [
        ([], [None, None]),
        ([API_KEY, plan()], [None, None]),
        ([plan(window(1)), API_KEY], [FIVE_HOURS, None]),
        ([plan(None, week(1))], [None, WEEK]),
        ([plan(week(1))], [WEEK, None]),
        # A free plan's only window is a week: it counts with the weeks of the others.
        ([plan(week(1), name="free"), plan(window(1), week(1))], [FIVE_HOURS, WEEK]),
        ([plan(window(1, seconds=30 * 86_400), name="free"), plan(window(1), week(1))],
         [FIVE_HOURS, WEEK]),
        ([plan(Window(1, NOW), Window(1, NOW))], [FIVE_HOURS, WEEK]),
    ],
)  # fmt: skip
def test_windows_are_put_together_by_their_length(
    states: list[AccountState], lengths: list[int | None]
) -> None:
    assert [None if w is None else w[1] for w in told(*states)] == lengths


@pytest.mark.parametrize(
    ("plans", "largest"),
    [
        ([], "unknown"),
        ([None], "unknown"),
        (["free", "team", "plus"], "team"),
        (["plus", "pro", None], "pro"),
    ],
)
def test_the_plan_is_the_largest(plans: list[str | None], largest: str) -> None:
    assert document(*(plan(window(1), name=name) for name in plans))["plan_type"] == largest


@pytest.mark.parametrize(
    ("told_credits", "summed"),
    [
        ([], None),
        ([Credits(False, False, "0"), Credits(True, False, "9.99")], (True, False, "9.99")),
        ([Credits(True, False, "0.1"), Credits(True, False, "0.2")], (True, False, "0.3")),
        ([Credits(True, True), Credits(False, False)], (True, True, None)),
        ([Credits(True, False, "plenty"), Credits(True, False, "NaN")], (True, False, None)),
        ([Credits(True, False, "9e999999")] * 2, (True, False, None)),
        ([Credits(True, False, "1e-999999"), Credits(True, False, "5")], (True, False, "5")),
    ],
)
def test_credits_add_up(
    told_credits: list[Credits], summed: tuple[bool, bool, str | None] | None
) -> None:
    found = document(*(plan(window(1), credit=credit) for credit in told_credits))["credits"]
    assert (found and (found["has_credits"], found["unlimited"], found["balance"])) == summed


windows = st.none() | st.builds(
    Window,
    st.floats(0, 100),
    st.just(NOW),
    st.sampled_from([None, 300.0, 10_080.0, 43_200.0]),
    st.none() | st.floats(NOW - 1e6, NOW + 1e6),
)
states = st.builds(
    plan, windows, windows, st.sampled_from([None, "free", "plus", "pro"])
) | st.sampled_from([API_KEY, LIMITED, LIMITED_FOR_LONG, NEEDS_LOGIN])


@given(st.lists(states, max_size=4))
def test_codex_can_read_it_and_so_can_we(found: list[AccountState]) -> None:
    made = document(*found)
    limits = made["rate_limit"]
    for place in ("primary_window", "secondary_window"):
        for value in (limits[place] or {}).values():
            assert type(value) is int
            assert 0 <= value < 2**31
        if limits[place]:
            assert limits[place]["used_percent"] <= 100
            assert limits[place]["reset_at"] >= NOW
    read = from_usage(made, NOW)
    assert read is not None
    assert read.reached is limits["limit_reached"]
