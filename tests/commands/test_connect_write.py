"""`codexlb connect CLIENT --write` and `--undo`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.support.cli import Cli, Ran

NOTE = "no gateway runs here yet; the address is the configured one\n\nhint: codexlb serve\n"
MINE = """\
# mine
model_provider = "other" # c
approval_policy = "never"

[model_providers.other]
experimental_bearer_token = "sk-LEAK-00000000"
"""
DIFF = """\
--- FILE
+++ FILE
@@ -2 +2 @@
-model_provider = "other" # c
+model_provider = "codexlb" # c
@@ -6,0 +7,6 @@
+
+[model_providers.codexlb]
+name = "codexlb"
+base_url = "http://127.0.0.1:2455/v1"
+wire_api = "responses"
+supports_websockets = true
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def codex_file(cli: Cli, content: str | None = MINE) -> Path:
    file = cli.home / ".codex" / "config.toml"
    if content is not None:
        file.parent.mkdir()
        file.write_text(content)
    return file


def opencode_file(cli: Cli, name: str, content: str) -> Path:
    file = cli.home / "config" / "opencode" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def codex(cli: Cli, *args: str, home: str = "") -> Ran:
    return cli.run("connect", "codex", *args, CODEX_HOME=home)


def test_the_diff_is_the_answer(cli: Cli) -> None:
    file = codex_file(cli)
    ran = codex(cli, "--write")
    backup = f"{file}.codexlb-backup"
    assert (ran.code, ran.out) == (0, DIFF.replace("FILE", str(file)))
    assert ran.err == (
        f"wrote {file}; what it held before is in {backup}\n\n"
        f"hint: codexlb connect codex --undo\n{NOTE}"
    )
    assert Path(backup).read_text() == MINE
    written = file.read_text()
    assert [line for line in MINE.splitlines() if line not in written.splitlines()] == [
        'model_provider = "other" # c'
    ]
    assert tomllib.loads(written)["model_providers"]["codexlb"]["supports_websockets"] is True

    again = codex(cli, "--write")
    assert (again.code, again.out) == (0, "")
    assert again.err == f"{file} says so already; nothing is to be done\n{NOTE}"

    undone = codex(cli, "--undo")
    assert (undone.code, undone.err) == (0, f"put {file} back\n")
    assert '-model_provider = "codexlb" # c\n+model_provider = "other" # c\n' in undone.out
    assert file.read_text() == MINE
    assert list(file.parent.iterdir()) == [file]

    nothing = codex(cli, "--undo")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err == f"nothing was written into {file}, so nothing is to be undone\n"


def test_json_says_what_was_done(cli: Cli) -> None:
    file = codex_file(cli)
    written = json.loads(codex(cli, "--write", "--json").out)
    assert set(written) == {
        *("schema", "client", "base_url", "configuration"),
        *("file", "changed", "backup", "diff"),
    }
    assert written["schema"] == "codexlb.connect/1"
    assert (written["file"], written["changed"]) == (str(file), True)
    assert written["backup"] == f"{file}.codexlb-backup"
    assert written["diff"] + "\n" == DIFF.replace("FILE", str(file))
    again = json.loads(codex(cli, "--write", "--json").out)
    assert (again["changed"], again["backup"], again["diff"]) == (False, None, "")
    undone = json.loads(codex(cli, "--undo", "--json").out)
    assert (undone["changed"], undone["backup"]) == (True, None)
    assert json.loads(codex(cli, "--undo", "--json").out)["changed"] is False


def test_a_file_is_made_and_goes_again(cli: Cli) -> None:
    file = codex_file(cli, None)
    ran = codex(cli, "--write")
    assert ran.out.startswith(f"--- /dev/null\n+++ {file}\n@@ -0,0 +1,7 @@\n")
    assert ran.err.startswith(f"wrote {file}\n\n")
    undone = codex(cli, "--undo")
    assert undone.err == f"deleted {file}\n"
    assert not file.parent.exists()


def test_undo_works_from_every_configuration(cli: Cli) -> None:
    file = codex_file(cli)
    assert cli.run("--demo", "connect", "codex", "--write").code == 0
    assert (
        cli.run("--config", str(cli.home / "o.toml"), "-q", "connect", "codex", "--undo").code == 0
    )
    assert file.read_text() == MINE


