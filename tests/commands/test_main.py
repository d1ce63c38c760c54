from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codexlb_cli import __version__
from codexlb_cli.console import Console, duration, escape, iso_utc, table
from tests.support.cli import Cli

HEAVY = (
    "fastapi",
    "uvicorn",
    "websockets",
    "httpx2",
    "httpx",
    "rich",
    "starlette",
    "tomlkit",
    "asyncio.base_events",
)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_alone_it_prints_help(cli: Cli) -> None:
    ran = cli.run()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: codexlb [OPTIONS] COMMAND [ARGS]...\n")
    for command in ("init", "accounts", "config"):
        assert f"\n  {command} " in ran.out
    for flag in ("-h", "--help"):
        assert cli.run(flag).out == ran.out


@pytest.mark.parametrize(
    "args",
    [
        ["accounts"],
        ["accounts", "add"],
        ["accounts", "list"],
        ["accounts", "remove"],
        ["config"],
        ["config", "check"],
        ["init"],
        ["owners"],
        ["owners", "list"],
        ["owners", "forget"],
    ],
)
def test_help_everywhere(cli: Cli, args: list[str]) -> None:
    ran = cli.run(*args, "-h")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: codexlb {' '.join(args)} ")
    assert ran.out.isascii()
    assert ran == cli.run(*args, "--help")


def test_version(cli: Cli) -> None:
    assert cli.run("--version") == (0, f"codexlb {__version__}\n", "")


@pytest.mark.parametrize(
    ("args", "message", "command"),
    [
        (["nonsense"], "no such command `nonsense`", "codexlb"),
        (["--nonsense"], "no such option: --nonsense", "codexlb"),
        (["accounts"], "missing command", "codexlb accounts"),
        (["accounts", "show"], "missing argument `NAME`", "codexlb accounts show"),
        (["accounts", "list", "--odd"], "no such option: --odd", "codexlb accounts list"),
        (
            ["simulate", "close", "1011", "--phase", "x"],
            "invalid value for `--phase`: `x` is not one of `idle`, `sent`, `created`, `streaming`",
            "codexlb simulate close",
        ),
    ],
)
def test_usage_errors_have_the_form_of_all_errors(
    cli: Cli, args: list[str], message: str, command: str
) -> None:
    ran = cli.run(*args)
    assert ran == (2, "", f"error: {message}\n\nhint: {command} --help\n")


def test_options_that_contradict_each_other(cli: Cli) -> None:
    ran = cli.run("--demo", "--config", "x.toml", "accounts", "list")
    assert ran == (2, "", "error: `--demo` and `--config` cannot be used together\n")


def test_the_program_starts_without_what_only_some_commands_need(cli: Cli) -> None:
    lists = (["--demo", "accounts", "list"], ["--demo", "-q", "owners", "list"])
    for args in (["--help"], *lists, ["--demo", "config", "show"]):
        code = (
            "import sys; from codexlb_cli.main import main; "
            f"code = main({args!r}); "
            f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=cli.environment(),
            cwd=cli.home,
            timeout=30,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "[]\n")


def test_it_runs_as_a_module(cli: Cli) -> None:
    ran = cli.spawn("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"codexlb {__version__}\n".encode(), b"")


@pytest.mark.parametrize("args", [["--demo", "accounts", "list"], ["--help"]])
def test_a_reader_that_went_away_is_no_error(cli: Cli, args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ran = subprocess.run(
            [sys.executable, "-m", "codexlb_cli", *args],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=cli.environment(),
            cwd=cli.home,
            timeout=30,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(cli: Cli) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "codexlb_cli", "--demo", "accounts", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=cli.environment(),
            cwd=cli.home,
            timeout=30,
            check=False,
        )
    assert ran.returncode == 70
    assert ran.stderr == b"error: cannot write to stdout: no space left on device\n"


@pytest.mark.parametrize(
    ("closed", "args", "code"),
    [
        (1, ["--demo", "accounts", "list"], 0),
        (2, ["accounts", "show", "ghost"], 3),
        (0, ["accounts", "add", "x", "--api-key-stdin"], 2),
    ],
)
def test_streams_that_are_closed_from_the_start(
    cli: Cli, closed: int, args: list[str], code: int
) -> None:
    shell = f'exec "$0" -m codexlb_cli "$@" {closed}>&-'
    ran = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, *args],
        capture_output=True,
        text=True,
        env=cli.environment(),
        cwd=cli.home,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (code, "")
    assert "Traceback" not in ran.stderr
    assert "internal" not in ran.stderr


def test_completion_knows_the_commands(cli: Cli) -> None:
    ran = cli.spawn(
        _CODEXLB_COMPLETE="complete_bash", COMP_WORDS="codexlb accounts en", COMP_CWORD="2"
    )
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, [b"enable"], b"")


