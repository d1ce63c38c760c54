"""The upstream handshake: what is generated, in which order, and what no client can change."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.handshake import (
    VARIES,
    Handshake,
    HandshakeInputs,
    build,
    cache_session,
    client_headers,
    header_text,
    shown_value,
)
from codexlb_cli.core.headers import Header, HeaderOptions
from codexlb_cli.errors import InvalidHeader
from tests.core.header_table import DROPPED, EXPECTED, FORWARDED, MASKED, MOVED, SESSION_ROW

ACCOUNT = Account("work", base_url="https://api.example.test/v1")
BETA = "responses_websockets=2026-02-06"
INPUTS = HandshakeInputs(
    account=ACCOUNT,
    secret="sk-test-LEAK",
    inbound=(),
    options=HeaderOptions(),
    user_agent="codexlb/0.1.0",
)
WEBSOCKET = ["Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]


def shake(*inbound: Header, **changes: object) -> Handshake:
    return build(replace(INPUTS, inbound=inbound, **changes))  # type: ignore[arg-type]


def written(handshake: Handshake) -> list[Header]:
    """Return the lines that are not the WebSocket library's."""
    return [(line.name, line.value) for line in handshake.additional]


def test_without_client_headers() -> None:
    handshake = shake()
    assert [(line.name, line.value, line.origin, line.rule) for line in handshake.lines] == [
        ("Host", "api.example.test", "gateway", "websocket_handshake"),
        ("Upgrade", "websocket", "gateway", "websocket_handshake"),
        ("Connection", "Upgrade", "gateway", "websocket_handshake"),
        ("Sec-WebSocket-Key", VARIES, "gateway", "websocket_handshake"),
        ("Sec-WebSocket-Version", "13", "gateway", "websocket_handshake"),
        ("authorization", "Bearer sk-test-LEAK", "account", "account_credential"),
        ("openai-beta", BETA, "gateway", "beta_tokens"),
        ("user-agent", "codexlb/0.1.0", "gateway", "own_identity"),
        ("x-client-request-id", VARIES, "gateway", "request_identity"),
    ]
    assert [line.name for line in handshake.lines if line.varies] == [
        "Sec-WebSocket-Key",
        "x-client-request-id",
    ]
    assert handshake.request_line == "GET /v1/responses HTTP/1.1"
    assert handshake.url == "wss://api.example.test/v1/responses"
    assert (handshake.account, handshake.decisions, handshake.client_metadata) == ("work", (), {})


