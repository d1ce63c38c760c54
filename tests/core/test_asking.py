"""Turns that ask for a response that nobody is known to store, and turns that wait in line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.turn import State, Turn
from codexlb_cli.core.turn_events import QueueFull, RoomFree, TurnFacts
from tests.core.playing import (
    BEGIN,
    FINISHED,
    OPENED,
    OUT_OF_TIME,
    RESPONDED,
    UNREACHABLE,
    closed,
    dial_refused,
    play,
    refused,
)
from tests.core.pools import pool
from tests.core.test_plan import full, three

ASKS = TurnFacts(Strength.HARD, portable=False, asks=True)
NOT_FOUND = refused(400, "previous_response_not_found")


def turn(facts: TurnFacts = ASKS, replays: int = 1) -> Turn:
    return Turn(facts, ReconnectPolicy(replays=replays))


@pytest.mark.parametrize("replays", [0, 1])
def test_the_accounts_are_asked_in_order_and_asking_is_no_replay(replays: int) -> None:
    done = play(
        turn(replays=replays), three(),
        BEGIN, "dial work",
        OPENED, "send 1",
        NOT_FOUND, "dial home",
        OPENED, "send 2",
        NOT_FOUND, "dial spare",
        OPENED, "send 3",
        RESPONDED, "-",
        FINISHED, "-",
    )  # fmt: skip
    assert (done.account, done.attempts) == ("spare", 3)
    assert done.steps == [
        "work does not know the previous response", "home does not know the previous response",
    ]  # fmt: skip


def test_not_found_is_the_answer_when_every_account_said_so() -> None:
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        OPENED, "send 1",
        NOT_FOUND, "dial home",
        OPENED, "send 2",
        NOT_FOUND, "pass on 400 previous_response_not_found",
    )  # fmt: skip


def test_it_is_not_while_one_could_not_be_asked() -> None:
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        UNREACHABLE, "dial home",
        OPENED, "send 1",
        NOT_FOUND, "answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        dial_refused(429, None, 30), "blame work limited rate_limit_exceeded, dial home",
        OPENED, "send 1",
        NOT_FOUND, "answer 429 rate_limit_exceeded retry 30",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("refusal", "blame"),
    [
        (refused(429, "rate_limit_exceeded", 30), "blame work limited rate_limit_exceeded, "),
        (refused(401, "invalid_api_key"), "blame work login invalid_api_key, "),
        (refused(404, "model_not_found"), ""),
    ],
)
def test_an_account_that_refuses_is_passed_over(refusal: object, blame: str) -> None:
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        OPENED, "send 1",
        refusal, f"{blame}dial home",  # type: ignore[arg-type]
        OPENED, "send 2",
        RESPONDED, "-",
    )  # fmt: skip


def test_an_account_that_closes_is_asked_again_and_the_others_after_it() -> None:
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(1011), "blame work counted internal_error, dial work after 0.25",
        OPENED, "send 2",
        NOT_FOUND, "dial home",
        OPENED, "send 3",
        NOT_FOUND, "pass on 400 previous_response_not_found",
    )  # fmt: skip


def test_a_second_close_gives_up_while_asking_too() -> None:
    done = play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        OPENED, "send 1",
        closed(1011), "blame work counted internal_error, dial work after 0.25",
        OPENED, "send 2",
        closed(1011), "blame work counted internal_error, answer 503 upstream_unavailable retry 1",
    )  # fmt: skip
    assert done.gave_up


def test_a_request_that_is_wrong_is_asked_of_nobody_else() -> None:
    play(
        turn(), pool("work", "home"),
        BEGIN, "dial work",
        OPENED, "send 1",
        refused(400, "invalid_value"), "pass on 400 invalid_value",
    )  # fmt: skip


# --- waiting in line --------------------------------------------------------------------------


def test_a_turn_that_waited_in_line_starts_anew() -> None:
    hard = TurnFacts(Strength.HARD, owner="home", bound=True)
    waiting = play(turn(hard), full(three(), "home"), BEGIN, "queue for home")
    assert waiting.state is State.QUEUED
    play(waiting, full(three(), "home"), RoomFree(), "queue for home")
    play(waiting, three(), RoomFree(), "dial home", OPENED, "send 1", RESPONDED, "-")


def test_an_unkeyed_turn_waits_for_any_account() -> None:
    accounts = full(pool("work", "home"), "work", "home")
    waiting = play(turn(TurnFacts()), accounts, BEGIN, "queue for work or home")
    play(waiting, full(pool("work", "home"), "work"), RoomFree(), "dial home")


@pytest.mark.parametrize("event", [QueueFull(8), OUT_OF_TIME])
def test_the_line_has_an_end(event: QueueFull) -> None:
    accounts = full(pool("work"), "work")
    done = play(
        turn(TurnFacts()), accounts,
        BEGIN, "queue for work",
        event, "answer 429 queue_full retry 1",
    )  # fmt: skip
    assert (done.attempts, done.gave_up) == (0, False)


def test_a_full_owner_is_no_failed_account() -> None:
    """A session does not move because its account is busy, whatever may move."""
    facts = TurnFacts(Strength.HARD, owner="home", bound=True, portable=True)
    play(turn(replace(facts)), full(three(), "home"), BEGIN, "queue for home")
