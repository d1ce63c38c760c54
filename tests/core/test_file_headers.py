"""The headers of calls for files: two allow-lists."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.file_headers import answer_headers, body_error, request_headers
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import CREDENTIAL_NAMES, Header, HeaderOptions
from codexlb_cli.errors import InvalidHeader

FORM = "multipart/form-data; boundary=x"
CLIENT: list[Header] = [
    ("Host", "127.0.0.1:2455"),
    ("Authorization", "Bearer sk-test-LEAK"),
    ("Cookie", "a=sk-test-LEAK"),
    ("OpenAI-Organization", "org-LEAK"),
    ("OpenAI-Project", "proj-LEAK"),
    ("OpenAI-Beta", "assistants=v2"),
    ("Content-Type", FORM),
    ("Content-Length", "3"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip"),
    ("User-Agent", "OpenAI/Python 2"),
    ("X-Stainless-OS", "Linux"),
    ("X-Client-Request-Id", "theirs"),
    ("Idempotency-Key", "theirs"),
    ("session-id", "s"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("Range", "bytes=0-1"),
    ("traceparent", "00-0-0-0"),
]
INPUTS = HandshakeInputs(
    account=Account("work", organization="org-own", project="proj-own"),
    secret="sk-own",
    inbound=CLIENT,
    options=HeaderOptions(),
    user_agent="codexlb/1",
)


def sent(inputs: HandshakeInputs = INPUTS, *, with_body: bool = True) -> list[Header]:
    return request_headers(inputs, "ours", with_body=with_body)


def test_what_an_account_is_sent() -> None:
    assert sent() == [
        ("authorization", "Bearer sk-own"),
        ("openai-organization", "org-own"),
        ("openai-project", "proj-own"),
        ("content-type", FORM),
        ("accept", "application/json"),
        ("user-agent", "OpenAI/Python 2"),
        ("accept-encoding", "identity"),
        ("x-client-request-id", "ours"),
    ]
    signed_in = sent(replace(INPUTS, account_id="acc-own"))
    assert signed_in[1] == ("chatgpt-account-id", "acc-own")
    bodiless = sent(with_body=False)
    assert "content-type" not in dict(bodiless)


def test_our_own_user_agent_where_the_client_sent_none() -> None:
    lines = sent(replace(INPUTS, inbound=[], account=Account("work"), secret=None))
    assert lines == [
        ("user-agent", "codexlb/1"),
        ("accept-encoding", "identity"),
        ("x-client-request-id", "ours"),
    ]


def test_what_the_connection_line_names_ends_here() -> None:
    inbound = [("Connection", "Accept, user-agent"), ("Accept", "a"), ("User-Agent", "b")]
    lines = dict(sent(replace(INPUTS, inbound=inbound)))
    assert "accept" not in lines
    assert lines["user-agent"] == "codexlb/1"


def test_the_first_of_several_lines_counts() -> None:
    inbound = [("Content-Type", FORM), ("content-type", "text/plain"), ("Accept", "a")]
    lines = sent(replace(INPUTS, inbound=inbound))
    assert [v for n, v in lines if n == "content-type"] == [FORM]


@pytest.mark.parametrize("line", [("x-note", "a\x01b"), ("accept", "a\r\nb"), ("b d", "x")])
def test_what_cannot_be_sent_is_refused(line: Header) -> None:
    with pytest.raises(InvalidHeader):
        sent(replace(INPUTS, inbound=[line]))


NAMES = st.sampled_from([*CREDENTIAL_NAMES, "x-any", "content-type", "accept", "user-agent"])


@given(st.lists(st.tuples(NAMES, st.sampled_from(["LEAK", "x"]))), st.booleans())
def test_no_client_credential_is_ever_forwarded(inbound: list[Header], with_body: bool) -> None:
    given_ = [(name.title(), value) for name, value in inbound]
    lines = sent(replace(INPUTS, inbound=given_), with_body=with_body)
    names = [name for name, _ in lines]
    assert len(names) == len(set(names))
    for name, value in lines:
        assert name in ("content-type", "accept", "user-agent") or value != "LEAK"


ANSWER: list[Header] = [
    ("Content-Type", "application/octet-stream"),
    ("Content-Length", "12"),
    ("Content-Disposition", 'attachment; filename="a.txt"'),
    ("Content-Encoding", "gzip"),
    ("Set-Cookie", "a=b"),
    ("Location", "https://elsewhere"),
    ("X-Request-Id", "theirs"),
    ("OpenAI-Version", "2020-10-01"),
    ("x-codex-turn-state", "state"),
    ("x-ratelimit-limit-requests", "5"),
    ("Strict-Transport-Security", "max-age=1"),
    ("x-codexlb-account", "spoofed"),
]


def test_what_the_client_sees() -> None:
    kind = ("content-type", "application/octet-stream")
    upstream = [("openai-version", "2020-10-01"), ("x-ratelimit-limit-requests", "5")]
    assert answer_headers(ANSWER, content=False) == [kind, *upstream]
    assert answer_headers(ANSWER, content=True) == [
        kind,
        ("content-length", "12"),
        ("content-disposition", 'attachment; filename="a.txt"'),
        ("content-encoding", "gzip"),
        *upstream,
    ]


@pytest.mark.parametrize(
    ("inbound", "code"),
    [
        ([], None),
        ([("Content-Length", "10")], None),
        ([("Content-Length", "11")], "request_too_large"),
        ([("Content-Encoding", "identity")], None),
        ([("Content-Encoding", "gzip")], "invalid_request"),
    ],
)
def test_bodies_that_are_not_even_read(inbound: list[Header], code: str | None) -> None:
    error = body_error(inbound, 10)
    assert (error.code if error else None) == code


def test_a_length_beside_chunks_says_nothing() -> None:
    """RFC 9112 section 6.3: the chunks count, so the length must not be handed on."""
    lines = [("Content-Length", "3"), ("Transfer-Encoding", "chunked"), ("Content-Type", "a/b")]
    assert answer_headers(lines, content=True) == [("content-type", "a/b")]