def test_the_order_on_the_wire() -> None:
    account = replace(ACCOUNT, organization="org-1", project="proj-1")
    handshake = shake(
        ("Thread-Id", "t"),
        ("Authorization", "Bearer client"),
        ("OpenAI-Beta", "a=1"),
        ("originator", "o2"),
        ("Originator", "o1"),
        ("OpenAI-Beta", "b=2, responses=experimental"),
        ("version", "1"),
        account=account,
        conversation_key="chat",
    )
    assert written(handshake) == [
        ("authorization", "Bearer sk-test-LEAK"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
        ("openai-beta", f"a=1, b=2, {BETA}"),
        ("user-agent", "codexlb/0.1.0"),
        ("thread-id", "t"),
        ("originator", "o2"),
        ("originator", "o1"),
        ("version", "1"),
        ("session-id", cache_session("chat")),
        ("x-client-request-id", VARIES),
    ]
    rules = [line.rule for line in handshake.additional]
    assert rules == [
        *["account_credential"] * 3, "beta_tokens", "own_identity", *["allowed"] * 4,
        "cache_session", "request_identity",
    ]  # fmt: skip
    origins = [line.origin for line in handshake.additional]
    assert origins == [*["account"] * 3, *["gateway"] * 2, *["client"] * 4, *["gateway"] * 2]


def test_a_clients_user_agent_replaces_ours() -> None:
    handshake = shake(("User-Agent", "codex/1"), ("originator", "codex_cli"))
    assert written(handshake)[2:4] == [("user-agent", "codex/1"), ("originator", "codex_cli")]
    assert "own_identity" not in [line.rule for line in handshake.lines]


def test_who_signed_in_is_told_after_the_token_and_masked() -> None:
    account = replace(ACCOUNT, kind="chatgpt", organization="org")
    handshake = shake(("ChatGPT-Account-Id", "theirs"), account=account, account_id="acc-LEAK")
    assert written(handshake)[:3] == [
        ("authorization", "Bearer sk-test-LEAK"),
        ("chatgpt-account-id", "acc-LEAK"),
        ("openai-organization", "org"),
    ]
    told = [line for line in handshake.lines if line.name == "chatgpt-account-id"]
    assert [(line.shown, line.origin, line.rule) for line in told] == [
        ("***", "account", "account_credential")
    ]
    assert [(d.name, d.rule) for d in handshake.decisions] == [
        ("ChatGPT-Account-Id", "client_credential")
    ]
    assert "LEAK" not in repr(handshake)


def test_without_a_credential_there_is_no_authorization_line() -> None:
    handshake = shake(("authorization", "Bearer client"), secret=None)
    assert "authorization" not in [line.name for line in handshake.lines]


@pytest.mark.parametrize("name", SESSION_ROW)
def test_a_named_session_suppresses_the_generated_one(name: str) -> None:
    handshake = shake((name.title(), "s"), conversation_key="chat")
    assert "cache_session" not in [line.rule for line in handshake.lines]


@pytest.mark.parametrize("name", ["thread-id", "x-codex-window-id", "originator"])
def test_other_names_do_not_suppress_the_generated_session(name: str) -> None:
    handshake = shake((name, "s"), conversation_key="chat")
    assert ("session-id", cache_session("chat")) in written(handshake)


def test_a_cache_session_is_a_stable_hash() -> None:
    assert cache_session("chat") == cache_session("chat") != cache_session("chat2")
    assert "chat" not in cache_session("chat")
    assert set(cache_session("\u20ac\x00")) <= set(string.hexdigits)
    handshake = shake(conversation_key=None)
    assert "session-id" not in [line.name for line in handshake.lines]


@pytest.mark.parametrize(("name", "key"), MOVED.items())
def test_per_turn_metadata_moves_into_the_frame(name: str, key: str) -> None:
    handshake = shake((name.upper(), "first"), (name, "second"))
    assert handshake.client_metadata == {key: "first"}
    assert [line.value for line in handshake.lines if line.origin == "client"] == []


def test_the_turn_state_moves_into_the_frame_of_the_account_that_gave_it() -> None:
    line = ("X-Codex-Turn-State", "ts")
    assert shake(line, turn_state_is_ours=True).client_metadata == {"x-codex-turn-state": "ts"}
    assert shake(line).client_metadata == {}
    assert "ts" not in [v for _, v in written(shake(line, turn_state_is_ours=True))]


def test_a_nominated_header_does_not_move() -> None:
    handshake = shake(("connection", "x-openai-subagent"), ("x-openai-subagent", "review"))
    assert handshake.client_metadata == {}


@pytest.mark.parametrize(
    ("base_url", "host", "request_line"),
    [
        ("http://127.0.0.1:9000/v1", "127.0.0.1:9000", "GET /v1/responses HTTP/1.1"),
        ("ws://[::1]:81/", "[::1]:81", "GET /responses HTTP/1.1"),
        ("wss://EXAMPLE.test:443/a/b/", "example.test", "GET /a/b/responses HTTP/1.1"),
        ("http://example.test:80/v1", "example.test", "GET /v1/responses HTTP/1.1"),
        ("https://example.test:80/v1", "example.test:80", "GET /v1/responses HTTP/1.1"),
    ],
)
def test_host_and_request_line(base_url: str, host: str, request_line: str) -> None:
    handshake = shake(account=Account("work", base_url=base_url))
    assert handshake.lines[0].value == host
    assert handshake.request_line == request_line


def test_sockets_with_the_same_set_serve_the_same_lane() -> None:
    mine = shake(("originator", "a"), ("x-request-id", "1"))
    same = shake(("Originator", "a"), ("x-request-id", "2"), ("accept", "*/*"))
    other = shake(("originator", "b"))
    assert mine.forwarded_set == same.forwarded_set != other.forwarded_set
    assert shake(secret="other").forwarded_set != shake().forwarded_set


def test_an_invalid_header_is_refused() -> None:
    with pytest.raises(InvalidHeader):
        shake(("x-a", "b\nc"))


@pytest.mark.parametrize("name", MASKED)
def test_secrets_are_masked_by_name(name: str) -> None:
    assert shown_value(name.title(), "sk-test-LEAK") == "***"


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - set(MASKED)))
def test_other_values_are_shown(name: str) -> None:
    assert shown_value(name, "value") == "value"


