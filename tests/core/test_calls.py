"""Calls: which account each goes to, what leads to the next, and what the client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import UNKEYED, Key
from codexlb_cli.core.calls import (
    CallRoute,
    conclude,
    goes_on,
    listed_accounts,
    refusal,
    route_known,
    route_new,
    route_unknown,
)
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.failures import BROKEN_CALL, DIAL_FAILURE, Failure
from codexlb_cli.core.ownership import NEW, KeyRecord, Ownership
from codexlb_cli.core.selection import Pool
from tests.core.pools import NOW, pool, pool_of, pools

POLICY = ReconnectPolicy()
DEADLINE = NOW + 240
SESSION = Key("session", "s")


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
    route = route_known(
        "home", pool("work", "home", home=state), POLICY, DEADLINE, what="this file"
    )
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
    route = route_known(owner, accounts, policy, DEADLINE, what="this file")
    assert set(route.plan.candidates) <= {owner}
    assert bool(route.plan.candidates) is (route.plan.error is None)
    assert route.plan.wait_seconds <= DEADLINE - NOW


def test_an_account_without_room_for_turns_takes_files() -> None:
    full = Pool(pool("work").accounts, NOW, in_flight={"work": 3}, max_turns=3)
    assert route_known("work", full, POLICY, DEADLINE, what="this file").plan.candidates == (
        "work",
    )
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


def refused(status: int, **headers: str) -> Failure:
    return refusal(status, {"error": {"message": "No."}}, headers, NOW)


def coded(status: int, code: str) -> Failure:
    return refusal(status, {"error": {"code": code, "message": "No."}}, {}, NOW)


NEW_UPLOAD = route_new(Ownership(UNKEYED, NEW), pool("work", "home"), POLICY, DEADLINE)
KNOWN = route_known("work", pool("work", "home"), POLICY, DEADLINE, what="this file")
UNKNOWN = route_unknown(pool("work", "home"))


@pytest.mark.parametrize("route", [NEW_UPLOAD, KNOWN, UNKNOWN])
def test_nothing_is_asked_of_another_account_once_a_byte_was_sent(route: CallRoute) -> None:
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
    route: CallRoute, refusals: Mapping[str, Failure], after: dict[str, str], told: int | str
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
    accounts: Pool, route: CallRoute, first: Failure, second: Failure
) -> None:
    error = conclude(route, {"work": first, "home": second}, accounts)
    if isinstance(error, Failure):
        assert error.status in (400, 404, 409, 413, 426)
    else:
        assert isinstance(error, ClientError)
        assert error.status in (429, 503)


@pytest.mark.parametrize("route", [NEW_UPLOAD, KNOWN, UNKNOWN])
def test_what_may_have_been_taken_is_never_sent_again(route: CallRoute) -> None:
    assert not goes_on(route, BROKEN_CALL, sent=False)
    told = conclude(route, {"work": BROKEN_CALL}, pool("work", "home"))
    assert isinstance(told, ClientError)
    assert (told.code, told.status) == ("upstream_closed", 502)
    assert ("x-should-retry", "false") in told.headers()


@pytest.mark.parametrize(
    ("failure", "left", "on"),
    [
        (refused(503), None, True),
        (refused(503), 1, True),
        (refused(503), 0, False),
        (refused(302), 0, False),
        (refused(429), 0, True),  # what was refused for the account's sake did not begin
        (refused(401), 0, True),
        (refused(403), 0, True),
        (DIAL_FAILURE, 0, True),
        (coded(404, "model_not_found"), 0, True),
    ],
)
def test_what_may_have_begun_is_replayed_so_often(
    failure: Failure, left: int | None, *, on: bool
) -> None:
    assert goes_on(NEW_UPLOAD, failure, sent=False, replays_left=left) is on


MISSING = coded(400, "previous_response_not_found")


def test_a_response_that_a_body_names_is_asked_for() -> None:
    asking = Ownership(Key("previous_response", "r"), NEW, asks=True, hint="home")
    route = route_new(asking, pool("work", "home"), POLICY, DEADLINE)
    assert (route.plan.candidates, route.asks) == (("home", "work"), True)
    assert goes_on(route, MISSING, sent=False)
    assert not goes_on(NEW_UPLOAD, MISSING, sent=False)
    assert conclude(route, {"home": MISSING, "work": MISSING}, pool("work", "home")) is MISSING
    told = conclude(route, {"home": MISSING, "work": DIAL_FAILURE}, pool("work", "home"))
    assert isinstance(told, ClientError)
    assert told.code == "upstream_unavailable"


def test_what_is_not_portable_stays_with_its_session() -> None:
    accounts = pool("work", "home", home="limited")
    assert route_new(owned("home"), accounts, POLICY, DEADLINE).plan.candidates == ("work",)
    stays = route_new(owned("home"), accounts, POLICY, DEADLINE, portable=False)
    assert stays.plan.error is not None
    assert stays.plan.error.code == "rate_limit_exceeded"
