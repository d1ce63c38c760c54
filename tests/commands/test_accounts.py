"""Reading: `accounts list` and `accounts show`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from codexlb_cli.core.accounts import FRESH, AccountState
from codexlb_cli.store.cooldowns import write_state
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.database import database_path, open_for_writing
from codexlb_cli.store.secrets import Secret
from tests.support.cli import Cli

FOUR = """\
[accounts.work]
api_key_env = "WORK_KEY"

[accounts.home]

[accounts.team]
enabled = false
base_url = "http://127.0.0.1:9000/v1/"
api_key_env = "TEAM_KEY"

[accounts.lab]
api_key_env = "LAB_KEY"
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def learn(cli: Cli, name: str, state: AccountState) -> None:
    cli.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = open_for_writing(database_path(cli.state_folder))
    with connection:
        write_state(name, state)(connection)
    connection.close()


def store_key(cli: Cli, name: str, key: str = "sk-test-LEAK") -> None:
    Credentials(cli.state_folder, {}).store(name, Secret(key))


def test_no_accounts(cli: Cli) -> None:
    hint = "hint: codexlb accounts add work --api-key-env OPENAI_API_KEY\n"
    assert cli.run("accounts", "list") == (0, "", f"no accounts yet\n\n{hint}")
    assert cli.run("-q", "accounts", "list") == (0, "", "")
    ran = cli.run("accounts", "list", "--json")
    assert (ran.code, json.loads(ran.out), ran.err) == (
        0,
        {"schema": "codexlb.accounts.list/1", "accounts": []},
        "",
    )
    assert list(cli.home.iterdir()) == []


def test_the_demo_needs_nothing(cli: Cli) -> None:
    ran = cli.run("--demo", "accounts", "list")
    assert ran == (
        0,
        (
            "NAME   KIND     STATE  DETAIL  CREDENTIAL  UPSTREAM\n"
            "work   api_key  ready  -       stored key  127.0.0.1:2456/v1\n"
            "home   api_key  ready  -       stored key  127.0.0.1:2456/v1\n"
            "spare  api_key  ready  -       stored key  127.0.0.1:2456/v1\n"
        ),
        "",
    )
    assert list(cli.home.iterdir()) == []


def test_the_demo_leaves_a_broken_configuration_alone(cli: Cli) -> None:
    cli.configure("[broken")
    assert cli.run("--demo", "accounts", "list").code == 0


def test_states_and_reasons(cli: Cli) -> None:
    cli.configure(FOUR)
    store_key(cli, "home")
    learn(cli, "work", AccountState(limited_until=time.time() + 42.5, limited_reason="too_many"))
    learn(cli, "gone", FRESH)
    ran = cli.run("accounts", "list", WORK_KEY="sk-test-LEAK")
    lines = ran.out.splitlines()
    assert lines[0] == "NAME  KIND     STATE        DETAIL               CREDENTIAL    UPSTREAM"
    assert lines[1].startswith("work  api_key  limited      too_many, 4")
    assert lines[1].endswith(" s left  env WORK_KEY  api.openai.com/v1")
    assert lines[2:] == [
        "home  api_key  ready        -                    stored key    api.openai.com/v1",
        "team  api_key  disabled     -                    env TEAM_KEY  127.0.0.1:9000/v1",
        "lab   api_key  needs_login  credential_missing   env LAB_KEY   api.openai.com/v1",
    ]
    assert ran.err == (
        "warning: `LAB_KEY` is not set in this shell, so `lab` counts as not usable here\n"
        "\n"
        "hint: set `LAB_KEY`, or: codexlb accounts disable lab\n"
    )
    assert ran.code == 0
    assert "LEAK" not in ran.out + ran.err
    assert cli.run("-q", "accounts", "list", WORK_KEY="x").err == ""


def test_json_has_every_field(cli: Cli) -> None:
    cli.configure(FOUR)
    until = time.time() + 1000
    learn(cli, "work", AccountState(cooling_until=until, cooling_reason="internal_error"))
    ran = cli.run("accounts", "list", "--json", WORK_KEY="sk-test-LEAK")
    assert (ran.code, ran.err) == (0, "")
    assert "LEAK" not in ran.out
    document = json.loads(ran.out)
    assert set(document) == {"schema", "accounts"}
    assert [account["name"] for account in document["accounts"]] == ["work", "home", "team", "lab"]
    work, home, team, lab = document["accounts"]
    assert work == {
        "name": "work",
        "kind": "api_key",
        "enabled": True,
        "state": "cooling_down",
        "reason": "internal_error",
        "until": work["until"],
        "base_url": "https://api.openai.com/v1",
        "credential": {"source": "env", "name": "WORK_KEY", "present": True},
        "transport": {"configured": "auto", "in_force": "websocket", "until": None},
        "plan": None,
        "windows": [],
        "rates": [],
        "credits": None,
        "in_flight": None,
        "last_error": None,
    }
    assert work["until"].endswith("Z")
    assert home["credential"] == {"source": "file", "name": "home", "present": False}
    assert (home["state"], home["reason"]) == ("needs_login", "credential_missing")
    assert (team["state"], team["enabled"], team["reason"]) == ("disabled", False, "disabled")
    assert (lab["state"], lab["until"]) == ("needs_login", None)
    shown = json.loads(cli.run("accounts", "show", "lab", "--json").out)
    assert shown == {"schema": "codexlb.accounts.show/1", "account": lab}


