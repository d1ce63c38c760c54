"""`codexlb accounts test`, as a process of its own, against the mock upstream."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule
from codexlb_cli.store.database import database_path
from tests.support.cli import Cli, Ran
from tests.support.gateway import Stage, closed_port, run

MEMBERS = {
    "account", "result", "reason", "transport", "status", "code", "message", "timings_ms",
    "limits", "email", "plan",
}  # fmt: skip
STEPS = ("dns", "tcp", "tls", "answer", "total")
LIMITS = {
    "x-codex-primary-used-percent": "12",
    "x-codex-primary-window-minutes": "300",
    "x-ratelimit-remaining-requests": "7",
    "set-cookie": "a=b",
}


async def trial(stage: Stage, *args: str) -> Ran:
    ran = await stage.command("accounts", "test", *args)
    return Ran(ran.returncode, ran.stdout.decode("ascii"), ran.stderr.decode("ascii"))


async def tried(stage: Stage, *args: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """The document's accounts, by name."""
    ran = await trial(stage, *args, "--json")
    assert ran.code == code, ran
    document = json.loads(ran.out)
    assert set(document) == {"schema", "accounts"}
    assert document["schema"] == "codexlb.accounts.test/1"
    assert all(set(account) == MEMBERS for account in document["accounts"])
    return {account["account"]: account for account in document["accounts"]}


def steps(account: Mapping[str, Any]) -> list[str]:
    assert tuple(account["timings_ms"]) == STEPS
    took = {name: ms for name, ms in account["timings_ms"].items() if ms is not None}
    assert all(ms >= 0 for ms in took.values())
    return list(took)


