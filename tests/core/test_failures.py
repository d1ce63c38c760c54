"""What an upstream's refusal means: its row of the error table, and the time it names."""

from __future__ import annotations

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.accounts import FRESH, Availability, Effect, Evidence, apply, standing
from codexlb_cli.core.failures import DIAL_FAILURE, ERRORS, Failure, Fault, parse, refusal
from tests.core.pools import NOW, pool

DATE = formatdate(NOW + 30, usegmt=True)


def frame(error: object, status: int | None = None, **headers: object) -> Failure:
    """Parse an error frame."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse(status, {"type": "error", "error": error}, names, NOW, handshake=False)


def dial(status: int, error: object = None, **headers: object) -> Failure:
    """Parse a refused upgrade."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse(status, {"error": error} if error else None, names, NOW, handshake=True)


# status, code or type: whose fault, what it does to the account
BY_NAME = [
    ("token_expired", Fault.CREDENTIAL, Effect.LOGIN),
    ("invalid_api_key", Fault.CREDENTIAL, Effect.LOGIN),
    ("token_invalidated", Fault.CREDENTIAL, Effect.LOGIN),
    ("token_revoked", Fault.CREDENTIAL, Effect.LOGIN),
    ("rate_limit_exceeded", Fault.LIMIT, Effect.LIMITED),
    ("usage_limit_reached", Fault.LIMIT, Effect.LIMITED),
    ("insufficient_quota", Fault.LIMIT, Effect.LIMITED),
    ("usage_not_included", Fault.LIMIT, Effect.LIMITED),
    ("overloaded", Fault.UPSTREAM, Effect.NEUTRAL),
    ("server_is_overloaded", Fault.UPSTREAM, Effect.NEUTRAL),
    ("websocket_connection_limit_reached", Fault.SOCKET, Effect.NEUTRAL),
    ("previous_response_not_found", Fault.CLIENT_STATE, Effect.NEUTRAL),
    ("model_not_found", Fault.TURN, Effect.NEUTRAL),
    ("context_length_exceeded", Fault.REQUEST, Effect.NEUTRAL),
    ("invalid_request_error", Fault.REQUEST, Effect.NEUTRAL),
    ("something_new", Fault.REQUEST, Effect.NEUTRAL),
]


@pytest.mark.parametrize(("name", "fault", "effect"), BY_NAME)
def test_errors_by_name(name: str, fault: Fault, effect: Effect) -> None:
    for failure in (
        frame({"code": name}),
        frame({"type": name}),
        frame({"type": "x", "code": name}),
    ):
        assert (failure.row.fault, failure.row.effect) == (fault, effect)
        assert failure.code == name
    flat = parse(None, {"type": "error", "code": name, "message": "m"}, {}, NOW, handshake=False)
    assert flat.row.fault is fault
    assert flat.code == name


# status: at the upgrade, in an error frame
BY_STATUS = [
    (400, Fault.REQUEST, Fault.REQUEST),
    (401, Fault.CREDENTIAL, Fault.CREDENTIAL),
    (403, Fault.FORBIDDEN, Fault.TURN),
    (404, Fault.NO_WEBSOCKET, Fault.REQUEST),
    (413, Fault.REQUEST, Fault.REQUEST),
    (422, Fault.REQUEST, Fault.REQUEST),
    (426, Fault.NO_WEBSOCKET, Fault.REQUEST),
    (429, Fault.LIMIT, Fault.LIMIT),
    (500, Fault.UPSTREAM, Fault.UPSTREAM),
    (502, Fault.UPSTREAM, Fault.UPSTREAM),
    (503, Fault.UPSTREAM, Fault.UPSTREAM),
    (504, Fault.UPSTREAM, Fault.UPSTREAM),
    (529, Fault.UPSTREAM, Fault.UPSTREAM),
    (301, Fault.UPSTREAM, Fault.REQUEST),
    (200, Fault.UPSTREAM, Fault.REQUEST),
]


TO_A_POST = {403: Fault.FORBIDDEN, 301: Fault.UPSTREAM, 200: Fault.UPSTREAM}
"""Where the answer to a POST means what it means at an upgrade; else it is as in a frame."""


@pytest.mark.parametrize(("status", "at_dial", "in_frame"), BY_STATUS)
def test_refused_posts_by_status(status: int, at_dial: Fault, in_frame: Fault) -> None:
    failure = parse(status, {"message": "m"}, {}, NOW, handshake=False, answer=True)
    assert failure.row.fault is TO_A_POST.get(status, in_frame)
    assert (failure.row.effect is Effect.REFUSED) is (status == 403)


def test_a_name_says_more_than_the_status_of_a_post() -> None:
    def answer(status: int, code: str) -> Fault:
        body = {"error": {"code": code}}
        return parse(status, body, {}, NOW, handshake=False, answer=True).row.fault

    assert answer(404, "model_not_found") is Fault.TURN
    assert answer(404, "previous_response_not_found") is Fault.CLIENT_STATE
    assert answer(403, "usage_not_included") is Fault.LIMIT
    assert answer(403, "model_not_available") is Fault.TURN


