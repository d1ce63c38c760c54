"""Which client headers may go upstream: the table of the header policy, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.headers import (
    RULES,
    Action,
    Header,
    HeaderOptions,
    beta_tokens,
    check_header,
    connection_nominated,
    decide,
)
from codexlb_cli.errors import InvalidHeader, UsageError
from tests.core.header_table import DROPPED, EXPECTED, FORWARDED, MOVED

BETA = "responses_websockets=2026-02-06"


def verdict(
    name: str,
    value: str = "v",
    *others: Header,
    options: HeaderOptions | None = None,
    ours: bool = False,
) -> tuple[str, str]:
    """Return the action and the rule of the first of some header lines."""
    lines = ((name, value), *others)
    first = decide(lines, options or HeaderOptions(), turn_state_is_ours=ours)[0]
    return first.action.value, first.rule


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_every_name_of_the_table(name: str, case: object) -> None:
    assert callable(case)
    assert verdict(case(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_nominated_name_is_dropped_whatever_its_row(name: str) -> None:
    assert verdict(name, "v", ("Connection", name.upper())) == ("drop", "connection_nominated")


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"x-foo"} - set(DROPPED["not_allowed"])))
def test_allowing_a_name_opens_only_the_last_row(name: str) -> None:
    options = HeaderOptions(allow=frozenset({name}))
    assert verdict(name, options=options) == EXPECTED[name]


@pytest.mark.parametrize("name", DROPPED["not_allowed"])
def test_an_unknown_name_may_be_allowed(name: str) -> None:
    options = HeaderOptions(allow=frozenset({name}))
    assert verdict(name.title(), options=options) == ("forward", "allowed")
    nominated = verdict(name, "v", ("connection", name), options=options)
    assert nominated == ("drop", "connection_nominated")


def test_traceparent_alone_of_the_tracing_row_may_be_allowed() -> None:
    options = HeaderOptions(traceparent=True)
    assert verdict("TraceParent", options=options) == ("forward", "tracing")
    for name in set(DROPPED["tracing"]) - {"traceparent"}:
        assert verdict(name, options=options) == ("drop", "tracing")


def test_a_turn_state_moves_only_if_the_serving_account_gave_it() -> None:
    assert verdict("X-Codex-Turn-State", ours=True) == ("move", "turn_state")
    assert verdict("X-Codex-Turn-State", ours=False) == ("drop", "turn_state")
    nominated = verdict("x-codex-turn-state", "v", ("connection", "x-codex-turn-state"), ours=True)
    assert nominated == ("drop", "connection_nominated")


def test_connection_lines_and_comma_lists_are_all_honoured() -> None:
    lines = [
        ("Connection", "keep-alive,  Originator\t,, "),
        ("X-Other", "version"),
        ("CONNECTION", "session-id"),
        ("connection", ""),
    ]
    assert connection_nominated(lines) == {"keep-alive", "originator", "session-id"}
    options = HeaderOptions()
    named = [("originator", "a"), ("version", "b"), ("Session-Id", "c"), *lines]
    assert [d.rule for d in decide(named, options)[:3]] == [
        "connection_nominated", "allowed", "connection_nominated",
    ]  # fmt: skip


def test_a_connection_line_may_nominate_itself() -> None:
    assert verdict("Connection", "connection") == ("drop", "connection_nominated")


def test_the_first_row_wins() -> None:
    # The order of the rows is part of the contract: `inspect rules` prints it.
    assert [row.rule for row in RULES] == [
        "connection_nominated", "hop_by_hop", "websocket_handshake", "http_framing",
        "http_negotiation", "client_credential", "network_identity", "browser_metadata",
        "tracing", "beta_tokens", "turn_state", "per_turn_metadata", "request_identity",
        "allowed", "not_allowed",
    ]  # fmt: skip
    assert all(row.reason for row in RULES)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], BETA),
        ([""], BETA),
        ([" , ,"], BETA),
        (["responses=experimental"], BETA),
        (["RESPONSES = experimental"], BETA),
        (["assistants=v2"], f"assistants=v2, {BETA}"),
        (["assistants=v2,responses=experimental,  x=1"], f"assistants=v2, x=1, {BETA}"),
        (["a=1", "b=2,a=1"], f"a=1, b=2, {BETA}"),
        (["responses_websockets=2027-01-01"], "responses_websockets=2027-01-01"),
        (
            ["a=1, responses_websockets=2027-01-01", "responses_websockets=2025-05-05, b=2"],
            "a=1, responses_websockets=2027-01-01, b=2",
        ),
        (["responses_multi_agent=v1"], f"responses_multi_agent=v1, {BETA}"),
        (["responses_websockets"], BETA),
        (["responses"], f"responses, {BETA}"),
    ],
)
def test_beta_tokens(lines: list[str], expected: str) -> None:
    assert beta_tokens([("OpenAI-Beta", line) for line in lines], BETA) == expected


def test_the_configured_beta_token_is_added_only_if_the_client_sent_none() -> None:
    configured = "responses_websockets=2030-01-01"
    assert beta_tokens([("openai-beta", "a=1")], configured) == f"a=1, {configured}"
    assert beta_tokens([("openai-beta", BETA)], configured) == BETA


@pytest.mark.parametrize("bad", [chr(n) for n in (*range(9), *range(10, 32), 127)])
def test_control_characters_are_refused(bad: str) -> None:
    with pytest.raises(InvalidHeader) as value_error:
        decide([("user-agent", "ok"), ("x-secret", f"sk-test-LEAK{bad}")], HeaderOptions())
    assert "sk-test-LEAK" not in str(value_error.value)
    with pytest.raises(InvalidHeader):
        decide([(f"x-a{bad}", "v")], HeaderOptions())
    assert issubclass(InvalidHeader, UsageError)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\t", "ä", "a(b)", "a/b", '"a"', "a\u2028"])
def test_names_that_are_no_tokens_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader):
        check_header(name, "v")


@pytest.mark.parametrize("value", ["", "a\tb", "caf\xe9", "\x80\xff", " padded "])
def test_values_that_are_legal(value: str) -> None:
    check_header("x-a", value)


@pytest.mark.parametrize("value", ["\u20ac", "\ud800"])
def test_values_that_are_no_bytes_are_refused(value: str) -> None:
    with pytest.raises(InvalidHeader):
        check_header("x-a", value)


@given(st.text(st.characters(max_codepoint=0x17F)))
def test_a_value_is_refused_exactly_if_it_cannot_be_sent(text: str) -> None:
    legal = all(c == "\t" or (0x20 <= ord(c) <= 0xFF and c != "\x7f") for c in text)
    if legal:
        check_header("x-a", text)
    else:
        with pytest.raises(InvalidHeader):
            check_header("x-a", text)


def test_a_decision_keeps_the_line_as_it_came_and_hides_its_value() -> None:
    (decision,) = decide([("X-Api-Key", "sk-test-LEAK")], HeaderOptions())
    assert (decision.name, decision.value) == ("X-Api-Key", "sk-test-LEAK")
    assert "LEAK" not in repr(decision)
    assert decision.reason
    assert decision.action is Action.DROP


def test_the_table_here_names_every_row() -> None:
    named = {rule for _, rule in EXPECTED.values()} | {"connection_nominated"}
    assert named == {row.rule for row in RULES}
    exact = {n for row in RULES[1:] for n in row.names if not n.endswith("*")}
    assert exact <= set(EXPECTED)
    assert set(FORWARDED) | set(MOVED) <= exact
