"""Accounts that sign in: their tokens are refreshed once, in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from codexlb_cli.core.accounts import Availability
from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from codexlb_cli.signin.refresher import Refresher
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret
from tests.support.client import request
from tests.support.gateway import RESPONSES, Clock, Stage, run, session, turn_body
from tests.support.issuer import ACCOUNT_ID, Issuer, issuing
from tests.support.serving import serving
from tests.support.virtual import VirtualClock, run_virtually

Test = Callable[[Stage, Issuer], Awaitable[None]]
EXPIRED = ErrorSpec(status=401, code="token_expired", message="expired")


def credentials_of(stage: Stage) -> Credentials:
    return Credentials(stage.state_folder, stage.environ)


def stored(stage: Stage) -> Login:
    login = credentials_of(stage).login("plan")
    assert login is not None
    return login


def number_of(stage: Stage) -> int:
    """Which of the issuer's logins is stored."""
    token = stored(stage).refresh_token
    assert token is not None
    return int(token.reveal().removeprefix("refresh-"))


async def listed(stage: Stage) -> bytes:
    """What `accounts list` prints, once the gateway has written what it knows."""
    while stage.gateway.store.busy:
        await asyncio.sleep(0.001)
    return (await stage.command("accounts", "list")).stdout


def state_of(stage: Stage, name: str = "plan") -> tuple[Availability, str | None]:
    pool = stage.gateway.services.accounts.pool()
    known = pool.standing_of(name)
    assert known is not None
    return known.state, known.reason


def play(
    test: Test,
    folder: Path,
    *rules: TurnRule,
    accepts: tuple[int, ...] = (2,),
    config: str = "",
    expires_in: float = 3600.0,
) -> None:
    """Play a test on `plan`, which signed in, and `home`, which has a key.

    Args:
        test: the test.
        folder: a folder of its own.
        rules: what the upstream does.
        accepts: which of the issuer's access tokens the upstream takes.
        config: further lines of the table of `plan`.
        expires_in: when the token that is stored ends, in seconds.
    """
    clock = Clock()
    with issuing(clock) as issuer:
        keys = {f"plan-{n}" if n > 2 else "plan": issuer.token(n) for n in accepts}
        if 1 in accepts and 2 in accepts:
            keys = {"plan": issuer.token(1), "plan-2": issuer.token(2)}

        async def on_stage(stage: Stage) -> None:
            stage.cli.configure(
                f'[accounts.plan]\nkind = "chatgpt"\nbase_url = "{stage.mock.base_url}"\n{config}\n'
                f'[accounts.home]\nbase_url = "{stage.mock.base_url}"\napi_key_env = "HOME_KEY"\n'
            )
            login = issuer.login(refreshed_at=clock() - 86_400)
            if expires_in != 3600.0:
                claims = {"exp": clock() + expires_in, "iat": clock() - 3600}
                login = replace(login, access_token=Secret(_token(claims)))
            credentials_of(stage).store_login("plan", login)
            refresher = Refresher(
                credentials_of(stage),
                stage.state_folder,
                now=clock,
                clock=clock,
                warn=stage.warnings.append,
            )
            stage.refresh = refresher.refresh
            async with stage.serving():
                await test(stage, issuer)

        run(
            on_stage,
            folder,
            *rules,
            names=(*keys, "home"),
            keys=keys,
            clock=clock,
            serve=False,
            strict=False,
        )


def _token(claims: dict[str, float]) -> str:
    from tests.core.test_tokens import jwt

    return jwt(claims)


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_a_refused_token_is_refreshed_and_the_client_notices_nothing(
    tmp_path: Path, transport: str
) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        for _ in range(2):
            answer = await stage.turn(headers=session("s"))
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.header("x-codexlb-account") == "plan"
        assert number_of(stage) == 2
        assert [asked["refresh_reason"] for asked in issuer.asked] == ["unauthorized_recovery"]
        assert state_of(stage) == (Availability.READY, None)
        assert stage.sent == ["plan", "plan"]

    play(test, tmp_path, config=f'transport = "{transport}"')


