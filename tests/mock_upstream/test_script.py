from __future__ import annotations

from typing import Literal

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import SHORTCUTS, Occasion, Script, decide, shortcut

WORK = TurnRule(account="work", close=1011)
BIG = TurnRule(model="big", deltas=9)
WARM = TurnRule(on="warmup", close=1012)
REFUSED = HandshakeRule(account="home", status=403)
SCRIPT = Script((WORK, BIG, WARM, REFUSED))


@pytest.mark.parametrize(
    ("on", "account", "model", "rule"),
    [
        ("turn", "work", "mock", WORK),
        ("turn", "work", "big", WORK),
        ("turn", "home", "big", BIG),
        ("turn", "home", "mock", None),
        ("warmup", "work", "mock", WARM),
        ("handshake", "home", "", REFUSED),
        ("handshake", "work", "", None),
    ],
)
def test_the_first_rule_that_matches_wins(
    on: Literal["handshake", "turn", "warmup"],
    account: str,
    model: str,
    rule: HandshakeRule | TurnRule | None,
) -> None:
    assert decide(SCRIPT, Occasion(on, account, model), {}).rule is rule


def closes_of(script: Script, occasions: list[Occasion]) -> list[int | None]:
    seen: dict[str, int] = {}
    closes = []
    for occasion in occasions:
        decision = decide(script, occasion, seen)
        for key in decision.counted:
            seen[key] = seen.get(key, 0) + 1
        closes.append(decision.rule.close if isinstance(decision.rule, TurnRule) else None)
    return closes


def test_a_rule_counts_what_no_earlier_rule_took() -> None:
    script = Script((TurnRule(times=1, close=1011), TurnRule(skip=1, close=1012)))
    occasion = Occasion("turn", "work", "m")
    assert closes_of(script, [occasion] * 4) == [1011, None, 1012, 1012]


def test_a_shortcut_closes_every_other_turn_over_all_accounts() -> None:
    turns = [Occasion("turn", name, "mock-close-1013") for name in ("work", "home", "work", "work")]
    assert closes_of(Script(), turns) == [1013, None, 1013, None]


def test_shortcuts_are_counted_apart() -> None:
    turns = [Occasion("turn", "work", f"mock-close-{code}") for code in (1011, 1012, 1011)]
    assert closes_of(Script(), turns) == [1011, 1012, None]


def test_a_shortcut_is_not_for_warm_ups() -> None:
    assert closes_of(Script(), [Occasion("warmup", "work", "mock-close-1011")]) == [None]


def test_the_script_comes_before_the_shortcuts() -> None:
    script = Script((TurnRule(times=1, close=1012),))
    turns = [Occasion("turn", "work", "mock-close-1011")] * 3
    assert closes_of(script, turns) == [1012, 1011, None]


@pytest.mark.parametrize("model", ["mock-close-999", "mock-close-5000", "mock-close-", "gpt-5"])
def test_other_names_are_no_shortcuts(model: str) -> None:
    assert shortcut(model) is None


def test_every_listed_shortcut_has_a_rule() -> None:
    names = {name.replace("CODE", "4999") for name in SHORTCUTS} - {"mock"}
    assert all(shortcut(name) is not None for name in names)
