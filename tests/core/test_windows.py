"""What is known of an account's limits, and what follows from it as time passes."""

from __future__ import annotations

from dataclasses import replace

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
    learned,
    standing,
)
from codexlb_cli.core.windows import (
    STALE_SECONDS,
    UNKNOWN,
    Credits,
    Limits,
    Rate,
    Window,
)
from tests.core.pools import NOW

HOUR = 3600.0
CREDITS = Credits(has_credits=True, unlimited=False, balance="9.99")


def window(used: float, resets_in: float | None = HOUR, minutes: float | None = 300) -> Window:
    return Window(used, NOW, minutes, None if resets_in is None else NOW + resets_in)


def stand(limits: Limits, now: float = NOW) -> Standing:
    return standing(Account("work"), replace(FRESH, limits=limits), now)


@pytest.mark.parametrize(
    ("limits", "reason", "resets_in"),
    [
        (UNKNOWN, None, 0),
        (Limits(primary=window(99.9)), None, 0),
        (Limits(primary=window(100)), "primary_window_used_up", HOUR),
        (Limits(secondary=window(100)), "secondary_window_used_up", HOUR),
        # Of two, the one that resets last.
        (
            Limits(primary=window(100), secondary=window(100, 9 * HOUR)),
            "secondary_window_used_up",
            9 * HOUR,
        ),
        (
            Limits(primary=window(100, 2 * HOUR), secondary=window(40, 9 * HOUR)),
            "primary_window_used_up",
            2 * HOUR,
        ),
        # Nobody is shut out until a time that is not known.
        (Limits(primary=window(100, None)), None, 0),
        (Limits(primary=window(100, -1)), None, 0),
        # Credits go on where the windows end, unless the upstream says otherwise.
        (Limits(primary=window(100), credits=CREDITS), None, 0),
        (Limits(primary=window(100), credits=replace(CREDITS, has_credits=False)),
         "primary_window_used_up", HOUR),
        (Limits(primary=window(100), credits=CREDITS, reached=True, reached_until=NOW + HOUR),
         "primary_window_used_up", HOUR),
        (Limits(reached=True, reached_until=NOW + 60), "limit_reached", 60),
        (Limits(reached=True), None, 0),
        # An API key's rates are a preference; the upstream's 429 is the limit.
        (Limits(requests=Rate(60, 0, NOW, NOW + 60)), None, 0),
    ],
)  # fmt: skip
def test_a_limit_that_is_used_up_limits_until_it_resets(
    limits: Limits, reason: str | None, resets_in: float
) -> None:
    if reason is None:
        assert stand(limits) == Standing(Availability.READY)
        return
    end = NOW + resets_in
    assert stand(limits) == Standing(Availability.LIMITED, reason, end)
    assert stand(limits, end - 0.1).state is Availability.LIMITED
    assert stand(limits, end) == Standing(Availability.READY), "lifted without being told"


def test_a_window_that_has_reset_is_unused_and_never_stale() -> None:
    known = window(70)
    assert (known.used(NOW), known.over(NOW), known.stale(NOW)) == (70, False, False)
    later = NOW + STALE_SECONDS + 1
    assert (known.used(later), known.stale(later)) == (70, True)
    assert (known.used(NOW + HOUR), known.over(NOW + HOUR), known.stale(NOW + HOUR)) == (
        0, True, False,
    )  # fmt: skip
    unnamed = window(70, None)
    assert unnamed.used(NOW + 300 * 60 - 1) == 70
    assert unnamed.used(NOW + 300 * 60) == 0, "no window outlasts its own length"
    assert window(70, None, None).used(NOW + 1e9) == 70


def test_a_rate_fills_up_evenly_until_its_reset() -> None:
    rate = Rate(limit=100, remaining=20, seen_at=NOW, resets_at=NOW + 80)
    assert [rate.left(NOW + s) for s in (0, 40, 80, 900)] == pytest.approx([0.2, 0.6, 1, 1])
    assert rate.left(NOW - 500) == 0.2, "a clock that was set back"
    assert Rate(100, 20, NOW).left(NOW + 1e6) == 0.2
    assert Rate(100, 300, NOW).left(NOW) == 1
    assert not rate.stale(NOW + 1e6)
    assert Rate(100, 20, NOW).stale(NOW + 1e6)


