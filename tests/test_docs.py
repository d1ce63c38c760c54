"""The documentation against the code: what it shows is what the program does."""

from __future__ import annotations

import http.client
import importlib.util
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from codexlb_cli.config.paths import CONFIG_VARIABLE, example_config
from codexlb_cli.config.schema import AccountTable, CloseTable, PriceTable, scalar_keys
from codexlb_cli.core.accounts import Availability, Effect
from codexlb_cli.core.affinity import STRENGTHS
from codexlb_cli.core.client_errors import STATUSES
from codexlb_cli.core.closes import HardMove, SoftMove
from codexlb_cli.core.headers import SECRET_NAMES, SESSION_NAMES
from codexlb_cli.core.plan import Start
from codexlb_cli.core.policies import PLAN_SIZES, POLICIES
from codexlb_cli.core.reconnect import Phase
from codexlb_cli.core.selection import Reason
from codexlb_cli.core.windows import LIMIT_REACHED, WINDOW_REASONS
from codexlb_cli.errors import ExitStatus
from tests.support.cli import ROOT, Cli
from tests.support.ports import free_port

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
README = TEXTS["README.md"]
SHOWN_CONFIG_FILE = "~/.config/codexlb/config.toml"
ENDPOINTS = {"v1", "backend-api", "responses", "models", "healthz", "readyz", "_mock", "_codexlb"}
ENDPOINTS |= {"oauth", "codex", "api", "wham"}  # of the mock's issuer


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
COMMANDS: dict[str, object] = dict(TOOL.commands())
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(kind, inner) for kind, inner in found]


# Generated parts and completeness


def test_generated_parts_are_those_of_the_code() -> None:
    assert TOOL.stale() == [], "run: make docs"


def test_generated_texts_speak_of_existing_codes_only() -> None:
    assert set(TOOL.ERROR_CASES) == set(STATUSES)
    assert set(TOOL.EXIT_CASES) == set(ExitStatus)


def test_every_code_is_documented() -> None:
    for page, codes in {
        "docs/http.md": [f"| `{code}` | {status} |" for code, status in STATUSES.items()],
        "docs/cli.md": [f"| {status.value} |" for status in ExitStatus],
        "docs/continuity.md": [
            *(f"| `{reason}` |" for reason in Reason),
            *(f"| `{reason}` |" for reason in Start),
            *(f"| `{source}` |" for source in STRENGTHS if source != "none"),
            *(f"| `{state}` |" for state in Availability if state is not Availability.READY),
            *(f"| `{phase}` |" for phase in Phase),
            *(f"| `{policy}` |" for policy in POLICIES),
            *(f"| `{reason}` |" for reason in (LIMIT_REACHED, *WINDOW_REASONS.values())),
            *(f"`{plan}` {size:g}" for plan, size in PLAN_SIZES.items()),
            *(f"`{name}`" for name in SESSION_NAMES),
            *(effect.value for effect in Effect),
            *(move.value for kind in (SoftMove, HardMove) for move in kind),
        ],
        "docs/headers.md": [f"`{name}`" for name in SECRET_NAMES],
    }.items():
        assert [code for code in codes if code not in TEXTS[page]] == [], page


def test_every_key_stands_in_the_example_and_in_the_docs() -> None:
    keys = [(table, key) for table, key, _ in scalar_keys()]
    keys += [("reconnect.close.CODE", key) for key in CloseTable.model_fields]
    keys += [("prices.MODEL", key) for key in PriceTable.model_fields]
    keys += [("accounts.NAME", key) for key in AccountTable.model_fields]
    example = example_config().decode("ascii")
    parts = _keys().split("\n### `[")[1:]
    sections = {part.partition("]")[0]: part for part in parts}
    for table, key in keys:
        assert f"| `{key}` |" in sections[table]
        assert re.search(rf"^(# )?{key} = ", example, re.MULTILINE), key
    for table, key, _ in scalar_keys():
        assert f"`CODEXLB_{table}_{key}`".upper() in sections[table]
    assert CONFIG_VARIABLE in TEXTS["docs/configuration.md"]