@pytest.mark.parametrize("verbose", [False, True])
def test_our_own_bugs_exit_with_70(cli: Cli, verbose: bool) -> None:
    code = (
        "import sys, typer; from codexlb_cli.main import app, main\n"
        "@app.command()\n"
        "def crash() -> None:\n"
        "    raise RuntimeError('sk-test-LEAK')\n"
        f"sys.exit(main({['-v'] * verbose + ['crash']!r}))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=cli.environment(),
        cwd=cli.home,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (70, "")
    assert "error: internal error: RuntimeError at <string>:4\n" in ran.stderr
    assert ("Traceback" in ran.stderr) is verbose
    assert ("LEAK" in ran.stderr) is verbose


def test_ctrl_c_exits_with_130(cli: Cli) -> None:
    code = (
        "import sys, typer; from codexlb_cli.main import app, main\n"
        "@app.command()\n"
        "def stop() -> None:\n"
        "    raise KeyboardInterrupt\n"
        "sys.exit(main(['stop']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=cli.environment(),
        cwd=cli.home,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (130, "")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ~", "plain ~"),
        ("\x1b[31m\r\n\t", r"\x1b[31m\r\n\t"),
        ("\u00e4\u2028\U0001f600\x7f\x9b", r"\xe4\u2028\U0001f600\x7f\x9b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_foreign_text_is_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_own_lines_are_kept() -> None:
    assert escape("a\nb\r", lines=True) == "a\nb\\r"


def test_tables_are_plain_and_wrap_their_last_column() -> None:
    text = table(("A", "LONG"), [("x", "word " * 30), ("\x1b", "")], indent=2)
    lines = text.splitlines()
    assert lines[0] == "  A     LONG"
    assert lines[1].startswith("  x     word word")
    assert lines[2].startswith("        word word")
    assert lines[-1] == "  \\x1b"
    assert max(map(len, lines)) < 100
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.2, "1 s"),
        (42, "42 s"),
        (119.5, "2 min"),
        (700, "12 min"),
        (7200, "2 h"),
        (12000, "3 h 20 min"),
        (400_000, "5 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_rounded_up() -> None:
    assert iso_utc(0) == "1970-01-01T00:00:00Z"
    assert iso_utc(1770379200.001) == "2026-02-06T12:00:01Z"


def test_quiet_says_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        console = Console(quiet=quiet)
        console.note("n")
        console.warning("w\x1b")
        console.hint("h")
        console.error("e", "eh")
        console.answer("a")
        said = "" if quiet else "n\nwarning: w\\x1b\n\nhint: h\n"
        assert tuple(capsys.readouterr()) == ("a\n", f"{said}error: e\n\nhint: eh\n")


class Terminal:
    """A stderr that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "value", "coloured"), [("NO_COLOR", "", True), ("NO_COLOR", "1", False)]
)
def test_colour_is_only_for_terminals(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, coloured: bool
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    Console().error("e")
    assert terminal.text == ("\x1b[31merror:\x1b[0m e\n" if coloured else "error: e\n")


def test_json_is_one_ascii_document(capsys: pytest.CaptureFixture[str]) -> None:
    Console().json({"schema": "x/1", "text": "\u00e4\x1b"})
    out, err = capsys.readouterr()
    assert (out, err) == ('{\n  "schema": "x/1",\n  "text": "\\u00e4\\u001b"\n}\n', "")


def test_commands_in_hints_repeat_the_chosen_configuration(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "my config.toml"
    code, out, err = cli.run("--config", str(file), "accounts", "list")
    assert (code, out) == (0, "")
    hint = f"codexlb --config '{file}' accounts add work --api-key-env OPENAI_API_KEY"
    assert err.endswith(f"hint: {hint}\n")
