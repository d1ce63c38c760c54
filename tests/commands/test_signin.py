"""`accounts add --login | --device | --codex-auth`, `accounts login` and the end of a login."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.grants import GrantStore, Person
from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.support.cli import Cli
from tests.support.ports import free_port
from tests.support.signing import (
    CLIENT_ID,
    approve,
    auth_json,
    browser,
    credentials_of,
    nothing_is_kept,
    sign_in,
    signing,
    state_of,
    stored,
    variables,
)

Test = Callable[[MockUpstream, Cli], Awaitable[None]]
FAST = IssuerRule(on="usercode", interval="0.2")


def play(test: Test, folder: Path, *rules: IssuerRule, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(50), MockUpstream(script=Script(rules), **options) as mock:
            await test(mock, Cli(folder))

    asyncio.run(main())


def leaks(cli: Cli, text: str) -> bool:
    """Whether a token is in a text, or in any file but the one for them."""
    login = stored(cli, "work")
    assert login is not None
    assert login.refresh_token is not None
    tokens = (login.access_token.reveal(), login.refresh_token.reveal())
    others = [f for f in cli.home.rglob("*") if f.is_file() and f.name != "credentials.toml"]
    texts = [text, *(file.read_text(errors="replace") for file in others)]
    return any(token in text for token in tokens for text in texts)


def test_a_sign_in_in_the_browser(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        port = free_port()
        given = variables(mock, port)
        async with signing(cli, "accounts", "add", "work", "--login", **given) as it:
            url = await it.url()
            assert f"redirect_uri=http%3A%2F%2F127.0.0.1%3A{port}%2Fauth%2Fcallback" in url
            async with browser() as http:
                page = await sign_in(http, url)
            assert (page.status_code, "<h1>Signed in</h1>" in page.text) == (200, True)
            code, out, err = await it.ended()
        assert (code, out) == (0, [])
        assert err.endswith(
            f"added `work` to {cli.config_file}\nwork: signed in as ada@example.com, plan plus"
        )
        assert cli.config_file.read_text() == '[accounts.work]\nkind = "chatgpt"\n'
        login = stored(cli, "work")
        assert login is not None
        assert (login.account_id, login.issuer, login.client_id, login.shared) == (
            "acct-ada",
            mock.issuer_url,
            CLIENT_ID,
            False,
        )
        assert not leaks(cli, err)
        redeemed = {name.lower(): value for name, value in mock.issuer_requests[-1].headers}
        assert redeemed["user-agent"].startswith("codexlb/")
        assert redeemed["content-type"] == "application/x-www-form-urlencoded"
        secret = credentials_of(cli, "work")
        assert secret is not None
        async with browser() as http:
            models = await http.get(
                f"{mock.base_url}/models", headers={"authorization": f"Bearer {secret.reveal()}"}
            )
        assert models.status_code == 200

    play(test, tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_over_ssh_the_last_address_is_pasted(tmp_path: Path, whole: bool) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--login", **variables(mock)) as it:
            url = await it.url()
            async with browser() as http:
                where = await approve(http, url)
            code = where.partition("code=")[2].partition("&")[0]
            await it.type("hello, is this it?")
            await it.type(f"http://127.0.0.1/auth/callback?code={code}&state=other")
            await it.type(where if whole else code)
            status, out, err = await it.ended()
        assert (status, out) == (0, [])
        assert "warning: this holds no answer; paste the whole address" in err
        assert "warning: this is the answer to another sign-in; paste the latest" in err
        assert code not in err
        assert stored(cli, "work") is not None

    play(test, tmp_path)


def test_an_answer_to_another_sign_in_is_left_aside(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--login", **variables(mock)) as it:
            url = await it.url()
            async with browser() as http:
                where = await approve(http, url)
                foreign = await http.get(where.replace(state_of(url), "foreign"))
                assert (foreign.status_code, "another sign-in" in foreign.text) == (400, True)
                root = where.partition("/auth")[0]
                statuses = [
                    (await http.get(f"{root}/favicon.ico")).status_code,
                    (await http.get(f"{root}/auth/callback")).status_code,
                    (await http.post(where)).status_code,
                ]
                assert statuses == [404, 400, 405]
                assert "Signed in" in (await http.get(where)).text
            code, _, err = await it.ended()
        assert code == 0
        assert "warning: an answer to another sign-in came, and was left aside" in err

    play(test, tmp_path)


def test_two_sign_ins_at_once(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        port = free_port()
        given = variables(mock, port)
        async with signing(cli, "accounts", "add", "work", "--login", **given) as first:
            one = await first.url()
            async with signing(cli, "accounts", "add", "home", "--login", **given) as second:
                two = await second.url()
                assert f"port {port} is in use" in "\n".join(second.program.err)
                async with browser() as http:
                    assert "Signed in" in (await sign_in(http, two)).text
                    assert "Signed in" in (await sign_in(http, one)).text
                assert (await second.ended())[0] == 0
            assert (await first.ended())[0] == 0
        work, home = stored(cli, "work"), stored(cli, "home")
        assert work is not None
        assert home is not None
        assert (work.account_id, home.account_id) == ("acct-ada", "acct-bea")

    # The page is asked for twice: by `home` first.
    play(test, tmp_path, IssuerRule(on="authorize", times=1, person="bea"))


def test_two_sign_ins_at_once_for_one_name(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        given = variables(mock)
        async with (
            signing(cli, "accounts", "add", "work", "--login", **given) as first,
            signing(cli, "accounts", "add", "work", "--login", **given) as second,
            browser() as http,
        ):
            await first.url()
            await sign_in(http, await second.url())
            assert (await second.ended())[0] == 0
            await sign_in(http, await first.url())
            code, _, err = await first.ended()
        assert code == 3
        assert "error: an account named `work` is in `config.toml` already" in err
        assert f"ended the login of `work` at {mock.issuer_url}" in err
        login = stored(cli, "work")
        assert login is not None
        assert login.account_id == "acct-bea"
        assert [r.account for r in mock.issuer_requests if r.endpoint == "revoke"] == ["ada"]

    play(test, tmp_path, IssuerRule(on="authorize", times=1, person="bea"))


def test_a_sign_in_by_code(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        args = ("accounts", "add", "work", "--device", "--base-url", mock.base_url)
        # Nobody listens there: proxies of the environment are not for tokens.
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        given = {**variables(mock), **proxies, "CODEXLB_LIMITS_USAGE_POLL": "300"}
        async with signing(cli, *args, **given) as it:
            assert await it.url() == f"{mock.issuer_url}/codex/device"
            async with browser() as http:
                code = {"user_code": await it.user_code()}
                assert (await http.post(await it.url(), data=code)).status_code == 200
            status, out, err = await it.ended()
        assert (status, out) == (0, [])
        assert err.endswith(
            "work: signed in as ada@example.com, plan pro, 5 h window 12 % used, "
            "7 day window 3 % used"
        )
        listed = json.loads(cli.run("accounts", "list", "--json").out)["accounts"][0]
        assert (listed["kind"], listed["base_url"]) == ("chatgpt", mock.base_url)
        assert listed["credential"] == {"source": "login", "name": "work", "present": True}

    play(test, tmp_path, IssuerRule(on="usercode", interval="0.2", plan="pro"))


@pytest.mark.parametrize(
    ("rule", "code", "message"),
    [
        (IssuerRule(on="authorize", deny=True), 4, "the sign-in was refused: "),
        (IssuerRule(on="token", status=500), 5, "answers 500"),
        (IssuerRule(on="token", status=502, body="<html>"), 5, "answers 502"),
        (IssuerRule(on="token", status=200, body="<html>"), 5, "gave no access token"),
        (IssuerRule(on="token", cut=True), 5, "cannot be reached: the connection broke off"),
        (IssuerRule(on="token", without=("access_token",)), 5, "gave no access token"),
        (
            IssuerRule(on="token", malformed=True, without=("id_token",)),
            5,
            "gave tokens that name no account",
        ),
        (
            IssuerRule(on="token", status=400, error=ErrorSpec(code="invalid_grant")),
            4,
            "did not accept the sign-in: invalid_grant",
        ),
        (
            IssuerRule(on="token", status=400, error=ErrorSpec(code="sk-LEAK \x1b[31m")),
            4,
            "did not accept the sign-in: invalid_request_error",
        ),
    ],
)
def test_a_sign_in_that_fails(tmp_path: Path, rule: IssuerRule, code: int, message: str) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--login", **variables(mock)) as it:
            async with browser() as http:
                page = await sign_in(http, await it.url())
            status, out, err = await it.ended()
        assert "<h1>Not signed in</h1>" in page.text
        assert (status, out) == (code, [])
        assert f"error: `{mock.issuer_url}` " in err or "error: the sign-in was" in err
        assert message in err
        assert err.endswith("hint: codexlb accounts add work --login")
        assert "LEAK" not in err
        assert nothing_is_kept(cli)

    play(test, tmp_path, rule)


@pytest.mark.parametrize(
    ("rules", "code", "message", "hint"),
    [
        (
            [IssuerRule(on="usercode", status=404)],
            4,
            "offers no sign-in by code",
            "codexlb accounts add work --login",
        ),
        (
            [IssuerRule(on="usercode", status=200, body="<html>")],
            5,
            "did not answer with a JSON object",
            "codexlb accounts add work --device",
        ),
        (
            [IssuerRule(on="usercode", status=200, body='{"user_code": "A"}')],
            5,
            "gave no usable `device_auth_id`",
            "codexlb accounts add work --device",
        ),
        (
            [FAST, IssuerRule(on="device", deny=True)],
            4,
            "the sign-in was refused on the other device",
            "codexlb accounts add work --device",
        ),
        (
            [FAST, IssuerRule(on="device", status=400, error=ErrorSpec(code="expired_token"))],
            4,
            "the code is no longer valid",
            "codexlb accounts add work --device",
        ),
    ],
)
def test_a_sign_in_by_code_that_fails(
    tmp_path: Path, rules: list[IssuerRule], code: int, message: str, hint: str
) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--device", **variables(mock)) as it:
            status, out, err = await it.ended()
        assert (status, out) == (code, [])
        assert message in err
        assert err.endswith(f"hint: {hint}")
        assert nothing_is_kept(cli)

    play(test, tmp_path, *rules)


def test_an_issuer_that_is_not_there(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    issuer = f"http://127.0.0.1:{free_port()}"
    ran = cli.run("accounts", "add", "work", "--device", CODEXLB_SIGNIN_ISSUER=issuer)
    assert ran == (
        5,
        "",
        (
            f"error: `{issuer}` cannot be reached: no connection\n\n"
            "hint: codexlb accounts add work --device\n"
        ),
    )
    assert nothing_is_kept(cli)


@pytest.mark.parametrize(
    ("way", "rules", "stage"),
    [
        ("--login", [], "page"),
        ("--login", [IssuerRule(on="token", silence=True)], "token"),
        ("--device", [IssuerRule(on="usercode", silence=True)], "usercode"),
        ("--device", [FAST], "device"),
        ("--device", [FAST, IssuerRule(on="device", silence=True)], "device"),
    ],
)
def test_ctrl_c_leaves_nothing_behind(
    tmp_path: Path, way: str, rules: list[IssuerRule], stage: str
) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with (
            signing(cli, "accounts", "add", "work", way, **variables(mock)) as it,
            browser() as http,
        ):
            visit: asyncio.Task[Any] | None = None
            if way == "--login":
                url = await it.url()
                if stage != "page":
                    visit = asyncio.create_task(sign_in(http, url))
            if stage != "page":
                await mock.wait_for(
                    lambda m: (
                        m.issuer_requests[-1:] != [] and (m.issuer_requests[-1].endpoint == stage)
                    )
                )
            it.program.interrupt()
            code, out, err = await it.ended()
            if visit is not None:
                await asyncio.gather(visit, return_exceptions=True)
        assert (code, out) == (130, [])
        assert "Traceback" not in err
        assert "error" not in err
        assert nothing_is_kept(cli)

    play(test, tmp_path, *rules)


def test_a_clock_that_is_off(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--device", **variables(mock)) as it:
            code, _, err = await it.ended()
        assert code == 0
        assert f" ahead of that of {mock.issuer_url}; set it" in err
        assert stored(cli, "work") is not None

    polls = IssuerRule(on="usercode", interval="0.2", polls=0)
    play(test, tmp_path, polls, wall_clock=lambda: 1_700_000_000.0)


def test_tokens_that_are_over_or_cannot_be_refreshed(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--device", **variables(mock)) as it:
            code, _, err = await it.ended()
        assert code == 0
        assert f"warning: {mock.issuer_url} gave an access token that is over already" in err
        assert f"warning: {mock.issuer_url} gave no refresh token: " in err

    play(
        test,
        tmp_path,
        IssuerRule(on="usercode", interval="0.2", polls=0),
        IssuerRule(on="token", expires_in=-60, without=("refresh_token",)),
    )


def test_quiet_says_what_a_person_has_to_do_and_no_more(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        args = ("-q", "accounts", "add", "work", "--device")
        async with signing(cli, *args, **variables(mock)) as it:
            code, out, err = await it.ended()
        assert (code, out) == (0, [])
        assert "MOCK-" in err
        assert "signed in" not in err

    play(test, tmp_path, IssuerRule(on="usercode", interval="0.2", polls=0))


def test_the_login_of_codex(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        tokens = mock.issuer.sign_in("ada")
        file = auth_json(tmp_path, tokens, agent_identity={"x": 1})
        before = file.read_bytes()
        args = ("accounts", "add", "work", "--codex-auth", str(file))
        ran = await asyncio.to_thread(cli.spawn, *args, CODEXLB_LIMITS_USAGE_POLL="0")
        assert (ran.returncode, ran.stdout) == (0, b"")
        assert ran.stderr.decode() == (
            "warning: a refresh token is good for one refresh, and this one is the Codex CLI's, "
            "too: the first to refresh signs the other out\n"
            f"added `work` to {cli.config_file}\n"
            "work: signed in as ada@example.com, plan plus\n\n"
            "hint: codexlb accounts login work\n"
        )
        login = stored(cli, "work")
        assert login is not None
        assert (login.account_id, login.shared) == ("acct-ada", True)
        assert login.refreshed_at == 1_767_225_600.0
        assert file.read_bytes() == before
        assert mock.issuer_requests == []
        removed = await asyncio.to_thread(cli.spawn, "accounts", "remove", "work")
        assert removed.stderr.decode().endswith(
            "the login of `work` goes on: it is that of the Codex CLI, too\n"
        )
        assert mock.issuer_requests == []

    play(test, tmp_path)


def test_a_login_of_codex_that_is_over(tmp_path: Path) -> None:
    cli, store = Cli(tmp_path), GrantStore("t")
    grant = store.grant(Person("ada"), CLIENT_ID)
    over = store.issue(grant, issuer="mock", now=0.0, expires_in=1, without=("refresh_token",))
    file = auth_json(tmp_path, over)
    ran = cli.run("accounts", "add", "work", "--codex-auth", str(file))
    assert ran == (
        4,
        "",
        (
            f"error: the login in `{file}` is over, and has no refresh token\n\n"
            "hint: codexlb accounts add work --login\n"
        ),
    )
    assert nothing_is_kept(cli)


def test_a_file_of_codex_without_a_login(tmp_path: Path) -> None:
    cli, file = Cli(tmp_path), tmp_path / "auth.json"
    file.write_text('{"OPENAI_API_KEY": "sk-test-LEAK"}')
    ran = cli.run("accounts", "add", "work", "--codex-auth", str(file))
    assert ran == (
        3,
        "",
        (
            f"error: `{file}` holds an API key and no login\n\n"
            "hint: codexlb accounts add work --api-key-stdin\n"
        ),
    )
    assert nothing_is_kept(cli)


def test_remove_ends_the_login(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--device", **variables(mock)) as it:
            assert (await it.ended())[0] == 0
        # At the issuer of the login, whatever the configuration says today.
        ran = await asyncio.to_thread(cli.spawn, "accounts", "remove", "work")
        assert ran.returncode == 0
        assert ran.stderr.decode() == (
            f"removed `work` from {cli.config_file}, and its stored login\n"
            f"ended the login of `work` at {mock.issuer_url}\n"
        )
        revoked = mock.issuer_requests[-1]
        assert (revoked.endpoint, revoked.account) == ("revoke", "ada")
        assert nothing_is_kept(cli)

    play(test, tmp_path, IssuerRule(on="usercode", interval="0.2", polls=0))


@pytest.mark.parametrize(
    "rule", [IssuerRule(on="revoke", status=500), IssuerRule(on="revoke", cut=True)]
)
def test_remove_does_not_depend_on_the_issuer(tmp_path: Path, rule: IssuerRule) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        async with signing(cli, "accounts", "add", "work", "--device", **variables(mock)) as it:
            assert (await it.ended())[0] == 0
        ran = await asyncio.to_thread(cli.spawn, "accounts", "remove", "work")
        assert ran.returncode == 0
        assert b"warning: the login of `work` could not be ended, it runs out: `" in ran.stderr
        assert nothing_is_kept(cli)

    play(test, tmp_path, IssuerRule(on="usercode", interval="0.2", polls=0), rule)


def test_login_again(tmp_path: Path) -> None:
    async def test(mock: MockUpstream, cli: Cli) -> None:
        given = variables(mock)
        async with signing(cli, "accounts", "add", "work", "--device", **given) as it:
            assert (await it.ended())[0] == 0
        first = stored(cli, "work")
        async with signing(cli, "accounts", "login", "work", **given) as it:
            async with browser() as http:
                await sign_in(http, await it.url())
            code, out, err = await it.ended()
        assert (code, out) == (0, [])
        assert err.endswith("work: signed in as ada@example.com, plan plus")
        second = stored(cli, "work")
        assert second is not None
        assert second != first
        async with signing(cli, "accounts", "login", "work", "--device", **given) as it:
            code, _, err = await it.ended()
        assert code == 0
        assert err.endswith(
            "work: signed in as bea@example.com, plan plus\n"
            "warning: `work` was signed in as ada@example.com before; conversations that began "
            "there cannot go on"
        )

    play(
        test,
        tmp_path,
        IssuerRule(on="usercode", interval="0.2", polls=0, times=1),
        IssuerRule(on="usercode", interval="0.2", polls=0, person="bea"),
    )


def test_login_of_an_account_that_does_not_sign_in(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure('[accounts.work]\napi_key_env = "WORK_KEY"\n')
    assert cli.run("accounts", "login", "work") == (
        3,
        "",
        ("error: `work` has an API key and does not sign in\n\nhint: codexlb accounts show work\n"),
    )
    assert cli.run("accounts", "login", "ghost").code == 3


def test_a_port_that_nobody_may_have(tmp_path: Path) -> None:
    """The issuer is never asked before the answer can be waited for."""

    async def test(mock: MockUpstream, cli: Cli) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            given = variables(mock, held.getsockname()[1])
            async with signing(cli, "accounts", "add", "work", "--login", **given) as it:
                async with browser() as http:
                    page = await sign_in(http, await it.url())
                assert "Signed in" in page.text
                code, _, err = await it.ended()
        assert code == 0
        assert f"port {given['CODEXLB_SIGNIN_CALLBACK_PORT']} is in use" in err

    play(test, tmp_path)


def test_a_name_in_use_is_told_before_anybody_signs_in(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("[accounts.work]\n")
    ran = cli.run("accounts", "add", "work", "--login", CODEXLB_SIGNIN_ISSUER="http://127.0.0.1:9")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: an account named `work` is in `config.toml` already")


def test_an_issuer_to_which_no_token_may_be_sent(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run(
        "accounts", "add", "work", "--login", CODEXLB_SIGNIN_ISSUER="http://issuer.example"
    )
    assert (ran.code, ran.out) == (3, "")
    assert "`CODEXLB_SIGNIN_ISSUER` must be an https URL, or one on loopback" in ran.err


def test_an_account_that_is_not_signed_in_says_how_to(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure('[accounts.work]\nkind = "chatgpt"\n')
    ran = cli.run("accounts", "list")
    assert ran.code == 0
    assert "needs_login" in ran.out
    assert ran.err.endswith("hint: codexlb accounts login work\n")
