"""Asking the accounts for a response that nobody is known to store, while one of them fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.faults.checks import ending
from tests.faults.expected import EXHAUSTED, LIMITED, SERVED, UNAVAILABLE
from tests.faults.table import Transport
from tests.support.gateway import NAMES, Stage
from tests.support.virtual import play_virtually, run_each_virtually


class Asked(NamedTuple):
    """What happens to the one account that knows the response, or to others, and what follows.

    Attributes:
        turn: what `spare`, which knows the response, does with the turn.
        sent: the accounts that are asked, in order.
        ended: status and code.
        retry_after: what the client is told.
        upgrades: what becomes of the upgrades of others, by account.
    """

    turn: dict[str, Any]
    sent: str = "work home spare"
    ended: tuple[int, str | None] = SERVED
    retry_after: str | None = None
    upgrades: dict[str, int] = {}  # noqa: RUF012 - nobody changes it


def refused(status: int, code: str | None = None, **headers: str) -> dict[str, Any]:
    return {"error": {"status": status, "code": code, "headers": headers}}


LOST = {"close": 1006}
TWICE = "work home spare spare"
CASES: dict[str, Asked] = {
    "nothing": Asked({}),
    "lost once": Asked({**LOST, "times": 1}, TWICE),
    # It has not said that it does not know the response, so not-found would be a lie.
    "lost always": Asked(LOST, TWICE, UNAVAILABLE, "1"),
    "silent": Asked({"silence": True}, TWICE, UNAVAILABLE, "1"),
    "broken": Asked(
        {"send": ("no json",)}, ended=(502, "upstream_protocol_error"), retry_after="1"
    ),
    "overloaded once": Asked({**refused(503), "times": 1}, TWICE),
    "limited": Asked(refused(429, **{"retry-after": "30"}), ended=LIMITED, retry_after="30"),
    "limited for long": Asked(
        refused(429, "usage_limit_reached", **{"retry-after": "90"}), ended=EXHAUSTED
    ),
    "limited without a time": Asked(refused(429), ended=LIMITED, retry_after="10"),
    "a bad request": Asked(refused(422, "odd"), ended=(422, "odd")),
    "lost in the midst": Asked({**LOST, "when": "created"}, ended=(200, "upstream_closed")),
}
UPGRADES: dict[str, Asked] = {
    "another is overloaded": Asked({}, "home spare", upgrades={"work": 503}),
    "another refused its key": Asked({}, "work spare", upgrades={"home": 401}),
    "others are limited": Asked({}, "spare", upgrades={"work": 429, "home": 429}),
    "the one is overloaded": Asked({}, "work home", UNAVAILABLE, "1", upgrades={"spare": 503}),
    "the one is limited": Asked({}, "work home", LIMITED, "10", upgrades={"spare": 429}),
}


@pytest.mark.parametrize("transport", ["auto", "http"])
def test_who_is_asked_and_what_is_told(tmp_path: Path, transport: Transport) -> None:
    async def one(asked: Asked, folder: Path) -> None:
        tables = dict.fromkeys(NAMES, f'transport = "{transport}"')

        async def test(stage: Stage) -> None:
            only = {name: f"{table}\nenabled = false" for name, table in tables.items()}
            stage.configure(accounts={**only, "spare": tables["spare"]})
            first = await stage.turn(stream=False)
            assert first.header("x-codexlb-account") == "spare"
            stage.configure(accounts=tables)
            forgot = stage.cli.run("owners", "forget", "--all", stdin=b"", **stage.environ)
            assert forgot.code == 0, forgot
            answer = await stage.turn(model="asked", previous_response_id=first.json["id"])
            assert stage.sent[1:] == asked.sent.split()
            assert ending(answer) == asked.ended
            assert answer.header("retry-after") == asked.retry_after
            assert answer.header("x-codexlb-attempts") == str(len(stage.sent) - 1)
            if asked.ended == SERVED:  # and who knew it is remembered
                again = await stage.turn(previous_response_id=first.json["id"])
                assert again.header("x-codexlb-account") == "spare"
                assert again.header("x-codexlb-attempts") == "1"

        turn = TurnRule.model_validate({"model": "asked", "account": "spare", **asked.turn})
        skips = {"spare": 1}  # its first one
        upgrades = [
            HandshakeRule(account=name, status=status, skip=skips.get(name, 0))
            for name, status in asked.upgrades.items()
        ]
        await play_virtually(test, folder, turn, *upgrades, accounts=tables)

    cases = CASES if transport == "http" else CASES | UPGRADES
    run_each_virtually(cases, one, tmp_path)
