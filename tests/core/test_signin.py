from __future__ import annotations

import math
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.signin import (
    Answer,
    Asking,
    Callback,
    Poll,
    authorize_url,
    challenge,
    error_code,
    interval_seconds,
    is_issuer,
    poll_meaning,
    read_callback,
    read_object,
    read_pasted,
    url_text,
)

REDIRECT = "http://127.0.0.1:1455/auth/callback"


def test_the_challenge_is_that_of_rfc_7636() -> None:
    # Appendix B of the RFC.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@given(st.binary(min_size=32, max_size=32))
def test_chance_becomes_a_verifier(chance: bytes) -> None:
    text = url_text(chance)
    assert len(text) == 43  # RFC 7636 section 4.1: 43 to 128 characters
    assert urlencode({"v": text}) == f"v={text}"


def test_the_page_of_a_sign_in() -> None:
    url = authorize_url("https://issuer.example", "app", Asking("s", "v" * 43, REDIRECT))
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.path) == (
        "https",
        "issuer.example",
        "/oauth/authorize",
    )
    assert parse_qs(parts.query) == {
        "response_type": ["code"],
        "client_id": ["app"],
        "redirect_uri": [REDIRECT],
        "scope": ["openid profile email offline_access"],
        "code_challenge": [challenge("v" * 43)],
        "code_challenge_method": ["S256"],
        "state": ["s"],
        "id_token_add_organizations": ["true"],
        "codex_cli_simplified_flow": ["true"],
        "originator": ["codexlb"],
    }


CALLBACKS = [
    ("code=c&state=s", Callback(Answer.CODE, code="c")),
    ("state=s&code=c%2Fd", Callback(Answer.CODE, code="c/d")),
    ("error=access_denied&state=s", Callback(Answer.DENIED, reason="access_denied")),
    ("error=%1b%5b31m&state=s", Callback(Answer.DENIED, reason="unknown")),
    ("error=access_denied&code=c&state=s", Callback(Answer.DENIED, reason="access_denied")),
    ("code=c&state=other", Callback(Answer.FOREIGN)),
    ("error=access_denied&state=other", Callback(Answer.FOREIGN)),
    ("code=c", Callback(Answer.FOREIGN)),
    ("code=c&state=s&state=other", Callback(Answer.FOREIGN)),
    ("code=c&code=d&state=s", Callback(Answer.NONE)),
    ("code=c%00&state=s", Callback(Answer.NONE)),
    ("code=%C3%A4&state=s", Callback(Answer.NONE)),
    ("state=s", Callback(Answer.NONE)),
    ("code=&state=s", Callback(Answer.NONE)),
    ("", Callback(Answer.NONE)),
    ("&".join(f"a{n}=1" for n in range(100)), Callback(Answer.NONE)),
]


@pytest.mark.parametrize(("query", "callback"), CALLBACKS)
def test_what_a_callback_says(query: str, callback: Callback) -> None:
    assert read_callback(query, "s") == callback


@pytest.mark.parametrize(
    ("text", "callback"),
    [
        (f" {REDIRECT}?code=c&state=s \r\n", Callback(Answer.CODE, code="c")),
        (f"{REDIRECT}?code=c&state=s#_=_", Callback(Answer.CODE, code="c")),
        ("code=c&state=s", Callback(Answer.CODE, code="c")),
        ("ac_0123-abc.DEF", Callback(Answer.CODE, code="ac_0123-abc.DEF")),
        (f"{REDIRECT}?code=c&state=other", Callback(Answer.FOREIGN)),
        (
            f"{REDIRECT}?error=access_denied&state=s",
            Callback(Answer.DENIED, reason="access_denied"),
        ),
        (REDIRECT, Callback(Answer.NONE)),
        ("yes please", Callback(Answer.NONE)),
        ("yes", Callback(Answer.NONE)),
        ("~/code/of/something", Callback(Answer.NONE)),
        ("", Callback(Answer.NONE)),
        ("\x1b[31m", Callback(Answer.NONE)),
    ],
)
def test_what_was_pasted(text: str, callback: Callback) -> None:
    assert read_pasted(text, "s") == callback


@given(st.text(), st.text(min_size=1))
def test_an_answer_with_a_state_counts_only_with_that_of_the_sign_in(code: str, state: str) -> None:
    for other in (state + "x", state[1:]):
        query = urlencode({"code": code, "state": other})
        assert read_callback(query, state).answer in (Answer.FOREIGN, Answer.NONE)


@given(st.text())
def test_any_text_can_be_pasted(text: str) -> None:
    assert read_pasted(text, "s").answer in Answer


def test_secrets_do_not_show_themselves() -> None:
    shown = repr(Callback(Answer.CODE, code="LEAK")) + repr(Asking("LEAK", "LEAK", REDIRECT))
    assert "LEAK" not in shown


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (200, None, Poll.APPROVED),
        (403, None, Poll.PENDING),
        (404, None, Poll.PENDING),
        (403, "deviceauth_authorization_unknown", Poll.PENDING),
        (400, "authorization_pending", Poll.PENDING),
        (400, "slow_down", Poll.SLOWER),
        (429, None, Poll.SLOWER),
        (403, "access_denied", Poll.DENIED),
        (400, "expired_token", Poll.EXPIRED),
        (400, None, Poll.REFUSED),
        (302, None, Poll.REFUSED),
        (500, None, Poll.TROUBLE),
        (503, "server_error", Poll.TROUBLE),
    ],
)
def test_what_a_poll_says(status: int, code: str | None, meaning: Poll) -> None:
    assert poll_meaning(status, code) is meaning


ODD: list[object] = ["nan", "-1", "", "soon", None, [], {}, "9" * 5000 + "x"]
INTERVALS: list[tuple[object, float]] = [
    ("5", 5.0),
    ("1.5", 1.5),
    (7, 7.0),
    ("0", 0.2),
    (0.01, 0.2),
    ("1e9", 60.0),
    ("inf", 60.0),
    *((value, 5.0) for value in ODD),
]


@pytest.mark.parametrize(("value", "seconds"), INTERVALS)
def test_the_interval(value: object, seconds: float) -> None:
    assert interval_seconds(value) == seconds


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_an_interval_is_always_bounded(value: object) -> None:
    assert 0.2 <= interval_seconds(value) <= 60
    assert math.isfinite(interval_seconds(value))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "invalid_grant", "message": "LEAK"}}', "invalid_grant"),
        (b'{"error": {"code": null, "type": "server_error"}}', "server_error"),
        (b'{"error": "access_denied", "error_description": "LEAK"}', "access_denied"),
        (b'{"code": "slow_down"}', "slow_down"),
        (b'{"error": {"code": "a b"}}', None),
        (b'{"error": "\\u001b[31m"}', None),
        (b'{"error": 7}', None),
        (b"{}", None),
        (b"[]", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_code_of_an_error(body: bytes, code: str | None) -> None:
    assert error_code(read_object(body)) == code


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://auth.openai.com", True),
        ("https://auth.example:8443/tenant/", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost:1", True),
        ("http://[::1]:80", True),
        ("http://auth.openai.com", False),
        ("http://127.0.0.1.evil.example", False),
        ("https://user@auth.example", False),
        ("https://auth.example?x", False),
        ("https://auth.example#x", False),
        ("https://auth.example:0", False),
        ("https://auth.example:99999", False),
        ("https:///x", False),
        ("ftp://127.0.0.1", False),
        ("https://auth example", False),
        ("https://[", False),
        ("https://a\\b", False),
        ("", False),
    ],
)
def test_where_tokens_may_be_sent(url: str, fits: bool) -> None:
    assert is_issuer(url) is fits