def test_show(cli: Cli) -> None:
    cli.configure(FOUR)
    assert cli.run("accounts", "show", "team") == (
        0,
        (
            "FACT          VALUE\n"
            "name          team\n"
            "kind          api_key\n"
            "enabled       no\n"
            "state         disabled\n"
            "detail        -\n"
            "credential    env TEAM_KEY\n"
            "upstream      ws://127.0.0.1:9000/v1/responses\n"
            "transport     websocket\n"
            "organization  -\n"
            "project       -\n"
        ),
        "",
    )


ONE = '[accounts.work]\napi_key_env = "WORK_KEY"\n'


def transport(cli: Cli) -> tuple[str, dict[str, object]]:
    """What `show` says of the transport, for people and as JSON."""
    shown = cli.run("accounts", "show", "work", WORK_KEY="sk-test").out.splitlines()
    line = next(line for line in shown if line.startswith("transport"))
    document = json.loads(cli.run("accounts", "show", "work", "--json").out)
    listed = json.loads(cli.run("accounts", "list", "--json").out)["accounts"][0]
    assert listed == document["account"]
    return line.split(maxsplit=1)[1], document["account"]["transport"]


def test_the_transport_that_was_learned_is_shown_until_a_reset(cli: Cli) -> None:
    cli.configure(ONE)
    learn(cli, "work", AccountState(http_until=time.time() + 600))
    told, document = transport(cli)
    assert told in ("http, no WebSocket, 10 min left", "http, no WebSocket, 9 min left")
    until = document.pop("until")
    assert isinstance(until, str)
    assert until.endswith("Z")
    assert document == {"configured": "auto", "in_force": "http"}
    listed = json.loads(cli.run("accounts", "list", "--json", WORK_KEY="k").out)["accounts"][0]
    assert (listed["state"], listed["reason"]) == ("ready", None)
    assert cli.run("accounts", "reset", "work").code == 0
    assert transport(cli) == (
        "websocket",
        {"configured": "auto", "in_force": "websocket", "until": None},
    )


@pytest.mark.parametrize("configured", ["websocket", "http"])
def test_a_configured_transport_is_not_learned(cli: Cli, configured: str) -> None:
    cli.configure(f'{ONE}transport = "{configured}"\n')
    learn(cli, "work", AccountState(http_until=time.time() + 500))
    document = {"configured": configured, "in_force": configured, "until": None}
    assert transport(cli) == (configured, document)


def test_a_transport_that_does_not_exist(cli: Cli) -> None:
    cli.configure(f'{ONE}transport = "https"\n')
    ran = cli.run("accounts", "list")
    assert ran.code == 3
    assert ran.err.startswith(
        "error: `accounts.work.transport` in `config.toml` must be `auto`, `websocket` or `http`"
    )


def test_an_unknown_account(cli: Cli) -> None:
    cli.configure(FOUR)
    for command in (["show"], ["enable"], ["disable"], ["reset"], ["remove"], ["show", "--json"]):
        assert cli.run("accounts", *command, "wrok") == (
            3,
            "",
            "error: no account named `wrok` in `config.toml`\n\nhint: did you mean `work`?\n",
        )
    ran = cli.run("accounts", "show", "x\x1b[31m\ny")
    assert ran.code == 3
    assert ran.err.startswith("error: no account named `x\\u001b[31m\\ny` in `config.toml`\n\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_broken_file_is_an_error_with_its_place(cli: Cli, options: list[str]) -> None:
    cli.configure("[accounts.work]\ncolour = 1\n")
    assert cli.run("accounts", "list", *options) == (
        3,
        "",
        (
            "error: `accounts.work.colour` in `config.toml` is not a known key\n"
            "\n"
            f"hint: see line 2 of {cli.config_file}, then: codexlb config check\n"
        ),
    )


def test_a_key_that_cannot_be_sent_is_no_credential(cli: Cli) -> None:
    cli.configure("[accounts.lab]\napi_key_env = 'LAB_KEY'\n")
    ran = cli.run("accounts", "list", LAB_KEY="sk-test LEAK")
    assert "needs_login" in ran.out
    assert "`LAB_KEY` cannot be sent" in ran.err
    assert "LEAK" not in ran.out + ran.err


def test_a_missing_stored_key_is_told(cli: Cli) -> None:
    cli.configure("[accounts.lab]\n")
    assert cli.run("accounts", "list").err == (
        "warning: no key is stored for `lab`, so `lab` counts as not usable here\n"
        "\n"
        "hint: codexlb accounts disable lab\n"
    )


def test_another_file_has_another_state(cli: Cli) -> None:
    cli.configure(FOUR)
    store_key(cli, "home")
    other = cli.home / "other.toml"
    other.write_text("[accounts.home]\n")
    ran = cli.run("--config", str(other), "accounts", "list", "--json")
    assert json.loads(ran.out)["accounts"][0]["credential"]["present"] is False
    same = cli.run("accounts", "list", "--json", CODEXLB_CONFIG=str(other))
    assert same.out == ran.out


def test_a_chosen_file_that_is_missing_is_told(cli: Cli) -> None:
    path = cli.home / "typo.toml"
    ran = cli.run("--config", str(path), "accounts", "list")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith(f"warning: `{path}` does not exist; defaults apply\n")


def test_an_account_that_signs_in(cli: Cli) -> None:
    cli.configure("[accounts.plan]\nkind = 'chatgpt'\n")
    ran = cli.run("accounts", "list", "--json")
    account = json.loads(ran.out)["accounts"][0]
    assert account["credential"] == {"source": "login", "name": "plan", "present": False}
    assert account["base_url"] == "https://chatgpt.com/backend-api/codex"
    assert "login       chatgpt.com/backend-api/codex" in cli.run("accounts", "list").out