def test_the_account_id_goes_along_and_inspect_shows_it(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        await stage.turn()
        sent = stage.handshake(-1)
        assert sent["chatgpt-account-id"] == [ACCOUNT_ID]
        assert sent["authorization"] == [f"Bearer {issuer.token(2)}"]
        ran = await stage.command("inspect", "handshake", "--account", "plan", "--json")
        assert (ran.returncode, ran.stderr) == (0, b"")
        lines = json.loads(ran.stdout)["headers"]
        assert {"name": "chatgpt-account-id", "value": "***", "origin": "account",
                "rule": "account_credential", "varies": False} in lines  # fmt: skip
        names = [line["name"] for line in lines if line["origin"] == "account"]
        wire = [name for name, _ in stage.mock.handshakes[-1].headers if name in names]
        assert names == wire == ["authorization", "chatgpt-account-id"]
        assert ACCOUNT_ID.encode() not in ran.stdout
        stage.config_file.write_text(stage.config_file.read_text().partition("[accounts.home]")[0])
        assert (await stage.get("/v1/models")).header("x-codexlb-account") == "plan"

    play(test, tmp_path)


def test_parallel_turns_refresh_once(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        answers = await asyncio.gather(*(stage.turn(headers=session("s")) for _ in range(6)))
        assert {answer.status for answer in answers} == {200}
        assert len(issuer.asked) == 1
        assert state_of(stage) == (Availability.READY, None)

    play(test, tmp_path)


def test_a_login_that_has_ended_leaves_at_once_and_returns_with_a_new_one(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        issuer.refuses("refresh_token_reused")
        for _ in range(2):
            answer = await stage.turn()
            assert (answer.status, answer.header("x-codexlb-account")) == (200, "home")
            assert state_of(stage) == (Availability.NEEDS_LOGIN, "refresh_token_reused")
        assert len(issuer.asked) == 1
        assert (
            b"needs_login  refresh_token_reused" in (await stage.command("accounts", "list")).stdout
        )
        again = replace(stored(stage), access_token=Secret(issuer.token(2)))
        credentials_of(stage).store_login("plan", replace(again, refresh_token=Secret("new")))
        assert b"needs_login" not in await listed(stage)
        assert state_of(stage) == (Availability.READY, None)
        stage.config_file.write_text(stage.config_file.read_text().partition("[accounts.home]")[0])
        assert (await stage.turn()).header("x-codexlb-account") == "plan"

    play(test, tmp_path)


@pytest.mark.parametrize("answer", [None, (500, "text/plain", b""), (200, "text/html", b"<p>hi")])
def test_an_issuer_that_fails_blames_nobody(
    tmp_path: Path, answer: tuple[int, str, bytes] | None
) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        issuer.silent, issuer.answer = answer is None, answer
        for _ in range(3):
            found = await stage.turn()
            assert (found.status, found.header("x-codexlb-account")) == (200, "home")
            assert state_of(stage) == (Availability.READY, None)
        assert len(issuer.agents) == 1, "one try within a few seconds"
        issuer.silent, issuer.answer = False, None
        stage.clock.advance(5)
        # Tokens differ with the time: the one that comes now is not in the mock's list.
        await stage.turn()
        assert number_of(stage) == 2

    play(test, tmp_path)


def test_a_session_waits_for_its_issuer_rather_than_move(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "plan"
        issuer.silent = True
        answer = await stage.turn(headers=session("s"), model="expires")
        assert (answer.status, answer.json["error"]["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert state_of(stage) == (Availability.READY, None)

    play(test, tmp_path, TurnRule(model="expires", error=EXPIRED), accepts=(1, 2))


def test_a_refused_frame_is_replayed_with_a_new_token(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "2")
        assert number_of(stage) == 2
        assert stage.dialled == ["plan", "plan-2"]

    play(test, tmp_path, TurnRule(error=EXPIRED, times=1), accepts=(1, 2))


@pytest.mark.parametrize("code", [3000, 3003])
def test_a_session_returns_with_a_new_token_after_a_close(tmp_path: Path, code: int) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.header("x-codexlb-attempts")) == (200, "2")
        assert stage.dialled == ["plan", "plan-2"]
        assert len(issuer.asked) == 1

    play(test, tmp_path, TurnRule(close=code, times=1), accepts=(1, 2))


def test_a_token_about_to_end_is_refreshed_before_the_dial(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        answer = await stage.turn()
        assert answer.header("x-codexlb-account") == "plan"
        assert stage.dialled == ["plan"]
        assert [asked["refresh_reason"] for asked in issuer.asked] == ["proactive_expiry"]

    play(test, tmp_path, expires_in=10)


def test_files_and_models_refresh_too(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        for asked, path in enumerate(("/v1/models", "/v1/files"), 1):
            credentials_of(stage).store_login("plan", issuer.login(refreshed_at=0))
            answer = await stage.get(path)
            assert answer.status == 200
            assert number_of(stage) == 2
            assert len(issuer.asked) == asked
            assert state_of(stage) == (Availability.READY, None)

    play(test, tmp_path)


def test_what_is_held_is_sent_again_with_the_new_token(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        answer = await stage.turn(headers=session("s"), background=True, stream=False)
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "plan")
        assert answer.header("x-codexlb-attempts") == "2"
        assert [(r.account, r.status) for r in stage.mock.api_requests] == [("plan", 200)]
        credentials_of(stage).store_login("plan", issuer.login(refreshed_at=0))
        counted = await stage.turn(headers=session("s"), path="/v1/responses/input_tokens")
        assert (counted.status, counted.header("x-codexlb-account")) == (200, "plan")
        assert state_of(stage) == (Availability.READY, None)
        assert len(issuer.asked) == 2

    play(test, tmp_path)


def test_a_file_call_whose_login_has_ended(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        issuer.silent = True
        assert (await stage.get("/v1/files/file-x")).status == 503
        assert state_of(stage) == (Availability.READY, None)
        issuer.silent = False
        stage.clock.advance(5)
        issuer.refuses("invalid_grant", 400)
        await stage.get("/v1/files/file-x")
        assert state_of(stage)[0] is Availability.NEEDS_LOGIN

    play(test, tmp_path)


def test_a_client_that_leaves_does_not_end_the_refresh(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        issuer.hold.clear()
        async with stage.streaming(headers=session("s")) as exchange:
            await asyncio.to_thread(issuer.arrived.wait)
            assert (await stage.get("/healthz")).status == 200, "nothing else waits for it"
            exchange.leave()
        issuer.hold.set()
        stage.config_file.write_text(stage.config_file.read_text().partition("[accounts.home]")[0])
        answer = await stage.turn()
        assert answer.header("x-codexlb-account") == "plan"
        assert number_of(stage) == 2
        assert len(issuer.asked) == 1

    play(test, tmp_path)


@pytest.mark.parametrize("ends", [False, True])
def test_a_token_is_refreshed_in_the_background(tmp_path: Path, ends: bool) -> None:
    async def on_stage(stage: Stage) -> None:
        clock = stage.clock
        assert isinstance(clock, VirtualClock)
        with issuing(clock) as issuer:
            stage.cli.configure(f'[accounts.plan]\nkind = "chatgpt"\nbase_url = "{issuer.url}"\n')
            credentials_of(stage).store_login("plan", issuer.login())
            refresher = Refresher(credentials_of(stage), stage.state_folder, now=clock, clock=clock)
            stage.refresh = refresher.refresh
            if ends:
                issuer.refuses("refresh_token_expired")
            async with stage.serving():
                await asyncio.sleep(3250)
                assert issuer.asked == []
                await asyncio.sleep(100)
                assert [asked["refresh_reason"] for asked in issuer.asked] == ["proactive_expiry"]
                if ends:
                    state = Availability.NEEDS_LOGIN, "refresh_token_expired"
                    assert state_of(stage) == state
                await asyncio.sleep(3500)
                assert len(issuer.asked) == (1 if ends else 2)
                assert number_of(stage) == (1 if ends else 3)

    run_virtually(on_stage, tmp_path, names=("plan",), serve=False)


def test_without_anybody_who_refreshes_a_refused_token_needs_a_login(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        stage.refresh = None
        async with stage.serving():
            assert (await stage.turn()).header("x-codexlb-account") == "home"
            assert state_of(stage) == (Availability.NEEDS_LOGIN, "no_refresh_token")
        assert issuer.asked == []

    play(test, tmp_path)


def test_what_is_told_of_a_refresh(tmp_path: Path) -> None:
    async def test(stage: Stage, issuer: Issuer) -> None:
        await stage.turn()
        told = " ".join(stage.lines[-1].split())
        assert "plan refused with 401, token of plan refreshed" in told

    play(test, tmp_path)


def test_two_gateways_on_one_credentials_file_refresh_once(tmp_path: Path) -> None:
    began = time.time()
    with issuing(lambda: began) as issuer:

        async def test(stage: Stage) -> None:
            stage.cli.configure(
                f'[accounts.plan]\nkind = "chatgpt"\nbase_url = "{stage.mock.base_url}"\n'
            )
            credentials_of(stage).store_login("plan", issuer.login(refreshed_at=began - 86_400))
            body = turn_body({})
            lines = [("Content-Length", str(len(body))), ("Connection", "close")]
            async with serving(stage.cli) as one, serving(stage.cli) as two:
                issuer.hold.clear()
                turns = [
                    asyncio.create_task(request(program.port, "POST", RESPONSES, lines, body))
                    for program in (one, two, one, two)
                ]
                await stage.mock.wait_for(lambda mock: len(mock.handshakes) == 4)
                issuer.hold.set()
                answers = await asyncio.gather(*turns)
            assert [answer.status for answer in answers] == [200] * 4
            assert len(issuer.asked) == 1
            assert number_of(stage) == 2

        run(test, tmp_path, names=("plan",), keys={"plan": issuer.token(2)}, serve=False)
