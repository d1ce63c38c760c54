"""`codexlb mock-upstream` as people run it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from codexlb_cli.mock_upstream.running import running_mock
from codexlb_cli.mock_upstream.script import SHORTCUTS
from tests.support.cli import Cli

PROGRAM = [sys.executable, "-m", "codexlb_cli", "mock-upstream"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_run_from_banner_to_signal(tmp_path: Path, number: int, code: int) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "--port", "0"],
        env=Cli(tmp_path).environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        banner = ""
        while "Ctrl-C" not in banner:
            line = program.stdout.readline()
            assert line, program.stderr and program.stderr.read()
            banner += line
        url = next(word for word in banner.split() if word.startswith("http://"))
        for model in ("mock", "mock-failed\x1b[31m"):
            body = json.dumps({"model": model, "input": "secret prompt"}).encode()
            headers = {"authorization": "Bearer sk-test-LEAK"}
            with urlopen(Request(f"{url}/responses", body, headers)) as answer:
                assert json.load(answer)["status"] == "completed"
        program.send_signal(number)
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out) == (code, "")
    assert [line.split("  ")[-1] for line in err.splitlines()] == [
        "mock: response.completed",
        "mock-failed\\x1b[31m: response.completed",
    ]
    assert "secret" not in err
    assert "LEAK" not in banner + err


def test_a_port_in_use(tmp_path: Path) -> None:
    with running_mock() as mock:
        port = mock.upstream.port
        ran = Cli(tmp_path).run("mock-upstream", "--port", str(port))
    assert ran == (
        3,
        "",
        (
            f"error: the mock upstream cannot listen on `127.0.0.1:{port}`: the port is in use\n\n"
            "hint: choose another one with --port\n"
        ),
    )


def test_a_broken_scenario(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[upstream]]\non = "turn"\nclose = 99\n')
    ran = Cli(tmp_path).run("mock-upstream", "--port", "0", "--scenario", str(file))
    assert ran == (
        3,
        "",
        (
            "error: `close` in `[[upstream]]` 1 of `s.toml` must be 1000 or more, not `99`\n\n"
            "hint: see docs/scenarios.md\n"
        ),
    )


def test_the_help_lists_the_shortcuts(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("mock-upstream", "--help")
    assert (ran.code, ran.err) == (0, "")
    for name, what in SHORTCUTS.items():
        assert f"    {name:<15}  {what}\n" in ran.out
