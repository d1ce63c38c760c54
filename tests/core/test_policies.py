"""Which account gets a turn that nobody owns, by each policy, and how parallel turns spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import FRESH, Account
from codexlb_cli.core.policies import (
    POLICIES,
    Candidate,
    PolicyName,
    Shares,
    budget,
    choose,
)
from codexlb_cli.core.selection import Pool, first_choice, in_order_after
from codexlb_cli.core.windows import UNKNOWN, Limits, Rate, Window
from tests.core.pools import NOW

HOUR = 3600.0
WEEK = 7 * 24 * HOUR
POLICY_NAMES: tuple[PolicyName, ...] = get_args(PolicyName)


def candidates(**tables: Mapping[str, Any]) -> list[Candidate]:
    return [Candidate(name, place, **tables[name]) for place, name in enumerate(tables)]


def limits(
    primary: float | None = None,
    secondary: float | None = None,
    *,
    resets_in: float = 2.5 * HOUR,
    week_resets_in: float = WEEK / 2,
    plan: str | None = None,
) -> Limits:
    short = None if primary is None else Window(primary, NOW, 300, NOW + resets_in)
    long = None if secondary is None else Window(secondary, NOW, 10_080, NOW + week_resets_in)
    return Limits(primary=short, secondary=long, plan=plan, seen_at=NOW)


def pool_with(policy: PolicyName, **accounts: Limits) -> Pool:
    states = {name: replace(FRESH, limits=known) for name, known in accounts.items()}
    return Pool(tuple(Account(name) for name in accounts), NOW, states, policy=policy)


def served(pool: Pool, turns: int, *, in_parallel: bool) -> Counter[str]:
    """Choose for so many turns, one after the other or all at once, as the gateway does."""
    count: Counter[str] = Counter()
    for number in range(1, turns + 1):
        name = first_choice(pool)[0]
        count[name] += 1
        account = pool.account(name)
        assert account is not None
        pool = replace(
            pool,
            last_chosen={**pool.last_chosen, name: number},
            in_flight=dict(count) if in_parallel else {},
            shares=pool.shares.after(name, account.weight),
        )
    return count


def test_the_names_are_those_of_the_table() -> None:
    assert tuple(POLICIES) == POLICY_NAMES


BUSY: dict[str, Mapping[str, Any]] = {
    "work": {"in_flight": 2, "last_chosen": 1, "share": 3.0, "budget": 0.9},
    "home": {"in_flight": 0, "last_chosen": 9, "share": 2.0, "budget": 0.2},
    "spare": {"in_flight": 1, "last_chosen": 4, "share": 1.0, "budget": 0.8},
}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("first", "work"),
        ("round_robin", "work"),
        ("least_busy", "home"),
        ("most_remaining", "spare"),  # 0.9/3, 0.2/1, 0.8/2
        ("weighted", "spare"),
    ],
)
def test_each_policy_looks_at_one_thing(policy: PolicyName, expected: str) -> None:
    assert choose(policy, candidates(**BUSY)).name == expected


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_priority_goes_before_policy_and_weight_0_is_last(policy: PolicyName) -> None:
    best = candidates(**BUSY)
    last = [replace(c, priority=0 if c.name == "home" else 1) for c in best]
    assert choose(policy, last).name == "home"
    spared = [replace(c, priority=-5, weight=0) if c.name == "work" else c for c in best]
    assert choose(policy, spared).name != "work"
    assert choose(policy, spared[:1]).name == "work", "nobody else is there"


@pytest.mark.parametrize("policy", [name for name in POLICY_NAMES if name != "first"])
@pytest.mark.parametrize(
    ("same", "expected"),
    [
        ({"work": {"in_flight": 1}, "home": {}, "spare": {}}, "home"),
        ({"work": {"last_chosen": 2}, "home": {"last_chosen": 1}, "spare": {"last_chosen": 3}},
         "home"),
        ({"work": {}, "home": {}, "spare": {}}, "work"),
    ],
)  # fmt: skip
def test_ties(policy: PolicyName, same: dict[str, Mapping[str, Any]], expected: str) -> None:
    if policy == "round_robin" and "in_flight" in same["work"]:
        same = {name: {**table, "last_chosen": 5} for name, table in same.items()}
    assert choose(policy, candidates(**same)).name == expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (UNKNOWN, 1.0),
        (limits(0, 0, resets_in=5 * HOUR, week_resets_in=WEEK), 1.0),
        (limits(50), 1.0),  # half of it is left, for half of the time
        (limits(75), 0.5),
        (limits(75, resets_in=HOUR / 4), 5.0),  # what is left then is lost
        (limits(75, resets_in=1.0), 5.0),  # but not without bound
        (limits(75, resets_in=90 * HOUR), 0.25),  # a clock that is off
        (limits(75, resets_in=-1.0), 1.0),  # it has reset
        (limits(10, 80), 0.4),  # the tighter window counts
        (limits(90, 20), 0.2),
        (limits(50, plan="Pro"), 10.0),
        (limits(50, plan="free"), 0.2),
        (limits(50, plan="of the future"), 1.0),
        (Limits(plan="pro"), 10.0),
        (limits(100), 0.0),
        (Limits(primary=Window(25, NOW)), 0.75),
        (Limits(requests=Rate(60, 30, NOW, NOW + 60), tokens=Rate(100, 90, NOW)), 0.5),
    ],
)
def test_the_budget(known: Limits, expected: float) -> None:
    assert budget(known, NOW) == pytest.approx(expected)
    assert budget(known, NOW, weight=3) == pytest.approx(3 * expected)
    assert budget(known, NOW, weight=0) == pytest.approx(expected)


def test_what_is_about_to_reset_is_used_first() -> None:
    pool = pool_with(
        "most_remaining", work=limits(10, 10), home=limits(60, 30, resets_in=600), spare=limits(5)
    )
    assert first_choice(pool) == ["home", "spare", "work"], "after it, configuration order"
    assert in_order_after(pool, None) == ["work", "home", "spare"], "no policy after a close"


def test_accounts_without_limits_take_turns() -> None:
    pool = pool_with("most_remaining", work=UNKNOWN, home=UNKNOWN, spare=UNKNOWN)
    assert served(pool, 6, in_parallel=False) == {"work": 2, "home": 2, "spare": 2}
    assert first_choice(replace(pool, in_flight={"work": 1}))[0] == "home"


@pytest.mark.parametrize("in_parallel", [False, True])
def test_weights_are_shares_of_all_turns(in_parallel: bool) -> None:
    pool = pool_with("weighted", work=UNKNOWN, home=UNKNOWN, spare=UNKNOWN)
    weights = {"work": 3.0, "home": 1.0, "spare": 0.0}
    weighed = tuple(replace(a, weight=weights[a.name]) for a in pool.accounts)
    pool = replace(pool, accounts=weighed)
    assert served(pool, 40, in_parallel=in_parallel) == {"work": 30, "home": 10}


def test_who_was_away_does_not_catch_up_on_its_share() -> None:
    shares = Shares()
    for _ in range(100):
        shares = shares.after("work", 1)
    after = Counter[str]()
    for _ in range(10):
        name = min(("work", "home"), key=shares.start)
        shares = shares.after(name, 1)
        after[name] += 1
    assert abs(after["work"] - after["home"]) <= 1


equal = st.sampled_from([UNKNOWN, limits(0), limits(40, 70), limits(99), Limits(plan="pro")])


@given(st.sampled_from(POLICY_NAMES[1:]), equal, st.integers(1, 5), st.integers(0, 40))
def test_parallel_first_turns_spread_evenly_among_equals(
    policy: PolicyName, known: Limits, accounts: int, turns: int
) -> None:
    names = [f"a{number}" for number in range(accounts)]
    count = served(pool_with(policy, **dict.fromkeys(names, known)), turns, in_parallel=True)
    counts = [count[name] for name in names]
    assert max(counts) - min(counts) <= 1


drawn = st.builds(
    limits,
    st.integers(0, 99),
    st.integers(0, 99),
    resets_in=st.floats(-HOUR, 5 * HOUR),
    week_resets_in=st.floats(-HOUR, WEEK),
    plan=st.sampled_from([None, "plus", "pro", "free"]),
)


@given(st.lists(drawn, min_size=2, max_size=5), st.integers(1, 60))
def test_nobody_gets_more_of_parallel_turns_than_its_share(known: list[Limits], turns: int) -> None:
    """No account's last turn would have been served with less company elsewhere."""
    accounts = {f"a{number}": each for number, each in enumerate(known)}
    count = served(pool_with("most_remaining", **accounts), turns, in_parallel=True)
    for name, turns_there in count.items():
        for other, its in accounts.items():
            elsewhere = budget(its, NOW) / (count[other] + 1)
            assert budget(accounts[name], NOW) / turns_there >= elsewhere - 1e-9


@given(st.integers(20, 80), st.integers(2, 4))
def test_an_account_that_has_just_reset_gets_its_share_and_not_all(used: int, others: int) -> None:
    accounts = {f"a{number}": limits(used) for number in range(others)}
    accounts["reset"] = limits(100, resets_in=0)
    turns = 4 * len(accounts)
    count = served(pool_with("most_remaining", **accounts), turns, in_parallel=True)
    assert 0 < count["reset"] < turns - others
    assert all(count[name] for name in accounts)