def test_the_generated_authorization_is_masked() -> None:
    account = replace(ACCOUNT, organization="org-LEAK", project="proj-LEAK")
    lines = [line for line in shake(account=account).lines if line.origin == "account"]
    assert [line.shown for line in lines] == ["Bearer ***", "***", "***"]
    assert "LEAK" not in repr(lines)


def test_a_handshake_may_be_logged() -> None:
    handshake = shake(
        ("authorization", "Bearer LEAK-1"),
        ("x-codex-turn-metadata", "LEAK-2"),
        ("x-codex-turn-state", "LEAK-3"),
        turn_state_is_ours=True,
    )
    assert "LEAK" not in repr(handshake)
    assert "LEAK" not in repr(replace(INPUTS, inbound=(("cookie", "LEAK"),)))


# --- properties, for arbitrary clients -------------------------------------------------------

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
LISTED = (*EXPECTED, "connection", "openai-beta", "user-agent", "session-id")
names = st.one_of(
    st.sampled_from(LISTED).flatmap(
        lambda name: st.sampled_from([name, name.upper(), name.title(), name.swapcase()])
    ),
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=12),
)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
    | st.just("\t"),
    max_size=12,
)
beta_values = st.lists(
    st.sampled_from(
        [
            "responses=experimental", "Responses = x", BETA, "responses_websockets=2025-01-01",
            "responses_websockets", "a=1", "b", " ", "",
        ]
    ),
    max_size=4,
).map(",".join)  # fmt: skip


@st.composite
def header_lines(draw: st.DrawFn) -> tuple[Header, ...]:
    lines = draw(st.lists(st.tuples(names, values), max_size=12))
    lines += [("OpenAI-Beta", v) for v in draw(st.lists(beta_values, max_size=2))]
    nominated = draw(st.lists(names, max_size=3))
    lines += [("Connection", ", ".join(nominated))]
    return tuple(draw(st.permutations(lines)))


options = st.builds(
    HeaderOptions,
    allow=st.frozensets(st.sampled_from(sorted(EXPECTED)), max_size=6),
    traceparent=st.booleans(),
)
inputs = st.builds(
    HandshakeInputs,
    account=st.sampled_from([ACCOUNT, replace(ACCOUNT, organization="org", project="proj")]),
    secret=st.sampled_from(["sk-account", None]),
    inbound=header_lines(),
    options=options,
    user_agent=st.just("codexlb/0.1.0"),
    conversation_key=st.sampled_from([None, "chat"]),
    turn_state_is_ours=st.booleans(),
    account_id=st.sampled_from([None, "acc-own"]),
)

NEVER = {
    name
    for rule, dropped in DROPPED.items()
    for name in dropped
    if rule not in ("not_allowed", "tracing")
}


@given(inputs)
@settings(max_examples=400)
def test_nothing_beyond_the_allow_list_is_forwarded_or_moved(given_: HandshakeInputs) -> None:
    handshake = build(given_)
    named = {
        token.strip().lower()
        for name, value in given_.inbound
        if name.lower() == "connection"
        for token in value.split(",")
    }
    allowed = {*FORWARDED, *given_.options.allow} | (
        {"traceparent"} if given_.options.traceparent else set()
    )
    forwarded = [line.name for line in handshake.lines if line.origin == "client"]
    assert set(forwarded) <= allowed - named - NEVER
    moved = {*MOVED.values(), *({"x-codex-turn-state"} if given_.turn_state_is_ours else ())}
    assert set(handshake.client_metadata) <= moved - named
    survivors = [d for d in handshake.decisions if d.action in ("forward", "move", "replace")]
    assert not {d.name.lower() for d in survivors} & (named | NEVER)
    # Forwarded lines keep their order, duplicates and values.
    assert [(line.name, line.value) for line in handshake.lines if line.origin == "client"] == [
        (d.name.lower(), d.value) for d in handshake.decisions if d.action == "forward"
    ]


