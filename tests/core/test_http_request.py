"""The head of the upstream POST, and what its answer says as events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.failures import Fault, parse
from codexlb_cli.core.frames import create_frame, parse_body, parse_event, post_body
from codexlb_cli.core.handshake import HandshakeInputs, build, cache_session
from codexlb_cli.core.headers import CREDENTIAL_NAMES, Action, Header, HeaderOptions
from codexlb_cli.core.http_request import (
    CODED,
    MEDIA_TYPES,
    HttpRequest,
    build_call,
    build_post,
    is_event_stream,
    metadata_event,
    refusal_frame,
)
from codexlb_cli.errors import InvalidHeader
from tests.core.header_table import DROPPED, FORWARDED, MOVED, SESSION_ROW

ACCOUNT = Account("work", base_url="https://api.example.test/v1")
INPUTS = HandshakeInputs(
    account=ACCOUNT,
    secret="sk-test-LEAK",
    inbound=(),
    options=HeaderOptions(),
    user_agent="codexlb/0.1.0",
)
ENDING = [
    ("x-client-request-id", "id"),
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("accept-encoding", "identity"),
    ("content-length", "7"),
]


def post(*inbound: Header, **changes: object) -> HttpRequest:
    return build_post(replace(INPUTS, inbound=inbound, **changes))  # type: ignore[arg-type]


def written(request: HttpRequest) -> list[Header]:
    return request.headers("id", 7)


def between(request: HttpRequest) -> list[Header]:
    """The lines that a client may have to do with: not the first two, not the last five."""
    lines = written(request)
    assert lines[:2] == [("host", "api.example.test"), ("authorization", "Bearer sk-test-LEAK")]
    assert lines[-5:] == ENDING
    return lines[2:-5]


def test_without_client_headers() -> None:
    request = post()
    assert between(request) == [("user-agent", "codexlb/0.1.0")]
    assert [(line.origin, line.rule) for line in request.lines] == [
        ("gateway", "http_framing"),
        ("account", "account_credential"),
        ("gateway", "own_identity"),
        ("gateway", "request_identity"),
        ("gateway", "http_framing"),
        ("gateway", "http_negotiation"),
        ("gateway", "http_negotiation"),
        ("gateway", "http_framing"),
    ]
    assert (request.url, request.target) == (
        "https://api.example.test/v1/responses",
        "/v1/responses",
    )
    assert (request.account, request.decisions, request.client_metadata) == ("work", (), {})


def test_the_order_on_the_wire() -> None:
    request = post(
        ("Thread-Id", "t"),
        ("Authorization", "Bearer client"),
        ("OpenAI-Beta", "a=1, responses_websockets=2026-02-06"),
        ("originator", "o2"),
        ("X-Codex-Turn-State", "ts"),
        ("Originator", "o1"),
        ("OpenAI-Beta", "b=2, responses=experimental, a=1"),
        ("X-Codex-Window-Id", "w"),
        account=replace(ACCOUNT, organization="org-1", project="proj-1"),
        conversation_key="chat",
        turn_state_is_ours=True,
    )
    assert written(request) == [
        ("host", "api.example.test"),
        ("authorization", "Bearer sk-test-LEAK"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
        ("openai-beta", "a=1, b=2"),
        ("user-agent", "codexlb/0.1.0"),
        ("thread-id", "t"),
        ("originator", "o2"),
        ("x-codex-turn-state", "ts"),
        ("originator", "o1"),
        ("session-id", cache_session("chat")),
        *ENDING,
    ]
    assert request.client_metadata == {"x-codex-window-id": "w"}


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        ([], None),
        (["responses=experimental"], None),
        (["responses_websockets=2026-02-06"], None),
        (["RESPONSES_WEBSOCKETS=1, Responses=2", "responses_websockets"], None),
        ([" , ,"], None),
        (["assistants=v2"], "assistants=v2"),
        (["a=1 ,\tb", "b,responses"], "a=1, b, responses"),
    ],
)
def test_beta_tokens(lines: list[str], sent: str | None) -> None:
    found = dict(between(post(*(("OpenAI-Beta", line) for line in lines))))
    assert found.get("openai-beta") == sent


def test_a_turn_state_of_another_account_goes_nowhere() -> None:
    request = post(("x-codex-turn-state", "ts"))
    assert "ts" not in [value for _, value in written(request)]
    assert request.client_metadata == {}
    assert [d.action.value for d in request.decisions] == ["drop"]


def test_a_turn_state_is_a_header_or_metadata_but_never_both() -> None:
    inputs = replace(INPUTS, inbound=[("x-codex-turn-state", "ts")], turn_state_is_ours=True)
    assert build(inputs).client_metadata == {"x-codex-turn-state": "ts"}
    assert build_post(inputs).client_metadata == {}
    assert ("x-codex-turn-state", "ts") in written(build_post(inputs))


@pytest.mark.parametrize(("name", "key"), MOVED.items())
def test_per_turn_metadata_moves_into_the_body(name: str, key: str) -> None:
    request = post((name.upper(), "first"), (name, "second"))
    assert request.client_metadata == {key: "first"}
    assert between(request) == [("user-agent", "codexlb/0.1.0")]


@pytest.mark.parametrize("name", SESSION_ROW)
def test_a_named_session_suppresses_the_generated_one(name: str) -> None:
    request = post((name.title(), "s"), conversation_key="chat")
    assert "cache_session" not in [line.rule for line in request.lines]


def test_without_a_credential_there_is_no_authorization_line() -> None:
    request = post(("authorization", "Bearer client"), secret=None)
    assert "authorization" not in [line.name for line in request.lines]


@pytest.mark.parametrize("bad", [("x", "a\r\nb"), ("x y", "v"), ("x", "\u20ac")])
def test_what_cannot_be_sent_is_refused(bad: Header) -> None:
    with pytest.raises(InvalidHeader):
        post(bad)


@pytest.mark.parametrize(
    ("base", "host", "target"),
    [
        ("ws://127.0.0.1:9/v1", "127.0.0.1:9", "/v1/responses"),
        ("wss://h.test/", "h.test", "/responses"),
        ("http://[::1]:80/x/", "[::1]", "/x/responses"),
        ("https://h.test:443/v1", "h.test", "/v1/responses"),
        ("https://h.test:80/v1", "h.test:80", "/v1/responses"),
    ],
)
def test_where_it_goes(base: str, host: str, target: str) -> None:
    request = post(account=Account("work", base_url=base))
    assert (written(request)[0], request.target) == (("host", host), target)


def test_a_repr_shows_no_secret() -> None:
    request = post(("x-codex-turn-metadata", "LEAK"), ("cookie", "LEAK"))
    assert "LEAK" not in repr(request)


CODEX = [
    ("x-codex-beta-features", "remote_compaction_v2"),
    ("x-codex-turn-state", "ts-fake-sticky-1"),
    ("x-codex-window-id", "0001:0"),
    ("x-codex-turn-metadata", '{"turn_id":"0003"}'),
    ("x-client-request-id", "0001"),
    ("session-id", "0001"),
    ("thread-id", "0001"),
    ("accept", "text/event-stream"),
    ("content-type", "application/json"),
    ("authorization", "Bearer test-api-key"),
    ("originator", "codex_exec"),
    ("user-agent", "codex_exec/0.169.0"),
    ("host", "127.0.0.1:2455"),
    ("content-length", "40195"),
]
"""The second request of a turn of the Codex CLI over HTTP, as recorded, values shortened."""


def test_what_codex_sends_in_the_middle_of_a_turn() -> None:
    request = post(*CODEX, turn_state_is_ours=True, conversation_key="0001")
    assert between(request) == [
        ("x-codex-beta-features", "remote_compaction_v2"),
        ("x-codex-turn-state", "ts-fake-sticky-1"),
        ("session-id", "0001"),
        ("thread-id", "0001"),
        ("originator", "codex_exec"),
        ("user-agent", "codex_exec/0.169.0"),
    ]
    assert request.client_metadata == {
        "x-codex-window-id": "0001:0",
        "x-codex-turn-metadata": '{"turn_id":"0003"}',
    }


NAMES = st.sampled_from(
    sorted({*DROPPED, *FORWARDED, *MOVED, *SESSION_ROW, "connection", "openai-beta", "x-new"})
)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@given(LINES, st.booleans(), st.none() | st.text(min_size=1))
def test_no_client_credential_is_ever_forwarded(
    inbound: list[Header], ours: bool, conversation: str | None
) -> None:
    marked = [(name, f"client {value}") for name, value in inbound]
    options = HeaderOptions(allow=frozenset({*CREDENTIAL_NAMES, "host", "content-length"}))
    request = post(*marked, options=options, turn_state_is_ours=ours, conversation_key=conversation)
    forwarded = {line.name for line in request.lines if line.origin == "client"}
    assert not forwarded & {*CREDENTIAL_NAMES, "host", "content-length", "accept", "content-type"}
    for name, value in written(request):
        if value.startswith("client "):
            assert name in forwarded or name == "openai-beta"
    assert len(request.decisions) == len(inbound)
    for generated in ("host", "authorization", "content-type", "accept", "content-length"):
        assert [line.name for line in request.lines].count(generated) == 1


@given(LINES, st.none() | st.text(min_size=1))
def test_what_is_forwarded_is_what_the_handshake_forwards(
    inbound: list[Header], conversation: str | None
) -> None:
    """The same allow-list: only the transport's own lines differ, and the beta tokens."""
    inputs = replace(INPUTS, inbound=inbound, conversation_key=conversation)
    over_http, over_websocket = build_post(inputs), build(inputs)
    differ = ("websocket_handshake", "http_framing", "http_negotiation", "beta_tokens")
    assert [line for line in over_http.lines if line.rule not in differ] == [
        line for line in over_websocket.lines if line.rule not in differ
    ]
    assert over_http.client_metadata == over_websocket.client_metadata
    assert over_http.decisions == over_websocket.decisions


