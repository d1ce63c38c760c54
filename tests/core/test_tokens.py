"""What tokens say: read leniently, and nothing at all of what is no token."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.tokens import NEEDED_BEFORE_SECONDS, Claims, read_claims, refresh_due
from tests.core.pools import NOW

AUTH = {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "plus", "chatgpt_user_id": "u"}


def jwt(payload: Any) -> str:
    """A token without a signature."""
    parts = ({"alg": "none"}, payload)
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    return b".".join([*encoded, b""]).decode()


@pytest.mark.parametrize(
    ("payload", "claims"),
    [
        ({"exp": NOW}, Claims(expires_at=NOW)),
        ({"exp": NOW, "iat": NOW - 9}, Claims(expires_at=NOW, issued_at=NOW - 9)),
        ({"email": "a@b.c"}, Claims(email="a@b.c")),
        ({"https://api.openai.com/profile": {"email": "a@b.c"}}, Claims(email="a@b.c")),
        ({"https://api.openai.com/auth": AUTH}, Claims(account_id="acc-1", plan="plus")),
        ({"exp": True, "email": 1, "https://api.openai.com/auth": []}, Claims()),
        ({"exp": 1e300, "email": "a\nb"}, Claims()),
        ({"exp": -1}, Claims()),
        ([], Claims()),
        ("text", Claims()),
    ],
)
def test_claims(payload: Any, claims: Claims) -> None:
    assert read_claims(jwt(payload)) == claims


@given(st.text() | st.binary().map(lambda b: "a." + base64.urlsafe_b64encode(b).decode() + ".c"))
def test_what_is_no_token_says_nothing_and_breaks_nothing(text: str) -> None:
    read_claims(text)


@pytest.mark.parametrize(
    ("expires_in", "age", "due"),
    [(301, 3600, False), (300, 3600, True), (-5, 3600, True), (None, 0, False),
     (None, 8 * 86400, True), (3600, 30 * 86400, False)],
)  # fmt: skip
def test_when_a_refresh_is_due(expires_in: float | None, age: float, due: bool) -> None:
    expires_at = None if expires_in is None else NOW + expires_in
    assert refresh_due(expires_at, NOW - age, NOW) is due


@pytest.mark.parametrize(
    ("expires_in", "age", "life", "due"),
    [(-5, 59, None, False), (-5, 60, None, True), (-5, -1, None, True), (-7200, 1799, 3600, False),
     (-7200, 1800, 3600, True), (120, 59, 120, False), (60, 60, 120, True), (10, 0, 1e9, False)],
)  # fmt: skip
def test_a_new_token_is_left_alone_whatever_the_clock_says(
    expires_in: float, age: float, life: float | None, due: bool
) -> None:
    issued_at = None if life is None else NOW + expires_in - life
    assert refresh_due(NOW + expires_in, NOW - age, NOW, issued_at=issued_at) is due


def test_before_a_dial_only_what_is_about_to_end_is_refreshed() -> None:
    for expires_in, due in ((31, False), (30, True), (-1, True)):
        told = refresh_due(NOW + expires_in, 0, NOW, before_seconds=NEEDED_BEFORE_SECONDS)
        assert told is due
