"""What is passed on: which paths, to which account, and what is held against an account."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.calls import conclude, goes_on, listed_accounts, refusal
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import DIAL_FAILURE
from codexlb_cli.core.headers import Header
from codexlb_cli.core.passing import PassedCall, blames, read_passed, route_passed
from codexlb_cli.core.selection import Pool
from tests.core.pools import NOW, pool, pools

GET = PassedCall("GET", "/batches/batch_1")


def test_paths_go_on_as_they_came() -> None:
    for raw in ("/embeddings", "/a%2Cb/c%20d", "/x/", "/x/files/a%3Fb"):
        call = read_passed("PUT", "/v1", f"/v1{raw}", [])
        assert isinstance(call, PassedCall)
        assert (call.method, call.path, call.takes_body) == ("PUT", raw, False)


@pytest.mark.parametrize("raw", ["/%76%31/embeddings", "/v%31/files/f/new", "/v1%2fembeddings"])
def test_a_prefix_that_is_written_in_other_words(raw: str) -> None:
    error = read_passed("GET", "/v1", raw, [])
    assert isinstance(error, ClientError)
    assert error.code == "invalid_request"


@given(st.text(st.sampled_from("./%2eEfF5cab\\"), max_size=24))
def test_no_path_leads_out_of_the_base_url(tail: str) -> None:
    call = read_passed("GET", "/v1", f"/v1/{tail}", [])
    if isinstance(call, ClientError):
        assert call.code in ("invalid_request", "not_supported")
        return
    segments = [unquote(segment) for segment in call.path.split("/")]
    assert not {".", ".."} & set(segments)
    assert not any("/" in segment or "\\" in segment for segment in segments)


@pytest.mark.parametrize(
    ("prefix", "path", "code", "said"),
    [
        ("/v1", "/realtime", "not_supported", "WebSocket"),
        ("/v1", "/realtime/calls/1", "not_supported", "WebSocket"),
        ("/backend-api/codex", "/x", "not_supported", "POST /backend-api/codex/x is not bridged"),
        ("/v1", "/a/../b", "invalid_request", "path"),
        ("/v1", "%2F..%2F..%2Fadmin/x", "invalid_request", "path"),
        ("/v1", "%2ffiles/f/new", "invalid_request", "path"),
        # A turn by a side door would belong to nobody.
        ("/v1", "/responses/", "not_supported", "which account"),
        ("/v1", "/%72esponses", "not_supported", "which account"),
        ("/v1", "/responses/r/new", "not_supported", "which account"),
        ("/v1", "/conversations/c/new", "not_supported", "which account"),
        ("/v1", "/files/f/new", "not_supported", "which account"),
        ("/v1", "/uploads", "not_supported", "which account"),
        ("/v1", "/", "not_supported", "no endpoint"),
        ("/v1", "", "not_supported", "no endpoint"),
    ],
)
def test_what_is_not_passed_on(prefix: str, path: str, code: str, said: str) -> None:
    error = read_passed("POST", prefix, prefix + path, [])
    assert isinstance(error, ClientError)
    assert error.code == code
    assert said in error.message


@pytest.mark.parametrize(
    ("inbound", "has_body"),
    [
        ([], False),
        ([("Content-Length", "0")], False),
        ([("content-length", "10")], True),
        ([("Transfer-Encoding", "chunked")], True),
    ],
)
def test_whether_a_request_has_a_body(inbound: list[Header], *, has_body: bool) -> None:
    call = read_passed("POST", "/v1", "/v1/x", inbound)
    assert isinstance(call, PassedCall)
    assert call.takes_body is has_body


@pytest.mark.parametrize(
    ("method", "path", "reads", "repeatable"),
    [
        ("GET", "/batches/b", True, True),
        ("HEAD", "/batches/b", True, True),
        ("GET", "/batches", False, True),
        ("GET", "/batches/", False, True),
        ("DELETE", "/batches/b", False, True),
        ("PUT", "/batches/b", False, True),
        ("POST", "/batches/b/cancel", False, False),
        ("PATCH", "/batches/b", False, False),
    ],
)
def test_what_a_method_does(method: str, path: str, *, reads: bool, repeatable: bool) -> None:
    call = PassedCall(method, path)
    assert (call.reads, call.repeatable) == (reads, repeatable)


def with_plans(accounts: Pool, *plans: str) -> Pool:
    changed = tuple(replace(a, kind="chatgpt") if a.name in plans else a for a in accounts.accounts)
    return replace(accounts, accounts=changed)


@pytest.mark.parametrize(
    ("accounts", "owner", "expected"),
    [
        (pool("a", "b", "c"), None, ("a", "b", "c")),
        (pool("a", "b", "c", a="cooling"), None, ("a", "b", "c")),
        (pool("a", "b", "c", a="limited"), None, ("b", "c")),
        (pool("a", "b", "c"), "c", ("c", "a", "b")),
        (pool("a", "b", "c", c="disabled"), "c", ("a", "b")),
        (with_plans(pool("a", "b", "c"), "a"), None, ("b", "c", "a")),
        (with_plans(pool("a", "b", "c"), "a"), "a", ("b", "c", "a")),
        (with_plans(pool("a", "b"), "a", "b"), "b", ("b", "a")),
        (pool("a", a="disabled"), None, ()),
    ],
)
def test_which_accounts_are_asked(
    accounts: Pool, owner: str | None, expected: tuple[str, ...]
) -> None:
    route = route_passed(GET, owner, accounts)
    assert route.plan.candidates == expected
    assert (route.plan.error is None) is bool(expected)


@given(pools(), st.sampled_from([None, "work", "home", "gone"]))
def test_every_usable_account_is_asked_and_no_other(accounts: Pool, owner: str | None) -> None:
    names = route_passed(GET, owner, accounts).plan.candidates
    assert sorted(names) == sorted(listed_accounts(accounts))


def test_a_not_found_leads_on_only_where_something_is_read() -> None:
    accounts = pool("work", "home")
    missing = refusal(404, {"error": {"message": "No."}}, {}, NOW)
    posted = PassedCall("POST", "/batches/b/cancel")
    reading, posting = (route_passed(call, None, accounts) for call in (GET, posted))
    assert goes_on(reading, missing, sent=False)
    assert not goes_on(posting, missing, sent=False)
    told = conclude(reading, {"work": missing, "home": DIAL_FAILURE}, accounts)
    assert isinstance(told, ClientError)
    assert told.code == "upstream_unavailable"


@pytest.mark.parametrize(
    ("status", "code", "blamed"),
    [
        (401, None, False),
        (401, "invalid_api_key", True),
        (401, "token_expired", True),
        (403, None, False),
        (403, "insufficient_permissions", False),
        (429, None, False),
        (429, "rate_limit_exceeded", False),
        (429, "insufficient_quota", True),
        (429, "usage_limit_reached", True),
        (503, None, False),
        (400, None, False),
    ],
)
def test_what_is_held_against_the_account(status: int, code: str | None, *, blamed: bool) -> None:
    assert blames(refusal(status, {"error": {"code": code}}, {}, NOW)) is blamed
