"""`accounts add` in a terminal, where what is missing is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.running import running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.support.cli import Cli
from tests.support.signing import auth_json, nothing_is_kept, stored, variables
from tests.support.terminal import terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal to play with")


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