# --- the body ----------------------------------------------------------------------------------


def test_the_body_is_the_frame_as_http_says_it() -> None:
    text = '{ "model" : "m","n":1.50,"stream":false,"x":[ 1,2 ],"type":"x","a":"\\u00e9" }'
    frame = create_frame(parse_body(text.encode()), {"k": "v"})
    assert post_body(frame) == (
        '{"stream":true,"model":"m","n":1.50,"x":[ 1,2 ],"a":"\\u00e9","client_metadata":{"k":"v"}}'
    )
    assert post_body(create_frame(parse_body(b"{}"), {})) == '{"stream":true}'


def test_other_frames_cannot_be_posted() -> None:
    with pytest.raises(ValueError, match="no frame that creates"):
        post_body('{"type":"response.interrupt","response_id":"r"}')


# --- the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "readable"),
    [
        ({"content-type": "text/event-stream"}, True),
        ({"content-type": "Text/Event-Stream ; charset=utf-8"}, True),
        ({}, True),
        ({"content-type": "application/json"}, False),
        ({"content-type": "text/html"}, False),
        ({"content-type": "text/event-stream", "content-encoding": "gzip"}, False),
        ({"content-type": "text/event-stream", "content-encoding": "Identity"}, True),
    ],
)
def test_what_can_be_read_as_events(headers: dict[str, str], readable: bool) -> None:
    assert is_event_stream(list(headers.items())) is readable


