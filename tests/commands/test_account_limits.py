"""What is left of an account's limits, as `accounts list` and `accounts show` tell it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.commands.account_limits import bar, limit_facts, limits_table
from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.windows import Credits, Limits, Rate, Window
from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.store.cooldowns import write_state
from codexlb_cli.store.database import database_path, open_for_writing
from codexlb_cli.store.presence import Presence, announce
from tests.support.cli import Cli
from tests.support.gateway import Stage, run

NOW = 1_800_000_000.0
HOUR = 3600.0
PLUS = Limits(
    primary=Window(42, NOW - 20, 300, NOW + 3 * HOUR + 600),
    secondary=Window(12, NOW - 2 * HOUR, 10_080, NOW + 90 * HOUR),
    credits=Credits(has_credits=True, unlimited=False, balance="9.99"),
    plan="plus",
)
KEY = Limits(
    requests=Rate(60, 30, NOW - 1, NOW + 29),
    tokens=Rate(150_000, 149_000, NOW - 700),
)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0, "[----------]"), (0.1, "[#---------]"), (10, "[#---------]"), (42, "[#####-----]"),
        (90, "[#########-]"), (99.9, "[#########-]"), (100, "[##########]"),
    ],
)  # fmt: skip
def test_bars(percent: float, expected: str) -> None:
    assert bar(percent) == expected


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(300, "5h"), (10_080, "7d"), (43_200, "30d"), (1440, "24h"), (90, "90min"), (None, "primary")],
)
def test_a_window_is_called_by_its_length(minutes: float | None, expected: str) -> None:
    assert Window(1, NOW, minutes).label("primary") == expected


def test_the_table_of_limits() -> None:
    over = Limits(primary=Window(100, NOW - 9 * HOUR, 300, NOW - HOUR), plan="free")
    states = [("work", PLUS), ("home", KEY), ("spare", over), ("lab", Limits())]
    told = limits_table([(name, AccountState(limits=known)) for name, known in states], NOW)
    assert told == (
        "NAME   PLAN  LIMIT     USED                RESETS         SEEN\n"
        "work   plus  5h        [#####-----]  42 %  in 3 h 10 min  20 s ago\n"
        "work   plus  7d        [##--------]  12 %  in 4 days      stale, 2 h ago\n"
        "home   -     requests  [#####-----]  49 %  in 29 s        1 s ago\n"
        "home   -     tokens    [#---------]   1 %  -              stale, 12 min ago\n"
        "spare  free  5h        [----------]   0 %  has reset      9 h ago"
    )
    assert limits_table([("lab", AccountState())], NOW) is None


def test_the_facts_of_one_account() -> None:
    assert dict(limit_facts(PLUS, None, NOW)) == {
        "plan": "plus",
        "5h": "[#####-----] 42 %, resets in 3 h 10 min",
        "7d": "[##--------] 12 %, resets in 4 days, stale, 2 h ago",
        "credits": "9.99",
    }
    assert dict(limit_facts(Limits(), None, NOW)) == {}


def learn(cli: Cli, name: str, state: AccountState) -> None:
    cli.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = open_for_writing(database_path(cli.state_folder))
    with connection:
        write_state(name, state)(connection)
    connection.close()


ACCOUNTS = '[accounts.work]\napi_key_env = "K"\n[accounts.home]\napi_key_env = "K"\n'


def used_up(resets_in: float) -> AccountState:
    now = time.time()
    return AccountState(limits=Limits(primary=Window(100, now, 300, now + resets_in), plan="plus"))


def test_a_list_without_limits_is_as_it_was(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure(ACCOUNTS)
    assert len(cli.run("accounts", "list", K="k").out.splitlines()) == 3


def test_an_account_that_is_used_up_is_listed_with_its_window(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure(ACCOUNTS)
    learn(cli, "work", used_up(1.5 * HOUR - 1))
    ran = cli.run("accounts", "list", K="k")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[1].startswith("work  api_key  limited  primary_window_used_up, 90 min left  env K")
    assert lines[3] == ""
    assert lines[4].split() == ["NAME", "PLAN", "LIMIT", "USED", "RESETS", "SEEN"]
    assert lines[5].startswith("work  plus  5h     [##########] 100 %  in 90 min  ")
    assert all(len(line) < 100 for line in lines)
    ran = cli.run("accounts", "show", "work", K="k")
    assert "5h            [##########] 100 %, resets in 90 min\n" in ran.out
    assert cli.run("accounts", "reset", "work").code == 0
    assert "%" not in cli.run("accounts", "list", K="k").out


def test_json(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure(ACCOUNTS)
    learn(cli, "work", AccountState(limits=PLUS))
    learn(cli, "home", AccountState(limits=KEY))
    work, home = json.loads(cli.run("accounts", "list", "--json", K="k").out)["accounts"]
    shown = json.loads(cli.run("accounts", "show", "work", "--json", K="k").out)["account"]
    assert shown == work
    assert set(work) == {
        "name", "kind", "enabled", "state", "reason", "until", "base_url", "credential",
        "transport", "plan", "windows", "rates", "credits", "in_flight", "last_error",
    }  # fmt: skip
    assert (work["plan"], work["in_flight"], work["last_error"]) == ("plus", None, None)
    assert work["credits"] == {"has_credits": True, "unlimited": False, "balance": "9.99"}
    assert [set(window) for window in work["windows"]] == [
        {"name", "minutes", "used_percent", "resets_at", "seen_at", "stale"}
    ] * 2
    assert work["windows"][0]["resets_at"] == "2027-01-15T11:10:00Z"
    assert [set(rate) for rate in home["rates"]] == [
        {"name", "limit", "remaining", "resets_at", "seen_at", "stale"}
    ] * 2


# Beside a running gateway


def test_a_running_gateway_tells_its_turns_and_last_errors(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(model="closes")).header("x-codexlb-account") == "home"
        async with stage.streaming(model="mock-silent"):
            await stage.mock.wait_for(lambda mock: len(mock.turns) == 3)
            listed = await stage.command("accounts", "list", "--json")
            accounts = {a["name"]: a for a in json.loads(listed.stdout)["accounts"]}
            assert [accounts[n]["in_flight"] for n in ("work", "home", "spare")] == [0, 0, 1]
            error = accounts["work"]["last_error"]
            assert (error["reason"], set(error)) == ("internal_error", {"reason", "at"})
            assert accounts["home"]["last_error"] is None
            text = (await stage.command("accounts", "list")).stdout.decode()
            assert "NAME   IN FLIGHT  LAST ERROR\nwork   0          internal_error, " in text
            assert text.endswith("home   0          -\nspare  1          -\n")
            shown = (await stage.command("accounts", "show", "spare")).stdout.decode()
            assert "in flight     1\nlast error    -\n" in shown
        assert not [line for line in stage.lines if "_codexlb" in line]

    run(test, tmp_path, TurnRule(model="closes", close=1011, times=1))


def test_a_gateway_on_another_port_is_found_and_one_that_ended_is_not(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async def in_flight() -> Any:
            ran = await stage.command("accounts", "show", "work", "--json")
            return json.loads(ran.stdout)["account"]["in_flight"]

        async with stage.serving():
            assert await in_flight() == 0
        assert await in_flight() is None
        announce(stage.state_folder, Presence("127.0.0.1", 1, "killed"))
        assert await in_flight() is None

    run(test, tmp_path, serve=False)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives everybody the same answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


ANSWER = {
    "schema": "codexlb.gateway.accounts/1",
    "instance": "mine",
    "accounts": {"work": {"in_flight": 3, "last_error": {"reason": "forbidden", "at": 5.0}}},
}


@pytest.mark.parametrize(
    ("document", "in_flight"),
    [
        (ANSWER, 3),
        ({**ANSWER, "instance": "another gateway's"}, None),
        ({**ANSWER, "schema": "something else"}, None),
        ({**ANSWER, "accounts": {"work": 7}}, None),
        ({**ANSWER, "accounts": {"work": {"in_flight": "x", "last_error": None}}}, None),
        ({**ANSWER, "accounts": []}, None),
        ([1], None),
        ("<html>", None),
    ],
)
def test_only_the_gateway_that_announced_itself_is_believed(
    tmp_path: Path, document: object, in_flight: int | None
) -> None:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    cli = Cli(tmp_path)
    cli.configure(ACCOUNTS)
    with answering(head.encode() + body) as port:
        announce(cli.state_folder, Presence("127.0.0.1", port, "mine"))
        ran = cli.run("accounts", "show", "work", "--json", K="k")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["account"]["in_flight"] == in_flight


def test_the_gateway_answers_its_own_commands_only_as_any_other_request(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get("/_codexlb/accounts")
        assert (answer.status, set(answer.json)) == (200, {"schema", "instance", "accounts"})
        assert answer.json["accounts"]["work"] == {"in_flight": 0, "last_error": None}
        foreign = await stage.get("/_codexlb/accounts", [("Origin", "http://example.com")])
        assert foreign.status == 403

    run(test, tmp_path)
