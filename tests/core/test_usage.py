"""What is remembered of a turn: tokens as the upstream says them, outcomes, names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import parse
from codexlb_cli.core.usage import (
    LONGEST_NAME,
    LONGEST_SESSION,
    UNKNOWN,
    Tokens,
    TurnRecord,
    named,
    outcome_of,
    response_of,
    tokens_in,
)

USAGE: dict[str, Any] = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 120,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def record(outcome: str = "completed", session: str = "s") -> TurnRecord:
    return TurnRecord(0.0, "work", "m", Key("session", session), 200, outcome, 1)


def test_tokens_are_read_from_the_terminal_event() -> None:
    response = response_of({"type": "response.completed", "response": {"usage": USAGE}})
    assert tokens_in(response) == Tokens(100, 60, 20, 5, 120)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, UNKNOWN),
        ({}, UNKNOWN),
        ([1], UNKNOWN),
        ({"input_tokens": 0, "output_tokens": 0}, Tokens(input=0, output=0)),
        ({**USAGE, "input_tokens_details": None}, Tokens(100, None, 20, 5, 120)),
        ({**USAGE, "input_tokens": -1}, Tokens(None, 60, 20, 5, 120)),
        ({**USAGE, "output_tokens": True}, Tokens(100, 60, None, 5, 120)),
        ({**USAGE, "output_tokens": 1.5}, Tokens(100, 60, None, 5, 120)),
        ({**USAGE, "total_tokens": 10**30}, Tokens(100, 60, 20, 5, None)),
        ({**USAGE, "input_tokens_details": {"cached_tokens": 101}}, Tokens(100, None, 20, 5, 120)),
    ],
)
def test_what_is_absent_or_nonsense_is_unknown(usage: object, tokens: Tokens) -> None:
    assert tokens_in({"usage": usage}) == tokens


@settings(deadline=None)
@given(JSON, st.sampled_from([*USAGE]))
def test_no_usage_is_too_strange(value: object, member: str) -> None:
    tokens = tokens_in(response_of({"response": {"usage": {**USAGE, member: value}}}))
    for count in (tokens.input, tokens.cached, tokens.output, tokens.reasoning, tokens.total):
        assert count is None or 0 <= count <= 10**12
    assert tokens_in(response_of({"response": value})) is not None


@pytest.mark.parametrize(
    ("ended_with", "outcome", "is_error"),
    [
        ("response.completed", "completed", False),
        ("response.done", "completed", False),
        ("response.incomplete", "incomplete", False),
        ("response.failed", "failed", True),
        ("error", "upstream_error", True),
    ],
)
def test_outcomes_of_terminal_events(ended_with: str, outcome: str, is_error: bool) -> None:
    found = outcome_of(ended_with, None)
    assert found == outcome
    assert record(outcome).is_error is is_error


def test_outcomes_of_errors() -> None:
    assert outcome_of(None, ClientError("queue_full", "-")) == "queue_full"
    assert outcome_of(None, parse(400, {"error": {"code": "c"}}, {}, 0.0, handshake=False)) == "c"
    assert outcome_of(None, parse(500, {}, {}, 0.0, handshake=False)) == "upstream_error"
    assert outcome_of(None, None) is None
    assert record("queue_full").is_error
    assert not record("client_left").is_error


@settings(deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_names_can_be_stored_and_are_short(text: str) -> None:
    name = named(text)
    assert (name is None) is (text == "")
    assert len(name or "") <= LONGEST_NAME
    (name or "").encode()
    assert named(7) is None


def test_long_sessions_are_cut_but_stay_apart() -> None:
    one, other = (record(session="x" * 5000 + end).session for end in "ab")
    assert len(one) == len(other) == LONGEST_SESSION
    assert one != other
    assert record(session="x" * LONGEST_SESSION).session == "x" * LONGEST_SESSION
