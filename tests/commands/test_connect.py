"""`codexlb connect CLIENT`, which prints and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.running import ServingGateway, demonstrating
from tests.support.cli import Cli

NOTE = "no gateway runs here yet; the address is the configured one\n\nhint: codexlb serve\n"
CLIENTS = ("codex", "openai", "agents", "opencode", "curl")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingGateway]:
    with demonstrating(tmp_path_factory.mktemp("demo")) as gateway:
        yield gateway


@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_gateway_the_configured_address_is_printed(cli: Cli, client: str) -> None:
    cli.configure("[gateway]\nport = 4321\n")
    ran = cli.run("connect", client)
    assert (ran.code, ran.err) == (0, NOTE)
    assert "http://127.0.0.1:4321/v1" in ran.out
    assert ran.out.isascii()
    assert cli.run("-q", "connect", client) == (0, ran.out, "")


@pytest.mark.parametrize("client", CLIENTS)
def test_the_address_of_the_gateway_that_runs_is_printed(demo: ServingGateway, client: str) -> None:
    ran = demo.cli.run("--demo", "connect", client)
    assert (ran.code, ran.err) == (0, "")
    assert demo.base_url in ran.out
    document = json.loads(demo.cli.run("--demo", "connect", client, "--json").out)
    assert document == {
        "schema": "codexlb.connect/1",
        "client": client,
        "base_url": demo.base_url,
        "configuration": ran.out.removesuffix("\n"),
        "gateway_running": True,
    }


def test_a_gateway_of_another_configuration_is_not_meant(demo: ServingGateway) -> None:
    ran = demo.cli.run("connect", "curl", "--json")
    assert (ran.code, ran.err) == (0, NOTE)
    document = json.loads(ran.out)
    assert document["base_url"] == "http://127.0.0.1:2455/v1"
    assert document["gateway_running"] is False


def test_a_gateway_that_was_killed_does_not_count(cli: Cli) -> None:
    cli.state_folder.mkdir(parents=True)
    presence = {"host": "127.0.0.1", "port": 1, "instance": "x"}
    (cli.state_folder / "gateway.json").write_text(json.dumps(presence))
    assert cli.run("connect", "curl").err == NOTE


@pytest.mark.parametrize(
    ("args", "port", "hint"),
    [
        (["--demo"], "", "codexlb demo"),
        (["--demo"], "3000", "codexlb demo --port 3000"),
        (["--config", "a.toml"], "", "codexlb --config a.toml serve"),
    ],
)
def test_the_command_that_starts_that_gateway_is_named(
    cli: Cli, args: list[str], port: str, hint: str
) -> None:
    ran = cli.run(*args, "connect", "curl", CODEXLB_GATEWAY_PORT=port)
    assert ran.err.endswith(f"\n\nhint: {hint}\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vim"], "`vim` is not a client that this knows"),
        (["openai", "--auth", "none"], "`--auth` says nothing to `openai`"),
        (["opencode", "--transport", "http"], "`--transport` says nothing to `opencode`"),
        (["curl", "--provider", "openai"], "`--provider` says nothing to `curl`"),
        (
            ["codex", "--provider", "openai", "--transport", "http"],
            "the built-in provider of Codex always tries WebSocket first",
        ),
        (
            ["codex", "--provider", "openai", "--auth", "none"],
            "the built-in provider of Codex always sends a credential",
        ),
        (["codex", "--write", "--undo"], "`--write` and `--undo` cannot be used together"),
        (["openai", "--write"], "`openai` has no configuration file to write"),
        (["agents", "--undo"], "`agents` has no configuration file to write"),
        (["codex", "--auth", "x"], "invalid value for `--auth`: `x` is not one of"),
    ],
)
def test_what_makes_no_sense(cli: Cli, args: list[str], message: str) -> None:
    ran = cli.run("connect", *args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}")


def test_a_client_without_a_file_has_run_instead(cli: Cli) -> None:
    hint = "codexlb run -- CMD starts a command with the variables that it reads"
    assert cli.run("connect", "curl", "--write").err.endswith(f"\n\nhint: {hint}\n")


@pytest.mark.parametrize("args", [[], ["--provider", "custom"]])
def test_a_login_of_opencode_that_goes_past_the_gateway_is_told(cli: Cli, args: list[str]) -> None:
    folder = cli.home / "data" / "opencode"
    folder.mkdir(parents=True)
    login = {"openai": {"type": "oauth", "access": "LEAK"}}
    (folder / "auth.json").write_text(json.dumps(login))
    ran = cli.run("connect", "opencode", *args)
    assert ran.code == 0
    assert ("opencode is signed in to OpenAI with ChatGPT" in ran.err) is (not args)
    assert "LEAK" not in ran.out + ran.err
    (folder / "auth.json").write_text(json.dumps({"openai": {"type": "api", "key": "LEAK"}}))
    assert "signed in" not in cli.run("connect", "opencode", *args).err


def test_completion_knows_the_clients(cli: Cli) -> None:
    ran = cli.spawn(
        _CODEXLB_COMPLETE="complete_bash", COMP_WORDS="codexlb connect o", COMP_CWORD="2"
    )
    assert (ran.returncode, ran.stdout.split()) == (0, [b"openai", b"opencode"])
