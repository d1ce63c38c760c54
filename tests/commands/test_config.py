from __future__ import annotations

import json
from pathlib import Path

import pytest

from codexlb_cli.config.paths import example_config
from codexlb_cli.config.schema import scalar_keys
from tests.support.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_show_says_where_each_value_comes_from(cli: Cli) -> None:
    cli.configure(
        "[gateway]\nport = 9\n[headers]\nallow = ['X-A']\n"
        "[reconnect.close.1011]\nhard = 'give_up'\n"
        "[accounts.work]\napi_key_env = 'WORK_KEY'\norganization = 'org-1'\n"
    )
    ran = cli.run("config", "show", CODEXLB_LANES_QUEUE="3", WORK_KEY="sk-test-LEAK")
    assert (ran.code, ran.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines()}
    assert rows["KEY"] == ["VALUE", "SOURCE"]
    assert rows["gateway.host"] == ['"127.0.0.1"', "default"]
    assert rows["gateway.port"] == ["9", "config.toml:2"]
    assert rows["headers.allow"] == ['["x-a"]', "config.toml:4"]
    assert rows["lanes.queue"] == ["3", "env", "CODEXLB_LANES_QUEUE"]
    assert rows["reconnect.close.1011.hard"] == ['"give_up"', "config.toml:6"]
    assert rows["accounts.work.api_key_env"] == ['"WORK_KEY"', "config.toml:8"]
    assert rows["accounts.work.base_url"] == ['"https://api.openai.com/v1"', "default"]
    assert {f"{table}.{key}" for table, key, _ in scalar_keys()} < set(rows)
    assert "LEAK" not in ran.out
    assert max(map(len, ran.out.splitlines())) < 100


def test_show_json(cli: Cli) -> None:
    cli.configure("[gateway]\nport = 9\n[accounts.work]\n")
    ran = cli.run("config", "show", "--json", CODEXLB_LANES_QUEUE="3")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert set(document) == {"schema", "config_file", "state_folder", "values"}
    assert document["schema"] == "codexlb.config.show/1"
    assert document["config_file"] == str(cli.config_file)
    assert document["state_folder"] == str(cli.state_folder)
    values = {entry.pop("key"): entry for entry in document["values"]}
    assert values["gateway.port"] == {
        "value": 9,
        "source": "file",
        "name": "config.toml",
        "line": 2,
    }
    assert values["lanes.queue"] == {
        "value": 3,
        "source": "env",
        "name": "CODEXLB_LANES_QUEUE",
        "line": None,
    }
    assert values["headers.allow"]["value"] == []
    assert values["accounts.work.kind"]["source"] == "default"


def test_show_of_the_demo(cli: Cli) -> None:
    ran = cli.run("--demo", "config", "show", "--json")
    document = json.loads(ran.out)
    assert document["config_file"] is None
    values = {entry["key"]: entry for entry in document["values"]}
    assert values["accounts.home.base_url"]["value"] == "ws://127.0.0.1:2456/v1"
    assert values["accounts.home.base_url"]["source"] == "demo"


def test_path(cli: Cli) -> None:
    assert cli.run("config", "path") == (0, f"{cli.config_file}\n", "")
    other = cli.home / "sp\u00e4ter.toml"
    assert cli.run("--config", str(other), "config", "path") == (0, f"{other}\n", "")
    ran = cli.run("--config", "/x/\x1b[31m.toml", "config", "path")
    assert ran == (0, "/x/\\x1b[31m.toml\n", "")
    assert cli.run("--demo", "config", "path").code == 3


def test_check_of_a_sound_file(cli: Cli) -> None:
    cli.configure("[accounts.work]\n[accounts.home]\n")
    assert cli.run("config", "check") == (0, f"{cli.config_file} is sound: 2 accounts\n", "")
    ran = cli.run("config", "check", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "schema": "codexlb.config.check/1",
        "config_file": str(cli.config_file),
        "state_folder": str(cli.state_folder),
        "valid": True,
        "accounts": ["work", "home"],
    }


def test_check_of_the_example(cli: Cli) -> None:
    cli.configure(example_config().decode())
    assert cli.run("config", "check") == (0, f"{cli.config_file} is sound: 0 accounts\n", "")


def test_check_of_the_demo(cli: Cli) -> None:
    ran = cli.run("--demo", "config", "check")
    assert ran == (0, "the demo configuration is sound: 3 accounts\n", "")


@pytest.mark.parametrize("options", [[], ["--json"], ["-q"]])
def test_check_of_a_broken_file(cli: Cli, options: list[str]) -> None:
    cli.configure("[gateway]\nport = 70000\n")
    before = [option for option in options if option == "-q"]
    after = [option for option in options if option != "-q"]
    assert cli.run(*before, "config", "check", *after) == (
        3,
        "",
        (
            "error: `gateway.port` in `config.toml` must be a whole number from 1 to 65535,"
            " not 70000\n"
            "\n"
            f"hint: see line 2 of {cli.config_file}, then: codexlb config check\n"
        ),
    )
    assert cli.config_file.read_text() == "[gateway]\nport = 70000\n"


def test_check_of_no_file(cli: Cli) -> None:
    assert cli.run("config", "check") == (
        3,
        "",
        f"error: there is no `{cli.config_file}`\n\nhint: codexlb init\n",
    )


def test_check_of_a_wrong_variable(cli: Cli) -> None:
    cli.configure("")
    assert cli.run("config", "check", CODEXLB_GATEWAY_PORT="x") == (
        3,
        "",
        "error: `CODEXLB_GATEWAY_PORT` must be a whole number from 1 to 65535, not `x`\n",
    )
