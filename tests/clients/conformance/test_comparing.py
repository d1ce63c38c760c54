"""The comparison itself: it must notice what differs, and nothing that only a run makes up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.clients.conformance.comparing import Played, complaints, neutral
from tests.clients.conformance.scenario import ABSENT, Scenario, at, replace_at

SEEN: dict[str, Any] = {"text": "hi", "events": [{"type": "a"}, {"type": "b"}], "error": None}


def scenario(**more: Any) -> Scenario:
    return Scenario("codex", "HTTP", "one", "do", {"text": "hi"}, **more)


def played(gateway: dict[str, Any], basis: dict[str, Any] = SEEN) -> Played:
    return Played(SEEN, basis, gateway)


def test_the_same_is_the_same() -> None:
    assert complaints(scenario(), played(dict(SEEN))) == []


@pytest.mark.parametrize(
    "gateway",
    [
        SEEN | {"text": "ho"},
        SEEN | {"more": 1},
        {"text": "hi"},
        SEEN | {"events": [{"type": "b"}, {"type": "a"}]},
    ],
)
def test_anything_else_is_noticed(gateway: dict[str, Any]) -> None:
    (complaint,) = complaints(scenario(), played(gateway))
    assert "through the gateway" in complaint


def test_a_scenario_that_does_not_come_about_is_noticed() -> None:
    other = SEEN | {"text": "ho"}
    (complaint,) = complaints(scenario(), Played(other, other, other))
    assert "`text` should be 'hi'" in complaint


def test_an_intended_difference_must_be_there() -> None:
    differing = scenario(differs={"events.-1.type": "c"}, why="because")
    gateway = SEEN | {"events": [{"type": "a"}, {"type": "c"}]}
    assert complaints(differing, played(gateway)) == []
    assert complaints(differing, played(dict(SEEN))) != []
    stale = scenario(differs={"events.-1.type": "b"}, why="because")
    assert complaints(stale, played(dict(SEEN))) == ["`events.-1.type` is no difference: 'b'"]


def test_what_is_hidden_looks_like_an_upstream_without_it() -> None:
    hiding = scenario(rules=(TurnRule(close=1011),), hidden=(), why="because")
    basis = SEEN | {"id": "resp_c0ffee000000000001"}
    assert complaints(hiding, played(SEEN | {"id": "resp_c0ffee000000000002"}, basis)) == []
    assert complaints(hiding, played(SEEN | {"id": "resp_other"}, basis)) != []


def test_a_difference_needs_a_reason_and_a_reason_a_difference() -> None:
    with pytest.raises(ValueError, match="reason"):
        scenario(differs={"text": "ho"})
    with pytest.raises(ValueError, match="reason"):
        scenario(why="because")


def test_paths() -> None:
    document: dict[str, Any] = {"a": [{"b": 1}, 2]}
    assert (at(document, "a.0.b"), at(document, "a.-1")) == (1, 2)
    replace_at(document, "a.0.b", 3)
    replace_at(document, "a.+", [4, 5])
    assert document == {"a": [{"b": 3}, 2, 4, 5]}
    replace_at(document, "a", ABSENT)
    assert document == {}


@pytest.mark.parametrize(
    ("seen", "plain"),
    [
        (
            {"usage": {"input_tokens": 7, "output_tokens": 3}},
            {"usage": {"input_tokens": 0, "output_tokens": 3}},
        ),
        ("see http://127.0.0.1:9", "see http://HOST"),
        ([{"type": "response.metadata", "headers": {"x-codexlb-account": "work"}}], []),
        (
            [{"type": "response.metadata", "headers": {"x-codex-turn-state": "s"}}],
            [{"type": "response.metadata", "headers": {"x-codex-turn-state": "s"}}],
        ),
        ({"headers": {"retry-after": "1", "x-request-id": "r"}}, {"headers": {"retry-after": "1"}}),
        ({"headers": {"x-request-id": "r"}}, {}),
        ("failed, request id: " + "0" * 36, "failed"),
        ("limit. Try again at Nov 26th, 2026 1:05 AM.", "limit. Try again at TIME."),
        ('got {"b":1,"headers":{"x-request-id":"r"},"a":2}', 'got {"a": 2, "b": 1}'),
        ('got {"b', 'got {"b'),
    ],
)
def test_what_a_run_makes_up_is_left_out(seen: Any, plain: Any) -> None:
    assert neutral(seen, {"127.0.0.1:9": "HOST"}) == plain
    json.dumps(plain)
