"""The real Codex CLI with every configuration that `codexlb connect codex` prints or writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from tests.clients.chatgpt import chatgpt, login
from tests.clients.codex import CLIENT_KEY, CODEX, Codex, Turn
from tests.clients.running import KEYS, demonstrating, serving
from tests.clients.upstream import check_upstream

if not CODEX:
    pytest.skip("needs the Codex CLI: make test-codex", allow_module_level=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "http"])


def check(mock: RunningMock, turn: Turn, *, websocket: bool) -> None:
    """Require one turn that a person saw, over that transport, and no client secret upstream."""
    assert (turn.code, turn.texts, turn.complaints) == (0, ["You said: hello"], [])
    check_upstream(mock.upstream, secret=CLIENT_KEY)
    # Only over WebSocket does Codex warm a connection up.
    warm = [frame for frame in mock.upstream.frames if frame.json.get("generate") is False]
    assert bool(warm) is websocket


@TRANSPORTS
@pytest.mark.parametrize("auth", ["none", "api-key"])
def test_a_provider_of_its_own(tmp_path: Path, transport: str, auth: str) -> None:
    environ = {"OPENAI_API_KEY": CLIENT_KEY} if auth == "api-key" else {}
    options = ("--transport", transport, "--auth", auth)
    with running_mock(accounts=KEYS, strict=True) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway, options=options, environ=environ)
            turn = codex.exec("hello")
        check(mock, turn, websocket=transport == "websocket")
        assert CLIENT_KEY not in gateway.log


@pytest.mark.parametrize(
    "options",
    [
        ("--auth", "chatgpt", "--transport", "websocket"),
        ("--auth", "chatgpt", "--transport", "http"),
        ("--provider", "openai"),
    ],
    ids=["custom-websocket", "custom-http", "built-in"],
)
def test_with_a_chatgpt_login(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running_mock(accounts=KEYS, strict=True) as mock, chatgpt(tmp_path) as site:
        environ = {"CODEX_CA_CERTIFICATE": str(site.certificate)}
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway, options=options, environ=environ)
            file = codex.config_file
            # Nothing here may reach the real one.
            file.write_text(f'chatgpt_base_url = "{site.base_url}"\n{file.read_text()}')
            file.with_name("auth.json").write_text(login(CLIENT_KEY))
            turn = codex.exec("hello")
        check(mock, turn, websocket="http" not in options)
        assert "/backend-api/wham/accounts/check" in site.asked
        assert CLIENT_KEY not in gateway.log


def test_the_built_in_provider_with_a_key(tmp_path: Path) -> None:
    options = ("--provider", "openai", "--auth", "api-key")
    with running_mock(accounts=KEYS, strict=True) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway, options=options)
            auth = f'{{"auth_mode": "apikey", "OPENAI_API_KEY": "{CLIENT_KEY}"}}'
            codex.config_file.with_name("auth.json").write_text(auth)
            turn = codex.exec("hello")
        check(mock, turn, websocket=True)
        assert CLIENT_KEY not in gateway.log


@TRANSPORTS
def test_what_is_written_into_a_file_of_the_persons_own(tmp_path: Path, transport: str) -> None:
    mine = '# mine\nmodel_provider = "other"\n\n[model_providers.other]\nname = "other" # c\n'
    with running_mock(accounts=KEYS, strict=True) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            codex = Codex(tmp_path / "c", gateway)
            codex.config_file.write_text(mine)
            home = str(codex.config_file.parent)
            write = ("connect", "codex", "--transport", transport, "--write")
            assert gateway.cli.spawn(*write, CODEX_HOME=home).returncode == 0
            turn = codex.exec("hello")
            # Codex trusts folders in this file by itself, so it need not be the one written.
            assert gateway.cli.spawn("connect", "codex", "--undo", CODEX_HOME=home).returncode == 0
            assert codex.config_file.read_text().startswith(mine)
        check(mock, turn, websocket=transport == "websocket")


def test_run_starts_codex_without_any_configuration(tmp_path: Path) -> None:
    with demonstrating(tmp_path) as demo:
        home, work = tmp_path / "codex", tmp_path / "work"
        home.mkdir()
        work.mkdir()
        ran = demo.cli.spawn(
            *("--demo", "run", "--", CODEX, "exec", "--skip-git-repo-check"),
            *("-C", str(work), "-m", "mock", "hello"),
            CODEX_HOME=str(home),
            PATH=os.environ["PATH"],
        )
    assert (ran.returncode, ran.stdout) == (0, b"You said: hello\n"), ran.stderr
    assert not (home / "config.toml").exists()