def test_headers_become_the_event_that_says_the_same() -> None:
    headers = [
        ("content-type", "text/event-stream"),
        ("x-codex-turn-state", "ts"),
        ("openai-model", "m"),
        ("x-codex-primary-used-percent", "12.5"),
        ("set-cookie", "no"),
        ("x-request-id", "no"),
    ]
    event = metadata_event(headers)
    assert event is not None
    assert parse_event(event) == (
        "response.metadata",
        {
            "type": "response.metadata",
            "headers": {
                "openai-model": "m",
                "x-codex-primary-used-percent": "12.5",
                "x-codex-turn-state": "ts",
            },
        },
    )
    assert metadata_event([("content-type", "text/event-stream"), ("date", "now")]) is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"code":"c","message":"m"}}', {"code": "c", "message": "m"}),
        (b'{"error":"no"}', "no"),
        (b'{"detail":"no"}', {"message": "no"}),
        (b'{"message":"m","code":"c","other":1}', {"message": "m", "code": "c"}),
        (b'{"error":null,"detail":[1]}', {}),
        (b"<html>", {}),
        (b"", {}),
        (b"[1]", {}),
        (b'{"error":{"message":NaN}}', {}),
        (b"\xff", {}),
        (b"[" * 100_000, {}),
    ],
)
def test_a_refusal_becomes_an_error_frame(body: bytes, error: Any) -> None:
    frame = refusal_frame(503, [("retry-after", "3")], body)
    assert parse_event(frame) == (
        "error",
        {"type": "error", "status": 503, "error": error, "headers": {"retry-after": "3"}},
    )


