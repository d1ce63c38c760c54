"""What a scenario file says of the upstream and its issuer: TOML -> a script, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codexlb_cli.config.scenario_toml import (
    SEE,
    no_such_name,
    numbered,
    parse_toml,
    read_scenario,
    validated,
)
from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import HandshakeRule, ModelsRule, TurnRule
from codexlb_cli.mock_upstream.script import AnyRule, Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_KINDS: dict[str, type[HandshakeRule | TurnRule | ModelsRule]] = {
    "handshake": HandshakeRule,
    "turn": TurnRule,
    "warmup": TurnRule,
    "models": ModelsRule,
}


def load_scenario(file: Path) -> Script:
    """Read what a scenario file says about the upstream; its other tables are left to others.

    Raises:
        ConfigError: it cannot be read, is no TOML, or says something that no rule can mean.
    """
    return parse_scenario(*read_scenario(file))


def parse_scenario(text: str, name: str) -> Script:
    """Read a scenario; `name` is how errors call it.

    Raises:
        ConfigError: it is no TOML, or says something that no rule can mean.
    """
    document = parse_toml(text, name)
    accounts = _accounts(document)
    rules = [_rule(table, where, accounts) for table, where in numbered(document, "upstream", name)]
    tables = numbered(document, "issuer", name)
    return Script((*rules, *(validated(IssuerRule, table, where) for table, where in tables)))


def _accounts(document: Mapping[str, Any]) -> list[str]:
    """The names in `[[account]]`; whether these tables are valid is not asked here."""
    tables = document.get("account")
    found = (
        [t.get("name") for t in tables if isinstance(t, dict)] if isinstance(tables, list) else []
    )
    return [name for name in found if isinstance(name, str)]


def _rule(table: object, where: str, accounts: Sequence[str]) -> AnyRule:
    on = table.get("on") if isinstance(table, dict) else None
    kind = _KINDS.get(on) if isinstance(on, str) else None
    if kind is None and isinstance(table, dict):
        choices = "`handshake`, `turn`, `warmup` or `models`"
        but = "" if on is None else f", not `{str(on)[:40]}`"
        raise ConfigError(f"`on` in {where} must be {choices}{but}", hint=SEE)
    rule = validated(kind or TurnRule, table, where)
    if accounts and rule.account is not None and rule.account not in accounts:
        raise no_such_name("account", rule.account, accounts, where)
    return rule
