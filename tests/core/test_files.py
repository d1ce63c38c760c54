"""Files: which calls are taken, which account each goes to, and what the client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import UNKEYED, Key
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.failures import DIAL_FAILURE, Failure
from codexlb_cli.core.files import (
    CALLS,
    FileCall,
    FileRoute,
    Verb,
    conclude,
    goes_on,
    listed_accounts,
    pins,
    read_call,
    refusal,
    route_known,
    route_list,
    route_new,
    route_unknown,
)
from codexlb_cli.core.ownership import NEW, KeyRecord, Ownership
from codexlb_cli.core.selection import Pool
from tests.core.pools import NOW, pool, pool_of, pools

POLICY = ReconnectPolicy()
DEADLINE = NOW + 240
SESSION = Key("session", "s")

PATHS = {
    ("POST", "/files"): Verb.CREATE,
    ("GET", "/files"): Verb.LIST,
    ("GET", "/files/file-1"): Verb.RETRIEVE,
    ("DELETE", "/files/file-1"): Verb.DELETE,
    ("GET", "/files/file-1/content"): Verb.CONTENT,
    ("POST", "/uploads"): Verb.BEGIN,
    ("POST", "/uploads/upload_1/parts"): Verb.ADD_PART,
    ("POST", "/uploads/upload_1/complete"): Verb.COMPLETE,
    ("POST", "/uploads/upload_1/cancel"): Verb.CANCEL,
}


def test_every_call_keeps_its_method_and_path() -> None:
    made = {}
    for row in CALLS:
        name = "upload_1" if row.path.startswith("/uploads/") else "file-1"
        call = read_call(row, name if "{id}" in row.path else None)
        assert call is not None
        made[call.method, call.path] = call.verb
        assert call.takes_body is (row.method == "POST")
        assert call.creates is (row.verb in (Verb.CREATE, Verb.BEGIN))
    assert made == PATHS


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("file-abc", True),
        ("file_abc.x~1:2", True),
        ("...", True),
        ("f" * 256, True),
        ("f" * 257, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a?b", False),
        ("a#b", False),
        ("a%2e", False),
        ("a b", False),
        ("file\n", False),
        ("datei-ä", False),
    ],
)
def test_only_ids_may_stand_in_a_path(name: str, *, is_id: bool) -> None:
    assert (read_call(CALLS[2], name) is not None) is is_id


def owned(owner: str | None, *, bound: bool = True) -> Ownership:
    return Ownership(SESSION, KeyRecord(owner=owner, bound=bound and owner is not None))


@pytest.mark.parametrize(
    ("accounts", "ownership", "policy", "candidates", "reason"),
    [
        (pool("work", "home"), Ownership(UNKEYED, NEW), POLICY, ("work", "home"), "unkeyed"),
        (pool("work", "home", work="cooling"), Ownership(UNKEYED, NEW), POLICY,
         ("home", "work"), "unkeyed"),
        (pool("work", "home"), owned(None), POLICY, ("work", "home"), "first_turn"),
        (pool("work", "home"), owned("home"), POLICY, ("home",), "owner"),
        (pool("work", "home"), owned("home", bound=False), POLICY, ("home", "work"), "owner"),
        (pool("work", "home", home="back_soon"), owned("home"), POLICY, ("home",),
         "owner_is_waited_for"),
        (pool("work", "home", home="limited"), owned("home"), POLICY, ("work",), "account_failed"),
        (pool("work", "home", home="limited"), owned("home"),
         ReconnectPolicy(on_account_failure="fail"), (), "account_failed"),
    ],
)  # fmt: skip
def test_something_new_goes_where_a_first_turn_of_its_session_would(
    accounts: Pool,
    ownership: Ownership,
    policy: ReconnectPolicy,
    candidates: tuple[str, ...],
    reason: str,
) -> None:
    route = route_new(ownership, accounts, policy, DEADLINE)
    assert (route.plan.candidates, route.plan.reason) == (candidates, reason)
    assert (route.plan.error is None) is bool(candidates)


@pytest.mark.parametrize(
    ("state", "code", "retry_after"),
    [
        ("ready", None, None),
        ("cooling", None, None),
        ("back_soon", None, None),
        ("limited", "rate_limit_exceeded", 42),
        ("limited_for_long", "usage_limit_reached", None),
        ("needs_login", "owner_unavailable", None),
        ("disabled", "owner_unavailable", None),
    ],
)
def test_a_known_file_is_asked_of_its_owner_alone(
    state: str, code: str | None, retry_after: int | None
) -> None:
    route = route_known("home", pool("work", "home", home=state), POLICY, DEADLINE)
    assert (route.owner, route.asks) == ("home", False)
    assert route.plan.candidates == (() if code else ("home",))
    assert (route.plan.wait_seconds > 0) is (state == "back_soon")
    error = route.plan.error
    assert (error.code if error else None) == code
    if error is not None:
        assert error.retry_after == retry_after
        if code == "owner_unavailable":
            assert error.message.startswith("this file belongs to account `home`, which ")


@given(
    pools(), st.sampled_from(["work", "home", "gone"]), st.sampled_from(["move", "wait", "fail"])
)
def test_a_known_file_never_leads_to_another_account(accounts: Pool, owner: str, how: Any) -> None:
    policy = ReconnectPolicy(on_account_failure=how)
    route = route_known(owner, accounts, policy, DEADLINE)
    assert set(route.plan.candidates) <= {owner}
    assert bool(route.plan.candidates) is (route.plan.error is None)
    assert route.plan.wait_seconds <= DEADLINE - NOW


def test_an_account_without_room_for_turns_takes_files() -> None:
    full = Pool(pool("work").accounts, NOW, in_flight={"work": 3}, max_turns=3)
    assert route_known("work", full, POLICY, DEADLINE).plan.candidates == ("work",)
    assert route_new(Ownership(UNKEYED, NEW), full, POLICY, DEADLINE).plan.candidates == ("work",)
    assert listed_accounts(full) == ["work"]


def test_an_unknown_file_is_asked_for_as_configured() -> None:
    route = route_unknown(pool("a", "b", "c", "d", a="cooling", b="limited", c="disabled"))
    assert (route.plan.candidates, route.asks, route.owner) == (("a", "d"), True, None)
    assert [v.account for v in route.plan.verdicts] == ["a", "d", "b", "c"]
    nobody = route_unknown(pool("a", "b", a="limited", b="disabled"))
    assert nobody.plan.error is not None
    assert nobody.plan.error.code == "rate_limit_exceeded"
    none = route_unknown(pool())
    assert none.plan.error is not None
    assert none.plan.error.code == "no_accounts"


@pytest.mark.parametrize("state", ["back_soon", "limited", "disabled", "needs_login"])
def test_a_list_is_not_gone_on_with_in_an_account_that_is_out_of_use(state: str) -> None:
    accounts = pool("work", "home", home=state)
    assert route_list("home", accounts).plan.error is not None
    assert route_list("work", accounts).plan.error is None
    assert route_list(None, accounts).plan.candidates == ("work",)


def refused(status: int, **headers: str) -> Failure:
    return refusal(status, {"error": {"message": "No."}}, headers, NOW)


def coded(status: int, code: str) -> Failure:
    return refusal(status, {"error": {"code": code, "message": "No."}}, {}, NOW)


NEW_UPLOAD = route_new(Ownership(UNKEYED, NEW), pool("work", "home"), POLICY, DEADLINE)
KNOWN = route_known("work", pool("work", "home"), POLICY, DEADLINE)
UNKNOWN = route_unknown(pool("work", "home"))


@pytest.mark.parametrize("route", [NEW_UPLOAD, KNOWN, UNKNOWN])
def test_nothing_is_asked_of_another_account_once_a_byte_was_sent(route: FileRoute) -> None:
    for failure in (DIAL_FAILURE, *map(refused, (302, 400, 401, 403, 404, 413, 429, 500, 503))):
        assert not goes_on(route, failure, sent=True)


@pytest.mark.parametrize(
    ("failure", "new", "unknown"),
    [
        (DIAL_FAILURE, True, True),
        (refused(302), True, True),
        (refused(401), True, True),
        (refused(403), True, True),
        (refused(429), True, True),
        (refused(503), True, True),
        (refused(404), False, True),
        (coded(404, "file_not_found"), False, True),
        (refused(400), False, False),
        (refused(409), False, False),
        (refused(413), False, False),
        (refused(426), False, False),
    ],
)
def test_which_refusals_lead_to_the_next_account(
    failure: Failure, *, new: bool, unknown: bool
) -> None:
    assert goes_on(NEW_UPLOAD, failure, sent=False) is new
    assert goes_on(UNKNOWN, failure, sent=False) is unknown


@pytest.mark.parametrize(
    ("route", "refusals", "after", "told"),
    [
        # The upstream's own word, where the request is at fault.
        (NEW_UPLOAD, {"work": refused(400)}, {}, 400),
        (NEW_UPLOAD, {"work": refused(413)}, {}, 413),
        (NEW_UPLOAD, {"work": refused(404)}, {}, 404),
        (KNOWN, {"work": refused(404)}, {}, 404),
        (UNKNOWN, {"work": refused(404), "home": refused(404)}, {}, 404),
        # A streamed body cannot be replayed, but its client can send it again.
        (NEW_UPLOAD, {"work": refused(401)}, {"work": "needs_login"}, "upstream_unavailable"),
        (NEW_UPLOAD, {"work": refused(429)}, {"work": "limited"}, "upstream_unavailable"),
        # Nobody is left.
        (NEW_UPLOAD, {"work": refused(401), "home": refused(401)},
         {"work": "needs_login", "home": "needs_login"}, "no_accounts"),
        (NEW_UPLOAD, {"work": refused(401), "home": refused(429)},
         {"work": "needs_login", "home": "limited"}, "rate_limit_exceeded"),
        (NEW_UPLOAD, {"work": DIAL_FAILURE, "home": DIAL_FAILURE}, {}, "upstream_unavailable"),
        # Its owner cannot.
        (KNOWN, {"work": refused(401)}, {"work": "needs_login"}, "owner_unavailable"),
        (KNOWN, {"work": refused(429)}, {"work": "cooling"}, "rate_limit_exceeded"),
        (KNOWN, {"work": coded(429, "usage_limit_reached")}, {"work": "limited_for_long"},
         "usage_limit_reached"),
        (KNOWN, {"work": refused(403)}, {"work": "cooling"}, "upstream_unavailable"),
        (KNOWN, {"work": refused(302)}, {}, "upstream_unavailable"),
        (KNOWN, {"work": refused(500)}, {}, "upstream_unavailable"),
        (KNOWN, {"work": DIAL_FAILURE}, {}, "upstream_unavailable"),
        # One that could not tell outweighs one that has it not; one that is out of use does not.
        (UNKNOWN, {"work": refused(404), "home": DIAL_FAILURE}, {}, "upstream_unavailable"),
        (UNKNOWN, {"work": refused(503), "home": refused(404)}, {}, "upstream_unavailable"),
        (UNKNOWN, {"work": refused(429), "home": refused(404)}, {"work": "limited"},
         "rate_limit_exceeded"),
        (UNKNOWN, {"work": refused(401), "home": refused(404)}, {"work": "needs_login"}, 404),
        (UNKNOWN, {"work": refused(404), "home": refused(400)}, {}, 400),
    ],
)  # fmt: skip
def test_what_the_client_is_told(
    route: FileRoute, refusals: Mapping[str, Failure], after: dict[str, str], told: int | str
) -> None:
    states = {"work": "ready", "home": "ready", **after}
    error = conclude(route, refusals, pool_of(states))
    if isinstance(error, Failure):
        assert error.status == told
    else:
        assert error.code == told
        if error.status == 429 and told != "usage_limit_reached":
            assert error.retry_after is not None


FAILURES = st.sampled_from(
    [DIAL_FAILURE, *map(refused, (301, 400, 401, 403, 404, 409, 413, 426, 429, 500, 502, 503))]
)


@given(pools(2), st.sampled_from([NEW_UPLOAD, KNOWN, UNKNOWN]), FAILURES, FAILURES)
def test_an_accounts_own_troubles_are_never_passed_on(
    accounts: Pool, route: FileRoute, first: Failure, second: Failure
) -> None:
    error = conclude(route, {"work": first, "home": second}, accounts)
    if isinstance(error, Failure):
        assert error.status in (400, 404, 409, 413, 426)
    else:
        assert isinstance(error, ClientError)
        assert error.status in (429, 503)


@pytest.mark.parametrize(
    ("call", "document", "expected"),
    [
        (FileCall(Verb.CREATE), {"id": "file-1", "object": "file"}, ["file-1"]),
        (FileCall(Verb.BEGIN), {"id": "upload_1"}, ["upload_1"]),
        (FileCall(Verb.ADD_PART, "upload_1"), {"id": "part_1"}, ["upload_1"]),
        (FileCall(Verb.COMPLETE, "upload_1"), {"id": "upload_1", "file": {"id": "file-2"}},
         ["upload_1", "file-2"]),
        (FileCall(Verb.COMPLETE, "upload_1"), {"file": None}, ["upload_1"]),
        (FileCall(Verb.RETRIEVE, "file-1"), None, ["file-1"]),
        (FileCall(Verb.CONTENT, "file-1"), None, ["file-1"]),
        (FileCall(Verb.DELETE, "file-1"), {"id": "file-1", "deleted": True}, []),
        (FileCall(Verb.CANCEL, "upload_1"), {"id": "upload_1"}, []),
        (FileCall(Verb.LIST), {"data": [{"id": "file-1"}]}, []),
        (FileCall(Verb.CREATE), None, []),
        (FileCall(Verb.CREATE), ["file-1"], []),
        (FileCall(Verb.CREATE), {"id": 1}, []),
        (FileCall(Verb.CREATE), {"id": "a/b"}, []),
    ],
)  # fmt: skip
def test_what_is_pinned(call: FileCall, document: object, expected: list[str]) -> None:
    assert pins(call, document) == tuple(Key("file", name) for name in expected)
