"""What a person and a script see of a handshake."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli import __version__
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.headers import Header, HeaderOptions
from codexlb_cli.inspect.clients import EXAMPLE, NAMES, recorded
from codexlb_cli.inspect.handshake import document, inspected, text, wire
from tests.inspect.accounts import WORK

EXAMPLE_SOURCE = "built-in example (yours: -H, --headers, --client)"

SECRETS = (
    "authorization", "cookie", "set-cookie", "api-key", "x-api-key", "x-auth-token",
    "x-goog-api-key", "chatgpt-account-id", "openai-organization", "openai-project",
    "proxy-authorization", "sec-websocket-protocol", "x-codex-turn-metadata",
)  # fmt: skip


def of(*inbound: Header, account: Account = WORK, options: HeaderOptions | None = None) -> str:
    return text(inspected(account, inbound, options or HeaderOptions()), "3 from -H")


def test_the_example_for_a_person() -> None:
    handshake = inspected(WORK, EXAMPLE, HeaderOptions())
    assert (
        text(handshake, EXAMPLE_SOURCE)
        == """\
Dry run, nothing was sent. Client headers: built-in example (yours: -H, --headers, --client).

UPSTREAM HANDSHAKE  account work, GET wss://api.openai.com/v1/responses

  HEADER                 VALUE                            FROM     RULE
  Host                   api.openai.com                   gateway  websocket_handshake
  Upgrade                websocket                        gateway  websocket_handshake
  Connection             Upgrade                          gateway  websocket_handshake
  Sec-WebSocket-Key      (new for every socket)           gateway  websocket_handshake
  Sec-WebSocket-Version  13                               gateway  websocket_handshake
  authorization          Bearer ***                       account  account_credential
  openai-beta            responses_websockets=2026-02-06  gateway  beta_tokens
  user-agent             example-client/1.0               client   allowed
  session-id             example-session                  client   allowed
  x-client-request-id    (new for every socket)           gateway  request_identity

CLIENT HEADERS  one decision per line, in the order received

  HEADER           ACTION   RULE               WHY
  Host             drop     http_framing       names the client's hop; the upstream's own is set
  Accept           drop     http_negotiation   describes the client's HTTP hop
  Accept-Encoding  drop     http_negotiation   describes the client's HTTP hop
  Connection       drop     hop_by_hop         ends at this gateway
  Content-Type     drop     http_framing       describes a body; the upgrade has none
  Content-Length   drop     http_framing       describes a body; the upgrade has none
  Authorization    drop     client_credential  the account's own is set
  Cookie           drop     client_credential  belongs between client and gateway
  OpenAI-Beta      replace  beta_tokens        responses=experimental is for HTTP only
  User-Agent       forward  allowed
  Session-Id       forward  allowed