def test_accounts_that_work(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        found = await tried(stage)
        assert list(found) == ["work", "home", "spare"]
        for account in found.values():
            assert (account["result"], account["transport"], account["status"]) == (
                "ok", "websocket", 101,
            )  # fmt: skip
            assert steps(account) == ["dns", "tcp", "answer", "total"]
        assert found["home"]["limits"] == {k: v for k, v in LIMITS.items() if k != "set-cookie"}
        assert found["work"]["limits"] == {}
        assert sorted(stage.dialled) == ["home", "spare", "work"]
        assert stage.sent == []
        for handshake in stage.mock.handshakes:
            lines = {name.lower(): value for name, value in handshake.headers}
            assert lines["user-agent"] == OWN_USER_AGENT
            assert lines["openai-beta"] == "responses_websockets=2026-02-06"
        await stage.mock.wait_for(lambda mock: all(h.ended for h in mock.handshakes))
        assert {handshake.ended for handshake in stage.mock.handshakes} == {"client close 1000"}
        assert not stage.state_folder.exists(), "nothing is learned"

    run(test, tmp_path, HandshakeRule(account="home", headers=dict(LIMITS)), serve=False)


def test_the_table(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        ran = await trial(stage)
        assert ran.code == 5
        lines = [re.sub(r"\d+ ms", "N ms", re.sub(" +", " ", x)) for x in ran.out.splitlines()]
        assert lines[0] == "ACCOUNT RESULT TRANSPORT TIME DETAIL"
        text = " ".join(lines[1:])
        assert "work ok websocket N ms 5 h window 12 % used; requests 7 left; dns N ms," in text
        assert "home needs_login websocket N ms 401 invalid_api_key: bad" in text
        assert r"\x1b[31m key ***; dns" in text
        assert "spare refused websocket N ms 403 forbidden" in text
        assert max(map(len, ran.out.splitlines())) < 100
        told = {line.partition(": ")[2] for line in ran.err.splitlines()}
        assert told == {"work ok", "home needs_login", "spare refused"}
        assert {line[:6] for line in ran.err.splitlines()} == {"1 of 3", "2 of 3", "3 of 3"}
        assert "home-key" not in ran.out + ran.err
        assert (await trial(stage, "home")).err == "", "no progress for one"

    quoting = ErrorSpec(code="invalid_api_key", message="bad\x1b[31m key sk-home-key")
    run(
        test,
        tmp_path,
        HandshakeRule(account="work", headers=dict(LIMITS)),
        HandshakeRule(account="home", status=401, error=quoting),
        HandshakeRule(account="spare", status=403, body="<html>"),
        keys={"home": "sk-home-key"},
        serve=False,
    )


@pytest.mark.parametrize(
    ("rule", "code", "expected"),
    [
        (HandshakeRule(status=401), 4, ("needs_login", "credentials_rejected", 401)),
        (HandshakeRule(status=403), 5, ("refused", "forbidden", 403)),
        (HandshakeRule(status=429), 5, ("refused", "rate_limit_exceeded", 429)),
        (HandshakeRule(status=503), 5, ("refused", None, 503)),
        (
            HandshakeRule(status=302, headers={"location": "http://127.0.0.1:1/"}),
            5,
            ("refused", None, 302),
        ),
        (HandshakeRule(cut=True), 5, ("unreachable", "network", None)),
    ],
)
def test_refusals(
    tmp_path: Path, rule: HandshakeRule, code: int, expected: tuple[str, str | None, int | None]
) -> None:
    async def test(stage: Stage) -> None:
        account = (await tried(stage, "work", code=code))["work"]
        result, reason, status = expected
        assert (account["result"], account["status"]) == (result, status)
        assert account["reason"] == reason or reason is None
        assert stage.dialled == ["work"], "once"

    run(test, tmp_path, rule, serve=False)


def test_an_upstream_that_does_not_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        account = (await tried(stage, "work", "--timeout", "0.5", code=5))["work"]
        assert (account["result"], account["reason"]) == ("unreachable", "timeout")
        assert steps(account) == ["dns", "tcp", "total"]

    run(test, tmp_path, HandshakeRule(silence=True), serve=False)


def test_unreachable_upstreams(tmp_path: Path) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        server = await asyncio.start_server(garbage, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with closed_port() as closed:
            urls = {
                "refused": f"http://127.0.0.1:{closed}/v1",
                "tls": f"https://127.0.0.1:{port}/v1",
                "garbage": f"http://127.0.0.1:{port}/v1",
                "dns": f"http://{'x' * 64}.invalid/v1",
            }
            tables = [
                f'[accounts.{name}{how}]\nbase_url = "{url}"\napi_key_env = "KEY"\n'
                f'transport = "{"http" if how else "auto"}"\n'
                for name, url in urls.items()
                for how in ("", "-http")
            ]
            cli = Cli(tmp_path)
            cli.configure("\n".join(tables))
            args = ("accounts", "test", "--json")
            ran = await asyncio.to_thread(cli.spawn, *args, stdin=b"", KEY="sk-test")
        server.close()
        await server.wait_closed()
        assert ran.returncode == 5, ran.stderr
        accounts = json.loads(ran.stdout)["accounts"]
        assert {account["result"] for account in accounts} == {"unreachable"}
        reasons = {account["account"]: account["reason"] for account in accounts}
        expected = {
            "refused": "connection_refused", "tls": "tls", "garbage": "no_answer", "dns": "dns",
        }  # fmt: skip
        assert reasons == {f"{k}{h}": v for k, v in expected.items() for h in ("", "-http")}

    asyncio.run(test())


@pytest.mark.parametrize("status", [404, 426])
def test_an_account_without_websocket_is_asked_over_http(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        account = (await tried(stage, "work"))["work"]
        assert (account["result"], account["transport"], account["status"]) == ("ok", "http", 200)
        assert steps(account) == ["answer", "total"]
        stage.configure(accounts={"work": 'transport = "websocket"'})
        account = (await tried(stage, "work", code=5))["work"]
        assert (account["result"], account["transport"], account["status"]) == (
            "refused", "websocket", status,
        )  # fmt: skip

    run(test, tmp_path, HandshakeRule(status=status), serve=False)


def test_http_by_configuration(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.configure(accounts={"work": 'transport = "http"'})
        account = (await tried(stage, "work"))["work"]
        assert (account["result"], account["transport"]) == ("ok", "http")
        assert stage.dialled == []
        stage.environ["WORK_KEY"] = "sk-wrong-key"
        account = (await tried(stage, "work", code=4))["work"]
        assert (account["result"], account["transport"], account["status"]) == (
            "needs_login", "http", 401,
        )  # fmt: skip

    run(test, tmp_path, serve=False)


def test_missing_credentials_and_the_worst_exit_code(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        del stage.environ["HOME_KEY"]
        found = await tried(stage, code=4)
        assert found["home"]["reason"] == "credential_missing"
        assert found["home"]["message"] == "`HOME_KEY` is not set in this shell"
        assert steps(found["home"]) == []
        assert found["work"]["result"] == "ok"
        with closed_port() as port:
            stage.configure(accounts={"spare": "enabled = false"})
            text = stage.config_file.read_text()
            stage.cli.configure(text.replace(stage.urls["work"], f"http://127.0.0.1:{port}", 1))
            assert list(await tried(stage, code=5)) == ["work", "home"]
            assert list(await tried(stage, "--all", code=5)) == ["work", "home", "spare"]
            assert list(await tried(stage, "spare")) == ["spare"], "named, so tried"

    run(test, tmp_path, serve=False)


def test_a_login_says_whose_it_is(tmp_path: Path) -> None:
    claims = {
        "email": "a@example.org",
        "https://api.openai.com/auth": {
            "chatgpt_plan_type": "plus",
            "chatgpt_account_id": "acct_1",
        },
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    token = f"e30.{payload}.c2ln"

    async def test(stage: Stage) -> None:
        stage.configure(accounts={"work": 'kind = "chatgpt"'})
        account = (await tried(stage, "work"))["work"]
        assert (account["email"], account["plan"]) == ("a@example.org", "plus")
        ran = await trial(stage, "work")
        assert "a@example.org, plus; dns" in ran.out
        assert payload not in ran.out + ran.err
        for handshake in stage.mock.handshakes:
            lines = {name.lower(): value for name, value in handshake.headers}
            assert lines["chatgpt-account-id"] == "acct_1", "as in the gateway's handshakes"

    run(test, tmp_path, keys={"work": token}, serve=False)


def test_a_running_gateway_learns_nothing(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await tried(stage, "work", code=5)
        with closing(sqlite3.connect(database_path(stage.state_folder))) as connection:
            assert connection.execute("SELECT * FROM accounts").fetchall() == []

    run(test, tmp_path, HandshakeRule(status=429), serve=False)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("ghost",), 3, "no account named `ghost`"),
        (("work", "--all"), 2, "`--all` takes no account"),
        (("--timeout", "0"), 2, "`--timeout` must be more than 0 and 3600 at most"),
        (("--timeout", "nan"), 2, "`--timeout` must be more than 0 and 3600 at most"),
        ((), 3, "no account is enabled"),
    ],
)
def test_bad_options(tmp_path: Path, args: Sequence[str], code: int, message: str) -> None:
    cli = Cli(tmp_path)
    cli.configure('[accounts.work]\napi_key_env = "WORK_KEY"\nenabled = false\n')
    ran = cli.run("accounts", "test", *args)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"error: {message}")


def test_no_account(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("accounts", "test")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: no account is configured\n\nhint: codexlb accounts add")
