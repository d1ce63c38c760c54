from __future__ import annotations

from pathlib import Path

from codexlb_cli.config.paths import example_config
from tests.support.cli import Cli

HINT = "\nhint: codexlb accounts add work --api-key-env OPENAI_API_KEY\n"


def test_it_writes_the_example_byte_for_byte(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    assert cli.run("init") == (0, "", f"wrote {cli.config_file}\n{HINT}")
    assert cli.config_file.read_bytes() == example_config()
    assert cli.run("config", "check").code == 0


def test_it_refuses_where_there_is_a_file(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("# mine\n")
    assert cli.run("init") == (
        3,
        "",
        (
            f"error: `{cli.config_file}` exists already\n"
            "\n"
            "hint: codexlb config show prints what it says\n"
        ),
    )
    assert cli.config_file.read_bytes() == b"# mine\n"


def test_it_writes_the_file_that_is_named(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    file = tmp_path / "a" / "b.toml"
    assert cli.run("-q", "--config", str(file), "init") == (0, "", "")
    assert file.read_bytes() == example_config()


def test_it_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = Cli(tmp_path).run("--config", str(tmp_path / "file" / "config.toml"), "init")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: cannot write `{tmp_path}/file/config.toml`: ")


def test_the_demo_has_no_file(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("--demo", "init")
    assert (ran.code, ran.out) == (3, "")
    assert list(tmp_path.iterdir()) == []


def test_accounts_can_be_added_and_removed_after_it(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.run("init")
    for command in (
        ["add", "work", "--api-key-env", "A"],
        ["disable", "work"],
        ["enable", "work"],
        ["remove", "work"],
    ):
        assert cli.run("accounts", *command).code == 0
        assert cli.config_file.read_bytes().startswith(example_config())
    assert cli.config_file.read_bytes() == example_config()
