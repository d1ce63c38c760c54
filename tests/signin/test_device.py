"""The device flow on a clock of the test's own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import httpx2
import pytest

from codexlb_cli.signin.device import sign_in_by_device
from codexlb_cli.signin.issuer import IssuerUnavailable, SignInRefused
from codexlb_cli.store.logins import Login
from tests.signin.person import ISSUER, FakePerson, answers, issuer_client, tokens

USERCODE, TOKEN = "/api/accounts/deviceauth/usercode", "/api/accounts/deviceauth/token"
OAUTH = "/oauth/token"
CODE = {"device_auth_id": "d", "user_code": "AB-CD", "interval": "5"}
APPROVED = {"authorization_code": "c", "code_challenge": "x", "code_verifier": "v" * 43}
PENDING = httpx2.Response(403, json={"error": {"code": "deviceauth_authorization_unknown"}})


@dataclass
class FakeClock:
    """Time that passes only where somebody sleeps."""

    at: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


def signed_in(
    polls: list[httpx2.Response],
    *,
    code: dict[str, object] | None = None,
    clock: FakeClock | None = None,
) -> tuple[Login, FakeClock, FakePerson, list[httpx2.Request]]:
    clock, person = clock or FakeClock(), FakePerson()
    answer, asked = answers(
        {
            USERCODE: [httpx2.Response(200, json=code or CODE)],
            TOKEN: polls,
            OAUTH: [httpx2.Response(200, json=tokens())],
        }
    )

    login = asyncio.run(
        sign_in_by_device(issuer_client(answer), person.terminal, clock=clock, sleep=clock.sleep)
    )
    return login, clock, person, asked


def test_the_whole_flow() -> None:
    approved = httpx2.Response(200, json=APPROVED)
    login, clock, person, asked = signed_in([PENDING, httpx2.Response(404), PENDING, approved])
    assert clock.slept == [5.0] * 4
    assert "AB-CD" in "\n".join(person.said)
    assert f"{ISSUER}/codex/device" in "\n".join(person.said)
    assert person.opened == []
    assert (login.account_id, login.issuer, login.client_id) == ("acct-ada", ISSUER, "app")
    assert asked[0].content == b'{"client_id":"app"}'
    assert asked[1].content == b'{"device_auth_id":"d","user_code":"AB-CD"}'
    assert parse_qs(asked[-1].content.decode()) == {
        "grant_type": ["authorization_code"],
        "client_id": ["app"],
        "code": ["c"],
        "redirect_uri": [f"{ISSUER}/deviceauth/callback"],
        "code_verifier": ["v" * 43],
    }


def test_slow_down_lasts() -> None:
    slower = httpx2.Response(400, json={"error": "slow_down"})
    polls = [slower, PENDING, httpx2.Response(429), httpx2.Response(200, json=APPROVED)]
    _, clock, _, _ = signed_in(polls, code={**CODE, "interval": 2})
    assert clock.slept == [2.0, 7.0, 7.0, 12.0]


def test_trouble_is_waited_out() -> None:
    polls = [httpx2.Response(500), httpx2.Response(503, text="<html>")]
    _, clock, _, _ = signed_in([*polls, httpx2.Response(200, json=APPROVED)])
    assert len(clock.slept) == 3


def test_a_network_that_fails_for_a_moment_is_waited_out() -> None:
    clock, person, failures = FakeClock(), FakePerson(), [True, True]
    answer, _ = answers(
        {
            USERCODE: [httpx2.Response(200, json=CODE)],
            TOKEN: [httpx2.Response(200, json=APPROVED)],
            OAUTH: [httpx2.Response(200, json=tokens())],
        }
    )

    def failing(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == TOKEN and failures:
            failures.pop()
            raise httpx2.ConnectError("no route to LEAK")
        return answer(request)

    login = asyncio.run(
        sign_in_by_device(issuer_client(failing), person.terminal, clock=clock, sleep=clock.sleep)
    )
    assert login.account_id == "acct-ada"
    assert len(clock.slept) == 3


def test_nobody_comes() -> None:
    clock = FakeClock()
    with pytest.raises(SignInRefused, match="nobody entered the code within 15 minutes") as caught:
        signed_in([PENDING], clock=clock)
    assert caught.value.reason == "timeout"
    assert 890 <= clock.at <= 900


@pytest.mark.parametrize(
    ("poll", "message"),
    [
        (httpx2.Response(403, json={"error": "access_denied"}), "refused on the other device"),
        (httpx2.Response(400, json={"error": {"code": "expired_token"}}), "no longer valid"),
        (httpx2.Response(400, text="LEAK"), "refused the sign-in: status 400"),
        (httpx2.Response(307, headers={"location": "http://evil.example"}), "status 307"),
    ],
)
def test_the_issuer_says_no(poll: httpx2.Response, message: str) -> None:
    with pytest.raises(SignInRefused, match=message) as caught:
        signed_in([PENDING, poll])
    assert "LEAK" not in str(caught.value)


@pytest.mark.parametrize(
    "poll",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json={"authorization_code": "c", "code_verifier": 7}),
        httpx2.Response(200, json={"authorization_code": "c\n", "code_verifier": "v"}),
    ],
)
def test_an_approval_that_makes_no_sense(poll: httpx2.Response) -> None:
    with pytest.raises(IssuerUnavailable):
        signed_in([poll])


def test_an_answer_without_end() -> None:
    with pytest.raises(IssuerUnavailable, match="answers more than 1 MiB"):
        signed_in([PENDING], code={**CODE, "x": "y" * 2**20})
