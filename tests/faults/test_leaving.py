"""A client that leaves: nothing of its turn stays behind, wherever the turn was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.faults.cells import AFFINITIES, Affinity, Client
from tests.faults.talking import GIVES_STATE, Conversation
from tests.support.gateway import Stage
from tests.support.virtual import play_virtually, run_each_virtually, run_virtually

ONE_AT_A_TIME = "[lanes]\nmax_turns = 1"
"""So that a place that is not given back blocks the next turn."""


class Moment(NamedTuple):
    """When a client leaves.

    Attributes:
        rule: what the upstream does then, with the model `left`.
        until: the event that the client still reads; None if none has come.
        creates: how many `response.create` were sent.
        seconds: how long the client stays, in virtual time.
    """

    rule: dict[str, Any]
    until: str | None = None
    creates: int = 1
    seconds: float = 0.5


LIMITED = {"status": 429, "code": "rate_limit_exceeded", "headers": {"retry-after": "7"}}
MOMENTS: dict[str, Moment] = {
    "sent": Moment({"silence": True}),
    "sent again": Moment({"close": 1012, "times": 1, "delay": 0.5}, creates=2, seconds=1.8),
    "in a back-off": Moment({"close": 1012}, seconds=0.5),
    "waiting for a limit": Moment({"error": LIMITED, "times": 1}),
    "created": Moment({"silence": True, "when": "created"}, "response.in_progress"),
    "streaming": Moment({"silence": True, "when": "streaming"}, "response.output_text.delta"),
    "midst": Moment({"deltas": 1000, "delta_delay": 0.2}, "response.output_text.delta"),
}
OVER_HTTP = {"in a back-off", "sent again"}
"""Moments that come from close codes, which HTTP does not know."""


def cases(transport: str) -> dict[str, tuple[str, Affinity, Client]]:
    found: dict[str, tuple[str, Affinity, Client]] = {}
    clients: tuple[Client, ...] = ("stream", "whole", "codex")
    for number, (moment, affinity) in enumerate(
        (m, a) for m in MOMENTS for a in AFFINITIES if not (transport == "http" and m in OVER_HTTP)
    ):
        if affinity == "anchored" and (
            transport == "http" or moment in {*OVER_HTTP, "waiting for a limit"}
        ):
            continue  # it lives on one socket, and is not sent again
        waits = affinity != "none"
        if moment == "waiting for a limit" and not waits:
            continue
        early = MOMENTS[moment].until is None
        client = clients[number % 3] if early else clients[number % 2 * 2]
        found[f"{moment} / {affinity} / {client}"] = (moment, affinity, client)
    return found


async def leave(stage: Stage, talk: Conversation, moment: Moment) -> None:
    async with talk.streaming(model="left") as exchange:
        if moment.until is not None:
            await exchange.head()
            await exchange.until(moment.until)
        await asyncio.sleep(moment.seconds)
        exchange.leave()
    await asyncio.sleep(1)  # and everybody has noticed


async def assert_nothing_is_left(stage: Stage) -> None:
    assert stage.gateway.responses.running == 0
    assert [turn.outcome for turn in stage.mock.turns if turn.outcome is None] == []
    assert stage.mock.overlaps == 0
    assert stage.warnings == []
    states = (await stage.get("/readyz")).json["accounts"]
    assert set(states.values()) <= {"ready", "limited"}, "the account is not to blame"


@pytest.mark.parametrize("transport", ["auto", "http"])
def test_the_place_and_the_upstream_turn_of_a_client_that_leaves(
    tmp_path: Path, transport: str
) -> None:
    async def one(case: tuple[str, Affinity, Client], folder: Path) -> None:
        name, affinity, client = case
        moment = MOMENTS[name]

        async def test(stage: Stage) -> None:
            talk = Conversation(stage, affinity, client)
            await talk.settle()
            before = len(stage.mock.turns)
            await leave(stage, talk, moment)
            await assert_nothing_is_left(stage)
            assert len(stage.mock.turns) == before + moment.creates
            left = stage.mock.turns[-1]
            talk.members["stream"] = False
            if affinity == "anchored":
                del talk.members["previous_response_id"]  # its socket is gone
            answer = await talk.turn()
            assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")
            assert answer.header("x-codexlb-account") == "work"
            if "close" not in moment.rule and "error" not in moment.rule:
                assert left.outcome in {"client left", "silence"}
                assert stage.mock.turns[-1].socket != left.socket, "its socket was used again"
                ended = {h.socket: h.ended for h in stage.mock.handshakes}
                assert ended.get(left.socket, "client left") == "client left"

        scripted = TurnRule.model_validate({"model": "left", **moment.rule})
        tables = {"work": f'transport = "{transport}"'}
        await play_virtually(
            test, folder, GIVES_STATE, scripted,
            names=["work"], accounts=tables, more=ONE_AT_A_TIME, draws=1.0,
        )  # fmt: skip

    run_each_virtually(cases(transport), one, tmp_path)


@pytest.mark.parametrize("affinity", [a for a in AFFINITIES if a != "anchored"])
def test_a_client_that_leaves_while_its_account_is_dialled(
    tmp_path: Path, affinity: Affinity
) -> None:
    async def test(stage: Stage) -> None:
        talk = Conversation(stage, affinity, "whole")
        await talk.settle()
        talk.headers.append(("originator", "another"))  # takes a new socket
        await leave(stage, talk, Moment({}))
        await assert_nothing_is_left(stage)
        assert stage.mock.handshakes[-1].ended == "client left"
        answer = await talk.turn()
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")

    hangs = HandshakeRule(skip=1, silence=True, times=1)
    run_virtually(test, tmp_path, hangs, GIVES_STATE, names=["work"], more=ONE_AT_A_TIME)


@pytest.mark.parametrize("affinity", ["session", "stored", "file", "cache", "none"])
@pytest.mark.parametrize("transport", ["auto", "http"])
def test_a_client_that_leaves_the_line(tmp_path: Path, affinity: Affinity, transport: str) -> None:
    async def test(stage: Stage) -> None:
        talk = Conversation(stage, affinity, "whole")
        await talk.settle()
        async with stage.streaming(model="held") as held:
            await held.head()
            await leave(stage, talk, Moment({}))
            assert stage.mock.turns[-1].model == "held"
            held.leave()
            await asyncio.sleep(1)
        await assert_nothing_is_left(stage)
        answer = await talk.turn()
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")

    held = TurnRule(model="held", silence=True, when="created")
    tables = {"work": f'transport = "{transport}"'}
    run_virtually(test, tmp_path, held, names=["work"], accounts=tables, more=ONE_AT_A_TIME)
