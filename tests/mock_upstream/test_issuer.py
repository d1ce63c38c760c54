"""The issuer of the mock: its flows by hand, its faults, and whom its tokens belong to."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from codexlb_cli.core.tokens import read_claims
from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.grants import MOST_KEPT, GrantStore, Person
from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import ErrorSpec, RateLimits, RateWindow
from codexlb_cli.mock_upstream.scenario import parse_scenario
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import http_client, open_socket, run, types

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())[:-1].decode()
REDIRECT = "http://127.0.0.1:1455/auth/callback"
ASKED = {
    "response_type": "code",
    "client_id": "app",
    "redirect_uri": REDIRECT,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "state": "s1",
}
NOW = 1_790_000_000.0


def client(mock: MockUpstream) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=mock.issuer_url, trust_env=False, timeout=10)


async def code_of(http: httpx2.AsyncClient) -> str:
    answer = await http.get("/oauth/authorize", params=ASKED | {"auto": "1"})
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["state"] == ["s1"]
    return query["code"][0]


async def redeem(http: httpx2.AsyncClient, code: str, /, **other: str) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": "app",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    return await http.post("/oauth/token", data=form | other)


async def refresh(http: httpx2.AsyncClient, token: str, client_id: str = "app") -> httpx2.Response:
    asked = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return await http.post("/oauth/token", json=asked)


def code_in(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_sign_in_with_a_button() -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            page = await http.get("/oauth/authorize", params=ASKED)
            assert page.status_code == 200
            assert page.text.count("<button") == 1
            request = page.text.partition('name="request" value="')[2].partition('"')[0]
            approved = await http.post("/oauth/authorize", data={"request": request})
            assert approved.status_code == 302
            where = approved.headers["location"]
            assert where.startswith(f"{REDIRECT}?")
            tokens = (await redeem(http, parse_qs(urlsplit(where).query)["code"][0])).json()
            again = await http.post("/oauth/authorize", data={"request": request})
            assert again.status_code == 400
        said = read_claims(tokens["access_token"])
        assert (said.expires_at, said.email) == (NOW + 864_000, "ada@example.com")
        assert (said.account_id, said.plan) == ("acct-ada", "plus")
        assert read_claims(tokens["id_token"]).email == "ada@example.com"
        assert [r.endpoint for r in mock.issuer_requests] == ["authorize"] * 2 + ["token"] + [
            "authorize"
        ]

    run(test, wall_clock=lambda: NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"redirect_uri": "https://127.0.0.1/cb"},
        {"redirect_uri": "http://evil.example/cb"},
        {"redirect_uri": "http://127.0.0.1.evil.example/cb"},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
        {"response_type": "token"},
        {"client_id": ""},
        {"state": ""},
    ],
)
def test_a_sign_in_that_cannot_begin(other: dict[str, str]) -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            page = await http.get("/oauth/authorize", params=ASKED | other | {"auto": "1"})
        assert (page.status_code, page.headers["content-type"][:9]) == (400, "text/html")

    run(test)


@pytest.mark.parametrize(
    "other",
    [
        {"code_verifier": "w" * 43},
        {"redirect_uri": "http://127.0.0.1:1456/auth/callback"},
        {"client_id": "another"},
        {"code": "ac-made-up"},
    ],
)
def test_a_code_is_bound_to_what_asked_for_it(other: dict[str, str]) -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            code = await code_of(http)
            assert code_in(await redeem(http, code, **other)) == (400, "invalid_grant")

    run(test)


def test_a_code_is_good_once_and_as_a_form() -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            code = await code_of(http)
            asked = {"grant_type": "authorization_code", "code": code}
            as_json = await http.post("/oauth/token", json=asked)
            assert code_in(as_json) == (400, "unsupported_grant_type")
            assert (await redeem(http, code)).status_code == 200
            assert code_in(await redeem(http, code)) == (400, "invalid_grant")

    run(test)


def test_refresh_tokens_rotate() -> None:
    async def test(mock: MockUpstream) -> None:
        first = mock.issuer.sign_in("work", client_id="app")
        async with client(mock) as http:
            second = (await refresh(http, first.refresh_token)).json()
            assert second["access_token"] != first.access_token
            reused = await refresh(http, first.refresh_token)
            assert code_in(reused) == (401, "refresh_token_reused")
            other = await refresh(http, second["refresh_token"], "another")
            assert code_in(other) == (401, "invalid_grant")
            mock.issuer.revoke("work")
            ended = await refresh(http, second["refresh_token"])
            assert code_in(ended) == (401, "refresh_token_invalidated")
            unknown = await refresh(http, "rt-unknown")
            assert code_in(unknown) == (401, "refresh_token_invalidated")
        assert [r.account for r in mock.issuer_requests] == ["work"] * 4 + [""]

    run(test)


def test_a_device_waits_for_its_person() -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            begun = (
                await http.post("/api/accounts/deviceauth/usercode", json={"client_id": "app"})
            ).json()
            assert begun["interval"] == "5"
            poll = {name: begun[name] for name in ("device_auth_id", "user_code")}

            async def polled() -> httpx2.Response:
                return await http.post("/api/accounts/deviceauth/token", json=poll)

            assert (await polled()).status_code == 403
            assert (await http.get("/codex/device")).text.count("<button") == 1
            unknown = await http.post("/codex/device", data={"user_code": "NONE"})
            assert unknown.status_code == 400
            approved = await http.post("/codex/device", data={"user_code": begun["user_code"]})
            assert approved.status_code == 200
            given = (await polled()).json()
            assert (await polled()).status_code == 404
            tokens = await redeem(
                http,
                given["authorization_code"],
                code_verifier=given["code_verifier"],
                redirect_uri=f"{mock.issuer_url}/deviceauth/callback",
            )
            assert read_claims(tokens.json()["access_token"]).account_id == "acct-bea"

    run(test, IssuerRule(on="usercode", person="bea"))


def test_a_device_is_approved_after_some_polls_or_refused_or_too_late() -> None:
    at = [NOW]

    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:

            async def begin() -> dict[str, str]:
                asked = {"client_id": "app"}
                begun = await http.post("/api/accounts/deviceauth/usercode", json=asked)
                return {name: begun.json()[name] for name in ("device_auth_id", "user_code")}

            async def poll(device: dict[str, str]) -> httpx2.Response:
                return await http.post("/api/accounts/deviceauth/token", json=device)

            device = await begin()
            assert [(await poll(device)).status_code for _ in range(3)] == [403, 403, 200]
            slow = await begin()
            assert code_in(await poll(slow)) == (400, "slow_down")
            assert code_in(await poll(slow)) == (403, "access_denied")
            at[0] += 901
            assert code_in(await poll(slow)) == (400, "expired_token")

    run(
        test,
        IssuerRule(on="usercode", polls=2),
        IssuerRule(on="device", skip=3, times=1, status=400, error=ErrorSpec(code="slow_down")),
        IssuerRule(on="device", skip=3, times=1, deny=True),
        wall_clock=lambda: at[0],
    )


def test_an_access_token_opens_the_responses_until_it_is_over() -> None:
    at = [NOW]

    async def test(mock: MockUpstream) -> None:
        tokens = mock.issuer.sign_in("home", expires_in=60)
        headers = {"chatgpt-account-id": "acct-home"}
        async with open_socket(mock, tokens.access_token, headers) as socket:
            assert types(await socket.turn())[-1] == "response.completed"
        assert mock.turns[-1].account == mock.handshakes[-1].account == "home"
        assert ("chatgpt-account-id", "acct-home") in mock.handshakes[-1].headers
        async with http_client(tokens.access_token) as http:
            usage = f"{mock.issuer_url}/backend-api/wham/usage"
            assert (await http.get(f"{mock.base_url}/models")).status_code == 200
            assert (await http.get(usage)).json()["plan_type"] == "plus"
            at[0] += 61
            assert (await http.get(f"{mock.base_url}/models")).status_code == 401
            assert (await http.get(usage)).status_code == 401
            shown = (await http.get(f"{mock.issuer_url}/_mock/recording")).text
        assert tokens.access_token not in shown
        assert '"issuer_requests":[{' in shown

    run(test, wall_clock=lambda: at[0])


def test_a_revoked_sign_in_opens_nothing_even_where_every_key_is_taken() -> None:
    async def test(mock: MockUpstream) -> None:
        tokens = mock.issuer.sign_in("home")
        async with client(mock) as http, http_client(tokens.access_token) as account:
            models = f"{mock.base_url}/models"
            assert (await account.get(models)).status_code == 200
            for token in (tokens.refresh_token, "rt-unknown"):
                revoked = await http.post("/oauth/revoke", json={"token": token})
                assert revoked.status_code == 200
            assert (await account.get(models)).status_code == 401

    run(test, accounts=None)


def test_usage_as_scripted() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as http:
            answer = (await http.get(f"{mock.issuer_url}/backend-api/wham/usage")).json()
        assert answer["rate_limit"] == {
            "allowed": False,
            "limit_reached": True,
            "primary_window": {
                "used_percent": 100.0,
                "limit_window_seconds": 18_000,
                "reset_after_seconds": 60,
                "reset_at": NOW + 60,
            },
            "secondary_window": None,
        }

    window = RateWindow(used_percent=100.0, window_minutes=300, reset_at=int(NOW) + 60)
    limits = RateLimits(allowed=False, limit_reached=True, primary=window)
    run(test, IssuerRule(on="usage", account="work", rate_limits=limits), wall_clock=lambda: NOW)


def test_tokens_as_scripted() -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            first = (await redeem(http, await code_of(http))).json()
            assert set(first) == {"access_token"}
            assert read_claims(first["access_token"]).expires_at is None
            second = (await redeem(http, await code_of(http))).json()
            assert read_claims(second["access_token"]).expires_at == NOW - 5
            third = (await redeem(http, await code_of(http))).json()
            assert "." not in third["access_token"]

    run(
        test,
        IssuerRule(on="token", times=1, without=("id_token", "refresh_token", "exp")),
        IssuerRule(on="token", times=1, expires_in=-5),
        IssuerRule(on="token", malformed=True),
        wall_clock=lambda: NOW,
    )


@pytest.mark.parametrize("acts", [False, True])
def test_a_lost_answer(acts: bool) -> None:
    async def test(mock: MockUpstream) -> None:
        token = mock.issuer.sign_in("work", client_id="app").refresh_token
        async with client(mock) as http:
            with pytest.raises(httpx2.RemoteProtocolError):
                await refresh(http, token)
            html = await refresh(http, token)
            assert (html.status_code, html.headers["content-type"]) == (200, "text/html")
            assert (await refresh(http, token)).status_code == (401 if acts else 200)

    run(
        test,
        IssuerRule(on="refresh", account="work", times=1, cut=True, acts=acts),
        IssuerRule(on="refresh", account="work", times=1, status=200, body="<html>"),
    )


def test_silence_lasts_until_the_client_leaves() -> None:
    async def test(mock: MockUpstream) -> None:
        async with client(mock) as http:
            with pytest.raises(httpx2.ReadTimeout):
                await http.get("/oauth/authorize", params=ASKED, timeout=0.2)
        assert mock.issuer_requests[0].status is None

    run(test, IssuerRule(on="authorize", silence=True))


def test_what_is_kept_is_bounded() -> None:
    store = GrantStore("r")
    grant = store.grant(Person("work"), "app")
    first = store.issue(grant, issuer="mock", now=NOW)
    for _ in range(MOST_KEPT):
        store.issue(grant, issuer="mock", now=NOW)
    assert not store.knows(first.access_token)
    assert store.holder(first.refresh_token) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('on = "tokens"', "`on` in `[[issuer]]` 1 of `f.toml` must be "),
        ('on = "token"\nerror = {}', "needs a `status` beside `error` or `body`"),
        ('on = "token"\nacts = true', "needs `silence`, `cut` or `status` beside `acts`"),
        ('on = "token"\ncut = true\nstatus = 500', "takes one of `silence`, `cut` and `status`"),
        ('on = "usercode"\nperson = "A b"', "must be the name of an account"),
        ('on = "token"\nwithout = ["name"]', "`without` in `[[issuer]]` 1 of `f.toml` must be "),
    ],
)
def test_a_rule_that_means_nothing(lines: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(f"[[issuer]]\n{lines}", "f.toml")
    assert message in str(caught.value)


def test_a_scenario_scripts_the_issuer() -> None:
    rules: tuple[Any, ...] = parse_scenario(
        '[[issuer]]\non = "refresh"\nstatus = 401\nerror = { code = "refresh_token_expired" }',
        "f.toml",
    ).rules
    assert rules == (
        IssuerRule(on="refresh", status=401, error=ErrorSpec(code="refresh_token_expired")),
    )
