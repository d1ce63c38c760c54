"""Limits as upstreams send them: in headers, events, errors and the usage document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.readings import from_error, from_event, from_headers, from_usage
from codexlb_cli.core.windows import LONGEST_LIMIT_SECONDS, Credits, Limits, Rate, Window
from tests.core.pools import NOW

AT = 1_800_003_600
FULL = Limits(
    primary=Window(55.0, NOW, 300, AT),
    secondary=Window(12.0, NOW, 10_080, AT + 5),
    credits=Credits(has_credits=True, unlimited=False, balance="9.99"),
    seen_at=NOW,
)
HEADERS = {
    "X-Codex-Primary-Used-Percent": "55",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-at": str(AT),
    "x-codex-secondary-used-percent": 12.0,
    "x-codex-secondary-window-minutes": 10080,
    "x-codex-secondary-reset-at": AT + 5,
    "x-codex-credits-has-credits": "true",
    "x-codex-credits-unlimited": "0",
    "x-codex-credits-balance": "9.99",
}
EVENT: dict[str, Any] = {
    "type": "codex.rate_limits",
    "plan_type": "plus",
    "rate_limits": {
        "allowed": True,
        "limit_reached": False,
        "primary": {"used_percent": 55, "window_minutes": 300, "reset_at": AT},
        "secondary": {"used_percent": 12, "window_minutes": 10080, "reset_at": AT + 5},
    },
    "credits": {"has_credits": True, "unlimited": False, "balance": "9.99"},
}
USAGE: dict[str, Any] = {
    "plan_type": "plus",
    "rate_limit": {
        "allowed": True,
        "limit_reached": False,
        "primary_window": {
            "used_percent": 55, "limit_window_seconds": 18_000,
            "reset_after_seconds": AT - NOW, "reset_at": 1,
        },
        "secondary_window": {
            "used_percent": 12, "limit_window_seconds": 604_800, "reset_at": AT + 5,
        },
    },
    "credits": EVENT["credits"],
    "additional_rate_limits": None,
}  # fmt: skip


def test_the_same_limits_from_every_source() -> None:
    assert from_headers(HEADERS.items(), NOW) == FULL
    named = Limits(**{**_fields(FULL), "plan": "plus", "reached": False})
    assert from_event(EVENT, NOW) == named
    assert from_usage(USAGE, NOW) == named, "a span wins over a time: it is right on any clock"


def _fields(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in Limits.__slots__}


@pytest.mark.parametrize(
    ("more", "is_read"),
    [
        ({}, True),
        ({"metered_limit_name": "codex"}, True),
        ({"metered_limit_name": None, "limit_name": "Codex"}, True),
        ({"metered_limit_name": "codex", "limit_name": "anything"}, True),
        ({"metered_limit_name": "codex_other"}, False),
        ({"limit_name": "gpt-5.2-spark"}, False),
        ({"metered_limit_name": 7}, False),
    ],
)
def test_only_the_limit_called_codex_is_read(more: dict[str, object], is_read: bool) -> None:
    assert (from_event({**EVENT, **more}, NOW) is not None) is is_read


@pytest.mark.parametrize(
    ("limits", "reached"),
    [
        ({"allowed": True, "limit_reached": False}, False),
        ({"allowed": True, "limit_reached": True}, True),
        ({"allowed": False, "limit_reached": False}, True),
        ({"allowed": False}, True),
        ({"limit_reached": "true"}, True),
        ({"allowed": True}, None),
    ],
)
def test_whether_a_limit_is_reached(limits: dict[str, object], reached: bool | None) -> None:
    told = from_event({"rate_limits": limits}, NOW)
    assert (told.reached if told else None) is reached


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            Rate(60, 59, NOW, NOW + 1),
            Rate(150_000, 149_984, NOW, NOW + 360),
        ),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "20",
            },
            Rate(60, 0, NOW, NOW + 20),
            None,
        ),
        ({"x-ratelimit-remaining-requests": "0"}, None, None),
        ({"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}, None, None),
    ],
)
def test_the_rates_of_an_api_key(
    headers: dict[str, object], requests: Rate | None, tokens: Rate | None
) -> None:
    told = from_headers(headers.items(), NOW)
    assert (told.requests if told else None) == requests
    assert (told.tokens if told else None) == tokens


@pytest.mark.parametrize(
    ("used", "minutes", "reset_at", "expected"),
    [
        (150, 300, AT, Window(100, NOW, 300, AT)),
        (0, None, None, None),
        (0, 0, 0, None),
        (0, 300, None, Window(0, NOW, 300, None)),
        ("7", None, None, Window(7, NOW, None, None)),
        (-1, 300, AT, None),
        ("nan", 300, AT, None),
        (True, 300, AT, None),
        (None, 300, AT, None),
        ("many", 300, AT, None),
        (9, "soon", "never", Window(9, NOW, None, None)),
        (9, 300, "2027-01-15T09:00:00Z", Window(9, NOW, 300, AT)),
        (9, 300, AT * 1000, Window(9, NOW, 300, AT)),
        (9, 300, 1e11 - 1, Window(9, NOW, 300, NOW + LONGEST_LIMIT_SECONDS)),
    ],
)
def test_a_window_is_read_leniently_and_never_believed_beyond_reason(
    used: object, minutes: object, reset_at: object, expected: Window | None
) -> None:
    window = {"used_percent": used, "window_minutes": minutes, "reset_at": reset_at}
    told = from_event({"rate_limits": {"primary": window}}, NOW)
    assert (told.primary if told else None) == expected


def test_an_error_tells_the_plan_and_its_headers() -> None:
    error = {"type": "usage_limit_reached", "plan_type": "free", "resets_in_seconds": 9}
    told = from_error(error, HEADERS, NOW)
    assert told == Limits(**{**_fields(FULL), "plan": "free"})
    assert from_error({"code": "nope"}, {"content-type": "text/html"}, NOW) is None


@pytest.mark.parametrize(
    "nonsense",
    [None, [], "<html>", {}, {"rate_limit": None}, {"rate_limit": {"primary_window": [1]}},
     {"credits": {"has_credits": True}}, {"plan_type": "x" * 65}, {"plan_type": "a\nb"}],
)  # fmt: skip
def test_nonsense_says_nothing(nonsense: object) -> None:
    assert from_usage(nonsense, NOW) is None
    if isinstance(nonsense, dict):
        assert from_event(nonsense, NOW) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
tables = st.dictionaries(
    st.sampled_from(["used_percent", "window_minutes", "reset_at", "limit_window_seconds",
                     "reset_after_seconds", "primary", "secondary", "primary_window",
                     "rate_limits", "rate_limit", "allowed", "limit_reached", "credits",
                     "has_credits", "unlimited", "balance", "plan_type", "limit_name"]),
    anything | st.dictionaries(st.sampled_from(["used_percent", "reset_at", "primary"]), anything),
)  # fmt: skip


@given(tables, tables)
def test_whatever_comes_is_sane_or_nothing(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    window = {**outer, "primary": inner, "primary_window": inner}
    document = {**outer, "rate_limits": window, "rate_limit": window}
    headers = {f"x-codex-primary-{k.replace('_', '-')}": v for k, v in inner.items()}
    for told in (
        from_event(document, NOW),
        from_usage(document, NOW),
        from_headers(headers.items(), NOW),
        from_error(outer, headers, NOW),
    ):
        if told is None:
            continue
        for _, window_ in told.windows:
            assert 0 <= window_.used_percent <= 100
            assert window_.resets_at is None or window_.resets_at <= NOW + LONGEST_LIMIT_SECONDS
        json.dumps(_shown(told), allow_nan=False)


def _shown(limits: Limits) -> list[object]:
    windows = [(w.used_percent, w.minutes, w.resets_at) for _, w in limits.windows]
    return [limits.plan, limits.reached, *windows]
