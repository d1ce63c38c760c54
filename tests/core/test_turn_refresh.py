"""Transcripts of turns whose account signed in: a refused token is refreshed once, then tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.accounts import CredentialRef
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import Event, TurnFacts
from tests.core.playing import (
    BEGIN,
    FINISHED,
    LOGIN_ENDED,
    NOT_REFRESHED,
    OPENED,
    OUT_OF_TIME,
    REFRESHED,
    RESPONDED,
    UNREACHABLE,
    answered,
    closed,
    dial_refused,
    play,
    refused,
)
from tests.core.pools import pool

NONE = TurnFacts()
SOFT = TurnFacts(Strength.SOFT, owner="work")
FIRST_HARD = TurnFacts(Strength.HARD)
HARD = TurnFacts(Strength.HARD, owner="work", bound=True)
PINNED = replace(HARD, portable=False)
ANCHORED = replace(PINNED, anchored=True)
ASKS = TurnFacts(Strength.HARD, asks=True, portable=False)
FREE = [NONE, SOFT, FIRST_HARD]
EVERY = [*FREE, HARD, PINNED]

DIAL_401 = dial_refused(401, "token_expired")
FRAME_401 = refused(401, "token_expired")
BLAME = "blame work login token_expired"
ENDED = "blame work login refresh_token_reused"
COOLED = "blame work cooled credentials_refused"


def signed_in(*names: str, due: tuple[str, ...] = ()) -> Pool:
    known = pool(*names)
    accounts = tuple(replace(a, credential=CredentialRef("login", a.name)) for a in known.accounts)
    return replace(known, accounts=accounts, login_due=frozenset(due))


ONE, TWO = signed_in("work"), signed_in("work", "home")
DUE = signed_in("work", "home", due=("work",))


def turn(facts: TurnFacts, **policy: object) -> Turn:
    return Turn(facts, replace(ReconnectPolicy(), **policy))  # type: ignore[arg-type]


# --- a refused dial ---------------------------------------------------------------------------


@pytest.mark.parametrize("facts", EVERY)
def test_a_refused_dial_is_dialled_again_with_a_new_token(facts: TurnFacts) -> None:
    done = play(
        turn(facts), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        REFRESHED, "dial work",
        OPENED, "send 1",
        RESPONDED, "-",
        FINISHED, "-",
    )  # fmt: skip
    assert done.steps == ["work refused with 401", "token of work refreshed"]


@pytest.mark.parametrize("facts", FREE)
def test_a_token_that_is_refused_again_needs_a_login(facts: TurnFacts) -> None:
    play(
        turn(facts), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        REFRESHED, "dial work",
        DIAL_401, f"{BLAME}, dial home",
        DIAL_401, "refresh home",
        REFRESHED, "dial home",
        OPENED, "send 1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "then"),
    [*((facts, "dial home") for facts in FREE), (HARD, "dial home"),
     (PINNED, "answer 503 owner_unavailable")],
)  # fmt: skip
def test_a_login_that_has_ended(facts: TurnFacts, then: str) -> None:
    play(
        turn(facts), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        LOGIN_ENDED, f"{ENDED}, {then}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "then"),
    [*((facts, "dial home") for facts in FREE),
     (HARD, "answer 503 upstream_unavailable retry 1"),
     (PINNED, "answer 503 upstream_unavailable retry 1")],
)  # fmt: skip
def test_an_issuer_that_cannot_be_asked_blames_nobody(facts: TurnFacts, then: str) -> None:
    play(
        turn(facts), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        NOT_REFRESHED, then,
    )  # fmt: skip


def test_a_key_cannot_be_refreshed() -> None:
    play(turn(NONE), pool("work", "home"), BEGIN, "dial work", DIAL_401, f"{BLAME}, dial home")


def test_a_dial_that_fails_otherwise_is_not_refreshed() -> None:
    play(turn(NONE), TWO, BEGIN, "dial work", UNREACHABLE, "dial home")


def test_after_a_refresh_the_rules_of_a_dial_are_as_before() -> None:
    play(
        turn(HARD), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        REFRESHED, "dial work",
        UNREACHABLE, "dial work after 0.25",
        UNREACHABLE, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


def test_a_refresh_that_takes_all_the_time() -> None:
    play(
        turn(NONE), TWO,
        BEGIN, "dial work",
        DIAL_401, "refresh work",
        OUT_OF_TIME, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


# --- before a dial ----------------------------------------------------------------------------


@pytest.mark.parametrize("facts", EVERY)
@pytest.mark.parametrize("event", [REFRESHED, NOT_REFRESHED])
def test_a_token_that_is_due_is_refreshed_before_the_dial(facts: TurnFacts, event: Event) -> None:
    play(
        turn(facts), DUE,
        BEGIN, "refresh work",
        event, "dial work",
        OPENED, "send 1",
        FINISHED, "-",
    )  # fmt: skip


def test_a_login_that_ended_is_not_dialled() -> None:
    play(turn(NONE), DUE, BEGIN, "refresh work", LOGIN_ENDED, f"{ENDED}, dial home")
    play(
        turn(PINNED), DUE,
        BEGIN, "refresh work",
        LOGIN_ENDED, f"{ENDED}, answer 503 owner_unavailable",
    )  # fmt: skip


def test_a_token_that_was_refreshed_before_the_dial_is_not_refreshed_again() -> None:
    play(
        turn(NONE), DUE,
        BEGIN, "refresh work",
        REFRESHED, "dial work",
        DIAL_401, f"{BLAME}, dial home",
    )  # fmt: skip


def test_a_response_on_a_socket_needs_no_dial() -> None:
    play(turn(ANCHORED), DUE, BEGIN, "dial work", OPENED, "send 1")


# --- an error frame, or the answer to a POST --------------------------------------------------


@pytest.mark.parametrize("facts", [SOFT, HARD, PINNED])
@pytest.mark.parametrize("event", [FRAME_401, answered(401, "token_expired")])
def test_a_refused_frame_is_sent_once_more(facts: TurnFacts, event: Event) -> None:
    done = play(
        turn(facts), TWO,
        BEGIN, "dial work",
        OPENED, "send 1",
        event, "refresh work",
        REFRESHED, "dial work",
        OPENED, "send 2",
        RESPONDED, "-",
        FINISHED, "-",
    )  # fmt: skip
    assert done.steps == [
        "token_expired", "token of work refreshed", "replayed on work (token refreshed)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "ended", "unknown"),
    [
        (NONE, "dial home", "dial home"),
        (HARD, "dial home", "answer 503 upstream_unavailable retry 1"),
        (PINNED, "answer 503 owner_unavailable", "answer 503 upstream_unavailable retry 1"),
    ],
)
def test_a_refused_frame_whose_token_is_not_refreshed(
    facts: TurnFacts, ended: str, unknown: str
) -> None:
    begin: list[Event | str] = [
        BEGIN, "dial work", OPENED, "send 1", FRAME_401, "refresh work",
    ]  # fmt: skip
    play(turn(facts), TWO, *begin, LOGIN_ENDED, f"{ENDED}, {ended}")
    play(turn(facts), TWO, *begin, NOT_REFRESHED, unknown)


@pytest.mark.parametrize(
    ("facts", "then"),
    [
        (ANCHORED, "answer 400 previous_response_not_found"),
        (replace(HARD, replayable=False), "answer 503 upstream_unavailable retry 1"),
        (replace(NONE, replayable=False), "answer 503 upstream_unavailable retry 1"),
    ],
)
def test_a_frame_that_is_not_sent_again_has_its_token_refreshed_for_the_next_turn(
    facts: TurnFacts, then: str
) -> None:
    play(
        turn(facts), TWO,
        BEGIN, "dial work",
        OPENED, "send 1",
        FRAME_401, "refresh work",
        REFRESHED, then,
    )  # fmt: skip


def test_without_replays_the_client_tries_again() -> None:
    play(
        turn(HARD, replays=0), TWO,
        BEGIN, "dial work",
        OPENED, "send 1",
        FRAME_401, "refresh work",
        REFRESHED, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


def test_a_frame_that_is_refused_twice() -> None:
    play(
        turn(HARD), ONE,
        BEGIN, "dial work",
        OPENED, "send 1",
        FRAME_401, "refresh work",
        REFRESHED, "dial work",
        OPENED, "send 2",
        FRAME_401, f"{BLAME}, answer 503 owner_unavailable",
    )  # fmt: skip


def test_who_is_asked_for_a_response_is_asked_again() -> None:
    missing = refused(400, "previous_response_not_found")
    play(
        turn(ASKS), TWO,
        BEGIN, "dial work",
        OPENED, "send 1",
        FRAME_401, "refresh work",
        REFRESHED, "dial work",
        OPENED, "send 2",
        missing, "dial home",
        OPENED, "send 3",
        FRAME_401, "refresh home",
        NOT_REFRESHED, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip


# --- closes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [3000, 3003])
def test_a_hard_turn_goes_back_to_its_owner_with_a_new_token(code: int) -> None:
    for facts in (HARD, PINNED):
        begin: list[Event | str] = [
            BEGIN, "dial work",
            OPENED, "send 1",
            closed(code), f"{COOLED}, refresh work",
        ]  # fmt: skip
        done = play(
            turn(facts), TWO, *begin, REFRESHED, "dial work after 0.25", OPENED, "send 2",
            closed(code), f"{COOLED}, answer 503 upstream_unavailable retry 1",
        )  # fmt: skip
        assert done.attempts == 2
        play(turn(facts), TWO, *begin, NOT_REFRESHED, "answer 503 upstream_unavailable retry 1")


def test_a_close_whose_refresh_shows_that_the_login_has_ended() -> None:
    begin: list[Event | str] = [
        BEGIN, "dial work", OPENED, "send 1", closed(3000), f"{COOLED}, refresh work",
    ]  # fmt: skip
    play(turn(HARD), TWO, *begin, LOGIN_ENDED, f"{ENDED}, dial home")
    play(turn(PINNED), TWO, *begin, LOGIN_ENDED, f"{ENDED}, answer 503 owner_unavailable")


def test_a_soft_turn_goes_elsewhere_and_has_no_token_refreshed_unless_it_is_alone() -> None:
    play(
        turn(SOFT), TWO,
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(3000), f"{COOLED}, dial home",
    )  # fmt: skip
    play(
        turn(SOFT), ONE,
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(3000), f"{COOLED}, refresh work",
        REFRESHED, "dial work after 0.25",
    )  # fmt: skip


def test_other_closes_refresh_nothing() -> None:
    play(turn(HARD), TWO, BEGIN, "dial work", OPENED, "send 1", closed(1006),
         "blame work counted transport_lost, dial work")  # fmt: skip
    play(turn(HARD), pool("work"), BEGIN, "dial work", OPENED, "send 1", closed(3000),
         f"{COOLED}, dial work after 0.25")  # fmt: skip
    play(turn(HARD), TWO, BEGIN, "dial work", OPENED, "send 1", RESPONDED, "-",
         closed(3000), f"{COOLED}, answer 502 upstream_closed")  # fmt: skip
