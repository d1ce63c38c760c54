"""Changing: `accounts add`, `enable`, `disable`, `reset` and `remove`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from codexlb_cli.core.accounts import AccountState
from codexlb_cli.store.cooldowns import read_states
from codexlb_cli.store.credentials import Credentials
from tests.commands.test_accounts import learn, store_key
from tests.support.cli import Cli

KEY = b"sk-test-LEAK\n"
NAME_RULE = "a-z, 0-9, `-` and `_`, a letter or digit first, 32 characters at most"
WAYS = (
    "give one of `--login`, `--device`, `--codex-auth FILE`, `--api-key-env VAR` and "
    "`--api-key-stdin`"
)
URL_RULE = "an http, https, ws or wss URL with a host, and without a user, query or fragment"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def accounts(cli: Cli) -> dict[str, dict[str, object]]:
    ran = cli.run("accounts", "list", "--json")
    return {account["name"]: account for account in json.loads(ran.out)["accounts"]}


def test_add_with_a_variable(cli: Cli) -> None:
    ran = cli.run("accounts", "add", "work", "--api-key-env", "WORK_KEY", WORK_KEY="x")
    assert ran == (0, "", f"added `work` to {cli.config_file}\n")
    assert cli.config_file.read_text() == (
        '[accounts.work]\nkind = "api_key"\napi_key_env = "WORK_KEY"\n'
    )


def test_add_with_a_variable_that_is_not_set(cli: Cli) -> None:
    url = "http://127.0.0.1:9000/v1"
    ran = cli.run("accounts", "add", "lab", "--api-key-env", "LAB_KEY", "--base-url", url)
    assert ran == (
        0,
        "",
        (
            f"added `lab` to {cli.config_file}\n"
            "warning: `LAB_KEY` is not set in this shell; the shell that runs `codexlb serve` needs"
            " it\n"
        ),
    )
    assert accounts(cli)["lab"]["base_url"] == url


def test_add_with_a_key_on_stdin(cli: Cli) -> None:
    ran = cli.run("accounts", "add", "home", "--api-key-stdin", stdin=KEY)
    assert ran == (0, "", f"added `home` to {cli.config_file}\n")
    assert accounts(cli)["home"]["credential"] == {
        "source": "file",
        "name": "home",
        "present": True,
    }
    for file in cli.home.rglob("*"):
        if file.is_file() and file.name != "credentials.toml":
            assert b"LEAK" not in file.read_bytes()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"", "the key on stdin is empty"),
        (b" \n\n", "the key on stdin is empty"),
        (b"sk-test LEAK", "the key on stdin cannot be sent: it has blanks, "),
        (b"sk-test-LEAK\nsecond", "the key on stdin cannot be sent: it has blanks, "),
        (b"sk-test-LEAK\xff", "the key on stdin cannot be sent: it has blanks, "),
    ],
)
def test_a_key_on_stdin_that_is_none(cli: Cli, key: bytes, message: str) -> None:
    ran = cli.run("accounts", "add", "home", "--api-key-stdin", stdin=key)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}")
    assert "LEAK" not in ran.err
    assert list(cli.home.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "missing argument `NAME`\n\nhint: codexlb accounts add --help"),
        (["--login"], "missing argument `NAME`\n\nhint: codexlb accounts add --help"),
        (["work"], WAYS),
        (["work", "--login", "--device"], WAYS),
        (["Work", "--login"], f"the name of an account must be {NAME_RULE}"),
        (
            ["work", "--api-key-env", "A", "--api-key-stdin"],
            WAYS,
        ),
        (["Work", "--api-key-env", "A"], f"the name of an account must be {NAME_RULE}"),
        (["-_", "--api-key-env", "A"], None),
        (["a.b", "--api-key-env", "A"], f"the name of an account must be {NAME_RULE}"),
        (["a\nb", "--api-key-env", "A"], f"the name of an account must be {NAME_RULE}"),
        ([33 * "a", "--api-key-env", "A"], f"the name of an account must be {NAME_RULE}"),
        (
            ["work", "--api-key-env", "sk-test-LEAK"],
            "`--api-key-env` must be the name of an environment variable, never the key itself",
        ),
        (["work", "--api-key-env", "A", "--base-url", ""], f"`--base-url` must be {URL_RULE}"),
        (
            ["work", "--api-key-env", "A", "--base-url", "https://u:LEAK@x/v1"],
            f"`--base-url` must be {URL_RULE}",
        ),
    ],
)
def test_a_wrong_option(cli: Cli, args: list[str], message: str | None) -> None:
    ran = cli.run("accounts", "add", *args)
    assert (ran.code, ran.out) == (2, "")
    if message:
        assert ran.err == f"error: {message}\n"
    assert "LEAK" not in ran.err
    assert list(cli.home.iterdir()) == []


def test_a_name_in_use(cli: Cli) -> None:
    cli.configure("[accounts.work]\n")
    store_key(cli, "work")
    ran = cli.run("accounts", "add", "work", "--api-key-stdin", stdin=b"other")
    assert ran == (
        3,
        "",
        (
            "error: an account named `work` is in `config.toml` already\n"
            "\n"
            "hint: codexlb accounts show work\n"
        ),
    )
    assert "sk-test-LEAK" in Credentials(cli.state_folder, {}).file.read_text()
    assert cli.config_file.read_text() == "[accounts.work]\n"


def test_an_account_that_cannot_be_added_leaves_no_key(cli: Cli) -> None:
    cli.configure("accounts = { work = {} }\n")
    ran = cli.run("accounts", "add", "home", "--api-key-stdin", stdin=KEY)
    assert ran.code == 3
    assert "[accounts.home]\n" in ran.err
    assert "LEAK" not in ran.err
    assert "LEAK" not in (cli.state_folder / "credentials.toml").read_text()
    assert cli.config_file.read_text() == "accounts = { work = {} }\n"


@pytest.mark.parametrize(
    "args",
    [
        ["add", "new", "--api-key-env", "A"],
        ["add", "new", "--api-key-stdin"],
        ["enable", "work"],
        ["disable", "work"],
        ["remove", "work"],
    ],
)
def test_a_broken_file_is_left_untouched(cli: Cli, args: list[str]) -> None:
    cli.configure("[accounts.work]\nkind = \n")
    ran = cli.run("accounts", *args, stdin=KEY)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: `config.toml` is not valid TOML: invalid value (line 2, col")
    assert cli.config_file.read_text() == "[accounts.work]\nkind = \n"
    assert not cli.state_folder.exists()


@pytest.mark.parametrize(
    "args",
    [
        ["add", "new", "--api-key-env", "A"],
        ["enable", "work"],
        ["disable", "work"],
        ["remove", "work"],
    ],
)
def test_the_demo_cannot_be_changed(cli: Cli, args: list[str]) -> None:
    ran = cli.run("--demo", "accounts", *args)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: the demo configuration is built in")
    assert list(cli.home.iterdir()) == []


def test_the_demo_can_be_reset(cli: Cli) -> None:
    assert cli.run("--demo", "accounts", "reset", "work").code == 0
    assert [path.name for path in cli.state_folder.iterdir()] == ["demo"]


def test_disable_and_enable(cli: Cli) -> None:
    cli.configure("# mine\n[accounts.work] # here\r\n")
    assert cli.run("accounts", "disable", "work") == (0, "", "disabled `work`\n")
    text = cli.config_file.read_bytes()
    assert text.startswith(b"# mine\n[accounts.work] # here\r\nenabled = false")
    assert accounts(cli)["work"]["state"] == "disabled"
    before = cli.config_file.stat()
    assert cli.run("accounts", "disable", "work") == (0, "", "`work` is disabled already\n")
    assert cli.config_file.stat().st_ino == before.st_ino
    assert cli.run("accounts", "enable", "work") == (0, "", "enabled `work`\n")
    assert cli.run("accounts", "enable", "work") == (0, "", "`work` is enabled already\n")
    assert accounts(cli)["work"]["enabled"] is True


def test_reset_clears_what_was_learned(cli: Cli) -> None:
    cli.configure("[accounts.work]\n[accounts.home]\n")
    store_key(cli, "work")
    limited = AccountState(limited_until=time.time() + 99, limited_reason="usage_limit_reached")
    learn(cli, "work", limited)
    learn(cli, "home", limited)
    assert accounts(cli)["work"]["state"] == "limited"
    assert cli.run("accounts", "reset", "work").code == 0
    assert accounts(cli)["work"]["state"] == "ready"
    assert read_states(cli.state_folder)["home"] == limited


def test_remove_deletes_table_key_and_state(cli: Cli) -> None:
    cli.configure("[gateway]\nport = 9\n")
    cli.run("accounts", "add", "home", "--api-key-stdin", stdin=KEY)
    learn(cli, "home", AccountState(login_reason="credentials_rejected"))
    ran = cli.run("accounts", "remove", "home")
    assert ran == (0, "", f"removed `home` from {cli.config_file}, and its stored key\n")
    assert cli.config_file.read_text() == "[gateway]\nport = 9\n"
    assert "LEAK" not in (cli.state_folder / "credentials.toml").read_text()
    cli.run("accounts", "add", "home", "--api-key-stdin", stdin=KEY)
    assert accounts(cli)["home"]["state"] == "ready"


def test_remove_asks_before_it_deletes_comments(cli: Cli) -> None:
    cli.configure("[accounts.work]\n# rotate in May\n")
    store_key(cli, "work")
    assert cli.run("accounts", "remove", "work") == (
        3,
        "",
        (
            "error: `accounts.work` in `config.toml` holds a comment of yours (line 2)\n"
            "\n"
            "hint: codexlb accounts remove work --delete deletes it too; or keep both:"
            " codexlb accounts disable work\n"
        ),
    )
    assert accounts(cli)["work"]["state"] == "ready"
    ran = cli.run("accounts", "remove", "work", "--delete")
    assert ran == (0, "", f"removed `work` from {cli.config_file}, and its stored key\n")
    assert cli.config_file.read_text() == ""


def test_every_command_takes_another_file(cli: Cli) -> None:
    file = str(cli.home / "deep" / "other.toml")
    run = ("--config", file, "accounts")
    assert cli.run(*run, "add", "work", "--api-key-stdin", stdin=KEY).code == 0
    assert cli.run(*run, "disable", "work").code == 0
    assert "enabled = false" in Path(file).read_text()
    assert cli.run(*run, "remove", "work").code == 0
    assert not cli.config_file.exists()
