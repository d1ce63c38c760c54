"""What is learned about an account, and whether it may be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import (
    FRESH,
    Account,
    AccountState,
    Availability,
    Effect,
    Evidence,
    Standing,
    apply,
    completed,
    forgiven,
    standing,
    transport_in_force,
)
from tests.core.pools import COOLING, LIMITED, NEEDS_LOGIN, NOW

ACCOUNT = Account("work")
COUNTED = Evidence(Effect.COUNTED, "internal_error")
REFUSED = Evidence(Effect.REFUSED, "forbidden")


def cooled(seconds: float, reason: str = "try_again_later") -> Evidence:
    return Evidence(Effect.COOLED, reason, seconds=seconds)


def limited(until: float) -> Evidence:
    return Evidence(Effect.LIMITED, "usage_limit_reached", until=until)


def stand(state: AccountState, now: float = NOW, account: Account = ACCOUNT) -> Standing:
    return standing(account, state, now)


@pytest.mark.parametrize(
    ("state", "expected", "usable"),
    [
        (FRESH, Standing(Availability.READY), True),
        (
            COOLING,
            Standing(Availability.COOLING_DOWN, "try_again_later", NOW + 20),
            True,
        ),
        (LIMITED, Standing(Availability.LIMITED, "rate_limit_exceeded", NOW + 42), False),
        (NEEDS_LOGIN, Standing(Availability.NEEDS_LOGIN, "credentials_rejected"), False),
    ],
)
def test_standing(state: AccountState, expected: Standing, usable: bool) -> None:
    assert stand(state) == expected
    assert expected.usable is usable


NO_WEBSOCKET = Evidence(Effect.NO_WEBSOCKET, "no_websocket")


def test_an_account_without_a_websocket_is_spoken_to_over_http_for_a_while() -> None:
    state = apply(FRESH, NO_WEBSOCKET, NOW)
    assert stand(state) == Standing(Availability.READY)
    assert transport_in_force(ACCOUNT, FRESH, NOW) == "websocket"
    assert transport_in_force(ACCOUNT, state, NOW + 599.9) == "http"
    assert transport_in_force(ACCOUNT, state, NOW + 600) == "websocket"
    assert transport_in_force(ACCOUNT, completed(state), NOW) == "http"
    again = apply(state, NO_WEBSOCKET, NOW + 500)
    assert transport_in_force(ACCOUNT, completed(replace(again, cooldowns=1)), NOW + 700) == "http"


@pytest.mark.parametrize("choice", ["websocket", "http"])
def test_what_was_learned_does_not_change_a_configured_transport(
    choice: Literal["websocket", "http"],
) -> None:
    account = replace(ACCOUNT, transport=choice)
    for state in (FRESH, apply(FRESH, NO_WEBSOCKET, NOW)):
        assert transport_in_force(account, state, NOW) == choice


def test_what_weighs_more_wins() -> None:
    everything = AccountState(
        cooling_until=NOW + 1,
        limited_until=NOW + 1,
        limited_reason="rate_limit_exceeded",
        login_reason="credentials_rejected",
    )
    off = replace(ACCOUNT, enabled=False)
    missing = standing(ACCOUNT, everything, NOW, credential_present=False)
    assert standing(off, everything, NOW, credential_present=False).state is Availability.DISABLED
    assert (missing.state, missing.reason) == (Availability.NEEDS_LOGIN, "credential_missing")
    assert stand(everything).reason == "credentials_rejected"
    assert stand(replace(everything, login_reason=None)).state is Availability.LIMITED
    assert stand(replace(COOLING)).state is Availability.COOLING_DOWN


@pytest.mark.parametrize("state", [COOLING, LIMITED])
def test_cooldowns_and_limits_end(state: AccountState) -> None:
    until = stand(state).until
    assert until is not None
    assert stand(state, until - 0.001).state is not Availability.READY
    assert stand(state, until) == Standing(Availability.READY)


def test_neutral_evidence_changes_nothing() -> None:
    for state in (FRESH, COOLING, LIMITED):
        assert apply(state, Evidence(Effect.NEUTRAL, "upstream_going_away"), NOW) is state


def test_three_counted_closes_in_a_minute_cool_for_30_seconds() -> None:
    state = apply(FRESH, COUNTED, NOW)
    state = apply(state, COUNTED, NOW + 29)
    assert stand(state, NOW + 29).state is Availability.READY
    state = apply(state, COUNTED, NOW + 59)
    assert stand(state, NOW + 59) == Standing(Availability.COOLING_DOWN, "internal_error", NOW + 89)


def test_counted_closes_further_apart_do_not_cool() -> None:
    state = FRESH
    for second in (0, 31, 62, 93):
        state = apply(state, COUNTED, NOW + second)
        assert stand(state, NOW + second).state is Availability.READY


def test_a_completed_turn_clears_the_count() -> None:
    state = apply(apply(FRESH, COUNTED, NOW), COUNTED, NOW + 1)
    state = apply(completed(state), COUNTED, NOW + 2)
    state = apply(state, COUNTED, NOW + 3)
    assert stand(state, NOW + 3).state is Availability.READY
    assert stand(apply(state, COUNTED, NOW + 4), NOW + 4).state is Availability.COOLING_DOWN


def test_a_completed_turn_clears_cooldowns_and_leaves_limits_and_logins() -> None:
    state = apply(apply(apply(LIMITED, cooled(5), NOW), REFUSED, NOW), COUNTED, NOW)
    assert completed(state) == LIMITED
    assert completed(apply(NEEDS_LOGIN, cooled(5), NOW)) == NEEDS_LOGIN
    assert completed(FRESH) == FRESH


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [
        (5, [5, 10, 20, 40, 80, 160, 300, 300]),
        (10, [10, 20, 40, 80, 160, 300, 300]),
        (30, [30, 60, 120, 240, 300, 300]),
    ],
)
def test_repeated_cooldowns_double_up_to_five_minutes(seconds: float, lengths: list[float]) -> None:
    state, now = FRESH, NOW
    for length in lengths:
        state = apply(state, cooled(seconds), now)
        assert stand(state, now).until == now + length
        now += length
    assert stand(apply(completed(state), cooled(seconds), now), now).until == now + seconds


def test_turns_that_fail_together_are_one_failure() -> None:
    state = FRESH
    for _ in range(8):
        state = apply(state, cooled(30, "policy_violation"), NOW)
    assert stand(state).until == NOW + 30
    later = apply(state, cooled(30), NOW + 31)
    assert stand(later, NOW + 31).until == NOW + 91


def test_a_shorter_cooldown_does_not_end_a_longer_one() -> None:
    state = apply(apply(FRESH, cooled(30, "policy_violation"), NOW), cooled(5), NOW + 1)
    assert stand(state, NOW + 1) == Standing(
        Availability.COOLING_DOWN, "policy_violation", NOW + 30
    )


def test_a_403_cools_for_3_seconds_first_and_30_from_the_second() -> None:
    state = apply(FRESH, REFUSED, NOW)
    assert stand(state) == Standing(Availability.COOLING_DOWN, "forbidden", NOW + 3)
    state = apply(state, REFUSED, NOW + 3)
    assert stand(state, NOW + 3).until == NOW + 33
    assert stand(apply(completed(state), REFUSED, NOW + 40), NOW + 40).until == NOW + 43


def test_a_limit_lasts_until_the_upstreams_time() -> None:
    assert stand(apply(FRESH, limited(NOW + 9), NOW)) == Standing(
        Availability.LIMITED, "usage_limit_reached", NOW + 9
    )


def test_a_limit_beyond_a_year_is_clamped() -> None:
    until = stand(apply(FRESH, limited(NOW + 1e11), NOW)).until
    assert until is not None
    assert NOW + 364 * 86400 < until <= NOW + 366 * 86400


def test_a_login_stays_until_a_person_acts() -> None:
    state = apply(FRESH, Evidence(Effect.LOGIN, "token_expired"), NOW)
    assert stand(state, NOW + 1e9) == Standing(Availability.NEEDS_LOGIN, "token_expired")


evidences = st.builds(
    Evidence,
    st.sampled_from(Effect),
    st.sampled_from(["a", "b"]),
    seconds=st.floats(0, 1e6),
    until=st.none() | st.floats(0, 1e12),
)


@given(st.lists(st.tuples(evidences, st.floats(0, 100), st.booleans()), max_size=30))
def test_a_cooldown_never_exceeds_five_minutes_nor_excludes(
    history: list[tuple[Evidence, float, bool]],
) -> None:
    state, now = FRESH, NOW
    for evidence, gap, done in history:
        now += gap
        state = apply(completed(state) if done else state, evidence, now)
        known = stand(state, now)
        if known.state is Availability.COOLING_DOWN:
            assert known.until is not None
            assert now < known.until <= now + 300
            assert known.usable
        if done and evidence.effect is Effect.NEUTRAL:
            assert known.state is not Availability.COOLING_DOWN


def test_urls() -> None:
    account = Account("work", base_url="https://api.example.test/v1/")
    assert account.websocket_url == "wss://api.example.test/v1/responses"
    assert account.http_url == "https://api.example.test/v1"
    local = Account("work", base_url="ws://127.0.0.1:9000/v1")
    assert local.websocket_url == "ws://127.0.0.1:9000/v1/responses"
    assert local.http_url == "http://127.0.0.1:9000/v1"
    assert local.call_url("/files") == "http://127.0.0.1:9000/v1/files"
    assert local.call_url("/a%2Fb", "x=1&y") == "http://127.0.0.1:9000/v1/a%2Fb?x=1&y"
    queried = Account("q", base_url="https://api.example.test/v1/?api-version=1")
    assert queried.call_url("/files") == "https://api.example.test/v1/files?api-version=1"
    assert queried.call_url("/files", "x=1").endswith("/v1/files?api-version=1&x=1")


@pytest.mark.parametrize(
    ("refused", "current", "stays"),
    [("a", "a", True), ("a", "b", False), ("a", None, True), (None, "b", True)],
)
def test_another_credential_is_forgiven(
    refused: str | None, current: str | None, stays: bool
) -> None:
    state = AccountState(login_reason="token_expired", refused_credential=refused, cooldowns=2)
    known = forgiven(state, current)
    assert known == (state if stays else AccountState(cooldowns=2))
    assert forgiven(AccountState(), current) == AccountState()