def test_what_was_not_told_stays() -> None:
    known = Limits(primary=window(40), credits=CREDITS, plan="plus", seen_at=NOW)
    told = Limits(primary=Window(41, NOW + 5), seen_at=NOW + 5)
    updated = known.updated(told)
    assert updated.primary == Window(41, NOW + 5, 300, NOW + HOUR), "the same window"
    assert (updated.plan, updated.credits, updated.seen_at) == ("plus", CREDITS, NOW + 5)
    after = known.updated(Limits(primary=Window(1, NOW + HOUR), seen_at=NOW + HOUR))
    assert after.primary == Window(1, NOW + HOUR, 300, None), "a new window has another reset"
    other = known.updated(Limits(primary=Window(1, NOW + 5, 43_200), seen_at=NOW + 5))
    assert other.primary == Window(1, NOW + 5, 43_200, None), "another window altogether"


def test_a_limit_that_is_reached_goes_until_the_fullest_window_resets() -> None:
    windows = Limits(primary=window(20), secondary=window(98, 9 * HOUR), seen_at=NOW)
    reached = windows.updated(Limits(reached=True, seen_at=NOW))
    assert reached.used_up(NOW) == ("limit_reached", NOW + 9 * HOUR)
    assert reached.updated(Limits(plan="pro", seen_at=NOW)).used_up(NOW) is not None
    assert reached.updated(Limits(reached=False, seen_at=NOW)).used_up(NOW) is None
    assert Limits(reached=True).updated(Limits(reached=True, seen_at=NOW)).used_up(NOW) is None


def test_newer_limits_lift_a_usage_limit_before_its_time() -> None:
    state = apply(FRESH, Evidence(Effect.LIMITED, "usage_limit_reached", until=NOW + 1e5), NOW)
    by_headers = learned(state, Limits(primary=window(3), seen_at=NOW), NOW)
    assert by_headers.limited_until == NOW + 1e5, "numbers alone may be older than the error"
    free = Limits(primary=window(3), reached=False, seen_at=NOW)
    assert learned(state, free, NOW).limited_until is None
    full = Limits(primary=window(100), reached=False, seen_at=NOW)
    assert learned(state, full, NOW).limited_until == NOW + 1e5
    rate = apply(FRESH, Evidence(Effect.LIMITED, "rate_limit_exceeded", until=NOW + 9), NOW)
    assert learned(rate, free, NOW).limited_until == NOW + 9, "that is no window"


def test_an_error_and_a_window_limit_until_the_later_of_both() -> None:
    state = AccountState(
        limited_until=NOW + 50, limited_reason="rate_limit_exceeded",
        limits=Limits(primary=window(100)),
    )  # fmt: skip
    account = Account("work")
    assert standing(account, state, NOW).reason == "primary_window_used_up"
    state = replace(state, limited_until=NOW + 2 * HOUR)
    assert standing(account, state, NOW).reason == "rate_limit_exceeded"


def test_a_completed_turn_keeps_the_limits() -> None:
    limits = Limits(primary=window(40))
    state = AccountState(cooling_until=NOW + 9, cooldowns=2, counted=(NOW,), limits=limits)
    assert completed(state) == AccountState(limits=limits)


percents = st.floats(0, 100)
spans = st.one_of(st.none(), st.floats(-HOUR, 30 * 24 * HOUR))
drawn_windows = st.builds(window, percents, spans, st.sampled_from([None, 300, 10_080]))
drawn_limits = st.builds(
    Limits,
    primary=st.one_of(st.none(), drawn_windows),
    secondary=st.one_of(st.none(), drawn_windows),
    reached=st.sampled_from([None, True, False]),
    seen_at=st.just(NOW),
)


@given(drawn_limits, drawn_limits, st.floats(0, 60 * 24 * HOUR))
def test_every_limit_ends_by_itself_at_the_time_that_was_named(
    before: Limits, told: Limits, later: float
) -> None:
    limits = before.updated(told)
    found = limits.used_up(NOW + later)
    if found is None:
        return
    _, until = found
    named = {w.resets_at for part in (before, told) for _, w in part.windows}
    assert until in named
    assert until > NOW + later
    assert limits.used_up(until) is None
