"""Where a turn starts: every reason, and a verdict per account."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.plan import Plan, opening, with_models
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import TurnFacts
from tests.core.pools import NOW, pool, pool_of, pools

NONE = TurnFacts()
SOFT = TurnFacts(Strength.SOFT, owner="home")
FIRST_SOFT = TurnFacts(Strength.SOFT)
HARD = TurnFacts(Strength.HARD, owner="home", bound=True)
PINNED = replace(HARD, portable=False)
UNBOUND = replace(HARD, bound=False)
FAILED = replace(HARD, owner_failed=True)
ASKS = TurnFacts(Strength.HARD, portable=False, asks=True)
HINTED = replace(ASKS, hint="home")
MOVE, WAIT, FAIL = (
    ReconnectPolicy(on_account_failure="move"),
    ReconnectPolicy(on_account_failure="wait"),
    ReconnectPolicy(on_account_failure="fail"),
)


def full(accounts: Pool, *names: str) -> Pool:
    """The pool, with as many turns on these accounts as they take."""
    return replace(accounts, max_turns=1, in_flight=dict.fromkeys(names, 1))


def three(**states: str) -> Pool:
    return pool_of({name: states.get(name, "ready") for name in ("work", "home", "spare")})


def verdicts(plan: Plan) -> list[str]:
    return [f"{v.account} {v.verdict} {v.reason}" for v in plan.verdicts]


@pytest.mark.parametrize(
    ("facts", "accounts", "policy", "reason", "candidates"),
    [
        (NONE, three(), MOVE, "unkeyed", ["work", "home", "spare"]),
        (NONE, three(work="cooling"), MOVE, "unkeyed", ["home", "spare", "work"]),
        (FIRST_SOFT, three(work="limited"), MOVE, "first_turn", ["home", "spare"]),
        (SOFT, three(), MOVE, "owner", ["home", "spare", "work"]),
        (SOFT, three(home="cooling"), MOVE, "owner", ["home", "spare", "work"]),
        (SOFT, three(home="back_soon"), MOVE, "owner_is_waited_for", ["home", "spare", "work"]),
        (SOFT, three(home="limited"), MOVE, "owner_cannot_serve", ["work", "spare"]),
        (SOFT, full(three(), "home"), MOVE, "owner_cannot_serve", ["work", "spare"]),
        (UNBOUND, three(), MOVE, "owner", ["home", "spare", "work"]),
        (HARD, three(), MOVE, "owner", ["home"]),
        (HARD, three(home="cooling"), MOVE, "owner", ["home"]),
        (PINNED, three(home="back_soon"), FAIL, "owner_is_waited_for", ["home"]),
        (HARD, three(home="limited"), MOVE, "account_failed", ["work", "spare"]),
        (HARD, three(home="needs_login"), MOVE, "account_failed", ["work", "spare"]),
        (HARD, three(home="limited"), WAIT, "owner_is_waited_for", ["home"]),
        (FAILED, three(), MOVE, "owner_keeps_failing", ["work", "spare"]),
        (FAILED, three(), FAIL, "owner", ["home"]),
        (FAILED, pool("home"), MOVE, "owner", ["home"]),
        (replace(FAILED, portable=False), three(), MOVE, "owner", ["home"]),
        (ASKS, three(), MOVE, "unknown_response", ["work", "home", "spare"]),
        (HINTED, three(), MOVE, "unknown_response", ["home", "work", "spare"]),
        (HINTED, three(home="back_soon"), MOVE, "owner_is_waited_for", ["home"]),
    ],
)  # fmt: skip
def test_where_a_turn_starts(
    facts: TurnFacts, accounts: Pool, policy: ReconnectPolicy, reason: str, candidates: list[str]
) -> None:
    plan = opening(facts, accounts, policy)
    assert (plan.reason, list(plan.candidates), plan.error) == (reason, candidates, None)
    moved = reason in ("account_failed", "owner_keeps_failing")
    assert plan.moved_from == ("home" if moved else None)
    assert [v.account for v in plan.verdicts if v.verdict != "excluded"] == candidates


@pytest.mark.parametrize(
    ("facts", "accounts", "policy", "code"),
    [
        (NONE, pool(), MOVE, "no_accounts"),
        (NONE, pool("work", work="disabled"), MOVE, "no_accounts"),
        (NONE, pool("work", work="limited"), MOVE, "rate_limit_exceeded"),
        (NONE, pool("work", work="limited_for_long"), MOVE, "usage_limit_reached"),
        (PINNED, three(home="limited_for_long"), MOVE, "usage_limit_reached"),
        (PINNED, three(home="limited"), MOVE, "rate_limit_exceeded"),
        (PINNED, three(home="needs_login"), MOVE, "owner_unavailable"),
        (PINNED, pool("work"), MOVE, "owner_unavailable"),
        (HARD, three(home="disabled"), FAIL, "owner_unavailable"),
        (replace(HARD, deadline=NOW + 10), three(home="limited"), WAIT, "rate_limit_exceeded"),
        (HINTED, three(home="disabled"), MOVE, "owner_unavailable"),
    ],
)
def test_where_it_cannot(
    facts: TurnFacts, accounts: Pool, policy: ReconnectPolicy, code: str
) -> None:
    plan = opening(facts, accounts, policy)
    assert plan.error is not None
    assert (plan.error.code, plan.candidates) == (code, ())
    assert all(v.verdict == "excluded" for v in plan.verdicts)


@pytest.mark.parametrize(
    ("facts", "accounts", "queued_for"),
    [
        (NONE, full(three(), "work", "home", "spare"), ["work", "home", "spare"]),
        (NONE, full(three(work="limited"), "work", "home", "spare"), ["home", "spare"]),
        (SOFT, full(three(), "work", "home", "spare"), ["home"]),
        (HARD, full(three(), "home"), ["home"]),
        (PINNED, full(three(), "home"), ["home"]),
        (ASKS, full(pool("work"), "work"), ["work"]),
        (PINNED, full(three(home="back_soon"), "home"), ["home"]),
    ],
)
def test_where_it_waits_in_line(facts: TurnFacts, accounts: Pool, queued_for: list[str]) -> None:
    plan = opening(facts, accounts, MOVE)
    assert (plan.reason, list(plan.queued_for)) == ("full", queued_for)
    assert (plan.candidates, plan.error) == ((), None)
    by_name = {v.account: v.reason for v in plan.verdicts}
    assert {by_name[name] for name in queued_for} <= {"full", "limited"}


def test_verdicts_say_why_not_the_others() -> None:
    accounts = pool("work", "home", "spare", "team", spare="limited", team="disabled")
    assert verdicts(opening(HARD, accounts, MOVE)) == [
        "home picked owner", "work excluded not_owner", "spare excluded not_owner",
        "team excluded not_owner",
    ]  # fmt: skip
    assert verdicts(opening(SOFT, accounts, MOVE)) == [
        "home picked owner", "work next policy", "spare excluded limited",
        "team excluded disabled",
    ]  # fmt: skip
    assert verdicts(opening(FAILED, accounts, MOVE)) == [
        "work picked policy", "home excluded owner_failed", "spare excluded limited",
        "team excluded disabled",
    ]  # fmt: skip
    assert verdicts(opening(PINNED, pool("home", "work", home="disabled"), MOVE)) == [
        "home excluded disabled", "work excluded not_owner",
    ]  # fmt: skip


def test_a_missing_model_moves_no_session() -> None:
    lacking = replace(three(), without_model=frozenset({"home"}))
    assert list(opening(HARD, with_models(lacking, is_hard=True), MOVE).candidates) == ["home"]
    free = opening(NONE, with_models(lacking, is_hard=False), MOVE)
    assert list(free.candidates) == ["work", "spare"]
    nobody = replace(three(), without_model=frozenset({"work", "home", "spare"}))
    assert with_models(nobody, is_hard=False).without_model == frozenset()


@given(pools(), st.sampled_from([NONE, SOFT, FIRST_SOFT, HARD, PINNED, UNBOUND, FAILED, ASKS]),
       st.sampled_from([MOVE, WAIT, FAIL]), st.integers(0, 2))  # fmt: skip
@settings(max_examples=500)
def test_what_holds_for_every_plan(
    accounts: Pool, facts: TurnFacts, policy: ReconnectPolicy, most: int
) -> None:
    accounts = with_models(replace(accounts, max_turns=most), is_hard=facts.is_hard)
    plan = opening(facts, accounts, policy)
    assert sum((bool(plan.candidates), bool(plan.queued_for), plan.error is not None)) == 1
    assert sorted(v.account for v in plan.verdicts) == sorted(a.name for a in accounts.accounts)
    assert len(set(plan.candidates)) == len(plan.candidates)
    first, *rest = plan.candidates or ("",)
    assert all(accounts.usable(name) for name in rest)
    if plan.candidates and plan.wait_seconds == 0:
        assert accounts.usable(first)
    if facts.is_hard and not facts.portable:
        assert set(plan.candidates) <= {facts.owner}
    if plan.moved_from is not None:
        assert facts.portable
        assert policy.on_account_failure == "move"
