"""Turns that find their account full: who waits, who goes elsewhere, how a place comes free."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.faults.cells import AFFINITIES, PINNED, Affinity
from tests.faults.talking import GIVES_STATE, Conversation
from tests.support.client import Exchange
from tests.support.gateway import NAMES, Stage
from tests.support.virtual import play_virtually, run_each_virtually

ENDS: dict[str, dict[str, Any]] = {
    "completes": {"fault_delay": 60, "when": "created", "send": ['{"type":"x"}']},
    "is closed": {"fault_delay": 60, "when": "created", "close": 1011},
    "is refused late": {"fault_delay": 60, "when": "created", "error": {"code": "odd"}},
    "is refused early": {"delay": 60, "error": {"status": 400, "code": "odd"}},
    "gives up": {"delay": 60, "close": 1006},
    "breaks the protocol": {"delay": 60, "send": ["no json"]},
    "falls silent": {"silence": True},
    "falls silent midway": {"silence": True, "when": "streaming"},
    "leaves": {"silence": True, "when": "created"},
}
"""How the turn ends that has the place."""
BRIEF = "[timeouts]\nidle = 120"
"""Whoever is in line longer than `before_first_event_total` is told so."""
LIMITED = {"status": 429, "code": "usage_limit_reached", "resets_in_seconds": 3600}

Case = tuple[str, Affinity]


def affinities(transport: str) -> list[Affinity]:
    return [a for a in AFFINITIES if (a, transport) != ("anchored", "http")]


def cases(transport: str) -> dict[str, Case]:
    """Every end, and every affinity, though not each with each."""
    every = [(end, affinity) for end in ENDS for affinity in affinities(transport)]
    return {f"{end} / {affinity}": (end, affinity) for end, affinity in every[::3]}


async def begun(stage: Stage) -> None:
    await stage.mock.wait_for(lambda mock: mock.turns[-1].model == "held", 30)


async def end(name: str, held: Exchange) -> None:
    if name == "leaves":
        held.leave()
    else:
        await held.answer()


async def play(test: Any, folder: Path, ends: str, transport: str, **options: Any) -> None:
    held = TurnRule.model_validate({"model": "held", **ENDS[ends]})
    names = options.setdefault("names", NAMES)
    options["accounts"] = dict.fromkeys(names, f'transport = "{transport}"')
    options.setdefault("more", f"{BRIEF}\n[lanes]\nmax_turns = 1")
    limited = TurnRule.model_validate({"model": "limited", "error": LIMITED})
    await play_virtually(test, folder, GIVES_STATE, held, limited, **options)


@pytest.mark.parametrize("transport", ["auto", "http"])
def test_a_full_owner_is_waited_for_by_those_who_are_bound_to_it(
    tmp_path: Path, transport: str
) -> None:
    async def one(case: Case, folder: Path) -> None:
        ends, affinity = case
        hard = affinity not in {"cache", "none"}

        async def test(stage: Stage) -> None:
            talk = Conversation(stage, affinity, "whole")
            await talk.settle()
            before = len(stage.mock.turns)
            async with stage.streaming(model="held", previous_response_id=talk.stored) as held:
                await begun(stage)
                second = asyncio.create_task(talk.turn())
                await asyncio.sleep(1)
                assert second.done() != hard
                await end(ends, held)
            answer = await second
            assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "1")
            served = answer.header("x-codexlb-account")
            assert served == "work" if hard else served in {"home", "spare"}
            if hard:  # none of its own was sent before the other was over
                models = [turn.model for turn in stage.mock.turns[before:]]
                assert models[-1] == "mock"
                assert set(models[:-1]) == {"held"}
            if affinity != "none":
                again = await talk.turn() if affinity != "anchored" else answer
                assert again.header("x-codexlb-account") == "work", "a full owner stays the owner"
            assert stage.mock.overlaps == 0

        await play(test, folder, ends, transport)

    run_each_virtually(cases(transport), one, tmp_path)


@pytest.mark.parametrize("transport", ["auto", "http"])
def test_the_only_account_is_waited_for_by_all_in_their_order(
    tmp_path: Path, transport: str
) -> None:
    async def one(case: Case, folder: Path) -> None:
        ends, affinity = case

        async def test(stage: Stage) -> None:
            talk = Conversation(stage, affinity, "whole")
            await talk.settle()
            async with stage.streaming(model="held") as held:
                await begun(stage)
                second = asyncio.create_task(talk.turn())
                await asyncio.sleep(1)
                third = asyncio.create_task(stage.turn(model="third"))
                await asyncio.sleep(1)
                assert not second.done()
                assert not third.done()
                refused = await talk.turn()
                assert (refused.status, refused.error["code"]) == (429, "queue_full")
                assert refused.header("retry-after") == "1"
                await end(ends, held)
            assert [(await task).status for task in (second, third)] == [200, 200]
            assert [turn.model for turn in stage.mock.turns][-2:] == ["mock", "third"]
            assert (await talk.turn(stream=False)).status == (
                400 if affinity == "anchored" else 200
            )

        more = f"{BRIEF}\n[lanes]\nmax_turns = 1\nqueue = 2"
        await play(test, folder, ends, transport, names=["work"], more=more)

    run_each_virtually(cases(transport), one, tmp_path)


@pytest.mark.parametrize("transport", ["auto", "http"])
def test_a_full_account_is_no_home_for_those_whose_owner_failed(
    tmp_path: Path, transport: str
) -> None:
    """A turn that leaves its failed owner takes the other that has a place."""

    async def one(affinity: Affinity, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            talk = Conversation(stage, affinity, "whole")
            await talk.settle()
            async with stage.streaming(model="held") as held:
                await begun(stage)
                assert stage.sent[-1] == "home"
                limited = await stage.turn(model="limited", previous_response_id=talk.stored)
                assert limited.status == 429
                answer = await talk.turn()
                moves = affinity not in PINNED
                assert answer.status == (200 if moves else 429)
                if moves:
                    assert answer.header("x-codexlb-account") == "spare"
                held.leave()

        await play(test, folder, "leaves", transport)

    run_each_virtually({a: a for a in affinities(transport)}, one, tmp_path)
