"""What `inspect rules` prints: the very tables that `core` decides by, the user's changes in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from codexlb_cli.console import table
from codexlb_cli.core.closes import CloseRow, ReconnectPolicy, close_rows
from codexlb_cli.core.failures import DIAL_FAILED, ERRORS, ErrorRow
from codexlb_cli.core.headers import HeaderOptions, HeaderRule, rules_in_force

SCHEMA = "codexlb.inspect.rules/1"


def document(options: HeaderOptions, policy: ReconnectPolicy) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "schema": SCHEMA,
        "headers": [_header(rule) for rule in rules_in_force(options)],
        "closes": [_close(row) for row in close_rows(policy)],
        "errors": [_error(row) for row in _errors()],
    }


def text(options: HeaderOptions, policy: ReconnectPolicy) -> str:
    """Return the tables for a person."""
    return "\n\n".join(
        (
            "HEADERS  what a client sends; the first row that names it applies",
            _headers_text(rules_in_force(options)),
            "CLOSES  what follows an upstream close before response.created; the first row applies",
            _closes_text(policy),
            "ERRORS  what follows a refused handshake or an error frame; the first row applies",
            _errors_text(),
        )
    )


def _header(rule: HeaderRule) -> dict[str, Any]:
    return {
        "rule": rule.rule,
        "names": list(rule.names),
        "action": rule.action.value,
        "reason": rule.reason,
        "source": rule.source,
    }


def _close(row: CloseRow) -> dict[str, Any]:
    return {
        "codes": [list(span) for span in row.codes],
        "meaning": row.meaning,
        "account": row.account.value,
        "soft": row.soft.value,
        "hard": row.hard.value,
        "wait": row.wait,
        "cooldown_seconds": row.cooldown_seconds,
        "reason": row.reason,
        "client_sees": row.client_sees,
    }


def _error(row: ErrorRow) -> dict[str, Any]:
    return {
        "codes": list(row.codes),
        "statuses": list(row.statuses),
        "fault": row.fault.value,
        "account": row.effect.value,
        "cooldown_seconds": row.unnamed_seconds,
        "reason": row.reason,
        "action": row.action,
    }


def _errors() -> tuple[ErrorRow, ...]:
    return (DIAL_FAILED, *ERRORS)


def _headers_text(rules: Iterable[HeaderRule]) -> str:
    rows: list[tuple[str, str, str]] = []
    for rule in rules:
        source = f" ({rule.source})" if rule.source else ""
        rows.append((rule.rule, rule.action.value, ", ".join(rule.names)))
        rows.append(("", "", f"-- {rule.reason}{source}"))
    return table(("RULE", "ACTION", "NAMES"), rows, indent=2)


def _closes_text(policy: ReconnectPolicy) -> str:
    rows = [
        (
            row.reason,
            _account(row.account.value, row.cooldown_seconds),
            row.soft.value,
            row.hard.value,
            f"{policy.bound(row.wait):g} s",
            ", ".join(_span(*span) for span in row.codes) or row.meaning,
        )
        for row in close_rows(policy)
    ]
    return table(("REASON", "ACCOUNT", "SOFT OR NONE", "HARD", "WAIT", "CODES"), rows, indent=2)


def _errors_text() -> str:
    rows: list[tuple[str, str, str]] = []
    for row in _errors():
        named = ", ".join((*row.codes, *map(str, row.statuses))) or "every other"
        which = "no connection" if row is DIAL_FAILED else named
        rows.append((row.reason, _account(row.effect.value, row.unnamed_seconds), which))
        rows.append(("", "", f"-- {row.action}"))
    return table(("REASON", "ACCOUNT", "CODES AND STATUSES"), rows, indent=2)


def _account(effect: str, seconds: float) -> str:
    return f"{effect} {seconds:g} s" if seconds else effect


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
