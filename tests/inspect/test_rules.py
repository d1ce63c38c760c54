"""The tables that are printed are those that decide."""

from __future__ import annotations

import pytest

from codexlb_cli.core.accounts import Effect
from codexlb_cli.core.closes import CloseOverride, HardMove, ReconnectPolicy, SoftMove
from codexlb_cli.core.headers import HeaderOptions, decide
from codexlb_cli.inspect.rules import document, text

DEFAULTS = HeaderOptions(), ReconnectPolicy()


def test_the_fields_of_the_document() -> None:
    found = document(*DEFAULTS)
    assert list(found) == ["schema", "headers", "closes", "errors"]
    assert found["schema"] == "codexlb.inspect.rules/1"
    fields = {
        "headers": ["rule", "names", "action", "reason", "source"],
        "closes": [
            "codes",
            "meaning",
            "account",
            "soft",
            "hard",
            "wait",
            "cooldown_seconds",
            "reason",
            "client_sees",
        ],
        "errors": [
            "codes",
            "statuses",
            "fault",
            "account",
            "cooldown_seconds",
            "reason",
            "action",
        ],
    }
    for table, keys in fields.items():
        assert all(list(row) == keys for row in found[table])


def test_the_headers_are_in_the_order_of_the_rules() -> None:
    assert [row["rule"] for row in document(*DEFAULTS)["headers"]] == [
        "connection_nominated",
        "hop_by_hop",
        "websocket_handshake",
        "http_framing",
        "http_negotiation",
        "client_credential",
        "network_identity",
        "browser_metadata",
        "tracing",
        "beta_tokens",
        "turn_state",
        "per_turn_metadata",
        "request_identity",
        "allowed",
        "not_allowed",
    ]


def test_a_row_of_the_closes() -> None:
    rows = {row["reason"]: row for row in document(*DEFAULTS)["closes"]}
    assert rows["try_again_later"] == {
        "codes": [[1013, 1013]],
        "meaning": "overloaded, try later",
        "account": "cooled",
        "soft": "another_account",
        "hard": "owner",
        "wait": "long",
        "cooldown_seconds": 5.0,
        "reason": "try_again_later",
        "client_sees": "upstream_unavailable",
    }
    assert rows["protocol_fault"]["codes"][-1] == [1016, 2999]


def test_changed_closes_come_first() -> None:
    override = CloseOverride(account=Effect.COOLED, soft=SoftMove.GIVE_UP, hard=HardMove.GIVE_UP)
    changed = ReconnectPolicy(closes={4008: override})
    first, *others = document(HeaderOptions(), changed)["closes"]
    assert first["codes"] == [[4008, 4008]]
    assert (first["account"], first["soft"], first["hard"]) == ("cooled", "give_up", "give_up")
    assert others == document(*DEFAULTS)["closes"]


@pytest.mark.parametrize("traceparent", [False, True])
def test_the_first_row_that_names_a_header_decides_it(*, traceparent: bool) -> None:
    allow = frozenset({"x-foo", "traceparent", "authorization", "version"})
    options = HeaderOptions(allow=allow, traceparent=traceparent)
    rows = document(options, ReconnectPolicy())["headers"]
    for name in ("x-foo", "traceparent", "tracestate", "authorization", "version", "host", "x-bar"):
        row = next(row for row in rows if matches(row["names"], name))
        (decision,) = decide([(name, "v")], options)
        assert (row["rule"], row["action"]) == (decision.rule, decision.action)
        if name in allow:
            assert row["reason"] == decision.reason


def matches(names: list[str], name: str) -> bool:
    return any(n == name or (n.endswith("*") and name.startswith(n[:-1])) for n in names)


def test_the_tables_for_a_person() -> None:
    options = HeaderOptions(allow=frozenset({"x-foo"}), traceparent=True)
    shown = text(options, ReconnectPolicy())
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) < 100
    assert (
        """
  internal_error       counted      another_account  owner    0.25 s  1011
"""
        in shown
    )
    assert (
        """
  allowed               forward  x-foo
                                 -- allowed by [headers] allow
"""
        in shown
    )
    assert (
        """
  beta_tokens           replace  openai-beta
                                 -- one line with the WebSocket token and without responses=...
                                 (Codex CLI: one beta token on the handshake)
"""
        in shown
    )