@given(inputs)
def test_one_decision_per_line_in_order(given_: HandshakeInputs) -> None:
    handshake = build(given_)
    assert [(d.name, d.value) for d in handshake.decisions] == list(given_.inbound)
    assert all(d.rule and d.reason for d in handshake.decisions)


@given(inputs)
@example(replace(INPUTS, inbound=(("openai-beta", BETA), ("connection", "openai-beta"))))
def test_exactly_one_beta_line(given_: HandshakeInputs) -> None:
    lines = [v for n, v in written(build(given_)) if n == "openai-beta"]
    assert len(lines) == 1
    tokens = lines[0].split(", ")
    assert [t.startswith("responses_websockets=") for t in tokens].count(True) == 1
    assert not [
        t for t in tokens if t.partition("=")[0].strip().lower() == "responses" and "=" in t
    ]
    assert len(set(tokens)) == len(tokens)
    assert all(tokens)


@given(inputs)
def test_clients_neither_remove_nor_double_generated_lines(given_: HandshakeInputs) -> None:
    wanted = [(n, v) for n, v in written(build(replace(given_, inbound=()))) if n != "openai-beta"]
    lines = written(build(given_))
    sent = {n.lower() for n, _ in given_.inbound}
    for name, value in wanted:
        same = [v for n, v in lines if n == name]
        if name == "user-agent" and name in sent:
            assert same
        elif name == "session-id" and sent & {*SESSION_ROW}:
            assert value not in same
        else:
            assert same == [value]
    every = [line.name for line in build(given_).lines]
    assert every[:5] == WEBSOCKET
    assert every[-1] == "x-client-request-id"
    for name in (*WEBSOCKET, "authorization"):
        assert [n.lower() for n in every].count(name.lower()) == (
            0 if name == "authorization" and given_.secret is None else 1
        )


@given(inputs)
def test_building_is_deterministic(given_: HandshakeInputs) -> None:
    assert build(given_) == build(given_)


@given(inputs, st.sampled_from(MASKED))
def test_no_repr_shows_a_secret(given_: HandshakeInputs, name: str) -> None:
    secret = "sk-test-LEAK"
    lines = (*given_.inbound, (name, secret))
    handshake = build(replace(given_, inbound=lines, secret="sk-account-LEAK"))
    shown = [*map(repr, handshake.lines), *map(repr, handshake.decisions), repr(handshake)]
    shown += [line.shown for line in handshake.lines]
    assert "LEAK" not in "".join(shown)


# --- the other direction ---------------------------------------------------------------------


def test_what_a_client_sees_of_an_upstreams_headers() -> None:
    upstream: list[tuple[str, object]] = [
        ("OpenAI-Model", "m"),
        ("X-Codex-Primary-Used-Percent", 12.5),
        ("x-ratelimit-remaining-requests", 3),
        ("x-codex-flag", True),
        ("x-codex-turn-state", "ts"),
        ("set-cookie", "a=b"),
        ("server", "s"),
        ("x-codex-none", None),
        ("x-codex-list", ["a"]),
        ("x-codex-bad", "a\r\nb"),
    ]
    assert client_headers(upstream) == [
        ("openai-model", "m"),
        ("x-codex-primary-used-percent", "12.5"),
        ("x-ratelimit-remaining-requests", "3"),
        ("x-codex-flag", "true"),
    ]


@pytest.mark.parametrize(
    "name", ["x-codex-a\r\nset-cookie", "x-codex-a b", "x-codex-ä", "x-codex-:"]
)
def test_an_upstream_cannot_name_an_illegal_header(name: str) -> None:
    assert client_headers([(name, "1"), ("x-codex-ok", "2")]) == [("x-codex-ok", "2")]


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_header_text_is_a_legal_value_or_nothing(value: object) -> None:
    text = header_text(value)
    assert text is None or (text.isascii() and not {*text} & {*"\r\n\0\x7f"})
