"""`codexlb run -- CMD`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.running import ServingGateway, demonstrating
from tests.support.cli import Cli

SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingGateway]:
    with demonstrating(tmp_path_factory.mktemp("demo")) as gateway:
        yield gateway


def run(
    demo: ServingGateway, *args: str, stdin: bytes = b"", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return demo.cli.spawn("--demo", "run", *args, stdin=stdin, **environ)


@pytest.mark.parametrize("dashes", [["--"], []])
def test_a_command_gets_its_arguments_and_the_variables(
    demo: ServingGateway, dashes: list[str]
) -> None:
    ran = run(
        demo,
        *(*dashes, sys.executable, "-c", SHOW, "-h", "--", "--json", "a b"),
        OPENAI_API_KEY="sk-LEAK",
        OPENAI_BASE_URL="https://example.com",
        OPENAI_PROXY="http://example.com",
        NO_PROXY="a.example",
        OTHER="kept",
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    arguments, environ = json.loads(ran.stdout)
    assert arguments == ["-h", "--", "--json", "a b"]
    assert environ["OPENAI_BASE_URL"] == environ["OPENAI_API_BASE"] == demo.base_url
    assert environ["OPENAI_WEBSOCKET_BASE_URL"] == demo.base_url.replace("http", "ws", 1)
    assert (environ["OPENAI_API_KEY"], environ["OTHER"]) == ("unused", "kept")
    assert environ["NO_PROXY"] == "a.example,127.0.0.1,localhost,::1"
    assert b"LEAK" not in ran.stdout
    assert "OPENAI_PROXY" not in environ


def test_a_command_reaches_the_gateway(demo: ServingGateway) -> None:
    code = (
        "import json, os, urllib.request as u\n"
        "body = json.dumps({'model': 'mock', 'input': sys.stdin.read()}).encode()\n"
        "head = {'content-type': 'application/json'}\n"
        "asked = u.Request(os.environ['OPENAI_BASE_URL'] + '/responses', body, head)\n"
        "print(json.load(u.urlopen(asked))['output'][0]['content'][0]['text'])"
    )
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    ran = run(demo, sys.executable, "-c", f"import sys\n{code}", stdin=b"hello", **proxy)
    assert (ran.returncode, ran.stdout) == (0, b"You said: hello\n")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_exit_code_and_signals_are_those_of_the_command(demo: ServingGateway) -> None:
    assert run(demo, sys.executable, "-c", "raise SystemExit(77)").returncode == 77
    killed = run(demo, "sh", "-c", "kill -TERM $$")
    assert killed.returncode == -signal.SIGTERM
    # Python ignores SIGPIPE, and what it starts would inherit that.
    assert run(demo, "sh", "-c", "kill -PIPE $$").returncode == -signal.SIGPIPE


@pytest.mark.parametrize("what", ["nosuch", "./nosuch", "/nosuch/command"])
def test_a_command_that_is_not_there(demo: ServingGateway, what: str) -> None:
    ran = run(demo, "--", what)
    assert (ran.returncode, ran.stdout) == (2, b"")
    message = f"error: there is no command `{what}`\n\nhint: codexlb run --help\n"
    assert ran.stderr.decode() == message


def test_a_command_that_cannot_be_started(demo: ServingGateway, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    ran = run(demo, str(broken))
    assert ran.returncode == 2
    assert ran.stderr.decode().startswith(f"error: cannot start `{broken}`: ")


@pytest.mark.parametrize(
    ("args", "hint"),
    [([], "codexlb serve"), (["--demo"], "codexlb demo")],
)
def test_without_a_gateway_nothing_is_started(tmp_path: Path, args: list[str], hint: str) -> None:
    ran = Cli(tmp_path).run(*args, "run", "--", "sh", "-c", "echo started")
    error = "error: no gateway runs on this configuration"
    assert ran == (3, "", f"{error}\n\nhint: {hint}\n")


def test_without_a_command_it_is_a_usage_error(tmp_path: Path) -> None:
    for args in (["run"], ["run", "--"]):
        ran = Cli(tmp_path).run(*args)
        assert ran == (2, "", "error: missing argument `CMD`\n\nhint: codexlb run --help\n")
    ran = Cli(tmp_path).run("run", "--nosuch", "ls")
    assert (ran.code, ran.out) == (2, "")


def test_codex_is_told_by_options(demo: ServingGateway, tmp_path: Path) -> None:
    fake = tmp_path / "codex"
    fake.write_text(f"#!{sys.executable}\n{SHOW}\n")
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = run(demo, "--", "codex", "exec", "-c", "x=1", PATH=path)
    assert ran.stderr == b"codex reads no variable for this, so it is started with -c options\n"
    arguments, _ = json.loads(ran.stdout)
    assert arguments[::2] == ["-c", "-c", "exec", "x=1"]
    assert arguments[1] == 'model_provider="codexlb"'
    assert f'base_url="{demo.base_url}"' in arguments[3]


def test_a_login_of_opencode_that_goes_past_the_gateway_is_told(
    demo: ServingGateway, tmp_path: Path
) -> None:
    command = tmp_path / "opencode"
    command.write_text("#!/bin/sh\nexit 5\n")
    command.chmod(0o755)
    ran = run(demo, str(command))
    assert (ran.returncode, ran.stderr) == (5, b"")
    folder = demo.cli.home / "data" / "opencode"
    folder.mkdir()
    (folder / "auth.json").write_text('{"openai": {"type": "oauth"}}')
    ran = run(demo, str(command))
    assert ran.returncode == 5
    assert b"warning: opencode is signed in to OpenAI with ChatGPT" in ran.stderr
