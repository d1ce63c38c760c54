"""What passes between a WebSocket client and the gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import Key, on_socket, read_evidence
from codexlb_cli.core.client_errors import STATUSES, ClientError
from codexlb_cli.core.client_frames import (
    Told,
    error_frame,
    last_frame,
    passed_frame,
    read_frame,
    status_of,
    turn_of,
    with_stream,
    without_stream,
)
from codexlb_cli.core.failures import refusal
from codexlb_cli.core.frames import (
    InvalidBodyError,
    create_frame,
    has_successor,
    is_response_event,
    parse_body,
    parse_object,
)
from codexlb_cli.core.giving_up import chain_lost
from codexlb_cli.core.headers import TURN_STATE_HEADER
from codexlb_cli.core.limits import rate_limit_headers, rate_limits_event
from codexlb_cli.errors import InvalidHeader
from tests.core.pools import NOW, pool

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.text("abcXYZ019_.-", min_size=1, max_size=256)

# --- the client's frames ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "stream_id", "about"),
    [
        ('{"type":"response.create"}', "response.create", None, None),
        (
            '{"model":"m","stream_id":"a.B-9_","type":"response.create"}',
            "response.create",
            "a.B-9_",
            None,
        ),
        ('{"type":"response.create","stream_id":null}', "response.create", None, None),
        ('{"type":"response.interrupt","response_id":"r"}', "response.interrupt", None, "r"),
        ('{"type":"response.steer","previous_response_id":"r"}', "response.steer", None, "r"),
        ('{"type":"response.inject"}', "response.inject", None, None),
    ],
)
def test_frames(text: str, kind: str, stream_id: str | None, about: str | None) -> None:
    frame = read_frame(text)
    assert (frame.kind, frame.stream_id, frame.about, frame.text) == (kind, stream_id, about, text)


@pytest.mark.parametrize(
    ("text", "param", "code"),
    [
        ("", None, "invalid_request"),
        ("{", None, "invalid_request"),
        ("null", None, "invalid_request"),
        ('{"type":"response.create"} x', None, "invalid_request"),
        ("{}", "type", "invalid_request"),
        ('{"type":7}', "type", "invalid_request"),
        ('{"type":"ping"}', "type", "invalid_request"),
        ('{"type":"response.create","stream_id":""}', "stream_id", "invalid_stream_id"),
        ('{"type":"response.create","stream_id":7}', "stream_id", "invalid_stream_id"),
        ('{"type":"response.create","stream_id":"a/b"}', "stream_id", "invalid_stream_id"),
        ('{"type":"response.create","stream_id":"a\\n"}', "stream_id", "invalid_stream_id"),
        (
            json.dumps({"type": "response.create", "stream_id": "a" * 257}),
            "stream_id",
            "invalid_stream_id",
        ),
    ],
)
def test_frames_that_are_none(text: str, param: str | None, code: str) -> None:
    with pytest.raises(InvalidBodyError) as raised:
        read_frame(text)
    assert (raised.value.param, raised.value.code) == (param, code)
    assert code in STATUSES


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4), st.text("abc ", max_size=4))
def test_a_turn_state_moves_to_where_http_has_it(metadata: dict[str, Any], state: str) -> None:
    metadata.pop(TURN_STATE_HEADER, None)
    handshake = [("session-id", "s"), ("X-Codex-Turn-State", "of the upgrade")]
    sent = {"model": "m", "client_metadata": {**metadata, TURN_STATE_HEADER: state}, "input": 1.50}
    body, headers = turn_of(parse_object(json.dumps(sent), "it"), handshake, first=True)
    assert headers == [("session-id", "s"), (TURN_STATE_HEADER, state)]
    assert json.loads(create_frame(body, {})) == {
        "type": "response.create", "model": "m", "client_metadata": metadata, "input": 1.5,
    }  # fmt: skip
    # And back, where its account serves.
    assert (
        json.loads(create_frame(body, {TURN_STATE_HEADER: state}))["client_metadata"]
        == (sent["client_metadata"])
    )


def test_a_turn_without_a_state_is_as_it_was() -> None:
    handshake = [("session-id", "s"), ("X-Codex-Turn-State", "of the upgrade")]
    for metadata in ({}, {"a": 1}, None, "text", {TURN_STATE_HEADER: 7}):
        body = parse_object(json.dumps({"client_metadata": metadata}), "it")
        assert turn_of(body, handshake, first=True) == (body, handshake)
        assert turn_of(body, handshake, first=False) == (body, handshake[:1])


def test_a_state_that_no_header_holds() -> None:
    def of(state: str) -> list[tuple[str, str]]:
        body = parse_object(json.dumps({"client_metadata": {TURN_STATE_HEADER: state}}), "it")
        return turn_of(body, [], first=True)[1]

    with pytest.raises(InvalidHeader):
        of("a\r\nb: c")
    assert of("caf\xe9") == []


# --- ours ------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    names,
    st.sampled_from(["", " ", "\n"]),
)
def test_an_event_of_a_lane_is_the_same_event(event: dict[str, Any], name: str, space: str) -> None:
    event.pop("stream_id", None)
    text = space + json.dumps(event)
    assert with_stream(text, None) == text
    assert json.loads(with_stream(text, name)) == {"stream_id": name, **event}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{ "type":"response.x","n":1.50}', '{ "type":"response.x","n":1.50}'),
        ('{"stream_id":"a", "type":"response.x","n":1.50}', '{"type":"response.x","n":1.50}'),
        ('{"type":"response.x","stream_id":null}', '{"type":"response.x"}'),
    ],
)
def test_an_event_of_a_clients_lane_goes_upstream_without_it(text: str, sent: str) -> None:
    assert without_stream(read_frame(text)) == sent


@pytest.mark.parametrize("code", STATUSES)
def test_our_errors_have_a_status_and_an_envelope(code: str) -> None:
    error = ClientError(code, "what", param="p", retry_after=3)
    frame = json.loads(error_frame(error, [("x-request-id", "r")], "lane"))
    assert (frame["type"], frame["status"], frame["stream_id"]) == ("error", STATUSES[code], "lane")
    assert frame["error"] == error.envelope()["error"]
    assert frame["headers"]["retry-after"] == "3"
    assert frame["headers"]["x-request-id"] == "r"
    assert "stream_id" not in json.loads(error_frame(error, [], None))


@pytest.mark.parametrize(
    ("status", "told"), [(None, 502), (401, 502), (429, 429), (500, 500), (200, 502), ("x", 502)]
)
def test_an_upstreams_last_error(status: Any, told: int) -> None:
    event = {
        "type": "error",
        "status": status,
        "error": {"code": "c", "message": "m"},
        "headers": {"x-codex-primary-used-percent": 7, "set-cookie": "a=b"},
    }
    frame = json.loads(last_frame(event, [("x-request-id", "r")], None))
    assert frame["status"] == status_of(event) == told
    assert (frame["error"]["code"], frame["error"]["message"]) == ("c", "m")
    assert frame["headers"] == {"x-codex-primary-used-percent": "7", "x-request-id": "r"}


def test_an_upstreams_refusal_is_passed_on_but_for_401() -> None:
    for status, told in ((400, 400), (401, 502), (404, 404)):
        frame = {"type": "error", "status": status, "error": {"code": "odd", "message": "m"}}
        status_told, text = passed_frame(refusal(frame, NOW), [], "a")
        passed = json.loads(text)
        assert status_told == passed["status"] == told
        assert (passed["error"]["code"], passed["stream_id"]) == ("odd", "a")


def test_what_is_told_beside_responses_is_told_once() -> None:
    told = Told()
    head = [("openai-model", "m"), ("x-codexlb-attempts", "1"), ("x-codexlb-account", "work")]
    (news,) = map(json.loads, told.events(head))
    assert news == {"type": "response.metadata", "headers": {"openai-model": "m"}}
    assert told.events(head) == []
    told.saw("response.metadata", {"headers": {"openai-model": "n"}})
    assert told.events([("openai-model", "n")]) == []
    for _ in range(2):  # a replay always is
        (news,) = map(
            json.loads, told.events([("x-codexlb-attempts", "2"), ("x-codexlb-account", "work")])
        )
        assert news["headers"] == {"x-codexlb-account": "work", "x-codexlb-attempts": "2"}


def test_limits_are_told_where_the_upstream_did_not() -> None:
    told = Told()
    head = [("x-codex-primary-used-percent", "42.5"), ("x-codex-primary-window-minutes", "300")]
    (event,) = map(json.loads, told.events(head))
    assert event["rate_limits"] == {"primary": {"used_percent": 42.5, "window_minutes": 300}}
    assert told.events(head) == []
    told.saw("codex.rate_limits", {})
    assert told.events([("x-codex-primary-used-percent", "50")]) == []
    assert len(told.events([("x-codex-primary-used-percent", "50")])) == 1


windows = st.fixed_dictionaries(
    {"used_percent": st.integers(0, 100) | st.floats(0, 100)},
    optional={"window_minutes": st.integers(1, 10**5), "reset_at": st.integers(0, 2**33)},
)


@given(st.dictionaries(st.sampled_from(["primary", "secondary"]), windows, min_size=1))
def test_limits_there_and_back(told: dict[str, Any]) -> None:
    event = {"type": "codex.rate_limits", "rate_limits": told}
    back = rate_limits_event(dict(rate_limit_headers(event)))
    assert back == event


def test_credits_and_nonsense() -> None:
    credit = {"has_credits": True, "unlimited": False, "balance": "9.99"}
    event = {
        "type": "codex.rate_limits",
        "rate_limits": {"primary": {"used_percent": 1}},
        "credits": credit,
    }
    assert rate_limits_event(dict(rate_limit_headers(event))) == event
    for headers in (
        {},
        {"x-codex-primary-used-percent": "much"},
        {"x-codex-primary-reset-at": "1"},
    ):
        assert rate_limits_event(headers) is None


# --- events, evidence, chains ----------------------------------------------------------------


def test_what_shows_that_the_upstream_works_on_the_turn() -> None:
    assert is_response_event("response.created")
    for kind in (
        "response.metadata",
        "response.steer.accepted",
        "response.steer.failed",
        "codex.x",
        "x",
    ):
        assert not is_response_event(kind)


def test_a_steered_response_has_a_successor() -> None:
    def ended(kind: str, reason: object) -> bool:
        return has_successor(kind, {"response": {"incomplete_details": {"reason": reason}}})

    assert ended("response.incomplete", "steered")
    assert not ended("response.incomplete", "interrupted")
    assert not ended("response.completed", "steered")
    odd: list[dict[str, Any]] = [
        {},
        {"response": None},
        {"response": {}},
        {"response": {"incomplete_details": 7}},
    ]
    for event in odd:
        assert not has_successor("response.incomplete", event)


@pytest.mark.parametrize(
    ("headers", "body", "keyed"),
    [
        ([], {}, True),
        ([], {"previous_response_id": "r"}, True),
        ([("session-id", "s")], {}, False),
        ([], {"prompt_cache_key": "k"}, False),
        ([], {"conversation": "c"}, False),
    ],
)
def test_a_socket_is_a_session_where_nothing_else_is(
    headers: list[tuple[str, str]], body: dict[str, Any], keyed: bool
) -> None:
    evidence = read_evidence(headers, parse_body(json.dumps(body).encode()))
    mine = Key("session", "socket", passing=True)
    on = on_socket(evidence, "socket")
    assert (mine in on.keys, on.lane == mine) == (keyed, keyed)
    assert on.keys[: len(evidence.keys)] == evidence.keys


@pytest.mark.parametrize(
    ("code", "alone", "lost"),
    [
        ("rate_limit_exceeded", False, True),
        ("rate_limit_exceeded", True, False),
        ("usage_limit_reached", False, True),
        ("owner_unavailable", False, True),
        ("owner_unavailable", True, False),
        ("upstream_silent", True, True),
        ("upstream_closed", False, False),
        ("upstream_unavailable", False, False),
        ("request_too_large", False, False),
    ],
)
def test_a_chain_that_cannot_go_on_where_it_lives(code: str, alone: bool, lost: bool) -> None:
    accounts = pool("work") if alone else pool("work", "home")
    error = chain_lost(ClientError(code, "what"), "work", accounts, stored=False)
    assert (error.code if error else None) == ("previous_response_not_found" if lost else None)
    stored = chain_lost(ClientError(code, "what"), "work", accounts, stored=True)
    gone = lost and code == "owner_unavailable"
    if code != "upstream_silent":  # of a stored chain it is never said
        assert (stored is not None) == gone
