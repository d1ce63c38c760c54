"""Transcripts of turns: what happened upstream, and what the turn did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.closes import CloseOverride, HardMove, ReconnectPolicy, SoftMove, close_row
from codexlb_cli.core.reconnect import Phase, Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import State, Turn
from codexlb_cli.core.turn_events import (
    BoundElsewhere,
    Closed,
    Dial,
    Event,
    PassOn,
    TurnFacts,
)
from tests.core.playing import (
    BEGIN,
    FINISHED,
    NO_PONG,
    OPENED,
    OUT_OF_TIME,
    RESPONDED,
    SILENT,
    UNREACHABLE,
    closed,
    dial_refused,
    play,
    refused,
)
from tests.core.pools import NOW, pool

NONE = TurnFacts()
SOFT = TurnFacts(Strength.SOFT, owner="work")
FIRST_SOFT = TurnFacts(Strength.SOFT)
HARD = TurnFacts(Strength.HARD, owner="work", bound=True)
FIRST_HARD = TurnFacts(Strength.HARD)
PINNED = replace(HARD, portable=False)
ANCHORED = replace(PINNED, anchored=True)

ONE = pool("work")
TWO = pool("work", "home")
THREE = pool("work", "home", "spare")
POLICY = ReconnectPolicy()


def turn(facts: TurnFacts, **policy: object) -> Turn:
    return Turn(facts, replace(POLICY, **policy))  # type: ignore[arg-type]


# --- plain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [NONE, SOFT, FIRST_SOFT, HARD, FIRST_HARD, PINNED, ANCHORED])
def test_a_turn_that_succeeds(facts: TurnFacts) -> None:
    done = play(
        turn(facts), THREE,
        BEGIN, "dial work",
        OPENED, "send 1",
        RESPONDED, "-",
        FINISHED, "-",
    )  # fmt: skip
    assert (done.state, done.attempts, done.account, done.error) == (State.DONE, 1, "work", None)
    assert done.steps == []
    assert done.moved_from is None
    assert not done.gave_up


def test_a_terminal_event_may_be_the_first() -> None:
    play(turn(NONE), ONE, BEGIN, "dial work", OPENED, "send 1", FINISHED, "-")


def test_phases() -> None:
    running = play(turn(NONE), ONE, BEGIN, "dial work", OPENED, "send 1")
    assert running.phase is Phase.SENT
    assert play(running, ONE, RESPONDED, "-").phase in (Phase.CREATED, Phase.STREAMING)


@pytest.mark.parametrize("event", [OPENED, RESPONDED, FINISHED, closed(1006), UNREACHABLE, SILENT])
def test_events_that_are_not_possible(event: Event) -> None:
    with pytest.raises(AssertionError):
        turn(NONE).receive(event, ONE)
    done = play(turn(NONE), ONE, BEGIN, "dial work", OPENED, "send 1", FINISHED, "-")
    with pytest.raises(AssertionError):
        done.receive(event, ONE)


def test_without_accounts() -> None:
    play(turn(NONE), pool(), BEGIN, "answer 503 no_accounts")
    play(turn(SOFT), pool("home", home="disabled"), BEGIN, "answer 503 no_accounts")
    play(turn(PINNED), pool("home"), BEGIN, "answer 503 owner_unavailable")


# --- dials ------------------------------------------------------------------------------------

FREE = [NONE, SOFT, FIRST_SOFT, FIRST_HARD, replace(HARD, bound=False)]


@pytest.mark.parametrize("facts", FREE)
@pytest.mark.parametrize("status", [403, 500, 502, 503, 504])
def test_refused_dials_of_a_free_turn_try_each_account_once(facts: TurnFacts, status: int) -> None:
    blame = [f"blame {name} refused forbidden, " if status == 403 else "" for name in THREE_NAMES]
    no = dial_refused(status)
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        no, f"{blame[0]}dial home",
        no, f"{blame[1]}dial spare",
        no, f"{blame[2]}answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


THREE_NAMES = ("work", "home", "spare")


@pytest.mark.parametrize("facts", FREE)
def test_unreachable_accounts_of_a_free_turn(facts: TurnFacts) -> None:
    done = play(
        turn(facts), THREE,
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        OPENED, "send 1",
        FINISHED, "-",
    )  # fmt: skip
    assert (done.account, done.attempts) == ("home", 1)


def test_a_hard_key_binds_once_the_frame_is_sent() -> None:
    play(
        turn(FIRST_HARD), THREE,
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        OPENED, "send 1",
        closed(1011), "blame home counted internal_error, dial home after 0.25",
        UNREACHABLE, "dial home after 0.25",
        UNREACHABLE, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


@pytest.mark.parametrize("facts", FREE)
def test_rate_limited_dials_of_a_free_turn(facts: TurnFacts) -> None:
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        dial_refused(429, wait=30), "blame work limited rate_limit_exceeded, dial home",
        dial_refused(429), "blame home cooled rate_limit_exceeded, dial spare",
        dial_refused(429, wait=50),
        "blame spare limited rate_limit_exceeded, answer 429 rate_limit_exceeded retry 10",
    )  # fmt: skip


@pytest.mark.parametrize("facts", FREE)
def test_accounts_that_must_sign_in_are_passed_over(facts: TurnFacts) -> None:
    play(
        turn(facts), TWO,
        BEGIN, "dial work",
        dial_refused(401), "blame work login credentials_rejected, dial home",
        OPENED, "send 1",
    )  # fmt: skip


def test_a_rate_limit_is_not_told_while_an_account_was_merely_unreachable() -> None:
    play(
        turn(NONE), TWO,
        BEGIN, "dial work",
        dial_refused(429, wait=30), "blame work limited rate_limit_exceeded, dial home",
        UNREACHABLE, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


@pytest.mark.parametrize("no", [UNREACHABLE, *map(dial_refused, (500, 502, 503, 504))])
@pytest.mark.parametrize("facts", [HARD, PINNED])
def test_a_bound_owner_is_dialled_twice_and_never_left_for_its_transport(
    facts: TurnFacts, no: Event
) -> None:
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        no, "dial work after 0.25",
        no, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    play(turn(facts), THREE, BEGIN, "dial work", no, "dial work after 0.25", OPENED, "send 1")
    play(turn(facts), THREE, BEGIN, "dial work", no, "dial work", draw=0.0)


def test_a_bound_owner_that_forbids_is_dialled_once_more_after_three_seconds() -> None:
    no = dial_refused(403)
    forbids = ("blame work refused forbidden, dial work after 3",)
    play(turn(HARD), THREE, BEGIN, "dial work", no, *forbids, OPENED, "send 1", draw=0.0)
    moved = play(
        turn(HARD), THREE,
        BEGIN, "dial work",
        no, *forbids,
        no, "blame work refused forbidden, dial home",
        OPENED, "send 1",
    )  # fmt: skip
    assert (moved.moved_from, moved.account) == ("work", "home")
    play(
        turn(PINNED), THREE,
        BEGIN, "dial work",
        no, *forbids,
        no, "blame work refused forbidden, answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


def test_a_bound_owner_that_must_sign_in() -> None:
    no = dial_refused(401)
    login = "blame work login credentials_rejected, "
    moved = play(turn(HARD), THREE, BEGIN, "dial work", no, login + "dial home", OPENED, "send 1")
    assert moved.moved_from == "work"
    for stays in (turn(PINNED), turn(HARD, on_account_failure="fail")):
        play(stays, THREE, BEGIN, "dial work", no, login + "answer 503 owner_unavailable")
    waits = turn(HARD, on_account_failure="wait")
    play(waits, THREE, BEGIN, "dial work", no, login + "answer 503 owner_unavailable")
    play(turn(HARD), ONE, BEGIN, "dial work", no, login + "answer 503 owner_unavailable")


LIMITED = "blame work limited rate_limit_exceeded, "
COOLED = "blame work cooled rate_limit_exceeded, "


def test_a_bound_owner_that_limits_for_long() -> None:
    no = dial_refused(429, wait=30)
    moved = play(turn(HARD), THREE, BEGIN, "dial work", no, LIMITED + "dial home", OPENED, "send 1")
    assert moved.moved_from == "work"
    answer = LIMITED + "answer 429 rate_limit_exceeded retry 30"
    play(turn(PINNED), THREE, BEGIN, "dial work", no, answer)
    play(turn(HARD, on_account_failure="fail"), THREE, BEGIN, "dial work", no, answer)
    play(turn(HARD), ONE, BEGIN, "dial work", no, answer)
    waits = turn(replace(HARD, deadline=NOW + 240), on_account_failure="wait")
    play(waits, THREE, BEGIN, "dial work", no, LIMITED + "dial work after 30", OPENED, "send 1")
    hurries = turn(replace(HARD, deadline=NOW + 20), on_account_failure="wait")
    play(hurries, THREE, BEGIN, "dial work", no, answer)


@pytest.mark.parametrize("facts", [HARD, PINNED, SOFT])
def test_a_keyed_turn_waits_for_an_owner_that_limits_briefly(facts: TurnFacts) -> None:
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        dial_refused(429, wait=9.5), LIMITED + "dial work after 9.5",
        OPENED, "send 1",
    )  # fmt: skip


def test_a_turn_waits_for_its_owner_once() -> None:
    no = dial_refused(429, wait=5)
    start = (BEGIN, "dial work", no, LIMITED + "dial work after 5", no)
    play(turn(SOFT), TWO, *start, LIMITED + "dial home")
    play(turn(HARD), TWO, *start, LIMITED + "dial home")
    play(turn(PINNED), TWO, *start, LIMITED + "answer 429 rate_limit_exceeded retry 5")


def test_an_unkeyed_turn_waits_for_nobody() -> None:
    no = dial_refused(429, wait=0.5)
    play(turn(NONE), TWO, BEGIN, "dial work", no, LIMITED + "dial home")


def test_a_rate_limit_without_a_time() -> None:
    no = dial_refused(429)
    play(turn(HARD), THREE, BEGIN, "dial work", no, COOLED + "dial home")
    answer = COOLED + "answer 429 rate_limit_exceeded retry 10"
    play(turn(PINNED), THREE, BEGIN, "dial work", no, answer)
    play(turn(HARD), ONE, BEGIN, "dial work", no, answer)


def test_a_usage_limit_of_a_bound_owner() -> None:
    no = dial_refused(429, "usage_limit_reached", wait=7200)
    limited = "blame work limited usage_limit_reached, "
    play(turn(HARD), TWO, BEGIN, "dial work", no, limited + "dial home")
    play(turn(PINNED), TWO, BEGIN, "dial work", no, limited + "answer 429 usage_limit_reached")


def test_a_request_that_is_refused_at_the_dial_is_passed_on() -> None:
    for facts in (NONE, HARD):
        play(turn(facts), TWO, BEGIN, "dial work", dial_refused(400, "x"), "pass on 400 x")


def test_an_account_that_became_unusable_meanwhile_is_passed_over() -> None:
    running = turn(NONE)
    running.receive(BEGIN, THREE)
    now = pool("work", "home", "spare", home="limited")
    assert running.receive(UNREACHABLE, now) == [Dial("spare")]


def test_accounts_that_could_not_be_dialled_are_left_out_after_a_close() -> None:
    play(
        turn(NONE), THREE,
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        OPENED, "send 1",
        closed(1011), "blame home counted internal_error, dial spare",
        UNREACHABLE, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    play(
        turn(NONE), TWO,
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        OPENED, "send 1",
        closed(1011), "blame home counted internal_error, dial home after 0.25",
    )  # fmt: skip


def test_a_key_that_a_parallel_turn_bound_meanwhile() -> None:
    bound = play(
        turn(FIRST_HARD), THREE,
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        BoundElsewhere("spare"), "dial spare",
        UNREACHABLE, "dial spare after 0.25",
        OPENED, "send 1",
    )  # fmt: skip
    assert bound.account == "spare"


def test_time_runs_out() -> None:
    no = "answer 503 upstream_unavailable retry 1"
    play(turn(HARD), ONE, BEGIN, "dial work", OUT_OF_TIME, no)
    play(turn(HARD), ONE, BEGIN, "dial work", OPENED, "send 1", OUT_OF_TIME, no)
    play(turn(ANCHORED), ONE, BEGIN, "dial work", OUT_OF_TIME, "answer 504 upstream_silent")


# --- where a turn starts ----------------------------------------------------------------------


def test_a_soft_turn_goes_elsewhere_while_its_owner_cannot_serve() -> None:
    for state in ("limited", "disabled", "needs_login"):
        accounts = pool("work", "home", work=state)
        play(turn(SOFT), accounts, BEGIN, "dial home", OPENED, "send 1")


def test_cooling_owners_are_used_all_the_same() -> None:
    accounts = pool("work", "home", work="cooling")
    play(turn(HARD), accounts, BEGIN, "dial work")
    play(turn(SOFT), accounts, BEGIN, "dial work")
    play(turn(NONE), accounts, BEGIN, "dial home")


@pytest.mark.parametrize("facts", [HARD, PINNED, SOFT, ANCHORED])
def test_a_limited_owner_that_is_back_soon_is_waited_for(facts: TurnFacts) -> None:
    play(turn(facts), pool("work", "home", work="back_soon"), BEGIN, "dial work after 4")
    impatient = turn(facts, wait_up_to=3.0, on_account_failure="fail")
    found = impatient.receive(BEGIN, pool("work", "home", work="back_soon"))
    assert "after 4" not in str(found)


@pytest.mark.parametrize("state", ["limited", "disabled", "needs_login"])
def test_a_session_moves_when_its_account_cannot_serve(state: str) -> None:
    accounts = pool("work", "home", work=state)
    moved = play(turn(HARD), accounts, BEGIN, "dial home", OPENED, "send 1")
    assert (moved.moved_from, moved.account) == ("work", "home")
    answer = {
        "limited": "answer 429 rate_limit_exceeded retry 42",
        "disabled": "answer 503 owner_unavailable",
        "needs_login": "answer 503 owner_unavailable",
    }[state]
    play(turn(PINNED), accounts, BEGIN, answer)
    play(turn(HARD, on_account_failure="fail"), accounts, BEGIN, answer)
    waits = "dial work after 42" if state == "limited" else answer
    play(turn(HARD, on_account_failure="wait"), accounts, BEGIN, waits)


def test_when_every_account_is_limited_the_earliest_end_is_told() -> None:
    accounts = pool("work", "home", work="limited_for_long", home="limited")
    play(turn(HARD), accounts, BEGIN, "answer 429 rate_limit_exceeded retry 42")
    play(turn(NONE), accounts, BEGIN, "answer 429 rate_limit_exceeded retry 42")
    play(turn(PINNED), accounts, BEGIN, "answer 429 usage_limit_reached")


def test_an_owner_that_keeps_failing_is_left() -> None:
    failing = replace(HARD, owner_failed=True)
    moved = play(turn(failing), THREE, BEGIN, "dial home", OPENED, "send 1")
    assert (moved.moved_from, moved.account) == ("work", "home")


# --- closes -----------------------------------------------------------------------------------

COUNTED = {1006, 1011}
COOLING = {1008, 1013, 3000, 3003, 4000}


def blame(code: int) -> str:
    if code in COUNTED:
        return f"blame work counted {close_row(code).reason}, "
    return f"blame work cooled {close_row(code).reason}, " if code in COOLING else ""


# code, wait of a repeated account
SAME_ACCOUNT = [
    (1000, ""), (1001, ""), (1005, ""), (1006, ""), (1012, " after 1"), (1014, " after 0.25"),
    (3008, " after 0.25"),
]  # fmt: skip
ANOTHER_ACCOUNT = [
    (1008, " after 0.25"), (1011, " after 0.25"), (1013, " after 1"), (3000, " after 0.25"),
    (3003, " after 0.25"), (4000, " after 0.25"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "wait"), [*SAME_ACCOUNT, *ANOTHER_ACCOUNT])
@pytest.mark.parametrize("accounts", [ONE, TWO, THREE])
@pytest.mark.parametrize("facts", [HARD, PINNED, FIRST_HARD])
def test_a_close_code_never_takes_a_hard_turn_from_its_owner(
    facts: TurnFacts, accounts: object, code: int, wait: str
) -> None:
    done = play(
        turn(facts), accounts,  # type: ignore[arg-type]
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(code), f"{blame(code)}dial work{wait}",
        OPENED, "send 2",
        RESPONDED, "-",
        FINISHED, "-",
    )  # fmt: skip
    assert (done.attempts, done.account, done.moved_from) == (2, "work", None)


@pytest.mark.parametrize("code", [code for code, _ in ANOTHER_ACCOUNT])
@pytest.mark.parametrize("facts", [SOFT, NONE, FIRST_SOFT])
def test_free_turns_go_to_another_account(facts: TurnFacts, code: int) -> None:
    for accounts in (TWO, THREE):
        play(
            turn(facts), accounts,
            BEGIN, "dial work",
            OPENED, "send 1",
            closed(code), f"{blame(code)}dial home",
            OPENED, "send 2",
        )  # fmt: skip
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(code), f"{blame(code)}dial home",
        UNREACHABLE, "dial spare",
        UNREACHABLE, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


@pytest.mark.parametrize(("code", "wait"), ANOTHER_ACCOUNT)
@pytest.mark.parametrize("facts", [SOFT, NONE])
def test_free_turns_that_have_no_other_account(facts: TurnFacts, code: int, wait: str) -> None:
    for accounts in (ONE, pool("work", "home", home="limited")):
        play(
            turn(facts), accounts,
            BEGIN, "dial work",
            OPENED, "send 1",
            closed(code), f"{blame(code)}dial work{wait}",
            OPENED, "send 2",
        )  # fmt: skip


@pytest.mark.parametrize(("code", "wait"), SAME_ACCOUNT)
@pytest.mark.parametrize("facts", [SOFT, NONE, FIRST_SOFT])
def test_free_turns_stay_and_then_try_the_others(facts: TurnFacts, code: int, wait: str) -> None:
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(code), f"{blame(code)}dial work{wait}",
        UNREACHABLE, "dial home",
        OPENED, "send 2",
    )  # fmt: skip


def test_the_jitter_is_drawn_from_nothing_up_to_the_bound() -> None:
    start = (BEGIN, "dial work", OPENED, "send 1", closed(1012))
    play(turn(HARD), ONE, *start, "dial work after 0.25", draw=0.25)
    play(turn(HARD), ONE, *start, "dial work", draw=0.0)


def test_our_own_keepalive_timeout_blames_nobody() -> None:
    play(turn(HARD), THREE, BEGIN, "dial work", OPENED, "send 1", NO_PONG, "dial work")
    play(turn(NONE), THREE, BEGIN, "dial work", OPENED, "send 1", NO_PONG, "dial work")


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD])
def test_a_second_close_after_a_replay_gives_up(facts: TurnFacts) -> None:
    again = turn(replace(facts, failures=2))
    done = play(
        again, THREE,
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(1000), "dial work",
        OPENED, "send 2",
        closed(1001), "answer 503 upstream_unavailable retry 4",
    )  # fmt: skip
    assert done.attempts == 2
    assert done.gave_up


@pytest.mark.parametrize("code", [1000, 1006, 1011, 1012, 1013, 4000])
@pytest.mark.parametrize("facts", [NONE, SOFT, HARD, ANCHORED])
def test_a_close_after_the_response_started(facts: TurnFacts, code: int) -> None:
    play(
        turn(facts), THREE,
        BEGIN, "dial work",
        OPENED, "send 1",
        RESPONDED, "-",
        closed(code), f"{blame(code)}answer 502 upstream_closed",
    )  # fmt: skip


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD])
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (1009, "answer 400 request_too_large"),
        (1002, "answer 502 upstream_protocol_error retry 1"),
        (2999, "answer 502 upstream_protocol_error retry 1"),
    ],
)
def test_closes_that_end_a_turn(facts: TurnFacts, code: int, answer: str) -> None:
    play(turn(facts), THREE, BEGIN, "dial work", OPENED, "send 1", closed(code), answer)


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD])
def test_no_replay_where_none_is_allowed(facts: TurnFacts) -> None:
    answer = "answer 503 upstream_unavailable retry 1"
    start = (BEGIN, "dial work", OPENED, "send 1", closed(1000))
    play(turn(replace(facts, replayable=False)), THREE, *start, answer)
    play(turn(facts, replays=0), THREE, *start, answer)


def test_settings_change_the_table() -> None:
    closes = {1000: CloseOverride(soft=SoftMove.ANOTHER_ACCOUNT, hard=HardMove.GIVE_UP)}
    policy = ReconnectPolicy(closes=closes)
    event = Closed(close_row(1000, policy), "1000")
    play(turn(SOFT), TWO, BEGIN, "dial work", OPENED, "send 1", event, "dial home")
    answer = "answer 503 upstream_unavailable retry 1"
    play(turn(HARD), TWO, BEGIN, "dial work", OPENED, "send 1", event, answer)


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD])
def test_silence_is_a_lost_transport(facts: TurnFacts) -> None:
    start = (BEGIN, "dial work", OPENED, "send 1", SILENT)
    play(turn(facts), TWO, *start, "blame work counted transport_lost, dial work")


# --- error frames -----------------------------------------------------------------------------

SENT: tuple[Event | str, ...] = (BEGIN, "dial work", OPENED, "send 1")


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD])
def test_a_rate_limit_frame_for_long_moves_on(facts: TurnFacts) -> None:
    moved = play(
        turn(facts), THREE, *SENT,
        refused(429, "rate_limit_exceeded", 30), LIMITED + "dial home",
        OPENED, "send 2",
    )  # fmt: skip
    assert moved.moved_from == ("work" if facts is HARD else None)


@pytest.mark.parametrize("facts", [HARD, PINNED, SOFT])
def test_a_rate_limit_frame_for_a_moment_is_waited_out(facts: TurnFacts) -> None:
    event = refused(429, "rate_limit_exceeded", 1.2)
    play(turn(facts), THREE, *SENT, event, LIMITED + "dial work after 1.2", OPENED, "send 2")
    play(turn(NONE), THREE, *SENT, event, LIMITED + "dial home")


def test_a_rate_limit_frame_without_a_time() -> None:
    event = refused(429)
    answer = COOLED + "answer 429 rate_limit_exceeded retry 10"
    play(turn(HARD), THREE, *SENT, event, COOLED + "dial home")
    play(turn(NONE), THREE, *SENT, event, COOLED + "dial home")
    play(turn(PINNED), THREE, *SENT, event, answer)
    play(turn(ANCHORED), THREE, *SENT, event, answer)
    play(turn(NONE), ONE, *SENT, event, answer)
    play(turn(HARD, on_account_failure="fail"), THREE, *SENT, event, answer)


def test_a_usage_limit_frame() -> None:
    event = refused(429, "usage_limit_reached", 7200)
    limited = "blame work limited usage_limit_reached, "
    play(turn(HARD), THREE, *SENT, event, limited + "dial home")
    play(turn(SOFT), THREE, *SENT, event, limited + "dial home")
    play(turn(PINNED), THREE, *SENT, event, limited + "answer 429 usage_limit_reached")
    play(turn(NONE), ONE, *SENT, event, limited + "answer 429 usage_limit_reached")


def test_a_credentials_frame() -> None:
    event = refused(401, "token_expired")
    login = "blame work login token_expired, "
    play(turn(HARD), THREE, *SENT, event, login + "dial home", OPENED, "send 2")
    play(turn(NONE), THREE, *SENT, event, login + "dial home", OPENED, "send 2")
    play(turn(PINNED), THREE, *SENT, event, login + "answer 503 owner_unavailable")
    play(turn(NONE), ONE, *SENT, event, login + "answer 503 no_accounts")


@pytest.mark.parametrize("event", [refused(503), refused(500), refused(None, "overloaded")])
def test_an_overloaded_frame_is_replayed_once(event: Event) -> None:
    play(turn(HARD), THREE, *SENT, event, "dial work after 0.25", OPENED, "send 2")
    play(turn(PINNED), THREE, *SENT, event, "dial work after 0.25", OPENED, "send 2")
    play(turn(SOFT), THREE, *SENT, event, "dial home", OPENED, "send 2")
    play(turn(NONE), ONE, *SENT, event, "dial work after 0.25", OPENED, "send 2")
    play(
        turn(NONE), THREE, *SENT,
        event, "dial home",
        OPENED, "send 2",
        event, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD, PINNED])
def test_a_socket_that_reached_its_limit(facts: TurnFacts) -> None:
    event = refused(400, "websocket_connection_limit_reached")
    play(turn(facts), THREE, *SENT, event, "dial work", OPENED, "send 2")


@pytest.mark.parametrize("facts", [NONE, SOFT, HARD, PINNED, ANCHORED])
@pytest.mark.parametrize(
    "code", ["previous_response_not_found", "context_length_exceeded", "invalid_request_error"]
)
def test_errors_that_are_the_clients_are_passed_on(facts: TurnFacts, code: str) -> None:
    event = refused(400, code)
    done = play(turn(facts), THREE, *SENT, event, f"pass on 400 {code}")
    assert done.state is State.DONE
    assert done.error is event.failure
    assert PassOn(event.failure).failure.error == {"code": code}


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_other_client_errors_are_passed_on(status: int) -> None:
    play(turn(NONE), THREE, *SENT, refused(status), f"pass on {status} None")


def test_a_model_that_an_account_does_not_have() -> None:
    event = refused(404, "model_not_found")
    play(
        turn(NONE), TWO, *SENT,
        event, "dial home",
        OPENED, "send 2",
        event, "pass on 404 model_not_found",
    )  # fmt: skip
    play(turn(SOFT), ONE, *SENT, event, "pass on 404 model_not_found")
    play(turn(PINNED), THREE, *SENT, event, "pass on 404 model_not_found")


def test_an_error_frame_after_a_replay_is_not_replayed() -> None:
    play(
        turn(HARD), THREE, *SENT,
        closed(1000), "dial work",
        OPENED, "send 2",
        refused(429, "rate_limit_exceeded", 5),
        LIMITED + "answer 429 rate_limit_exceeded retry 5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("event", "gave_up"),
    [
        (closed(1002), True), (closed(1009), False), (refused(429), False),
        (refused(400, "context_length_exceeded"), False), (refused(401), False),
        (OUT_OF_TIME, True),
    ],
)  # fmt: skip
def test_only_the_upstreams_own_failures_count_against_an_owner(
    event: Event, gave_up: bool
) -> None:
    ended = turn(PINNED)
    for step in (BEGIN, OPENED, event):
        ended.receive(step, THREE)
    assert ended.state is State.DONE
    assert ended.gave_up is gave_up


# --- anchored turns ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1006, 1011, 1012, 1013, 4000])
def test_an_anchored_turn_ends_with_its_socket(code: int) -> None:
    answer = f"{blame(code)}answer 400 previous_response_not_found"
    play(turn(ANCHORED), THREE, *SENT, closed(code), answer)


def test_closes_that_no_full_input_can_mend() -> None:
    play(turn(ANCHORED), THREE, *SENT, closed(1009), "answer 400 request_too_large")
    play(turn(ANCHORED), THREE, *SENT, closed(1002), "answer 502 upstream_protocol_error retry 1")


def test_an_anchored_turn_without_pongs_is_silent() -> None:
    play(turn(ANCHORED), THREE, *SENT, NO_PONG, "answer 504 upstream_silent")


def test_an_anchored_turn_is_never_sent_again() -> None:
    lost = "answer 400 previous_response_not_found"
    play(turn(ANCHORED), THREE, *SENT, refused(503), lost)
    play(turn(ANCHORED), THREE, *SENT, refused(400, "websocket_connection_limit_reached"), lost)
    play(turn(ANCHORED), THREE, *SENT, SILENT, "answer 504 upstream_silent")
    limited = LIMITED + "answer 429 rate_limit_exceeded retry 2"
    play(turn(ANCHORED), THREE, *SENT, refused(429, "rate_limit_exceeded", 2), limited)


# --- a conversation never stays dead ----------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "accounts", "policy"),
    [(HARD, ONE, "move"), (PINNED, TWO, "move"), (HARD, TWO, "wait"), (HARD, TWO, "fail")],
)
def test_an_owner_that_keeps_failing_is_tried_where_nobody_else_may_serve(
    facts: TurnFacts, accounts: Pool, policy: str
) -> None:
    failing = turn(replace(facts, owner_failed=True), on_account_failure=policy)
    play(failing, accounts, BEGIN, "dial work", OPENED, "send 1")


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        (dial_refused(401, wait=5), "blame work login credentials_rejected, dial home"),
        (dial_refused(503, wait=5), "dial home"),
        (dial_refused(403, wait=5), "blame work refused forbidden, dial home"),
    ],
)
def test_only_a_limit_is_waited_for(event: Event, actions: str) -> None:
    play(turn(SOFT), TWO, BEGIN, "dial work", event, actions)


def test_policy_wait_waits_once_and_only_for_a_time_that_was_named() -> None:
    waits = {"on_account_failure": "wait"}
    play(
        turn(HARD, **waits), TWO,
        BEGIN, "dial work",
        dial_refused(429), COOLED + "answer 429 rate_limit_exceeded retry 10",
    )  # fmt: skip
    play(
        turn(replace(HARD, deadline=NOW + 240), **waits), TWO,
        BEGIN, "dial work",
        dial_refused(429, wait=30), LIMITED + "dial work after 30",
        dial_refused(429, wait=30), LIMITED + "answer 429 rate_limit_exceeded retry 30",
    )  # fmt: skip


def test_a_session_moves_to_the_next_account_after_a_failed_dial() -> None:
    play(
        turn(replace(HARD, owner="home")), THREE,
        BEGIN, "dial home",
        dial_refused(401), "blame home login credentials_rejected, dial spare",
    )  # fmt: skip


@pytest.mark.parametrize("facts", [NONE, PINNED])
def test_a_model_that_no_account_has_is_the_upstreams_own_error(facts: TurnFacts) -> None:
    missing = dial_refused(404, "model_not_found")
    play(turn(facts), ONE, BEGIN, "dial work", missing, "pass on 404 model_not_found")


def test_a_missing_model_is_final_only_where_every_account_lacks_it() -> None:
    once = replace(NONE, replayable=False)
    lacks = refused(404, "model_not_found")
    try_again, own = "answer 503 upstream_unavailable retry 1", "pass on 404 model_not_found"
    play(turn(once), TWO, BEGIN, "dial work", OPENED, "send 1", lacks, try_again)
    play(turn(once), ONE, BEGIN, "dial work", OPENED, "send 1", lacks, own)
    play(
        turn(NONE), THREE, BEGIN, "dial work", OPENED, "send 1",
        lacks, "dial home", OPENED, "send 2",
        lacks, try_again,
    )  # fmt: skip


def test_a_session_follows_its_model_where_it_can_stay() -> None:
    lacks = refused(404, "model_not_found")
    moved = play(
        turn(HARD), TWO,
        BEGIN, "dial work", OPENED, "send 1", lacks, "dial home", OPENED, "send 2", RESPONDED, "-",
    )  # fmt: skip
    assert (moved.moved_from, moved.account) == ("work", "home")
    own = "pass on 404 model_not_found"
    for facts in (PINNED, ANCHORED):
        play(turn(facts), TWO, BEGIN, "dial work", OPENED, "send 1", lacks, own)
    stays = turn(HARD, on_account_failure="fail")
    play(stays, TWO, BEGIN, "dial work", OPENED, "send 1", lacks, own)


def test_a_forbidden_turn_is_tried_elsewhere() -> None:
    play(
        turn(NONE), TWO,
        BEGIN, "dial work", OPENED, "send 1",
        refused(403, "not_for_you"), "dial home", OPENED, "send 2",
        refused(403, "not_for_you"), "pass on 403 not_for_you",
    )  # fmt: skip
    play(
        turn(HARD), TWO,
        BEGIN, "dial work", OPENED, "send 1",
        refused(403, "not_for_you"), "pass on 403 not_for_you",
    )  # fmt: skip


def test_a_frame_that_was_never_sent_is_no_attempt_but_is_not_tried_for_ever() -> None:
    unsent = replace(closed(1006), sent=False)
    done = play(
        turn(HARD), ONE,
        BEGIN, "dial work", OPENED, "send 1",
        unsent, "blame work counted transport_lost, dial work", OPENED, "send 1",
        unsent, "blame work counted transport_lost, answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    assert done.attempts == 0


def test_a_session_that_two_accounts_refused_may_try_again_while_a_third_is_free() -> None:
    limit = refused(429, "usage_limit_reached", 7200)
    moved = "blame work limited usage_limit_reached, dial home"
    play(
        turn(HARD), THREE,
        BEGIN, "dial work", OPENED, "send 1",
        limit, moved, OPENED, "send 2",
        limit, "blame home limited usage_limit_reached, answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    play(
        turn(HARD), TWO,
        BEGIN, "dial work", OPENED, "send 1",
        limit, moved, OPENED, "send 2",
        limit, "blame home limited usage_limit_reached, answer 429 usage_limit_reached",
    )  # fmt: skip


def test_a_missing_model_never_takes_a_hard_turn_from_its_owner() -> None:
    lacking = replace(TWO, without_model=frozenset({"work"}))
    play(turn(HARD), lacking, BEGIN, "dial work")
    play(turn(SOFT), lacking, BEGIN, "dial home")


def test_where_no_account_has_the_model_the_upstream_is_asked_all_the_same() -> None:
    lacking = replace(TWO, without_model=frozenset({"work", "home"}))
    play(
        turn(NONE), lacking,
        BEGIN, "dial work", OPENED, "send 1",
        refused(404, "model_not_found"), "dial home", OPENED, "send 2",
        refused(404, "model_not_found"), "pass on 404 model_not_found",
    )  # fmt: skip


# --- a person disables an account meanwhile ---------------------------------------------------


@pytest.mark.parametrize("failed", [UNREACHABLE, dial_refused(403), dial_refused(404)])
def test_an_owner_that_is_disabled_meanwhile_is_not_dialled_again(failed: Event) -> None:
    off = pool("work", "home", work="disabled")
    running = play(turn(HARD), TWO, BEGIN, "dial work")
    actions = running.receive(failed, off)
    assert [a.account for a in actions if isinstance(a, Dial)] == ["home"]
    pinned = play(turn(PINNED), TWO, BEGIN, "dial work")
    assert [a for a in pinned.receive(failed, off) if isinstance(a, Dial)] == []
