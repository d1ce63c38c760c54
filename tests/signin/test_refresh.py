"""One refresh at an issuer: what it may answer, and what follows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.tokens import PERMANENT_REFUSALS
from codexlb_cli.errors import ExitStatus, SignInRequired, UpstreamError
from codexlb_cli.signin.refresh import (
    IssuerAnswer,
    LoginRefused,
    post_json,
    refresh,
    refusal_code,
)
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret
from tests.core.pools import NOW
from tests.store.test_logins import LEAK, a_login
from tests.support.gateway import closed_port
from tests.support.issuer import Issuer, issuing


def renewed(status: int, body: object, login: Login | None = None) -> Login:
    return refresh(
        login or a_login(),
        reason="proactive_expiry",
        post=lambda url, members: IssuerAnswer(status, body),
        now=lambda: NOW + 9,
    )


def test_what_is_asked() -> None:
    asked: list[tuple[str, Mapping[str, str]]] = []

    def post(url: str, members: Mapping[str, str]) -> IssuerAnswer:
        asked.append((url, members))
        return IssuerAnswer(200, {"access_token": "new"})

    login = replace(a_login(), issuer="https://issuer.example/", client_id="mine")
    refresh(login, reason="unauthorized_recovery", post=post, now=lambda: NOW)
    assert asked == [
        (
            "https://issuer.example/oauth/token",
            {
                "client_id": "mine",
                "grant_type": "refresh_token",
                "refresh_token": f"refresh-{LEAK}-1",
                "refresh_reason": "unauthorized_recovery",
            },
        )
    ]


def test_each_token_may_be_given_or_not() -> None:
    old = a_login()
    every = renewed(200, {"access_token": "a", "refresh_token": "r", "id_token": "i"})
    assert every == replace(
        old,
        access_token=Secret("a"),
        refresh_token=Secret("r"),
        id_token=Secret("i"),
        refreshed_at=NOW + 9,
    )
    access = renewed(200, {"access_token": "a", "refresh_token": None})
    assert access == replace(old, access_token=Secret("a"), refreshed_at=NOW + 9)
    assert renewed(200, {"refresh_token": "r"}) == replace(old, refresh_token=Secret("r"))


@pytest.mark.parametrize("code", sorted(PERMANENT_REFUSALS))
@pytest.mark.parametrize("status", [400, 401])
def test_refusals_for_good(code: str, status: int) -> None:
    for body in ({"error": {"code": code}}, {"error": code}, {"error": {"type": code}},
                 {"code": code}):  # fmt: skip
        with pytest.raises(LoginRefused) as caught:
            renewed(status, body)
        assert caught.value.code == code
        assert isinstance(caught.value, SignInRequired)
        assert caught.value.exit_status is ExitStatus.SIGN_IN
        assert LEAK not in str(caught.value)


def test_a_login_without_a_refresh_token_has_ended() -> None:
    with pytest.raises(LoginRefused) as caught:
        renewed(200, {"access_token": "a"}, replace(a_login(), refresh_token=None))
    assert caught.value.code == "no_refresh_token"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": {"code": "refresh_token_reused"}}),
        (503, None),
        (429, {"error": "invalid_grant"}),
        (403, None),
        (401, None),
        (401, {"error": {"code": LEAK}}),
        (302, {"access_token": "a"}),
        (200, None),
        (200, []),
        (200, {}),
        (200, {"access_token": ""}),
        (200, {"access_token": "a b"}),
        (200, {"access_token": ["a"], "refresh_token": 1}),
        (200, {"id_token": "i"}),
    ],
)
def test_answers_that_blame_nobody(status: int, body: object) -> None:
    with pytest.raises(UpstreamError) as caught:
        renewed(status, body)
    assert LEAK not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "access_token", "refresh_token"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.integers(100, 599), json_values)
def test_no_answer_breaks_anything(status: int, body: object) -> None:
    refusal_code(body)
    with contextlib.suppress(LoginRefused, UpstreamError):
        assert renewed(status, body).issuer


# --- over the wire ----------------------------------------------------------------------------


def asked(issuer: Issuer, **options: float) -> IssuerAnswer:
    members = {"refresh_token": "refresh-1", "grant_type": "refresh_token"}
    return post_json(f"{issuer.url}/oauth/token", members, **options)


def test_an_issuer_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with issuing(lambda: NOW) as issuer:
        issuer.login()
        answer = asked(issuer)
        assert (answer.status, set(answer.body)) == (  # type: ignore[call-overload]
            200, {"access_token", "refresh_token", "id_token"},
        )  # fmt: skip
        assert issuer.agents == [OWN_USER_AGENT]
        assert asked(issuer) == IssuerAnswer(
            401, {"error": {"code": "refresh_token_reused", "message": "used up"}}
        )


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"\xff\xfe", b"", b"[" * 100_000])
def test_an_answer_that_is_no_json(body: bytes) -> None:
    with issuing(lambda: NOW) as issuer:
        issuer.answer = 200, "text/html", body
        assert asked(issuer) == IssuerAnswer(200, None)


def test_a_redirect_is_not_followed() -> None:
    with issuing(lambda: NOW) as issuer:
        issuer.answer = 307, "text/html", b""
        assert asked(issuer).status == 307
        assert len(issuer.asked) == 1


def test_an_issuer_that_gives_no_answer() -> None:
    with issuing(lambda: NOW) as issuer:
        issuer.silent = True
        with pytest.raises(UpstreamError, match="cannot be reached"):
            asked(issuer)
        issuer.silent = False
        issuer.hold.clear()
        with pytest.raises(UpstreamError, match="cannot be reached"):
            asked(issuer, timeout_seconds=0.05)
        issuer.hold.set()
    with closed_port() as port, pytest.raises(UpstreamError, match="ConnectError"):
        post_json(f"http://127.0.0.1:{port}", {})
    for url in ("http://", "no url", "http://a\x00b"):
        with pytest.raises(UpstreamError):
            post_json(url, {})


def test_an_answer_without_end() -> None:
    with issuing(lambda: NOW) as issuer:
        issuer.answer = 200, "application/json", json.dumps(["x" * 300_000]).encode()
        with pytest.raises(UpstreamError, match="no end"):
            asked(issuer)
