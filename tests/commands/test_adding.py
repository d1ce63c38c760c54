"""`accounts add` in a terminal, where what is missing is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.running import running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.support.cli import Cli
from tests.support.signing import auth_json, nothing_is_kept, stored, variables

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal to play with")

SECONDS = 30
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes stdin the terminal whose Ctrl-C a program gets, and runs it."""


class Typist:
    """Somebody at a terminal.

    Attributes:
        seen: all that the terminal showed so far.
    """

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.seen = ""
        self._descriptor = descriptor
        self._process = process

    def until(self, text: str) -> None:
        """Read until the terminal shows a text that comes after what was seen so far."""
        start = len(self.seen)
        while text not in self.seen[start:]:
            assert self._read(), f"it ended without {text!r}: {self.seen}"

    def wait_for_it(self) -> None:
        """Wait until the program sleeps in its read.

        Python loses no signal that comes there, but it does not notice one that comes between the
        prompt and the read before another key is pressed.
        """
        stat = Path(f"/proc/{self._process.pid}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def answer(self, question: str, text: str) -> None:
        self.until(question)
        self.type(f"{text}\n")

    def end(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        return self._process.wait(SECONDS)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:  # Linux says EIO once nobody has the other end any more
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def terminal(cli: Cli, *args: str, **environ: str) -> Iterator[Typist]:
    """Run `codexlb ARGS` with a terminal as stdin, stdout and stderr."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, "-m", "codexlb_cli", *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environment(TERM="dumb", **environ),
        cwd=cli.home,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Typist(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        os.close(master)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_everything_is_asked_for(cli: Cli) -> None:
    rules = Script((IssuerRule(on="usercode", interval="0.2", polls=1),))
    cli.configure("[accounts.taken]\n")
    with (
        running_mock(script=rules) as mock,
        terminal(cli, "accounts", "add", **variables(mock.upstream)) as person,
    ):
        person.answer("Name of the account [work]: ", "Not One")
        person.answer("Name of the account [work]: ", "taken")
        person.answer("Name of the account [work]: ", "")
        person.answer("Number [1]: ", "9")
        person.answer("Number [1]: ", "2")
        assert person.end() == 0
    assert "warning: the name of an account must be a-z" in person.seen
    assert "warning: an account named `taken` is there already" in person.seen
    assert "warning: give a number from 1 to 5" in person.seen
    assert person.seen.endswith("work: signed in as ada@example.com, plan plus\n")
    assert stored(cli, "work") is not None


def test_a_name_that_was_given_is_not_asked_for(cli: Cli) -> None:
    with terminal(cli, "accounts", "add", "lab", "--base-url", "http://127.0.0.1:9/v1") as person:
        person.answer("Number [1]: ", "5")
        person.answer("Variable [OPENAI_API_KEY]: ", "LAB_KEY")
        assert person.end() == 0
    assert cli.config_file.read_text() == (
        '[accounts.lab]\nkind = "api_key"\napi_key_env = "LAB_KEY"\n'
        'base_url = "http://127.0.0.1:9/v1"\n'
    )


def test_a_key_is_typed_without_being_shown(cli: Cli) -> None:
    with terminal(cli, "accounts", "add", "lab") as person:
        person.answer("Number [1]: ", "4")
        person.answer("Key for lab: ", "sk-test-LEAK")
        assert person.end() == 0
    assert "LEAK" not in person.seen
    assert "LEAK" in (cli.state_folder / "credentials.toml").read_text()


@pytest.mark.parametrize("own", [True, False])
def test_the_login_of_codex_or_one_of_its_own(cli: Cli, own: bool) -> None:
    with running_mock() as mock:
        file = auth_json(cli.home, mock.upstream.issuer.sign_in("ada"))
        given = variables(mock.upstream)
        with terminal(cli, "accounts", "add", "work", CODEX_HOME=str(cli.home), **given) as person:
            person.answer("Number [1]: ", "3")
            person.answer(f"File [{file}]: ", "")
            question = "Sign in in the browser instead, for a login of its own? [Y/n]: "
            person.answer(question, "" if own else "n")
            if own:
                person.until("sign in on this page")
                person.type("\x03")
                assert person.end() == 130
                assert nothing_is_kept(cli)
            else:
                assert person.end() == 0
                login = stored(cli, "work")
                assert login is not None
                assert login.shared


@pytest.mark.parametrize("question", ["Name of the account [work]", "Number [1]"])
def test_ctrl_c_at_a_question(cli: Cli, question: str) -> None:
    with terminal(cli, "accounts", "add") as person:
        if question == "Number [1]":
            person.answer("Name of the account", "")
        person.until(f"{question}: ")
        person.wait_for_it()
        person.type("\x03")
        assert person.end() == 130
    assert "Traceback" not in person.seen
    assert nothing_is_kept(cli)


def test_a_wrong_name_is_told_before_anything_is_asked(cli: Cli) -> None:
    with terminal(cli, "accounts", "add", "Not One") as person:
        assert person.end() == 2
    assert person.seen.startswith("error: the name of an account must be ")
