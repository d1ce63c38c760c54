from __future__ import annotations

import pytest
from pydantic import ValidationError

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (TurnRule(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (TurnRule(times=2), [1, 2]),
        (TurnRule(every=2), [1, 3, 5, 7]),
        (TurnRule(skip=3), [4, 5, 6, 7, 8]),
        (TurnRule(skip=1, every=3, times=2), [2, 5]),
    ],
)
def test_when_a_rule_is_due(rule: TurnRule, due: list[int]) -> None:
    assert [number for number in range(1, 9) if rule.due(number)] == due


@pytest.mark.parametrize(
    "keys",
    [
        {"close": 999},
        {"close": 5000},
        {"close": True},
        {"close": "1011"},
        {"every": 0},
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": float("nan")},
        {"deltas": 10**9},
        {"error": {}, "failed": {}},
        {"silence": True, "close": 1011},
        {"silence": True, "error": {}},
        {"when": "created"},
        {"when": "sometime", "close": 1011},
        {"close": 1011, "after": 2},
        {"failed": {}, "when": "idle"},
        {"close": 1006, "reason": "why"},
        {"close": 1011, "reason": "é" * 62},
        {"pong": False},
        {"arguments": "{}"},
        {"metadata": {"bad name": "x"}},
        {"metadata": {"x": "a\r\nb: c"}},
        {"unknown": 1},
        {"error": {"status": 200}},
    ],
)
def test_a_turn_rule_that_means_nothing_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TurnRule.model_validate(keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"cut": True, "silence": True},
        {"cut": True, "status": 503},
        {"error": {}},
        {"body": "no"},
        {"status": 503, "error": {}, "body": "both"},
        {"status": 503, "error": {"status": 429}},
        {"status": 200},
        {"model": "mock"},
        {"close": 1011},
    ],
)
def test_a_handshake_rule_that_means_nothing_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HandshakeRule.model_validate(keys)


@pytest.mark.parametrize(
    ("rule", "point"),
    [
        (TurnRule(), None),
        (TurnRule(deltas=3), None),
        (TurnRule(close=1011), "before_created"),
        (TurnRule(send=("{",)), "before_created"),
        (TurnRule(failed=FailedSpec()), "created"),
        (TurnRule(incomplete="max_output_tokens"), "created"),
        (TurnRule(close=1000, when="idle"), "idle"),
    ],
)
def test_where_a_fault_happens(rule: TurnRule, point: str | None) -> None:
    assert rule.point == point


@pytest.mark.parametrize(
    ("error", "kind", "label"),
    [
        (ErrorSpec(), "server_error", "error server_error"),
        (ErrorSpec(status=503, code="overloaded"), "server_error", "error 503 overloaded"),
        (ErrorSpec(status=429, code="x"), "rate_limit_error", "error 429 x"),
        (ErrorSpec(status=400), "invalid_request_error", "error 400 invalid_request_error"),
        (ErrorSpec(status=429, type="usage_limit_reached"), "usage_limit_reached", None),
    ],
)
def test_an_error_has_a_type_and_a_name(error: ErrorSpec, kind: str, label: str | None) -> None:
    assert error.body["type"] == kind
    assert error.label == (label or "error 429 usage_limit_reached")


def test_other_keys_of_an_error_become_its_fields() -> None:
    error = ErrorSpec.model_validate({"plan_type": "plus", "resets_at": 7})
    assert (error.body["plan_type"], error.body["resets_at"]) == ("plus", 7)
