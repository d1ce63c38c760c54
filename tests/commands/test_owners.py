"""`codexlb owners`: what is listed, shown and forgotten."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.commands.owners import Source
from codexlb_cli.console import iso_utc
from codexlb_cli.core.affinity import LIFETIMES, Key, turn_state_key
from codexlb_cli.store.database import SCHEMA_VERSION, database_path, open_for_writing
from codexlb_cli.store.owners import write_owner
from tests.support.cli import Cli, Ran
from tests.support.gateway import Stage, run, session

TWO = '[accounts.work]\napi_key_env = "WORK_KEY"\n[accounts.home]\napi_key_env = "HOME_KEY"\n'
HOUR = 3600.0


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    cli.configure(TWO)
    return cli


def fill(folder: Path, *rows: tuple[Key, str, float]) -> None:
    """Store owners: key, account, and how many seconds ago it was used."""
    now = time.time()
    with closing(open_for_writing(database_path(folder))) as connection, connection:
        for key, account, ago in rows:
            write_owner(key, account, now - ago)(connection)


def some(cli: Cli) -> None:
    fill(
        cli.state_folder,
        (Key("session", "s1"), "work", HOUR),
        (Key("session", "s1\nt1"), "home", 2 * HOUR),
        (Key("prompt_cache", "k"), "home", 3 * HOUR),
        (Key("file", "file-1"), "ghost", 4 * HOUR),
        (turn_state_key("given"), "work", 5 * HOUR),
    )


def document(cli: Cli, *args: str, code: int = 0, err: str = "") -> dict[str, Any]:
    ran = cli.run("owners", *args, "--json")
    assert (ran.code, ran.err) == (code, err)
    found: dict[str, Any] = json.loads(ran.out)
    return found


def listed(cli: Cli, *args: str) -> list[tuple[str, str]]:
    return [(o["source"], o["key"]) for o in document(cli, "list", *args)["owners"]]


def test_every_source_can_be_named() -> None:
    assert list(map(str, Source)) == list(LIFETIMES)


@pytest.mark.parametrize("args", [(), ("--source", "file"), ("--account", "ghost")])
def test_nothing_yet(cli: Cli, args: tuple[str, ...]) -> None:
    said = "no owner fits\n" if args else "no account owns anything yet\n"
    assert cli.run("owners", "list", *args) == (0, "", said)
    found = json.loads(cli.run("owners", "list", *args, "--json").out)
    assert found == {"schema": "codexlb.owners.list/1", "owners": []}
    assert not cli.state_folder.exists()


def test_the_list(cli: Cli) -> None:
    some(cli)
    ran = cli.run("owners", "list")
    assert (ran.code, ran.err) == (0, "")
    assert [re.sub(" +", " ", line) for line in ran.out.splitlines()[:5]] == [
        "SOURCE KEY ACCOUNT AFFINITY LAST USED EXPIRES",
        "session s1 work hard 61 min ago in 30 days",
        r"session s1\nt1 home hard 2 h 1 min ago in 30 days",
        "prompt_cache k home soft 3 h 1 min ago in 30 days",
        "file file-1 ghost (gone) hard 4 h 1 min ago in 365 days",
    ]
    digest = turn_state_key("given").value
    (shown,) = re.findall(r"^turn_state +(\S+) +work +hard ", ran.out, re.MULTILINE)
    assert re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".+"), digest)


def test_the_document(cli: Cli) -> None:
    now = time.time()
    with closing(open_for_writing(database_path(cli.state_folder))) as connection, connection:
        write_owner(Key("session", "s\nt"), "ghost", now)(connection)
    assert document(cli, "list") == {
        "schema": "codexlb.owners.list/1",
        "owners": [
            {
                "source": "session",
                "key": "s\nt",
                "account": "ghost",
                "configured": False,
                "strength": "hard",
                "used": iso_utc(now),
                "expires": iso_utc(now + LIFETIMES["session"]),
            }
        ],
    }


def test_filters(cli: Cli) -> None:
    some(cli)
    assert listed(cli, "--source", "session") == [("session", "s1"), ("session", "s1\nt1")]
    assert listed(cli, "--account", "ghost") == [("file", "file-1")]
    assert listed(cli, "--account", "home", "--source", "prompt_cache") == [("prompt_cache", "k")]
    assert listed(cli, "--limit", "5") == listed(cli, "--limit", "0") == listed(cli)


def test_more_than_are_listed(cli: Cli) -> None:
    fill(cli.state_folder, *((Key("session", f"s{n:02}"), "work", HOUR + n) for n in range(51)))
    note = "only the last 50 are listed; `--limit 0` lists them all\n"
    ran = cli.run("owners", "list")
    assert (ran.code, len(ran.out.splitlines()), ran.err) == (0, 51, note)
    assert "s49" in ran.out
    assert "s50" not in ran.out
    assert len(document_of(cli.run("owners", "list", "--json"), note)["owners"]) == 50
    assert len(listed(cli, "--limit", "0")) == 51


def document_of(ran: Ran, err: str) -> dict[str, Any]:
    assert (ran.code, ran.err) == (0, err)
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_keys_are_shortened_and_escaped_in_the_table_only(cli: Cli) -> None:
    key = "\x1b[31m" + "x" * 300 + "-end"
    fill(cli.state_folder, (Key("session", key), "work", HOUR))
    out = cli.run("owners", "list").out
    assert out.isascii()
    assert r"\x1b[31mx" in out
    assert "...x" in out
    assert "x-end " in out
    assert max(map(len, out.splitlines())) <= 99
    assert listed(cli) == [("session", key)]
    assert key.removeprefix("\x1b") in cli.run("owners", "show", key).out.replace("\n", "").replace(
        " ", ""
    )


def test_a_key_is_given_as_the_client_sent_it(cli: Cli) -> None:
    fill(cli.state_folder, (Key("session", "caf\xc3\xa9"), "work", 1))  # as it is on the wire
    fill(cli.state_folder, (Key("prompt_cache", "caf\xe9"), "home", HOUR))
    shown = document(cli, "show", "caf\xe9")["owners"]
    assert [(o["source"], o["key"], o["account"]) for o in shown] == [
        ("session", "caf\xe9", "work"),
        ("prompt_cache", "caf\xe9", "home"),
    ]


def test_show(cli: Cli) -> None:
    some(cli)
    ran = cli.run("owners", "show", "s1", "--source", "session")
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.split("\n\n")
    assert re.sub(r"\d{4}-[\dTZ:-]+", "TIME", first) == (
        "FACT       VALUE\n"
        "source     session\n"
        "key        s1\n"
        "account    work\n"
        "affinity   hard\n"
        "last used  TIME, or up to a day later\n"
        "expires    TIME, in 30 days\n"
        "may move   only if the account itself fails, never because a socket closed"
    )
    assert r"s1\nt1" in second


@pytest.mark.parametrize(
    ("key", "more", "moves"),
    [
        ("s1", "", ["account_failure", "account_failure"]),
        ("s1", '[affinity]\nsession_on_account_failure = "wait"\n', ["never", "never"]),
        ("given", "", ["account_failure"]),
        ("file-1", "", ["never"]),
        ("k", '[affinity]\nsession_on_account_failure = "fail"\n', ["owner_cannot_serve"]),
    ],
)
def test_when_a_key_may_move(cli: Cli, key: str, more: str, moves: list[str]) -> None:
    cli.configure(more + TWO)
    some(cli)
    found = document(cli, "show", key)
    assert (found["schema"], found["key"]) == ("codexlb.owners.show/1", key)
    assert [o["moves"] for o in found["owners"]] == moves
    assert all(set(o) == {*LISTED, "moves"} for o in found["owners"])


LISTED = {"source", "key", "account", "configured", "strength", "used", "expires"}


def test_an_unknown_key(cli: Cli) -> None:
    some(cli)
    said = "no account owns `s2`\n\nhint: codexlb owners list\n"
    assert cli.run("owners", "show", "s2") == (1, "", said)
    assert cli.run("owners", "show", "k", "--source", "file").code == 1
    assert document(cli, "show", "s2", code=1, err=said)["owners"] == []


@pytest.mark.parametrize(
    ("args", "forgotten", "left"),
    [
        (["s1"], 2, 3),
        (["s1", "--account", "home"], 1, 4),
        (["s1", "--source", "prompt_cache"], 0, 5),
        (["given"], 1, 4),
        (["--source", "session"], 2, 3),
        (["--account", "ghost"], 1, 4),
        (["--account", "nobody"], 0, 5),
        (["--all"], 5, 0),
    ],
)
def test_forget(cli: Cli, args: list[str], forgotten: int, left: int) -> None:
    some(cli)
    owners = "1 owner" if forgotten == 1 else f"{forgotten} owners"
    hint = "" if forgotten else "\nhint: codexlb owners list\n"
    code = 0 if forgotten else 1
    assert cli.run("owners", "forget", *args) == (code, "", f"forgot {owners}\n{hint}")
    assert len(json.loads(cli.run("owners", "list", "--json").out)["owners"]) == left
    again = json.loads(cli.run("owners", "forget", *args, "--json").out)
    assert again == {"schema": "codexlb.owners.forget/1", "forgotten": 0}


@pytest.mark.parametrize("args", [[], ["--all", "s1"], ["--all", "--account", "work"], ["--json"]])
def test_what_is_forgotten_must_be_said(cli: Cli, args: list[str]) -> None:
    some(cli)
    ran = cli.run("owners", "forget", *args)
    assert (ran.code, ran.out) == (2, "")
    assert "`--all`" in ran.err
    assert len(listed(cli)) == 5


@pytest.mark.parametrize(
    "args", [["list", "--limit", "-1"], ["list", "--source", "x"], ["show"], ["forget", "a", "b"]]
)
def test_a_command_line_that_makes_no_sense(cli: Cli, args: list[str]) -> None:
    ran = cli.run("owners", *args)
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("args", [["list"], ["show", "s1"], ["forget", "s1"], ["forget", "--all"]])
def test_a_database_that_cannot_be_used(cli: Cli, args: list[str]) -> None:
    cli.state_folder.mkdir(parents=True)
    path = database_path(cli.state_folder)
    path.write_bytes(b"no database at all, but long enough for one" * 100)
    ran = cli.run("owners", *args, "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "file is not a database" in ran.err
    assert f"hint: stop the gateway and move `{path}`" in ran.err


def test_the_demo_and_another_configuration_have_owners_of_their_own(
    cli: Cli, tmp_path: Path
) -> None:
    some(cli)
    assert cli.run("--demo", "owners", "list") == (0, "", "no account owns anything yet\n")
    other = tmp_path / "other.toml"
    other.write_text(TWO)
    ran = cli.run("--config", str(other), "owners", "show", "s1")
    hint = f"codexlb --config {other} owners list"
    assert ran == (1, "", f"no account owns `s1`\n\nhint: {hint}\n")


def test_what_is_forgotten_is_forgotten_by_a_running_gateway(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for key in ("s1", "s2"):
            first = await stage.turn(headers=session(key))
            assert first.header("x-codexlb-account") == ("work" if key == "s1" else "home")
        assert (await stage.turn(headers=session("s1"))).header("x-codexlb-account") == "work"
        ran = await stage.command("owners", "show", "s1", "--json")
        assert [o["account"] for o in json.loads(ran.stdout)["owners"]] == ["work"]

        ran = await stage.command("owners", "forget", "s1")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"forgot 1 owner\n")
        # The least recently chosen account takes it now, and keeps it.
        for _ in range(2):
            assert (await stage.turn(headers=session("s1"))).header("x-codexlb-account") == "home"
        assert (await stage.turn(headers=session("s2"))).header("x-codexlb-account") == "home"
        ran = await stage.command("owners", "list", "--source", "session", "--json")
        owners = {o["key"]: o["account"] for o in json.loads(ran.stdout)["owners"]}
        assert owners == {"s1": "home", "s2": "home"}
        assert stage.warnings == []

    run(test, tmp_path, names=["work", "home"])


def test_a_database_of_a_newer_program_is_left_alone(cli: Cli) -> None:
    path = database_path(cli.state_folder)
    with closing(open_for_writing(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for args in (("owners", "list"), ("owners", "forget", "--all")):
        ran = cli.run(*args)
        assert (ran.code, ran.out) == (3, "")
        assert "is newer than" in ran.err
        assert "hint: update codexlb" in ran.err
    listed = cli.run("accounts", "list")
    assert listed.code == 0
    assert "is newer than" in listed.err