@pytest.mark.parametrize(("status", "at_dial", "in_frame"), BY_STATUS)
def test_errors_by_status(status: int, at_dial: Fault, in_frame: Fault) -> None:
    assert dial(status).row.fault is at_dial
    assert frame({"message": "m"}, status).row.fault is in_frame
    assert dial(status).status == status


def test_a_name_says_more_than_a_status() -> None:
    assert frame({"type": "usage_limit_reached"}, 429).row.reason == "usage_limit_reached"
    assert dial(404, {"code": "model_not_found"}).row.fault is Fault.TURN
    assert frame({"code": "previous_response_not_found"}, 404).row.fault is Fault.CLIENT_STATE
    assert frame({"code": "websocket_connection_limit_reached"}, 400).row.fault is Fault.SOCKET
    assert frame({"type": "invalid_request_error", "code": "invalid_api_key"}, 401).row.fault is (
        Fault.CREDENTIAL
    )
    assert frame({"type": "server_error"}, 400).row.fault is Fault.REQUEST
    assert frame({"type": "invalid_request_error"}, 401).row.fault is Fault.CREDENTIAL


def test_a_failed_dial_blames_nobody() -> None:
    assert DIAL_FAILURE.row.fault is Fault.NETWORK
    assert DIAL_FAILURE.evidence.effect is Effect.NEUTRAL
    assert DIAL_FAILURE.status is None


@pytest.mark.parametrize(
    ("failure", "evidence"),
    [
        (dial(401), Evidence(Effect.LOGIN, "credentials_rejected")),
        (frame({"code": "token_expired"}), Evidence(Effect.LOGIN, "token_expired")),
        (dial(403), Evidence(Effect.REFUSED, "forbidden")),
        (dial(429), Evidence(Effect.COOLED, "rate_limit_exceeded", seconds=10)),
        (
            dial(429, retry_after="7"),
            Evidence(Effect.LIMITED, "rate_limit_exceeded", until=NOW + 7),
        ),
        (
            frame({"type": "usage_limit_reached", "resets_at": NOW + 900}, 429),
            Evidence(Effect.LIMITED, "usage_limit_reached", until=NOW + 900),
        ),
    ],
)
def test_what_the_account_is_blamed_for(failure: Failure, evidence: Evidence) -> None:
    assert failure.evidence == evidence


@pytest.mark.parametrize("status", [404, 426])
def test_an_account_without_a_websocket_is_as_usable_as_before(status: int) -> None:
    assert dial(status).evidence == Evidence(Effect.NO_WEBSOCKET, "no_websocket")


@pytest.mark.parametrize("status", [400, 500, 502, 503, 504])
def test_only_account_evidence_changes_an_account(status: int) -> None:
    assert dial(status, retry_after="30").evidence.effect is Effect.NEUTRAL


@pytest.mark.parametrize(
    ("error", "headers", "expected"),
    [
        ({}, {"retry-after": "30"}, 30),
        ({}, {"Retry-After": 30}, 30),
        ({}, {"retry-after": "1.5"}, 1.5),
        ({}, {"retry-after": DATE}, 30),
        ({}, {"retry-after-ms": "1500"}, 1.5),
        ({}, {"retry-after-ms": 1500, "retry-after": "2"}, 1.5),
        ({"resets_at": NOW + 60}, {}, 60),
        ({"resets_at": str(int(NOW) + 60)}, {}, 60),
        ({"resets_at": (NOW + 60) * 1000}, {}, 60),
        ({"resets_at": "2027-01-15T08:01:00Z"}, {}, 60),
        ({"resets_at": "2027-01-15T09:01:00+01:00"}, {}, 60),
        ({"resets_at": "2027-01-15T08:01:00"}, {}, 60),
        ({"resets_at": "tomorrow"}, {"retry-after": "3"}, 3),
        ({"headers": {"Retry-After": "40"}}, {}, 40),
        ({"headers": {"retry-after": "40"}}, {"retry-after": "3"}, 3),
        ({"retry_after": 40}, {}, 40),
        ({}, {"retry-after": "0"}, 1),
        ({}, {"x-codex-primary-used-percent": "100", "x-codex-primary-reset-at": NOW + 60}, 60),
        ({}, {"x-codex-primary-used-percent": "99", "x-codex-primary-reset-at": NOW + 60}, None),
        ({}, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({}, {"x-ratelimit-remaining-tokens": 0, "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({}, {"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({}, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"resets_at": NOW + 60, "resets_in_seconds": 5}, {"retry-after": "3"}, 60),
        ({"resets_in_seconds": 5}, {"retry-after": "3"}, 5),
        ({"resets_at": NOW - 60, "resets_in_seconds": 5}, {}, 5),
        ({"message": "Please try again in 1.2s."}, {}, 1.2),
        ({"message": "try again in 150ms"}, {}, 0.15),
        ({"message": "Rate limit. Try again in 20 seconds, please"}, {}, 20),
        ({"message": "try again in 2 minutes"}, {}, 120),
        ({"message": "try again in 1.2s"}, {"retry-after": "9"}, 9),
        ({"message": "try again later"}, {}, None),
        ({"message": "try again in 5 sheep"}, {}, None),
        ({}, {}, None),
    ],
)
def test_the_times_that_upstreams_name(
    error: dict[str, object], headers: dict[str, object], expected: float | None
) -> None:
    failure = parse(429, {"error": error}, headers, NOW, handshake=False)
    if expected is None:
        assert failure.retry_at is None
    else:
        assert failure.retry_at == pytest.approx(NOW + expected, abs=1e-3)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("date", ["Sun, 06 Nov 2094 08:49:37 GMT", "Sun Nov  6 08:49:37 2094"])
def test_dates_are_in_utc_wherever_we_run(
    date: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    if not hasattr(time, "tzset"):
        pytest.skip("no tzset here")
    try:
        time.tzset()
        assert dial(429, retry_after=date).retry_at == 3939871777.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        "-5", -5, "nan", math.nan, "inf", math.inf, -math.inf, "1e400", True, False, None, [], {},
        "", "soon", 10**400, "9" * 400, "Mon, 99 Foo 20x", "Thu, 01 Jan 1970 00:00:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT", "1,2", "\x00",
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:40]!r}",
)  # fmt: skip
def test_nonsense_names_no_time(value: object) -> None:
    for error, headers in (
        ({"resets_at": value}, {}),
        ({"resets_in_seconds": value}, {}),
        ({}, {"retry-after": value}),
        ({}, {"retry-after-ms": value}),
    ):
        assert parse(429, {"error": error}, headers, NOW, handshake=False).retry_at is None


