"""Turns at accounts without a WebSocket: from the refused upgrade to HTTP, and refused POSTs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.accounts import Account, AccountState
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import TurnFacts
from tests.core.playing import (
    BEGIN,
    FINISHED,
    OPENED,
    RESPONDED,
    UNREACHABLE,
    answered,
    dial_refused,
    play,
)
from tests.core.pools import NOW, pool

POOL = pool("work", "home")
SOFT = TurnFacts(strength=Strength.SOFT, owner="work")
HARD = TurnFacts(strength=Strength.HARD, owner="work", bound=True)
FREE = TurnFacts()
NO_WEBSOCKET = dial_refused(426)


def turn(facts: TurnFacts) -> Turn:
    return Turn(facts, ReconnectPolicy())


def with_transport(choice: str) -> Pool:
    work, home = POOL.accounts
    return replace(POOL, accounts=(replace(work, transport=choice), home))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [404, 426])
@pytest.mark.parametrize("facts", [SOFT, HARD, FREE])
def test_the_same_account_is_dialled_again_at_once(facts: TurnFacts, status: int) -> None:
    done = play(
        turn(facts),
        POOL,
        BEGIN,
        "dial work",
        dial_refused(status),
        "blame work no_websocket no_websocket, dial work",
        OPENED,
        "send 1",
        RESPONDED,
        "-",
        FINISHED,
        "-",
    )
    assert (done.attempts, done.steps) == (1, [f"work refused with {status}"])


def test_but_once_in_a_turn() -> None:
    play(
        turn(FREE),
        POOL,
        BEGIN,
        "dial work",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, dial work",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, dial home",
        NO_WEBSOCKET,
        "blame home no_websocket no_websocket, dial home",
        UNREACHABLE,
        "answer 503 upstream_unavailable retry 1",
    )


def test_a_hard_owner_has_its_second_dial_over_http_too() -> None:
    play(
        turn(HARD),
        POOL,
        BEGIN,
        "dial work",
        UNREACHABLE,
        "dial work after 0.25",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, dial work",
        UNREACHABLE,
        "answer 503 upstream_unavailable retry 1",
    )
    play(
        turn(HARD),
        POOL,
        BEGIN,
        "dial work",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, dial work",
        UNREACHABLE,
        "dial work after 0.25",
        OPENED,
        "send 1",
    )


@pytest.mark.parametrize("choice", ["websocket", "http"])
def test_a_configured_transport_is_not_left(choice: str) -> None:
    play(
        turn(FREE),
        with_transport(choice),
        BEGIN,
        "dial work",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, dial home",
    )
    play(
        turn(HARD),
        with_transport(choice),
        BEGIN,
        "dial work",
        NO_WEBSOCKET,
        "blame work no_websocket no_websocket, answer 503 upstream_unavailable retry 1",
    )


@pytest.mark.parametrize("facts", [SOFT, FREE])
def test_a_post_refused_with_403_goes_to_another_account(facts: TurnFacts) -> None:
    play(
        turn(facts),
        POOL,
        BEGIN,
        "dial work",
        OPENED,
        "send 1",
        answered(403),
        "blame work refused forbidden, dial home",
        OPENED,
        "send 2",
        answered(403),
        "blame home refused forbidden, answer 503 upstream_unavailable retry 1",
    )


def test_a_hard_post_refused_with_403_is_sent_to_its_owner_once_more() -> None:
    play(
        turn(HARD),
        POOL,
        BEGIN,
        "dial work",
        OPENED,
        "send 1",
        answered(403),
        "blame work refused forbidden, dial work after 3",
        OPENED,
        "send 2",
        answered(403),
        "blame work refused forbidden, answer 503 upstream_unavailable retry 1",
    )


def test_a_hard_post_that_may_not_be_sent_again() -> None:
    play(
        turn(replace(HARD, replayable=False)),
        pool("work"),
        BEGIN,
        "dial work",
        OPENED,
        "send 1",
        answered(403),
        "blame work refused forbidden, answer 503 upstream_unavailable retry 1",
    )


@pytest.mark.parametrize(
    ("status", "code", "actions"),
    [
        (401, None, "blame work login credentials_rejected, dial home"),
        (429, None, "blame work cooled rate_limit_exceeded, dial home"),
        (500, None, "dial home"),
        (503, None, "dial home"),
        (302, None, "dial home"),
        (404, "model_not_found", "dial home"),
        (404, None, "pass on 404 None"),
        (404, "previous_response_not_found", "pass on 404 previous_response_not_found"),
        (426, None, "pass on 426 None"),
        (400, "context_length_exceeded", "pass on 400 context_length_exceeded"),
        (413, None, "pass on 413 None"),
    ],
)
def test_other_refused_posts_are_as_error_frames(
    status: int, code: str | None, actions: str
) -> None:
    script = (BEGIN, "dial work", OPENED, "send 1", answered(status, code), actions)
    play(turn(FREE), POOL, *script)


def test_an_account_that_is_gone_falls_back_to_nothing() -> None:
    gone = turn(FREE)
    gone.receive(BEGIN, POOL)
    without = Pool((Account("home"),), NOW, {"home": AccountState()})
    actions = gone.receive(NO_WEBSOCKET, without)
    assert [getattr(action, "account", None) for action in actions] == ["work", "home"]
