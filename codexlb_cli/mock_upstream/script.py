"""Which rule fires: a pure decision over a script, an occasion and the counts so far."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from codexlb_cli.mock_upstream.issuer_rules import IssuerEndpoint, IssuerRule
from codexlb_cli.mock_upstream.rules import (
    ErrorSpec,
    FailedSpec,
    HandshakeRule,
    ModelsRule,
    TurnRule,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTCUTS: dict[str, str] = {
    "mock": "a normal answer",
    "mock-close-CODE": "closes with CODE before response.created, on every other turn",
    "mock-429": "error 429 rate_limit_exceeded, retry-after 7, on every other turn",
    "mock-silent": "accepts the turn and never answers",
    "mock-slow": "150 ms between deltas",
    "mock-tool": "calls a tool first, and answers once it has the output",
    "mock-failed": "response.failed, server_error",
}
"""Model names that script a turn without a scenario, and what each does."""

_SHORTCUT_RULES: dict[str, TurnRule] = {
    "mock-429": TurnRule(
        every=2,
        error=ErrorSpec(
            status=429,
            code="rate_limit_exceeded",
            message="Rate limit reached. Please try again in 7s.",
            headers={"retry-after": "7"},
        ),
    ),
    "mock-silent": TurnRule(silence=True),
    "mock-slow": TurnRule(delta_delay=0.15),
    "mock-tool": TurnRule(tool=True),
    "mock-failed": TurnRule(failed=FailedSpec()),
}
_CLOSE_SHORTCUT = re.compile(r"mock-close-([1-4][0-9]{3})")


AnyRule = HandshakeRule | TurnRule | ModelsRule | IssuerRule


@dataclass(frozen=True, slots=True)
class Script:
    """The rules of one upstream, in order; the first that matches and is due wins."""

    rules: tuple[AnyRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something a rule may act on.

    Attributes:
        on: a WebSocket upgrade, a turn, a warm-up (`generate: false`), a question for the models,
            or an issuer's endpoint.
        account: who is asking; empty if that is not known.
        model: the turn's model; empty for what is no turn.
    """

    on: Literal["handshake", "turn", "warmup", "models"] | IssuerEndpoint
    account: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The rule that fires, and which rules saw the occasion.

    Attributes:
        rule: None if nothing is scripted for this occasion.
        counted: the keys whose count the caller raises by one.
    """

    rule: AnyRule | None
    counted: tuple[str, ...]


def decide(script: Script, occasion: Occasion, seen: Mapping[str, int]) -> Decision:
    """Return the rule for an occasion.

    A rule counts the occasions that match it and that no earlier rule took. Shortcuts come after
    the script's own rules and are counted per model name, over all accounts.

    Args:
        script: the rules.
        occasion: what happens now.
        seen: the earlier occasions of each key, as raised after earlier decisions.
    """
    counted = []
    for number, rule in enumerate(script.rules):
        if not _matches(rule, occasion):
            continue
        key = f"rule {number}"
        counted.append(key)
        if rule.due(seen.get(key, 0) + 1):
            return Decision(rule, tuple(counted))
    rule_by_name = shortcut(occasion.model) if occasion.on == "turn" else None
    if rule_by_name is not None:
        key = f"model {occasion.model}"
        counted.append(key)
        if rule_by_name.due(seen.get(key, 0) + 1):
            return Decision(rule_by_name, tuple(counted))
    return Decision(None, tuple(counted))


def shortcut(model: str) -> TurnRule | None:
    """Return the rule that a model's name stands for, or None."""
    close = _CLOSE_SHORTCUT.fullmatch(model)
    if close is not None:
        return TurnRule(every=2, close=int(close[1]))
    return _SHORTCUT_RULES.get(model)


def _matches(rule: AnyRule, occasion: Occasion) -> bool:
    if rule.on != occasion.on or rule.account not in {None, occasion.account}:
        return False
    return not isinstance(rule, TurnRule) or rule.model in {None, occasion.model}