@pytest.mark.parametrize(
    "message", ["try again in " + "9" * 400 + "s", 5, None, ["try again in 1s"]]
)
def test_nonsense_messages_name_no_time(message: object) -> None:
    assert frame({"message": message}, 429).retry_at is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"code": "c", "message": "m", "x": 1}}, {"code": "c", "message": "m", "x": 1}),
        ({"error": "text"}, {"message": "text"}),
        ({"message": "m", "code": "c", "status": 4}, {"message": "m", "code": "c"}),
        ("text", {}),
        (None, {}),
        ([], {}),
        ({"error": None, "message": "m"}, {"message": "m"}),
        # As an HTTP stream has it: `type` is the event's.
        (
            {"type": "error", "code": "c", "message": "m", "sequence_number": 1},
            {"code": "c", "message": "m"},
        ),
        ({"type": "server_error", "message": "m"}, {"type": "server_error", "message": "m"}),
    ],
)
def test_the_upstreams_own_error_object_is_kept(body: object, error: object) -> None:
    assert parse(400, body, {}, NOW, handshake=False).error == error


def test_the_type_of_an_event_is_no_code() -> None:
    event = {"type": "error", "code": None, "message": "m", "param": None, "sequence_number": 0}
    assert refusal(event, NOW).code is None


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
        st.sampled_from(["1", "-1", "1e9", DATE, "try again in 3s", "rate_limit_exceeded"]),
        st.integers(10**300, 10**400),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
errors = st.dictionaries(
    st.sampled_from(["code", "type", "message", "resets_at", "resets_in_seconds", "param"]),
    json_values,
)
bodies = json_values | st.fixed_dictionaries({"error": errors | json_values}) | errors
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after-ms", "x"]), json_values, max_size=3
)


@given(st.none() | st.integers(-1, 1000), bodies, headers, st.booleans())
@settings(max_examples=500)
def test_nothing_that_an_upstream_says_can_break_us(
    status: int | None, body: object, headers: dict[str, object], handshake: bool
) -> None:
    failure = parse(status, body, headers, NOW, handshake=handshake)
    assert failure.row in ERRORS
    assert failure.retry_at is None or (
        NOW <= failure.retry_at < math.inf and math.ceil(failure.retry_at) > 0
    )
    after = apply(FRESH, failure.evidence, NOW)
    known = standing(pool("work").accounts[0], after, NOW)
    assert known.until is None or known.until <= NOW + 366 * 86400
    if known.state is Availability.LIMITED:
        assert failure.row.fault is Fault.LIMIT
    assert repr(failure)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_what_may_be_logged_holds_no_message(status: int) -> None:
    refused = frame({"message": "you sent sk-test-LEAK", "param": "LEAK"}, status, x_a="LEAK")
    assert "LEAK" not in repr(refused)


@pytest.mark.parametrize("row", ERRORS)
def test_rows_are_whole(row: object) -> None:
    assert isinstance(row, type(ERRORS[0]))
    assert row.reason
    assert row.action
    if row.effect is Effect.LIMITED:
        assert row.unnamed_seconds >= 10
