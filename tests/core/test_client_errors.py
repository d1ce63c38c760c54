"""What a client is told when nobody can serve (rule 4a), and the envelope of every code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.client_errors import (
    STATUSES,
    ClientError,
    Shortage,
    error_type,
    no_accounts,
    nobody_can_serve,
    owner_unavailable,
    upstream_unavailable,
)
from codexlb_cli.core.selection import Pool
from tests.core.pools import NOW, pool, pools

# The contract: code, status, type.
CONTRACT = [
    ("no_accounts", 503, "server_error"),
    ("owner_unavailable", 503, "server_error"),
    ("upstream_unavailable", 503, "server_error"),
    ("upstream_closed", 502, "server_error"),
    ("upstream_silent", 504, "server_error"),
    ("upstream_protocol_error", 502, "server_error"),
    ("rate_limit_exceeded", 429, "rate_limit_error"),
    ("usage_limit_reached", 429, "usage_limit_reached"),
    ("request_too_large", 400, "invalid_request_error"),
    ("previous_response_not_found", 400, "invalid_request_error"),
    ("invalid_request", 400, "invalid_request_error"),
    ("invalid_header", 400, "invalid_request_error"),
    ("queue_full", 429, "rate_limit_error"),
    ("forbidden_host", 403, "permission_error"),
    ("forbidden_origin", 403, "permission_error"),
    ("not_supported", 501, "invalid_request_error"),
]


@pytest.mark.parametrize(("code", "status", "kind"), CONTRACT)
def test_status_and_type_of_each_code(code: str, status: int, kind: str) -> None:
    error = ClientError(code, "m", param="p")
    assert error.status == status == STATUSES[code]
    assert error.envelope() == {"error": {"message": "m", "type": kind, "code": code, "param": "p"}}
    final = {"no_accounts", "owner_unavailable", "usage_limit_reached", "upstream_closed",
             "not_supported"}  # fmt: skip
    assert error.headers() == ([("x-should-retry", "false")] if code in final else [])
    assert error_type(code, status) == kind


def test_headers_and_the_time_of_a_limit() -> None:
    error = ClientError("upstream_closed", "m", retry_after=3, resets_at=9)
    assert error.headers() == [("retry-after", "3"), ("x-should-retry", "false")]
    inner = error.envelope()["error"]
    assert isinstance(inner, dict)
    assert (inner["resets_at"], inner["param"]) == (9, None)


def shortage(accounts: Pool, owner: str | None = None, **until: float) -> ClientError:
    names = [owner] if owner else [a.name for a in accounts.accounts]
    return nobody_can_serve(
        Shortage(names, owner, {n: NOW + s for n, s in until.items()}), accounts
    )


@pytest.mark.parametrize(
    ("accounts", "owner", "until", "code", "retry_after"),
    [
        (pool("work", work="limited"), None, {}, "rate_limit_exceeded", 42),
        (pool("work", "home", work="limited_for_long", home="limited"), None, {},
         "rate_limit_exceeded", 42),
        (pool("work", work="limited_for_long"), None, {}, "usage_limit_reached", None),
        (pool("work", "home", work="limited_for_long", home="back_soon"), "work", {},
         "usage_limit_reached", None),
        (pool("work", "home", work="needs_login", home="limited"), "work", {},
         "owner_unavailable", None),
        (pool("work", "home", work="disabled"), "work", {}, "owner_unavailable", None),
        (pool("home"), "work", {}, "owner_unavailable", None),
        (pool("work"), "work", {"work": 10.0}, "rate_limit_exceeded", 10),
        (pool("work", "home"), None, {"work": 10.0, "home": 3.2}, "rate_limit_exceeded", 4),
        (pool("work"), None, {"work": 60.0}, "rate_limit_exceeded", 60),
        (pool("work"), None, {"work": 60.5}, "usage_limit_reached", None),
        (pool("work"), None, {"work": 0.2}, "rate_limit_exceeded", 1),
        (pool("work", "home", work="disabled", home="disabled"), None, {}, "no_accounts", None),
        (Pool((), NOW), None, {}, "no_accounts", None),
    ],
)  # fmt: skip
def test_nobody_can_serve(
    accounts: Pool,
    owner: str | None,
    until: dict[str, float],
    code: str,
    retry_after: int | None,
) -> None:
    error = shortage(accounts, owner, **until)
    assert (error.code, error.retry_after) == (code, retry_after)
    assert (error.resets_at is not None) == (code == "usage_limit_reached")
    if code == "owner_unavailable":
        assert f"`{owner}`" in error.message


def test_a_usage_limit_tells_when_it_ends() -> None:
    assert shortage(pool("work", work="limited_for_long")).resets_at == NOW + 7200


def test_no_accounts_names_the_command_that_helps() -> None:
    assert "codexlb accounts add" in no_accounts(Pool((), NOW)).message
    assert "codexlb accounts enable work" in no_accounts(pool("work", work="disabled")).message


def test_an_unavailable_owner_is_told_with_what_helps() -> None:
    assert "enable work" in owner_unavailable("work", pool("work", work="disabled")).message
    assert "sign in" in owner_unavailable("work", pool("work", work="needs_login")).message
    assert "no longer" in owner_unavailable("work", pool("home")).message
    missing = pool("work", missing=frozenset({"work"}))
    assert "credential" in owner_unavailable("work", missing).message


def test_retry_after_doubles_per_failure_up_to_thirty_seconds() -> None:
    waits = [upstream_unavailable("m", n).retry_after for n in range(8)]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


@given(
    pools(), st.booleans(), st.dictionaries(st.sampled_from(["work", "home"]), st.floats(-5, 1e9))
)
def test_retry_after_is_a_whole_number_of_at_most_a_minute(
    accounts: Pool, keyed: bool, until: dict[str, float]
) -> None:
    error = shortage(accounts, "work" if keyed else None, **until)
    assert error.code in {
        "rate_limit_exceeded", "usage_limit_reached", "owner_unavailable", "no_accounts",
    }  # fmt: skip
    assert (error.retry_after is not None) == (error.code == "rate_limit_exceeded")
    if error.retry_after is not None:
        assert isinstance(error.retry_after, int)
        assert 1 <= error.retry_after <= 60
    if error.code == "usage_limit_reached":
        assert isinstance(error.resets_at, int)
        assert error.resets_at > NOW + 60


def test_the_earliest_time_counts() -> None:
    states = {
        "work": AccountState(limited_until=NOW + 50),
        "home": AccountState(limited_until=NOW + 20),
    }
    assert shortage(replace(pool("work", "home"), states=states)).retry_after == 20
