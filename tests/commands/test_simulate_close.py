"""`simulate close`: options, exit codes, stored state."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.affinity import Key
from codexlb_cli.store.cooldowns import write_state
from codexlb_cli.store.database import database_path, open_for_writing
from codexlb_cli.store.owners import write_owner
from tests.support.cli import Cli, Ran

THREE = """\
[accounts.work]
api_key_env = "WORK_KEY"

[accounts.home]
api_key_env = "HOME_KEY"

[accounts.spare]
enabled = false
api_key_env = "SPARE_KEY"
"""
KEYS = {"WORK_KEY": "sk-work-LEAK", "SPARE_KEY": "sk-spare-LEAK"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    cli.configure(THREE)
    return cli


def close(cli: Cli, *args: str) -> Ran:
    return cli.run("simulate", "close", *args, stdin=b"", **KEYS)


def document(cli: Cli, *args: str, code: int = 0) -> dict[str, Any]:
    ran = close(cli, *args, "--json")
    assert (ran.code, ran.err) == (code, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def learn(cli: Cli, name: str, state: AccountState) -> None:
    cli.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = open_for_writing(database_path(cli.state_folder))
    with connection:
        write_state(name, state)(connection)
    connection.close()


def test_all_affinities(cli: Cli) -> None:
    found = document(cli, "1011")
    assert (found["code"], found["phase"], found["closed"]) == (1011, "sent", "work")
    assert [(o["affinity"], o["owner"], o["account"]) for o in found["outcomes"]] == [
        ("hard", "work", "work"),
        ("soft", "work", "home"),
        ("none", None, "home"),
    ]
    assert found["outcomes"][1]["verdicts"] == [
        {
            "account": "home",
            "verdict": "picked",
            "reason": "policy",
            "until": None,
            "credential_present": False,
        },
        {
            "account": "work",
            "verdict": "excluded",
            "reason": "closed",
            "until": None,
            "credential_present": True,
        },
        {
            "account": "spare",
            "verdict": "excluded",
            "reason": "disabled",
            "until": None,
            "credential_present": True,
        },
    ]


def test_one_affinity_owner_and_phase(cli: Cli) -> None:
    found = document(cli, "1000", "--affinity", "soft", "--owner", "home", "--phase", "idle")
    assert (found["phase"], found["closed"]) == ("idle", "home")
    (outcome,) = found["outcomes"]
    assert (outcome["move"], outcome["account"], outcome["reason"], outcome["replay"]) == (
        "reconnect",
        "home",
        "idle_socket_retired",
        False,
    )


def test_a_turn_that_is_lost_is_exit_1(cli: Cli) -> None:
    for args in (
        ("1009",),
        ("2000", "--affinity", "none"),
        ("1011", "--phase", "created"),
        ("1011", "--replays", "1"),
        ("1000", "--owner", "spare", "--affinity", "hard"),
    ):
        assert close(cli, *args).code == 1
        assert document(cli, *args, code=1)["outcomes"][-1]["move"] == "give_up"
    assert close(cli, "1000", "--owner", "spare").code == 1
    assert close(cli, "1000", "--owner", "spare", "--affinity", "soft").code == 0


def test_an_owner_that_is_disabled_says_so(cli: Cli) -> None:
    found = document(cli, "1011", "--owner", "spare", "--affinity", "hard", code=1)
    (outcome,) = found["outcomes"]
    assert (outcome["reason"], outcome["client_sees"]) == ("disabled", "owner_unavailable")
    assert [(v["account"], v["reason"]) for v in outcome["verdicts"]] == [
        ("work", "not_owner"),
        ("home", "not_owner"),
        ("spare", "disabled"),
    ]


def test_stored_state_counts(cli: Cli) -> None:
    until = time.time() + 3600
    learn(cli, "work", AccountState(limited_until=until, limited_reason="usage_limit_reached"))
    found = document(cli, "1011")
    assert found["closed"] == "home"
    hard, soft, none = found["outcomes"]
    assert hard["account"] == "home"
    assert [o["verdicts"][0]["reason"] for o in (soft, none)] == ["only_usable_account"] * 2
    work = soft["verdicts"][1]
    assert (work["account"], work["reason"]) == ("work", "limited")
    stamp = time.strftime("%Y-%m-%dT%H:", time.gmtime(until))
    assert work["until"].startswith(stamp)
    assert work["until"].endswith("Z")
    assert "usage_limit_reached, " in close(cli, "1011").out


def test_a_database_that_is_none_is_no_state(cli: Cli) -> None:
    cli.state_folder.mkdir(mode=0o700, parents=True)
    database_path(cli.state_folder).write_bytes(b"not a database" * 100)
    assert close(cli, "1011").code == 0


def test_the_same_input_gives_the_same_output_and_changes_nothing(cli: Cli) -> None:
    before = sorted(cli.home.rglob("*"))
    first = close(cli, "1013", "--json")
    assert close(cli, "1013", "--json") == first
    assert close(cli, "1013").out == close(cli, "1013").out
    assert sorted(cli.home.rglob("*")) == before
    assert "LEAK" not in "".join(first[1:])


def test_a_missing_key_is_reported_and_excludes_nobody(cli: Cli) -> None:
    ran = close(cli, "1011", "--affinity", "none")
    assert (ran.code, ran.err) == (0, "")
    assert "the first ready account after work (HOME_KEY is not set in this shell)" in " ".join(
        ran.out.split()
    )
    without = cli.run("simulate", "close", "1011", "--json")
    assert (without.code, without.err) == (0, "")
    assert json.loads(without.out)["closed"] == "work"


@pytest.mark.parametrize(
    "args",
    [
        ("999",),
        ("5000",),
        ("0",),
        ("1e3",),
        ("x",),
        ("",),
        ("--", "-1011"),
        (),
        ("1011", "1012"),
        ("1011", "--affinity", "medium"),
        ("1011", "--affinity", "HARD"),
        ("1011", "--phase", "later"),
        ("1011", "--replays", "-1"),
        ("1011", "--replays", "one"),
        ("1011", "--session"),
    ],
)
def test_a_command_line_that_makes_no_sense(cli: Cli, args: tuple[str, ...]) -> None:
    ran = close(cli, *args)
    assert (ran.code, ran.out) == (2, "")
    assert "rror: " in ran.err


def test_messages_name_the_range(cli: Cli) -> None:
    assert close(cli, "999") == (
        2,
        "",
        (
            "error: a close code is 1000 to 4999, not 999\n\n"
            "hint: 1006 stands for a socket that ended without a close frame\n"
        ),
    )
    assert close(cli, "1011", "--replays", "-1") == (
        2,
        "",
        "error: `--replays` must be 0 or more, not -1\n",
    )


def test_an_unknown_owner(cli: Cli) -> None:
    ran = close(cli, "1011", "--owner", "ghost", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "no account" in ran.err
    assert "`ghost`" in ran.err


def test_no_accounts(tmp_path: Path) -> None:
    assert Cli(tmp_path).run("simulate", "close", "1011") == (
        3,
        "",
        (
            "error: no accounts yet, so there is nothing to simulate with\n\n"
            "hint: codexlb accounts add work --api-key-env OPENAI_API_KEY\n"
            "or, with the accounts of the demo: codexlb --demo simulate close 1011\n"
        ),
    )


def test_the_demo(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("--demo", "simulate", "close", "1011", "--json")
    assert (ran.code, ran.err) == (0, "")
    verdicts = json.loads(ran.out)["outcomes"][2]["verdicts"]
    assert [verdict["account"] for verdict in verdicts] == ["home", "spare", "work"]


def test_the_users_close_table(cli: Cli) -> None:
    cli.configure(
        THREE + '[reconnect]\nbackoff_base = 2\n[reconnect.close.1011]\nsoft = "same_account"\n'
    )
    hard, soft, _ = document(cli, "1011")["outcomes"]
    assert (soft["move"], soft["account"], soft["delay_seconds"]) == ("reconnect", "work", 2.0)
    assert hard["reason"] == "internal_error"


def own(cli: Cli, session: str, account: str) -> None:
    connection = open_for_writing(database_path(cli.state_folder))
    with connection:
        write_owner(Key("session", session), account, time.time())(connection)
    connection.close()


def test_a_session_that_the_gateway_knows(cli: Cli) -> None:
    own(cli, "s1", "home")
    found = document(cli, "1011", "--session", "s1")
    assert (found["session"], found["closed"]) == ("s1", "home")
    assert [(o["affinity"], o["owner"], o["account"]) for o in found["outcomes"]] == [
        ("hard", "home", "home")
    ]
    with_owner = document(cli, "1011", "--owner", "home", "--affinity", "hard")
    assert with_owner == {**found, "session": None}
    assert "of home, which owns the session s1, with 1011" in close(
        cli, "1011", "--session", "s1"
    ).out.replace("\n", " ")


def test_a_session_with_threads(cli: Cli) -> None:
    own(cli, "s1\nt1", "home")
    assert document(cli, "1011", "--session", "s1")["closed"] == "home"
    own(cli, "s1\nt2", "work")
    assert document(cli, "1011", "--session", "s1\\nt2")["closed"] == "work"
    ran = close(cli, "1011", "--session", "s1")
    assert (ran.code, ran.out) == (3, "")
    assert "belong to `home` and `work`" in ran.err
    own(cli, "s1", "work")
    assert document(cli, "1011", "--session", "s1")["closed"] == "work"


def test_a_session_that_cannot_be_simulated(cli: Cli) -> None:
    assert close(cli, "1011", "--session", "s1", "--json") == (
        3,
        "",
        "error: no account owns the session `s1`\n\nhint: codexlb owners list\n",
    )
    own(cli, "s1", "ghost")
    ran = close(cli, "1011", "--session", "s1")
    assert (ran.code, ran.out) == (3, "")
    assert "`ghost`, which is no longer configured" in ran.err


@pytest.mark.parametrize("args", [("--owner", "work"), ("--affinity", "hard")])
def test_a_session_says_owner_and_affinity_itself(cli: Cli, args: tuple[str, str]) -> None:
    assert close(cli, "1011", "--session", "s1", *args) == (
        2,
        "",
        f"error: `--session` says what `{args[0]}` would say\n",
    )