2 forwarded, 1 replaced, 8 dropped, 0 moved into the frame. Every reconnect uses the same rules."""
    )


def test_the_example_as_a_document() -> None:
    found = document(inspected(WORK, EXAMPLE, HeaderOptions()))
    assert list(found) == ["schema", "account", "url", "headers", "decisions", "client_metadata"]
    assert found["schema"] == "codexlb.inspect.handshake/1"
    assert found["account"] == "work"
    assert found["url"] == "wss://api.openai.com/v1/responses"
    assert found["client_metadata"] == {}
    assert [list(line) for line in found["headers"]] == [
        ["name", "value", "origin", "rule", "varies"]
    ] * len(found["headers"])
    assert [tuple(line.values()) for line in found["headers"]] == [
        ("Host", "api.openai.com", "gateway", "websocket_handshake", False),
        ("Upgrade", "websocket", "gateway", "websocket_handshake", False),
        ("Connection", "Upgrade", "gateway", "websocket_handshake", False),
        ("Sec-WebSocket-Key", "(new for every socket)", "gateway", "websocket_handshake", True),
        ("Sec-WebSocket-Version", "13", "gateway", "websocket_handshake", False),
        ("authorization", "Bearer ***", "account", "account_credential", False),
        ("openai-beta", "responses_websockets=2026-02-06", "gateway", "beta_tokens", False),
        ("user-agent", "example-client/1.0", "client", "allowed", False),
        ("session-id", "example-session", "client", "allowed", False),
        ("x-client-request-id", "(new for every socket)", "gateway", "request_identity", True),
    ]
    assert [list(decision) for decision in found["decisions"]] == [
        ["name", "value", "action", "rule", "reason", "source"]
    ] * len(EXAMPLE)
    assert found["decisions"][1] == {
        "name": "Accept",
        "value": "text/event-stream",
        "action": "drop",
        "rule": "http_negotiation",
        "reason": "describes the client's HTTP hop",
        "source": "RFC 9110 \u00a712.5.1",
    }
    assert [decision["value"] for decision in found["decisions"][6:8]] == ["***", "***"]
    assert found["decisions"][9]["source"] is None


def test_the_example_on_the_wire() -> None:
    assert wire(inspected(WORK, EXAMPLE, HeaderOptions())) == (
        b"GET /v1/responses HTTP/1.1\r\n"
        b"Host: api.openai.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: (new for every socket)\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"authorization: Bearer ***\r\n"
        b"openai-beta: responses_websockets=2026-02-06\r\n"
        b"user-agent: example-client/1.0\r\n"
        b"session-id: example-session\r\n"
        b"x-client-request-id: (new for every socket)\r\n"
        b"\r\n"
    )


def test_without_a_user_agent_ours_is_sent() -> None:
    found = document(inspected(WORK, (), HeaderOptions()))
    agent = next(line for line in found["headers"] if line["name"] == "user-agent")
    assert agent["value"] == f"codexlb/{__version__}"
    assert (agent["origin"], agent["rule"]) == ("gateway", "own_identity")
    assert "\n  The client sent none.\n" in of()


def test_moved_headers_are_shown_where_they_go() -> None:
    inbound = (
        ("X-Codex-Window-Id", "thread:0"),
        ("x-codex-turn-metadata", "LEAK"),
        ("x-openai-internal-codex-responses-lite", "true"),
    )
    found = document(inspected(WORK, inbound, HeaderOptions()))
    assert found["client_metadata"] == {
        "x-codex-window-id": "thread:0",
        "x-codex-turn-metadata": "***",
        "ws_request_header_x_openai_internal_codex_responses_lite": "true",
    }
    assert of(*inbound).endswith("""\

CLIENT METADATA  goes into the frame of the turn, not on the handshake

  NAME                                                      VALUE
  x-codex-window-id                                         thread:0
  x-codex-turn-metadata                                     ***
  ws_request_header_x_openai_internal_codex_responses_lite  true

0 forwarded, 0 replaced, 0 dropped, 3 moved into the frame. Every reconnect uses the same rules.""")


def test_a_name_that_the_user_allowed_says_so() -> None:
    shown = of(("X-Foo", "1"), options=HeaderOptions(allow=frozenset({"x-foo"})))
    assert "X-Foo   forward  allowed  allowed by [headers] allow" in shown
    assert "x-foo                  1                                client   allowed" in shown


def test_long_and_foreign_values_are_shown_whole_and_escaped() -> None:
    value = "caf\u00e9 \u2026" + "x" * 200
    inbound = ("session-id", value.encode().decode("latin-1"))
    shown = of(inbound)
    assert shown.isascii()
    assert "caf\\xe9 \\u2026" in shown
    assert shown.count("x" * 10) >= 15
    assert max(map(len, shown.splitlines())) < 100
    handshake = inspected(WORK, (inbound,), HeaderOptions())
    assert document(handshake)["headers"][-2]["value"] == value
    assert value.encode() in wire(handshake)


def test_every_recorded_client_fits_a_terminal() -> None:
    for name in NAMES:
        client = recorded(name)
        shown = text(inspected(WORK, client.headers, HeaderOptions()), f"{name} x" * 20)
        assert max(map(len, shown.splitlines())) < 100, name
        assert shown.isascii()
        assert "sk-example" not in shown
        assert "access-token" not in shown


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*SECRETS, *(name.upper() for name in SECRETS)]),
            st.sampled_from(["LEAK", "Bearer LEAK", "k=LEAK"]),
        ),
        max_size=12,
    )
)
def test_no_form_shows_a_secret(inbound: list[Header]) -> None:
    options = HeaderOptions(allow=frozenset(SECRETS))
    nominated = ("Connection", "x-api-key, X-Codex-Turn-Metadata")
    handshake = inspected(WORK, (nominated, *inbound), options)
    shown = (text(handshake, "LEA K"), json.dumps(document(handshake)), wire(handshake).decode())
    assert not any("LEAK" in form for form in shown)


@settings(deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True), st.just("v"))))
def test_every_line_has_a_decision_with_a_rule_and_a_reason(inbound: list[Header]) -> None:
    found = document(inspected(WORK, tuple(inbound), HeaderOptions()))
    assert [decision["name"] for decision in found["decisions"]] == [name for name, _ in inbound]
    assert all(decision["rule"] and decision["reason"] for decision in found["decisions"])