def test_codex_home_is_heeded(cli: Cli) -> None:
    home = cli.home / "elsewhere"
    assert codex(cli, "--write", home=str(home)).code == 0
    assert (home / "config.toml").exists()
    assert not (cli.home / ".codex").exists()


def test_a_file_that_cannot_be_edited_is_left_with_the_lines_to_paste(cli: Cli) -> None:
    file = codex_file(cli, "model_providers = 'sk-LEAK'\n")
    ran = codex(cli, "--write")
    assert (ran.code, ran.out) == (3, "")
    assert f"\n\nhint: edit it yourself:\n\n{codex(cli).out}" in ran.err
    assert "LEAK" not in ran.err
    assert file.read_text() == "model_providers = 'sk-LEAK'\n"


def test_no_secret_is_shown(cli: Cli) -> None:
    codex_file(cli, '[model_providers]\ncodexlb = { experimental_bearer_token = "LEAK" }\n')
    ran = codex(cli, "--write")
    assert ran.code == 0
    assert "LEAK" not in ran.out + ran.err
    assert '-codexlb = { experimental_bearer_token = "***" }\n' in ran.out


@pytest.mark.parametrize("profile", ["x", "y"])
def test_a_profile_that_wins_is_told(cli: Cli, profile: str) -> None:
    file = codex_file(cli, f'profile = "{profile}"\n\n[profiles.x]\nmodel_provider = "other"\n')
    told = f"warning: the profile `x` in {file} chooses another `model_provider`, which wins\n"
    assert (told in codex(cli, "--write").err) is (profile == "x")


def test_control_characters_of_a_file_do_not_reach_the_terminal(cli: Cli) -> None:
    codex_file(cli, 'model_provider = "x" # \x7f\u202e\n'.replace("\x7f", "\u009b31m"))
    assert "# \\x9b31m\\u202e" in codex(cli, "--write").out


def test_comments_of_opencode_stay(cli: Cli) -> None:
    text = '{\n  // mine\n  "model": "openai/gpt-5.5", // the best\n}\n'
    file = opencode_file(cli, "opencode.jsonc", text)
    opencode_file(cli, "opencode.json", "{}\n")
    ran = cli.run("connect", "opencode", "--write")
    assert ran.code == 0
    assert file.read_text() == (
        '{\n  // mine\n  "model": "openai/gpt-5.5", // the best\n'
        '  "provider": {\n    "openai": {\n      "npm": "@ai-sdk/openai",\n'
        '      "options": {\n        "baseURL": "http://127.0.0.1:2455/v1",\n'
        '        "apiKey": "unused"\n      }\n    }\n  },\n}\n'
    )
    assert cli.run("connect", "opencode", "--undo").code == 0
    assert file.read_text() == text


@pytest.mark.parametrize("named", ["mine.json", None])
def test_the_file_of_opencode_is_the_one_that_wins(cli: Cli, named: str | None) -> None:
    variable = str(cli.home / named) if named else ""
    ran = cli.run("connect", "opencode", "--write", OPENCODE_CONFIG=variable)
    file = cli.home / (named or "config/opencode/opencode.json")
    assert ran.code == 0
    assert json.loads(file.read_text())["$schema"] == "https://opencode.ai/config.json"
    assert cli.run("connect", "opencode", "--undo", OPENCODE_CONFIG=variable).code == 0
    assert not file.exists()


def test_undo_finds_the_file_of_opencode_that_was_written(cli: Cli) -> None:
    file = opencode_file(cli, "opencode.json", "{}\n")
    assert cli.run("connect", "opencode", "--write").code == 0
    other = opencode_file(cli, "opencode.jsonc", "{}\n")
    assert cli.run("connect", "opencode", "--undo").code == 0
    assert (file.read_text(), other.read_text()) == ("{}\n", "{}\n")


def test_a_file_with_a_byte_order_mark(cli: Cli) -> None:
    """Codex and opencode read past it, so it is no broken file."""
    file = codex_file(cli, "\ufeff" + MINE)
    ran = codex(cli, "--write")
    assert (ran.code, ran.out.replace(str(file), "FILE")) == (0, DIFF)
    assert codex(cli, "--undo").code == 0
    assert file.read_text() == "\ufeff" + MINE
