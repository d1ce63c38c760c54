"""What `inspect rules` prints: the very tables that `core` decides by, the user's changes in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from codexlb_cli.console import table
from codexlb_cli.core.closes import CloseRow, ReconnectPolicy, close_rows
from codexlb_cli.core.failures import DIAL_FAILED, ERRORS, OUR_FINDINGS, REFRESH_FAILED, ErrorRow
from codexlb_cli.core.headers import HeaderOptions, HeaderRule, rules_in_force
from codexlb_cli.inspect.layout import flowed

SCHEMA = "codexlb.inspect.rules/1"

_UNSAID = {DIAL_FAILED.reason: "no connection", REFRESH_FAILED.reason: "no answer of the issuer"}
"""What rows are about that match no code and no status."""

# What the columns before them leave for names and words.
_NAMES_WIDTH = 64
_ERRORS_WIDTH = 48


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
    return (*OUR_FINDINGS, *ERRORS)


def _headers_text(rules: Iterable[HeaderRule]) -> str:
    rows: list[tuple[str, str, str]] = []
    for rule in rules:
        source = f" ({rule.source})".replace("\N{SECTION SIGN}", "") if rule.source else ""
        words = [", ".join(rule.names), f"-- {rule.reason}{source}"]
        rows += _beside((rule.rule, rule.action.value), words, _NAMES_WIDTH)
    return table(("RULE", "ACTION", "NAMES"), rows, indent=2)


def _closes_text(policy: ReconnectPolicy) -> str:
    rows = [
        (
            row.reason,
            _account(row),
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
        which = _UNSAID.get(row.reason, named)
        seconds = f", or {row.unnamed_seconds:g} s" if row.unnamed_seconds else ""
        words = [which, f"-- {row.action}"]
        rows += _beside((row.reason, f"{row.effect.value}{seconds}"), words, _ERRORS_WIDTH)
    return table(("REASON", "ACCOUNT", "CODES AND STATUSES"), rows, indent=2)


def _beside(cells: tuple[str, str], words: list[str], width: int) -> list[tuple[str, str, str]]:
    """Put texts below each other, the first one beside the cells of its row."""
    lines = [line for text in words for line in flowed(text, width)]
    return [(*(cells if number == 0 else ("", "")), line) for number, line in enumerate(lines)]


def _account(row: CloseRow) -> str:
    seconds = f" {row.cooldown_seconds:g} s" if row.cooldown_seconds else ""
    return f"{row.account.value}{seconds}"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
