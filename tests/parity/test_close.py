"""The accounts that `simulate close` lists are those that the gateway dials, in that order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, Point, TurnRule
from tests.gateway.test_closes import keyed
from tests.gateway.test_endings import ended
from tests.support.cli import Cli
from tests.support.gateway import NAMES, Stage, play, run_each

CODES = (
    1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    1015, 1016, 2999, 3000, 3001, 3003, 3008, 3999, 4000, 4999,
)  # fmt: skip
"""Every code with a row of its own, and both ends of every range."""
ROWS = (1000, 1006, 1008, 1009, 1011, 1012, 1013, 1014, 3003, 4000)
"""One code of every row that may lead to a replay."""

KEYS = {"hard": "session", "soft": "cache", "none": "none"}
CONFIGURED = """
[reconnect.close.1000]
soft = "another_account"
[reconnect.close.1009]
soft = "same_account"
hard = "owner"
[reconnect.close.1011]
soft = "same_account"
account = "cooled"
[reconnect.close.4000]
soft = "give_up"
hard = "give_up"
"""


@dataclass(frozen=True)
class Pool:
    """How many accounts there are, and which of them serves the turn whose socket closes."""

    accounts: int
    closed: int
    more: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: self.accounts]


POOLS = {
    "one account": Pool(1, 0),
    "two accounts": Pool(2, 1),
    "three accounts": Pool(3, 1),
    "a configured table": Pool(3, 2, CONFIGURED),
}


Outcomes = dict[str, dict[int, dict[str, Any]]]


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> Pool:
    return POOLS[request.param]


@pytest.fixture(scope="module")
def outcomes(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What the program says that follows each close, by affinity and code."""
    cli = Cli(tmp_path_factory.mktemp("simulate"))
    tables = [f'[accounts.{name}]\napi_key_env = "{name.upper()}_KEY"' for name in pool.names]
    cli.configure("\n".join([pool.more, *tables]))
    found: Outcomes = {affinity: {} for affinity in KEYS}
    for code in CODES:
        owner = pool.names[pool.closed]
        ran = cli.run("simulate", "close", str(code), "--owner", owner, "--json")
        assert (ran.code in (0, 1), ran.err) == (True, "")
        document = json.loads(ran.out)
        assert (document["code"], document["closed"]) == (code, owner)
        gives_up = [outcome["move"] == "give_up" for outcome in document["outcomes"]]
        assert ran.code == (1 if any(gives_up) else 0)
        for outcome in document["outcomes"]:
            found[outcome["affinity"]][code] = outcome
    return found


def listed(outcome: Mapping[str, Any]) -> list[str]:
    """The accounts that would be tried, in order."""
    verdicts = outcome["verdicts"]
    tried = [v["account"] for v in verdicts if v["verdict"] in ("picked", "next")]
    assert tried[:1] == ([outcome["account"]] if outcome["account"] else [])
    return tried


async def before_the_close(stage: Stage, pool: Pool, affinity: str) -> int:
    """Bring the next turn to the account that will close; return how often was dialled."""
    for _ in range(pool.closed):
        await stage.turn()
    if affinity != "none":
        answer = await stage.turn(**keyed(KEYS[affinity]))
        assert answer.header("x-codexlb-account") == pool.names[pool.closed]
    return len(stage.mock.handshakes)


@pytest.mark.parametrize("affinity", KEYS)
def test_the_candidates_are_dialled_in_order(
    tmp_path: Path, pool: Pool, outcomes: Outcomes, affinity: str
) -> None:
    """All of them refuse, so that the whole order shows."""

    async def one(code: int, folder: Path) -> None:
        outcome = outcomes[affinity][code]

        async def test(stage: Stage) -> None:
            dials = await before_the_close(stage, pool, affinity)
            turns = len(stage.mock.turns)
            answer = await stage.turn(model="closes", **keyed(KEYS[affinity]))
            first, *then = stage.dialled[dials:]
            assert first == pool.names[pool.closed]
            assert len(stage.mock.turns) == turns + 1
            if outcome["move"] == "give_up":
                assert then == []
                assert answer.error["code"] == outcome["client_sees"]
                return
            assert each_once(then) == listed(outcome)
            assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")

        skipped = pool.closed + (2 if affinity != "none" else 1)
        await play(
            test,
            folder,
            TurnRule(model="closes", close=code),
            HandshakeRule(skip=skipped, status=503),
            names=pool.names,
            more=pool.more,
        )

    run_each({str(code): code for code in CODES}, one, tmp_path)


@pytest.mark.parametrize("affinity", KEYS)
def test_the_picked_account_serves(
    tmp_path: Path, pool: Pool, outcomes: Outcomes, affinity: str
) -> None:
    replayed = {str(code): code for code in ROWS if outcomes[affinity][code]["replay"]}

    async def one(code: int, folder: Path) -> None:
        outcome = outcomes[affinity][code]

        async def test(stage: Stage) -> None:
            await before_the_close(stage, pool, affinity)
            answer = await stage.turn(model="closes", **keyed(KEYS[affinity]))
            assert (outcome["replay"], outcome["client_sees"]) == (True, "nothing")
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.header("x-codexlb-account") == outcome["account"]
            assert answer.header("x-codexlb-attempts") == "2"

        rule = TurnRule(model="closes", close=code, times=1)
        await play(test, folder, rule, names=pool.names, more=pool.more)

    run_each(replayed, one, tmp_path)


@pytest.mark.parametrize("phase", ["created", "streaming", "idle"])
def test_other_phases(tmp_path: Path, phase: Point) -> None:
    cli = Cli(tmp_path / "cli")
    cli.configure('[accounts.work]\napi_key_env = "K"\n[accounts.home]\napi_key_env = "K"')

    async def one(code: int, folder: Path) -> None:
        arguments = ["simulate", "close", str(code), "--phase", phase, "--json"]
        outcomes = json.loads(cli.run(*arguments).out)["outcomes"]

        async def test(stage: Stage) -> None:
            for outcome in outcomes:
                affinity = outcome["affinity"]
                stage.clock.advance(600)
                answer = await stage.turn(**keyed(KEYS[affinity], affinity))
                served = answer.header("x-codexlb-account")
                number = len(stage.mock.handshakes) - 1
                assert outcome["replay"] is False
                assert answer.header("x-codexlb-attempts") == "1"
                if phase != "idle":
                    assert outcome["move"] == "give_up"
                    assert answer.events[-1].data["code"] == outcome["client_sees"]
                    continue
                assert answer.types[-1] == "response.completed"
                await stage.mock.wait_for(ended(number))
                if affinity != "none":
                    assert outcome["account"] == "work"
                    after = await stage.turn(**keyed(KEYS[affinity], affinity))
                    assert after.header("x-codexlb-account") == served
                    assert after.header("x-codexlb-attempts") == "1"

        rule = TurnRule(close=code, when=phase)
        await play(test, folder, rule, names=("work", "home"))

    run_each({str(code): code for code in (1000, 1006, 1011, 1012, 4000)}, one, tmp_path)


def each_once(dialled: list[str]) -> list[str]:
    """Leave out repetitions: a session's owner that cannot be dialled is dialled once more."""
    return list(dict.fromkeys(dialled))
