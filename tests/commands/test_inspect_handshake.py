"""`inspect handshake`: every input, every error, and no secret in any output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from codexlb_cli.inspect.clients import NAMES
from tests.support.cli import Cli, Ran

TWO = """\
[headers]
allow = ["x-foo"]

[accounts.work]
api_key_env = "WORK_KEY"
organization = "org-LEAK"

[accounts.home]
base_url = "http://[::1]:9000/v1/"
api_key_env = "HOME_KEY"
"""
KEYS = {"WORK_KEY": "sk-test-LEAK", "HOME_KEY": "sk-home-LEAK"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    cli.configure(TWO)
    return cli


def handshake(cli: Cli, *args: str, stdin: bytes = b"") -> Ran:
    return cli.run("inspect", "handshake", *args, stdin=stdin, **KEYS)


def names(ran: Ran) -> list[str]:
    assert (ran.code, ran.err) == (0, "")
    return [decision["name"] for decision in json.loads(ran.out)["decisions"]]


def test_the_built_in_example(cli: Cli) -> None:
    ran = handshake(cli)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(
        "Dry run, nothing was sent."
        " Client headers: built-in example (yours: -H, --headers, --client).\n\n"
        "UPSTREAM HANDSHAKE  account work, GET wss://api.openai.com/v1/responses\n\n"
    )
    assert ran.out.endswith(
        "\n\n2 forwarded, 1 replaced, 8 dropped, 0 moved into the frame."
        " Every reconnect uses the same rules.\n"
    )
    assert [line.split()[0] for line in ran.out.split("CLIENT HEADERS")[1].splitlines()[3:14]] == [
        "Host",
        "Accept",
        "Accept-Encoding",
        "Connection",
        "Content-Type",
        "Content-Length",
        "Authorization",
        "Cookie",
        "OpenAI-Beta",
        "User-Agent",
        "Session-Id",
    ]


def test_every_input_form(cli: Cli) -> None:
    file = cli.home / "head.txt"
    file.write_bytes(b"POST / HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n")
    expected = ["A", "B"]
    assert names(handshake(cli, "--json", "-H", "A: 1", "-H", "B: 2")) == expected
    assert names(handshake(cli, "--json", "--headers", str(file))) == expected
    assert names(handshake(cli, "--json", "--headers", "-", stdin=b"A:1\nB:2\n")) == expected
    pairs = b'[["A", "1"], ["B", "2"]]'
    assert names(handshake(cli, "--json", "--headers", "-", stdin=pairs)) == expected
    assert names(handshake(cli, "--json", "--headers", "-", stdin=b'{"A": "1", "B": ["2"]}')) == [
        "A",
        "B",
    ]
    assert names(handshake(cli, "--json", "--client", "curl"))[:2] == ["Host", "User-Agent"]
    assert len(names(handshake(cli, "--json"))) == 11


def test_the_first_line_says_where_the_headers_come_from(cli: Cli) -> None:
    file = cli.home / "head.txt"
    file.write_bytes(b"A: 1\n")
    sources = [
        handshake(cli, *args, stdin=b"").out.splitlines()[0].partition("Client headers: ")[2]
        for args in (
            ("-H", "A: 1", "-H", "B: 2"),
            ("--headers", "-"),
            ("--client", "curl"),
        )
    ]
    assert sources == [
        "2 from -H.",
        "standard input.",
        "recorded client curl (curl 7.88.1, HTTP).",
    ]
    shown = handshake(cli, "--headers", str(file)).out.partition("\n\n")[0]
    assert shown.replace("\n", " ").endswith(f" {file}.")


@pytest.mark.parametrize("client", NAMES)
def test_every_recorded_client(cli: Cli, client: str) -> None:
    for form in ((), ("--json",), ("--raw",)):
        ran = handshake(cli, "--client", client, *form)
        assert (ran.code, ran.err) == (0, "")
        assert "sk-example" not in ran.out


def test_clients_are_listed(cli: Cli) -> None:
    assert handshake(cli, "--client", "emacs") == (
        2,
        "",
        "error: no recorded client is called `emacs`\n\nhint: one of " + ", ".join(NAMES) + "\n",
    )
    shown = " ".join(handshake(cli, "--help").out.split())
    assert "A recorded client: " + ", ".join(NAMES) in shown


def test_the_account_that_was_asked_for(cli: Cli) -> None:
    ran = handshake(cli, "--account", "home", "--json")
    found = json.loads(ran.out)
    assert (found["account"], found["url"]) == ("home", "ws://[::1]:9000/v1/responses")
    assert found["headers"][0]["value"] == "[::1]:9000"
    assert handshake(cli, "--account", "ghost")[:2] == (3, "")
    assert "no account" in handshake(cli, "--account", "ghost").err


def test_account_headers_are_masked_by_name(cli: Cli) -> None:
    lines = json.loads(handshake(cli, "--json").out)["headers"]
    account = [(line["name"], line["value"]) for line in lines if line["origin"] == "account"]
    assert account == [("authorization", "Bearer ***"), ("openai-organization", "***")]


def test_a_missing_credential_is_only_a_warning(cli: Cli) -> None:
    ran = cli.run("inspect", "handshake", "--json")
    assert ran.code == 0
    assert ran.err == (
        "warning: `WORK_KEY` is not set in this shell, so `work` could not be dialled from here\n"
    )
    values = {line["name"]: line["value"] for line in json.loads(ran.out)["headers"]}
    assert values["authorization"] == "Bearer ***"
    assert cli.run("-q", "inspect", "handshake", "--json") == (0, ran.out, "")


def test_a_broken_credential_store_is_only_a_warning(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("[accounts.work]\n")
    cli.state_folder.mkdir(parents=True)
    (cli.state_folder / "credentials.toml").write_text("sk-test-LEAK")
    (cli.state_folder / "credentials.toml").chmod(0o600)
    ran = cli.run("inspect", "handshake")
    assert ran.code == 0
    assert ran.err.startswith("warning: ")
    assert "is broken" in ran.err
    assert "LEAK" not in ran.err + ran.out


def test_without_accounts_a_placeholder_stands_for_one(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("inspect", "handshake", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["account"]) == (0, "example")
    assert found["url"] == "wss://api.openai.com/v1/responses"
    assert ran.err == (
        "no accounts yet, so `example` stands for one\n\n"
        "hint: codexlb accounts add work --api-key-env OPENAI_API_KEY\n"
    )
    assert Cli(tmp_path).run("inspect", "handshake", "--account", "example").code == 3
    assert list(tmp_path.iterdir()) == []


def test_the_demo(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("--demo", "inspect", "handshake", "--json")
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (found["account"], found["url"]) == ("work", "ws://127.0.0.1:2456/v1/responses")


def test_the_raw_head_is_written_as_bytes(cli: Cli) -> None:
    ran = cli.spawn(
        "inspect", "handshake", "--raw", "--headers", "-", stdin=b"x-foo: caf\xe9\xc3\xa9", **KEYS
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == (
        b"GET /v1/responses HTTP/1.1\r\n"
        b"Host: api.openai.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: (new for every socket)\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"authorization: Bearer ***\r\n"
        b"openai-organization: ***\r\n"
        b"openai-beta: responses_websockets=2026-02-06\r\n"
        b"user-agent: codexlb/0.1.0\r\n"
        b"x-foo: caf\xe9\xc3\xa9\r\n"
        b"x-client-request-id: (new for every socket)\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-H", "a: b", "--client", "curl"), "`-H` and `--client` cannot be used together"),
        (("-H", "a: b", "--headers", "-"), "`-H` and `--headers` cannot be used together"),
        (("--client", "curl", "--headers", "-"), "`--client` and `--headers` cannot be used"),
        (("-H", "", "--client", ""), "`-H` and `--client` cannot be used together"),
        (("--json", "--raw"), "`--json` and `--raw` cannot be used together"),
        (("-H", "LEAK"), "`-H` has no colon"),
        (("-H", "a: LEAK\r\nb: c"), "the value of header `a` holds a control character"),
        (("-H", "a: b", "-H", "b c: LEAK"), "`-H` number 2 does not begin with the name"),
        (("--headers", "none.txt"), "cannot read `none.txt`: no such file or directory"),
        (("--headers", "."), "cannot read `.`: is a directory"),
        (("--client", ""), "no recorded client is called ``"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    cli: Cli, args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cli.home)
    for form in ((), ("--json",)):
        ran = handshake(cli, *args, *form)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: {message}")
        assert "LEAK" not in ran.err


@pytest.mark.parametrize(
    "content",
    [b"LEAK", b"a: b\n LEAK", b"a: LEAK\0", b"[LEAK", b'[["a"]]', b'{"a": 1}', b": LEAK"],
)
def test_bad_headers_in_a_file(cli: Cli, content: bytes) -> None:
    ran = handshake(cli, "--headers", "-", stdin=content)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "LEAK" not in ran.err


def test_a_broken_configuration_is_said(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("[headers]\nalow = []\n")
    ran = cli.run("inspect", "handshake", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "`headers.alow`" in ran.err


def test_no_form_shows_a_secret(cli: Cli) -> None:
    planted = [
        "Authorization: Bearer LEAK",
        "Cookie: a=LEAK",
        "X-Api-Key: LEAK",
        "Sec-WebSocket-Protocol: openai-insecure-api-key.LEAK",
        "X-Codex-Turn-Metadata: LEAK",
        "Proxy-Authorization: Basic LEAK",
        "Connection: X-Api-Key",
    ]
    options = [part for header in planted for part in ("-H", header)]
    for form in ((), ("--json",), ("--raw",)):
        ran = cli.spawn("-v", "inspect", "handshake", *options, *form, stdin=b"", **KEYS)
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert b"LEAK" not in ran.stdout


def test_answers_do_not_wait_for_the_gateways_libraries() -> None:
    heavy = ("fastapi", "starlette", "uvicorn", "websockets", "httpx2", "httpx", "rich")
    for command in (
        ["inspect", "handshake", "--client", "codex"],
        ["inspect", "rules"],
        ["simulate", "close", "1011"],
    ):
        script = (
            "import sys; from codexlb_cli.main import main;"
            f" code = main(['--demo', *{command!r}]);"
            f" print(code, sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, timeout=30, check=True
        )
        assert ran.stderr == b"0 []\n"
