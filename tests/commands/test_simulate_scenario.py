"""`codexlb simulate scenario`, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import ROOT, Cli, Ran

EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))

DEFECT = """\
title = "1011 before the response; the session stays"

[[account]]
name = "work"
expect = { state = "ready" }

[[account]]
name = "home"

[[upstream]]
on = "turn"
times = 1
close = 1011

[[request]]
session = "s1"
expect = { status = 200, account = "work", attempts = 2, at_least = 0.25, at_most = 0.25 }
"""


def play(folder: Path, text: str, *options: str) -> Ran:
    file = folder / "scenario.toml"
    file.write_text(text)
    return Cli(folder).run("simulate", "scenario", str(file), *options)


def played(folder: Path, text: str) -> dict[str, Any]:
    ran = play(folder, text, "--json")
    assert ran.err == ""
    document: dict[str, Any] = json.loads(ran.out)
    assert document["met"] is (ran.code == 0)
    return document


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_as_they_say(tmp_path: Path, file: Path) -> None:
    ran = Cli(tmp_path).run("simulate", "scenario", str(file))
    assert (ran.code, ran.err) == (0, ""), ran.out
    assert ran.out.rstrip().splitlines()[-1].startswith("EXPECT  all ")
    assert ran.out.isascii()
    assert all(len(line) < 100 for line in ran.out.splitlines())
    assert file.read_text().startswith("# "), "it says what it shows"


def test_there_are_a_dozen_and_the_reported_defect_comes_first() -> None:
    assert len(EXAMPLES) >= 12
    assert "1011" in EXAMPLES[0].name


def test_the_timeline_tells_what_happened(tmp_path: Path) -> None:
    ran = play(tmp_path, DEFECT)
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    for line in (
        "0.000 1 work dial",
        "0.000 1 work response.create",
        "0.000 1 work closed: 1011 internal_error",
        "0.000 1 work the close is counted internal_error",
        "0.000 1 work waits 0.25 s",
        "0.250 1 work response.create, attempt 2",
        "EXPECT all 6 met",
    ):
        assert line in lines, ran.out


def test_an_expectation_that_is_not_met(tmp_path: Path) -> None:
    ran = play(tmp_path, DEFECT.replace('account = "work", attempts', 'account = "home", attempts'))
    assert ran.code == 1
    assert "EXPECT  5 of 6 met" in ran.out
    last = ran.out.rstrip().splitlines()[-1]
    assert last.split() == ["request", "1", "account", "home", "work"]


def test_the_document(tmp_path: Path) -> None:
    document = played(tmp_path, DEFECT)
    assert set(document) == {
        "schema", "title", "seconds", "timeline", "requests", "accounts", "expectations", "met",
    }  # fmt: skip
    assert document["schema"] == "codexlb.simulate.scenario/1"
    assert document["requests"] == [
        {
            "number": 1,
            "status": 200,
            "outcome": "response.completed",
            "account": "work",
            "attempts": 2,
            "affinity": "hard",
            "dialled": ["work", "work"],
            "sent": ["work", "work"],
            "retry_after": None,
            "seconds": 0.25,
        }
    ]
    assert [a["state"] for a in document["accounts"]] == ["ready", "ready"]
    assert {e["name"] for e in document["expectations"]} == {
        "state", "status", "account", "attempts", "at_least", "at_most",
    }  # fmt: skip
    assert set(document["timeline"][0]) == {"at", "request", "account", "what", "why"}


@pytest.mark.parametrize("file", EXAMPLES[-3:], ids=lambda file: file.stem)
def test_the_same_file_plays_the_same(tmp_path: Path, file: Path) -> None:
    first, second = (played(tmp_path, file.read_text()) for _ in range(2))
    assert first == second


def test_nothing_of_the_persons_is_read_or_changed(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("this is no configuration")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert play(tmp_path, DEFECT).code == 0
    after = sorted(str(path) for path in tmp_path.rglob("*"))
    assert set(after) - set(before) == {str(tmp_path / "scenario.toml")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no account"),
        ("[[account]]\nname = 'work'\n[[requst]]\n", "`requst` in `scenario.toml`"),
        (DEFECT.replace("session =", "sesion ="), "did you mean `session`?"),
        (DEFECT.replace("close = 1011", "close = 99"), "`close` in `[[upstream]]` 1"),
        (DEFECT + '[[request]]\ncontinues = 3\n', "`continues` in `[[request]]` 2"),
        (DEFECT + "[[request]]\n[[upstream]]\non = 'turn'\nmodel = 'x'\nerror = { status = 400 }\n"
         "[[request]]\nmodel = 'x'\n[[request]]\ncontinues = 3\n",
         "request 4 continues request 3, which got no response"),
        ("title = ", "is not valid TOML"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_played(tmp_path: Path, text: str, says: str) -> None:
    ran = play(tmp_path, text)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: ")
    assert says in ran.err


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("simulate", "scenario", "nowhere.toml")
    assert (ran.code, ran.out) == (3, "")
    assert "cannot read the scenario `nowhere.toml`" in ran.err


def test_a_day_of_waiting_takes_no_time_and_no_server_is_imported(tmp_path: Path) -> None:
    waits = DEFECT + '[[request]]\nat = 86400\nsession = "s1"\nexpect = { account = "work" }\n'
    (tmp_path / "scenario.toml").write_text(waits)
    code = (
        "import sys\nfrom codexlb_cli.main import main\n"
        "status = main(['simulate', 'scenario', 'scenario.toml'])\n"
        "heavy = {'fastapi', 'uvicorn', 'httpx2'} & set(sys.modules)\n"
        "sys.exit(status or sorted(heavy) or 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=Cli(tmp_path).environment(),
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert b"86400.000" in ran.stdout


def test_a_scenario_from_stdin(tmp_path: Path) -> None:
    untitled = DEFECT.partition("\n")[2]
    ran = Cli(tmp_path).run("simulate", "scenario", "-", stdin=untitled.encode())
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("standard input. Played on a clock of its own, 0.25 s;")
    broken = Cli(tmp_path).run("simulate", "scenario", "-", stdin=b"title = ")
    assert (broken.code, broken.out) == (3, "")
    assert broken.err.startswith("error: `standard input` is not valid TOML: ")


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("simulate", "scenario", str(tmp_path))
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == f"error: cannot read the scenario `{tmp_path}`: is a directory\n"


def test_turns_over_http_are_told(tmp_path: Path) -> None:
    refused = DEFECT.replace("close = 1011", "close = 1006") + (
        '[[upstream]]\non = "handshake"\nstatus = 404\n[[request]]\nsession = "s1"\n'
        'expect = { dialled = [], sent = ["work"] }\n'
    )
    ran = play(tmp_path, refused.replace(", at_least = 0.25, at_most = 0.25", ""))
    assert (ran.code, ran.err) == (0, ""), ran.out
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    told = [
        "0.000 1 work dial",
        "0.000 1 work dial failed: 404 invalid_request_error no_websocket",
        "0.000 1 work is spoken to over HTTP for 10 min no_websocket",
        "0.000 1 work POST over HTTP",
        "0.000 1 work closed: 1006 transport_lost",
        "0.000 1 work POST over HTTP, attempt 2",
        "0.000 2 work POST over HTTP",
    ]
    assert [line for line in lines if line in told] == told, ran.out
    assert not any("response.create" in line for line in lines)


@pytest.mark.parametrize("body", ["<html>no</html>", "[]", ""])
def test_a_refusal_whose_body_says_nothing(tmp_path: Path, body: str) -> None:
    text = DEFECT + f'[[upstream]]\non = "handshake"\nstatus = 503\ntimes = 1\nbody = "{body}"\n'
    document = played(tmp_path, text.replace("at_least = 0.25, at_most = 0.25", "at_most = 2"))
    assert document["requests"][0]["dialled"] == ["work", "home", "home"]


def test_over_http_rules_for_upgrades_and_pings_mean_nothing(tmp_path: Path) -> None:
    text = """\
    [[account]]
    name = "work"
    transport = "http"

    [[upstream]]
    on = "handshake"
    status = 503

    [[upstream]]
    on = "turn"
    times = 1
    silence = true
    pong = false

    [[request]]
    expect = { status = 200, attempts = 2, dialled = [], sent = ["work", "work"], at_least = 90 }
    """
    document = played(tmp_path, text)
    assert document["met"], document


def test_a_client_that_leaves_over_http(tmp_path: Path) -> None:
    text = """\
    [[account]]
    name = "work"
    transport = "http"

    [[upstream]]
    on = "turn"
    delta_delay = 5

    [[request]]
    leave = 7
    input = "one two three"
    expect = { outcome = "client left", sent = ["work"], at_least = 7, at_most = 7 }
    """
    document = played(tmp_path, text)
    assert document["met"], document


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
def test_keepalives_are_sent_on_time_however_times_are_rounded(
    tmp_path: Path, delay: float
) -> None:
    text = f"""\
    [[account]]
    name = "work"

    [[upstream]]
    on = "turn"
    delay = {delay}
    when = "created"
    fault_delay = 100
    close = 1011

    [[request]]
    expect = {{ outcome = "upstream_closed", at_least = 100 }}
    """
    assert played(tmp_path, text)["met"]
