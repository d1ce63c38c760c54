"""What follows a close, by code, strength, phase and pool, typed out from the close table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Effect
from codexlb_cli.core.closes import (
    LIVENESS_TIMEOUT,
    CloseOverride,
    CloseRow,
    HardMove,
    ReconnectPolicy,
    SoftMove,
    close_row,
)
from codexlb_cli.core.reconnect import (
    Move,
    Outcome,
    Phase,
    Situation,
    Strength,
    after_close,
    owner_wait,
)
from codexlb_cli.core.selection import Pool
from tests.core.pools import NOW, pool, pools

HARD, SOFT, NONE = Strength.HARD, Strength.SOFT, Strength.NONE
POLICY = ReconnectPolicy()


def situation(strength: Strength, closed: str = "home", **changes: object) -> Situation:
    owner = None if strength is NONE else closed
    given_ = Situation(closed=closed, phase=Phase.SENT, strength=strength, owner=owner)
    return replace(given_, **changes)  # type: ignore[arg-type]


def shown(outcome: Outcome) -> str:
    """Show an outcome in one line: move, account, replay, wait, reason, what the client sees."""
    replay = "again" if outcome.replay else "-"
    return (
        f"{outcome.move} {outcome.account or '-'} {replay} {outcome.delay_seconds:g} "
        f"{outcome.reason} {outcome.client_sees}"
    )


def verdicts(outcome: Outcome) -> str:
    return " ".join(f"{v.account}:{v.verdict}:{v.reason}" for v in outcome.verdicts)


def close(code: int, strength: Strength, accounts: Pool, **changes: object) -> Outcome:
    return after_close(close_row(code), situation(strength, **changes), accounts, POLICY)  # type: ignore[arg-type]


THREE = pool("work", "home", "spare")
OWNER_ONLY = "home:picked:owner work:excluded:not_owner spare:excluded:not_owner"
ANOTHER = "spare:picked:policy work:next:policy home:excluded:closed"
SAME_SOFT = "home:picked:owner spare:next:policy work:next:policy"
SAME_NONE = "home:picked:policy spare:next:policy work:next:policy"
NOBODY_HARD = "work:excluded:not_owner home:excluded:no_replay spare:excluded:not_owner"
NOBODY = "work:excluded:no_replay home:excluded:no_replay spare:excluded:no_replay"

# Phase sent, three ready accounts, the socket of `home` closed. Per group of codes: its reason,
# the wait of a repeated account, and whether a free turn stays or goes.
STAYS = {
    (1000, 1001, 1005): ("upstream_going_away", "0"),
    (1006,): ("transport_lost", "0"),
    (1012,): ("upstream_restarting", "1"),
    (1014, 3008): ("upstream_restarting", "0.25"),
}
GOES = {
    (1008,): ("policy_violation", "0.25"),
    (3000, 3003): ("credentials_refused", "0.25"),
    (1011,): ("internal_error", "0.25"),
    (1013,): ("try_again_later", "1"),
    (3001, 3007, 3009, 3999, 4000, 4999): ("private_close", "0.25"),
}
STOPS = {
    (1002, 1003, 1004, 1007, 1010, 1015, 1016, 2000, 2999): (
        "protocol_fault", "upstream_protocol_error",
    ),
    (1009,): ("message_too_big", "request_too_large"),
}  # fmt: skip


def by_code(table: dict[tuple[int, ...], tuple[str, str]]) -> list[tuple[int, str, str]]:
    return [(code, *row) for codes, row in table.items() for code in codes]


@pytest.mark.parametrize(("code", "reason", "wait"), by_code(STAYS))
def test_closes_after_which_a_turn_stays(code: int, reason: str, wait: str) -> None:
    expected = f"reconnect home again {wait} {reason} nothing"
    hard, soft, none = (close(code, strength, THREE) for strength in (HARD, SOFT, NONE))
    assert (shown(hard), verdicts(hard)) == (expected, OWNER_ONLY)
    assert (shown(soft), verdicts(soft)) == (expected, SAME_SOFT)
    assert (shown(none), verdicts(none)) == (expected, SAME_NONE)
    assert (hard.owner, soft.owner, none.owner) == ("home", "home", None)


@pytest.mark.parametrize(("code", "reason", "wait"), by_code(GOES))
def test_closes_after_which_a_free_turn_goes(code: int, reason: str, wait: str) -> None:
    hard = close(code, HARD, THREE)
    assert shown(hard) == f"reconnect home again {wait} hard_affinity_keeps_owner nothing"
    assert verdicts(hard) == OWNER_ONLY
    for strength in (SOFT, NONE):
        free = close(code, strength, THREE)
        assert shown(free) == f"fail_over spare again 0 {reason} nothing"
        assert verdicts(free) == ANOTHER


@pytest.mark.parametrize(("code", "reason", "wait"), by_code(GOES))
def test_an_account_that_is_alone_is_tried_again(code: int, reason: str, wait: str) -> None:
    for strength in (SOFT, NONE):
        alone = close(code, strength, pool("home"))
        assert shown(alone) == f"reconnect home again {wait} {reason} nothing"
        assert verdicts(alone) == "home:picked:only_usable_account"
    hard = close(code, HARD, pool("home"))
    assert shown(hard) == f"reconnect home again {wait} hard_affinity_keeps_owner nothing"
    assert verdicts(hard) == "home:picked:owner"


@pytest.mark.parametrize(("code", "reason", "sees"), by_code(STOPS))
@pytest.mark.parametrize("strength", Strength)
def test_closes_that_no_account_would_heal(
    code: int, reason: str, sees: str, strength: Strength
) -> None:
    outcome = close(code, strength, THREE)
    assert shown(outcome) == f"give_up - - 0 {reason} {sees}"
    assert verdicts(outcome) == (NOBODY_HARD if strength is HARD else NOBODY)


def test_a_keepalive_timeout_is_treated_as_a_lost_transport() -> None:
    for strength in Strength:
        ours = after_close(LIVENESS_TIMEOUT, situation(strength), THREE, POLICY)
        lost = close(1006, strength, THREE)
        assert ours == replace(lost, reason="liveness_timeout")


@pytest.mark.parametrize("strength", Strength)
@pytest.mark.parametrize("phase", [Phase.CREATED, Phase.STREAMING])
@pytest.mark.parametrize("code", [1000, 1006, 1009, 1011, 1012, 1013, 2000, 4000])
def test_nothing_is_sent_again_once_the_response_started(
    code: int, phase: Phase, strength: Strength
) -> None:
    outcome = close(code, strength, THREE, phase=phase)
    assert shown(outcome) == "give_up - - 0 response_started upstream_closed"
    assert verdicts(outcome) == (NOBODY_HARD if strength is HARD else NOBODY)


@pytest.mark.parametrize("code", [1000, 1006, 1009, 1011, 1012, 1013, 2000, 4000])
def test_an_idle_close_only_retires_the_socket(code: int) -> None:
    for strength, expected in ((HARD, OWNER_ONLY), (SOFT, SAME_SOFT), (NONE, SAME_NONE)):
        outcome = close(code, strength, THREE, phase=Phase.IDLE, replays=1, replayable=False)
        assert shown(outcome) == "reconnect home - 0 idle_socket_retired nothing"
        assert verdicts(outcome) == expected


def test_an_idle_close_waits_for_nothing() -> None:
    for strength in (HARD, SOFT):
        outcome = close(1011, strength, pool("work", "home", home="back_soon"), phase=Phase.IDLE)
        assert outcome.delay_seconds == 0


@pytest.mark.parametrize("strength", Strength)
@pytest.mark.parametrize(("code", "reason", "_"), by_code(STAYS | GOES))
def test_no_replay_is_left(code: int, reason: str, _: str, strength: Strength) -> None:
    expected = f"give_up - - 0 {reason} upstream_unavailable"
    nobody = NOBODY_HARD if strength is HARD else NOBODY
    for changes in ({"replays": 1}, {"replays": 2}, {"replayable": False}):
        outcome = close(code, strength, THREE, **changes)
        assert (shown(outcome), verdicts(outcome)) == (expected, nobody)
    never = after_close(close_row(code), situation(strength), THREE, ReconnectPolicy(replays=0))
    assert (shown(never), verdicts(never)) == (expected, nobody)


def test_a_message_that_is_too_big_is_so_on_the_second_try_as_well() -> None:
    outcome = close(1009, SOFT, THREE, replays=1)
    assert shown(outcome) == "give_up - - 0 message_too_big request_too_large"


# (pool, strength, code): outcome and verdicts; `home` closed.
STATES: list[tuple[Pool, Strength, int, str, str]] = [
    (
        pool("work", "home", "spare", "team", spare="cooling"), SOFT, 1011,
        "fail_over team again 0 internal_error nothing",
        "team:picked:policy work:next:policy spare:next:cooling_down home:excluded:closed",
    ),
    (
        pool("home", "spare", spare="cooling"), NONE, 1011,
        "fail_over spare again 0 internal_error nothing",
        "spare:picked:cooling_down home:excluded:closed",
    ),
    (
        pool("work", "home", "spare", work="limited", spare="disabled"), SOFT, 1011,
        "reconnect home again 0.25 internal_error nothing",
        "home:picked:only_usable_account work:excluded:limited spare:excluded:disabled",
    ),
    (
        pool("work", "home", "spare", work="needs_login"), NONE, 1013,
        "fail_over spare again 0 try_again_later nothing",
        "spare:picked:policy work:excluded:needs_login home:excluded:closed",
    ),
    (
        pool("work", "home", "spare", home="cooling"), HARD, 1011,
        "reconnect home again 0.25 hard_affinity_keeps_owner nothing", OWNER_ONLY,
    ),
    (
        pool("work", "home", "spare", home="cooling"), SOFT, 1006,
        "reconnect home again 0 transport_lost nothing", SAME_SOFT,
    ),
    (
        pool("work", "home", "spare", work="limited", spare="disabled"), HARD, 1011,
        "reconnect home again 0.25 hard_affinity_keeps_owner nothing", OWNER_ONLY,
    ),
    (
        pool("work", "home", "spare", home="limited"), HARD, 1011,
        "give_up - - 0 limited rate_limit_exceeded",
        "work:excluded:not_owner home:excluded:limited spare:excluded:not_owner",
    ),
    (
        pool("work", "home", "spare", home="limited_for_long"), HARD, 1006,
        "give_up - - 0 limited usage_limit_reached",
        "work:excluded:not_owner home:excluded:limited spare:excluded:not_owner",
    ),
    (
        pool("work", "home", "spare", home="needs_login", work="disabled"), HARD, 1006,
        "give_up - - 0 needs_login owner_unavailable",
        "work:excluded:disabled home:excluded:needs_login spare:excluded:not_owner",
    ),
    (
        pool("work", "home", "spare", home="disabled"), HARD, 1012,
        "give_up - - 0 disabled owner_unavailable",
        "work:excluded:not_owner home:excluded:disabled spare:excluded:not_owner",
    ),
    (
        pool("work", "home", "spare", home="disabled"), SOFT, 1006,
        "fail_over spare again 0 transport_lost nothing",
        "spare:picked:policy work:next:policy home:excluded:disabled",
    ),
    (
        pool("work", "home", home="limited", work="disabled"), NONE, 1006,
        "give_up - - 0 limited rate_limit_exceeded",
        "work:excluded:disabled home:excluded:limited",
    ),
    (
        pool("work", "home", "spare", home="back_soon"), HARD, 1011,
        "reconnect home again 4 hard_affinity_keeps_owner nothing", OWNER_ONLY,
    ),
    (
        pool("work", "home", "spare", home="back_soon"), SOFT, 1006,
        "reconnect home again 4 transport_lost nothing", SAME_SOFT,
    ),
    (
        pool("work", "home", "spare", home="back_soon"), NONE, 1006,
        "fail_over spare again 0 transport_lost nothing",
        "spare:picked:policy work:next:policy home:excluded:limited",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("accounts", "strength", "code", "outcome", "expected"), STATES)
def test_states_of_accounts(
    accounts: Pool, strength: Strength, code: int, outcome: str, expected: str
) -> None:
    found = close(code, strength, accounts)
    assert (shown(found), verdicts(found)) == (outcome, expected)


def test_until_and_credentials_are_told() -> None:
    accounts = pool("work", "home", home="limited", missing=frozenset({"work"}))
    accounts = replace(accounts, require_credentials=False)
    found = close(1011, NONE, accounts).verdicts
    told = {v.account: (v.until, v.credential_present) for v in found}
    assert told == {"work": (None, False), "home": (NOW + 42, True)}


def test_a_missing_credential_excludes_only_in_the_gateway() -> None:
    accounts = pool("work", "home", missing=frozenset({"work"}))
    gateway = close(1011, SOFT, accounts)
    assert verdicts(gateway) == ("home:picked:only_usable_account work:excluded:credential_missing")
    simulated = close(1011, SOFT, replace(accounts, require_credentials=False))
    assert verdicts(simulated) == "work:picked:policy home:excluded:closed"


def test_an_account_without_the_model_is_not_picked() -> None:
    accounts = replace(THREE, without_model=frozenset({"spare"}))
    assert verdicts(close(1011, SOFT, accounts)) == (
        "work:picked:policy home:excluded:closed spare:excluded:model_unavailable"
    )


def test_accounts_that_could_not_be_dialled_are_not_dialled_again() -> None:
    outcome = close(1011, SOFT, THREE, dial_failed=frozenset({"spare"}))
    assert outcome.candidates == ("work",)
    outcome = close(1006, NONE, THREE, dial_failed=frozenset({"spare", "work"}))
    assert outcome.candidates == ("home",)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ready", 0), ("cooling", 0), ("back_soon", 4), ("limited", None), ("disabled", None),
        ("needs_login", None),
    ],
)  # fmt: skip
def test_how_long_a_keyed_turn_waits_for_its_owner(state: str, expected: float | None) -> None:
    assert owner_wait(pool("work", "home", home=state), "home", POLICY) == expected
    assert owner_wait(pool("work"), "home", POLICY) is None
    patient = ReconnectPolicy(wait_up_to=42.0)
    assert owner_wait(pool("home", home="limited"), "home", patient) == 42


# --- properties ------------------------------------------------------------------------------

NAMES = ("work", "home", "spare", "team")
overrides = st.builds(
    CloseOverride,
    account=st.sampled_from([None, Effect.NEUTRAL, Effect.COUNTED, Effect.COOLED]),
    soft=st.sampled_from([None, *SoftMove]),
    hard=st.sampled_from([None, *HardMove]),
)
codes = st.one_of(st.integers(1000, 4999), st.sampled_from([1000, 1006, 1008, 1009, 1011, 1013]))


@st.composite
def cases(draw: st.DrawFn) -> tuple[CloseRow, Situation, Pool, ReconnectPolicy]:
    code = draw(codes)
    policy = ReconnectPolicy(
        replays=draw(st.integers(0, 1)),
        closes={code: draw(overrides)} if draw(st.booleans()) else {},
        wait_up_to=draw(st.sampled_from([0.0, 10.0])),
    )
    accounts = draw(pools())
    strength = draw(st.sampled_from(Strength))
    closed = draw(st.sampled_from(NAMES))
    drawn = Situation(
        closed=closed,
        phase=draw(st.sampled_from([Phase.SENT, Phase.SENT, *Phase])),
        strength=strength,
        owner={HARD: closed, NONE: None}.get(strength, draw(st.sampled_from([closed, "work"]))),
        replays=draw(st.integers(0, 1)),
        replayable=draw(st.booleans()),
        dial_failed=draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
    )
    row = LIVENESS_TIMEOUT if draw(st.integers(0, 9)) == 0 else close_row(code, policy)
    return row, drawn, accounts, policy


@given(cases())
@settings(max_examples=500)
def test_a_close_code_alone_never_excludes_a_hard_turns_owner(
    case: tuple[CloseRow, Situation, Pool, ReconnectPolicy],
) -> None:
    row, before, accounts, policy = case
    bound = replace(before, phase=Phase.SENT, strength=HARD, owner=before.closed)
    outcome = after_close(row, bound, accounts, policy)
    owner = bound.closed
    assert outcome.account in (owner, None)
    assert not [v for v in outcome.verdicts if v.reason == "closed"]
    assert set(outcome.candidates) <= {owner}
    may = policy.replays > bound.replays and bound.replayable
    if accounts.usable(owner) and may and row.hard is HardMove.OWNER:
        assert outcome.account == owner
        assert outcome.verdicts[0].reason == "owner"


@given(cases())
@settings(max_examples=500)
def test_every_outcome_is_whole(case: tuple[CloseRow, Situation, Pool, ReconnectPolicy]) -> None:
    row, before, accounts, policy = case
    outcome = after_close(row, before, accounts, policy)
    assert outcome == after_close(row, before, accounts, policy)

    names = [a.name for a in accounts.accounts]
    assert sorted(v.account for v in outcome.verdicts) == sorted(names)
    kinds = [v.verdict for v in outcome.verdicts]
    tried = len(outcome.candidates)
    assert kinds == (["picked"] + ["next"] * (tried - 1) if tried else []) + ["excluded"] * (
        len(names) - tried
    )
    excluded = [v.account for v in outcome.verdicts if v.verdict == "excluded"]
    assert excluded == [n for n in names if n in excluded], "not in configuration order"

    assert (outcome.move is Move.GIVE_UP) == (outcome.account is None) == (tried == 0)
    assert (outcome.client_sees == "nothing") == (outcome.account is not None)
    if outcome.account is not None:
        assert outcome.candidates[0] == outcome.account
        assert (outcome.move is Move.RECONNECT) == (outcome.account == before.closed)
    assert outcome.replay == (before.phase is Phase.SENT and outcome.account is not None)
    assert outcome.reason
    if before.phase is Phase.IDLE or outcome.account is None:
        assert outcome.delay_seconds == 0
    assert 0 <= outcome.delay_seconds <= max(5.0, policy.wait_up_to)


@given(cases())
@settings(max_examples=500)
def test_no_excluded_account_is_picked(
    case: tuple[CloseRow, Situation, Pool, ReconnectPolicy],
) -> None:
    row, before, accounts, policy = case
    outcome = after_close(row, before, accounts, policy)
    for position, name in enumerate(outcome.candidates):
        waited_for = (
            position == 0
            and name == before.closed
            and before.strength is not NONE
            and owner_wait(accounts, name, policy) is not None
        )
        assert accounts.usable(name) or waited_for
        if name != before.closed:
            assert name not in before.dial_failed
    states = [accounts.standing_of(name) for name in outcome.candidates]
    others = [
        (s.state.value, s.until or 0)
        for s, name in zip(states, outcome.candidates, strict=True)
        if s is not None and name != before.closed
    ]
    assert [k for k, _ in others] == sorted((k for k, _ in others), reverse=True)


@given(cases())
def test_phases_after_the_response_started_give_up(
    case: tuple[CloseRow, Situation, Pool, ReconnectPolicy],
) -> None:
    row, before, accounts, policy = case
    for phase in (Phase.CREATED, Phase.STREAMING):
        outcome = after_close(row, replace(before, phase=phase), accounts, policy)
        assert (outcome.account, outcome.replay, outcome.reason, outcome.client_sees) == (
            None, False, "response_started", "upstream_closed",
        )  # fmt: skip