def _keys() -> str:
    return TEXTS["docs/configuration.md"].partition("## Keys")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_says_what_help_says(name: str, tmp_path: Path) -> None:
    ran = Cli(tmp_path).run(*name.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    shown = "".join(ran.out.split())
    rest = TEXTS["docs/cli.md"].partition(f"### codexlb {name}\n")[2]
    section = re.split(r"^##|^<!--", rest, maxsplit=1, flags=re.MULTILINE)[0]
    row = re.compile(r"^\| `(.+?)`.* \| (.+?)(?:; default: .+)? \|$", re.MULTILINE)
    for spelling, meaning in row.findall(section):
        assert spelling.split()[0] in shown
        assert "".join(meaning.split()) in shown
    documented = set(re.findall(r"--[a-z-]+", section))
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", ran.out, re.MULTILINE)) - {"--help"}
    assert options <= documented


# Commands in the text


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_the_text_exist(page: str) -> None:
    text = TEXTS[page]
    lines = [block.text for block in blocks(text) if block.kind in ("sh", "console")]
    spans = re.findall(r"`codexlb ([^`\n]+)`", text)
    line = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?codexlb ([^\n#<]+)", re.MULTILINE)
    spans += line.findall("\n".join(lines))
    for span in spans:
        words = [word for word in span.split() if re.fullmatch(r"[a-z|-]+", word)]
        words = [word for word in words if not word.startswith("-")]
        if not words:
            continue
        if words[0] in GROUPS and len(words) > 1:
            for last in words[1].split("|"):
                assert f"{words[0]} {last}" in COMMANDS, span
        else:
            assert words[0] in COMMANDS or words[0] in GROUPS, span
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets


@pytest.mark.parametrize("page", [page for page in TEXTS if "```sh\n" in TEXTS[page]])
def test_options_in_the_text_exist(page: str, tmp_path: Path) -> None:
    for block in blocks(TEXTS[page]):
        for line in block.text.splitlines() if block.kind == "sh" else ():
            words = shlex.split(line, comments=True)
            if words[:1] != ["codexlb"]:
                continue
            words = words[: words.index("--")] if "--" in words else words  # another's follow
            name = next(n for n in COMMANDS if " ".join(words[1:]).startswith(n))
            shown = Cli(tmp_path).run(*name.split(), "--help").out
            assert [w for w in words if w.startswith("-") and f" {w} " not in shown] == []


# The README, run


class Command(NamedTuple):
    """A command of a console block, and the output that the page shows."""

    line: str
    shown: str


def console_commands(text: str) -> Iterator[Command]:
    for block in blocks(text):
        if block.kind == "console":
            for part in block.text.split("$ ")[1:]:
                line, _, shown = part.partition("\n")
                yield Command(line, shown)


def as_pattern(shown: str) -> str:
    """Return a pattern for shown output; a line of three dots stands for any lines."""
    lines = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in shown.splitlines()
    )
    return "".join(lines)


def test_the_readme_shows_what_its_commands_print(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    environ: dict[str, str] = {}
    commands = list(console_commands(README))
    assert len(commands) >= 10
    for line, shown in commands:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            environ[name] = value
            continue
        words, stdin = shlex.split(line), b""
        if "<" in words:
            words, stdin = words[: words.index("<")], b"sk-test-0000"
        assert words.pop(0) == "codexlb"
        words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
        ran = cli.spawn(*words, stdin=stdin, **environ)
        printed = (ran.stdout + ran.stderr).decode("ascii")
        printed = printed.replace(str(cli.config_file), SHOWN_CONFIG_FILE)
        assert re.fullmatch(as_pattern(shown), printed), f"{line}\n{printed}"
        assert ran.returncode == 0


@contextmanager
def running_demo(home: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Run the demo on free ports; yields the process, the port and the banner."""
    for _ in range(5):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "codexlb_cli", "demo", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=Cli(home).environment(),
            text=True,
        )
        with process:
            assert process.stdout is not None
            banner = ""
            for line in process.stdout:
                banner += line
                if line.startswith("Ctrl-C"):
                    break
            if not banner and process.wait(30) == ExitStatus.CONFIG:
                continue  # somebody took one of the ports meanwhile
            try:
                yield process, port, banner
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
            return
    pytest.fail("no two free ports in a row")


def test_the_readme_shows_the_demo(tmp_path: Path) -> None:
    banner_shown, log_shown = (block.text for block in blocks(README) if block.kind == "text")
    with running_demo(tmp_path) as (process, port, banner):
        for curl in re.findall(r"curl -N (?:.*\\\n)+.*", banner_shown):
            _send(curl, port)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=30)
    usual = banner.replace(str(port + 1), "2456").replace(str(port), "2455")
    program = f"{sys.executable} -m codexlb_cli"
    usual = re.sub(r" +(for clients|a mock|3 of)", r" \1", usual.replace(program, "codexlb"))
    for line in re.sub(r" +(for clients|a mock|3 of)", r" \1", banner_shown).splitlines():
        assert line in usual.splitlines()
    assert _timeless(log).startswith(_timeless(log_shown))
    assert process.returncode == ExitStatus.INTERRUPTED


def _send(curl: str, port: int) -> None:
    """Send what a curl command of the README would send, and read the answer to its end."""
    words = shlex.split(curl.replace("\\\n", " "))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words[:-1]) if word == "-H")
    path = words[2].removeprefix("http://127.0.0.1:2455")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, words[words.index("-d") + 1], headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"event: response.completed" in answer.read()
    connection.close()


def _timeless(log: str) -> str:
    return re.sub(r" +[\d.]+ m?s\b", " N", re.sub(r"\d\d:\d\d:\d\d", "TIME", log))


# Links and what they may name


@pytest.mark.parametrize("page", TEXTS)
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.resolve().is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text("utf-8")), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_nothing_outside_the_project_is_named(page: str) -> None:
    text = re.sub(r"https?://\S+", "", TEXTS[page])
    paths = re.findall(r"(?<![\w.~/*}>-])/([a-z_][\w.-]*)", text)
    assert set(paths) <= ENDPOINTS
    assert re.findall(r"\.\./(?!SECURITY\.md|examples/)\S*", TEXTS[page]) == []


@pytest.mark.parametrize("page", TEXTS)
def test_pages_are_plain_text(page: str) -> None:
    for block in blocks(TEXTS[page]):
        assert block.text.isascii()
        assert max(map(len, block.text.splitlines()), default=0) <= 99
    for line in TEXTS[page].splitlines():
        assert line == line.rstrip()
        assert len(line) <= 110 or line.startswith(("|", "- ["))