@given(st.integers(300, 599), st.binary() | st.builds(lambda x: json.dumps(x).encode(), st.text()))
def test_any_refusal_can_be_classified(status: int, body: bytes) -> None:
    kind, frame = parse_event(refusal_frame(status, [("retry-after", "3")], body))
    assert kind == "error"
    failure = parse(frame["status"], frame, frame["headers"], 0.0, handshake=False, answer=True)
    assert failure.status == status
    assert failure.row.fault is not Fault.NO_WEBSOCKET


# What is passed on as it is


def passed(
    *inbound: Header, kept: tuple[str, ...] = MEDIA_TYPES, sized: bool = True
) -> list[Header]:
    head = build_call(
        replace(INPUTS, inbound=inbound), "http://a.test/v1/x", kept=kept, sized=sized
    )
    return head.headers("id", 7 if sized else None)


def test_what_is_passed_on_describes_its_body() -> None:
    lines = passed(
        ("Content-Type", "a/b"),
        ("Accept", "c/d"),
        ("accept", "e/f"),
        ("Content-Encoding", "gzip"),
        ("OpenAI-Beta", "assistants=v2, responses=experimental"),
        ("X-Codex-Window-Id", "w"),
        ("session-id", "s"),
        ("Content-Length", "99"),
    )
    assert lines == [
        ("host", "a.test"),
        ("authorization", "Bearer sk-test-LEAK"),
        ("openai-beta", "assistants=v2"),
        ("user-agent", "codexlb/0.1.0"),
        ("session-id", "s"),
        ("content-type", "a/b"),
        ("accept", "c/d"),
        ("accept-encoding", "identity"),
        ("x-client-request-id", "id"),
        ("content-length", "7"),
    ]
    coded = dict(passed(("Content-Encoding", "gzip"), kept=CODED, sized=False))
    assert coded["content-encoding"] == "gzip"
    assert "content-length" not in coded


def test_what_the_connection_line_names_is_not_passed_on() -> None:
    lines = dict(
        passed(("Connection", "Accept, content-type"), ("Accept", "a"), ("Content-Type", "b"))
    )
    assert not {"accept", "content-type"} & set(lines)


def test_what_belongs_to_a_turn_has_nowhere_to_go() -> None:
    inbound = [(name, "LEAK") for name in MOVED]
    head = build_call(replace(INPUTS, inbound=inbound), "http://a.test/v1/x")
    assert {decision.action for decision in head.decisions} == {Action.DROP}
    assert all(decision.reason for decision in head.decisions)
    assert head.client_metadata == {}
    assert not any(value == "LEAK" for _, value in head.headers("id", 7))


@pytest.mark.parametrize("line", [("x-note", "a\x01b"), ("content-type", "a\r\nb"), ("b d", "x")])
def test_what_cannot_be_sent_is_not_passed_on(line: Header) -> None:
    with pytest.raises(InvalidHeader):
        passed(line)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*CREDENTIAL_NAMES, "x-any", "content-type", "accept", "via", "host"]),
            st.sampled_from(["LEAK", "x"]),
        )
    )
)
def test_no_client_credential_is_passed_on(inbound: list[Header]) -> None:
    for name, value in passed(*((name.title(), value) for name, value in inbound), kept=CODED):
        assert name in ("content-type", "accept") or value != "LEAK"
