"""`codexlb usage`: what is added up, and how it is shown."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest

from codexlb_cli.commands.usage import By
from codexlb_cli.console import iso_utc
from codexlb_cli.core.affinity import UNKEYED, Key
from codexlb_cli.core.usage import Tokens, TurnRecord
from codexlb_cli.core.usage_report import Dimension
from codexlb_cli.store.database import database_path, open_for_writing
from codexlb_cli.store.usage import write_turn
from tests.support.cli import Cli
from tests.support.gateway import Stage, run, session

DAY = 86_400.0
PRICES = """
[usage]
prices_as_of = "2026-02-06"
[prices."m.1"]
input = 2
cached = 0.5
output = 10
"""
TOKENS = Tokens(1_000_000, 500_000, 100_000, 2_000, 1_100_000)
NUMBERS = {"requests", "errors", "attempts", "input", "cached", "output", "reasoning"} | {
    "cost",
    "cost_unknown",
}
PRICED = "prices: from the configuration, as of 2026-02-06; they may be outdated\n"
UNPRICED = "the cost of {} is not known: no price, or no token numbers; see `[prices.MODEL]`\n"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    cli.configure(PRICES)
    return cli


def turn(
    ago: float = 60.0,
    account: str | None = "work",
    model: str | None = "m.1",
    lane: Key = UNKEYED,
    outcome: str = "completed",
    tokens: Tokens = TOKENS,
) -> TurnRecord:
    first = 100 if tokens != Tokens() else None
    return TurnRecord(
        time.time() - ago, account, model, lane, 200, outcome, 1, tokens, first, 900, "default"
    )


def fill(cli: Cli, *turns: TurnRecord) -> None:
    path = database_path(cli.state_folder)
    with closing(open_for_writing(path)) as connection, connection:
        for record in turns:
            write_turn(record)(connection)


def some(cli: Cli) -> None:
    fill(
        cli,
        turn(account="work", lane=Key("session", "s1")),
        turn(account="work", lane=Key("session", "s1"), model="other"),
        turn(account="home", lane=Key("prompt_cache", "k")),
        turn(account=None, model=None, outcome="no_accounts", tokens=Tokens()),
    )


def document(cli: Cli, *args: str) -> dict[str, Any]:
    ran = cli.run("usage", *args, "--json")
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def lines(text: str) -> list[str]:
    return [re.sub(" +", " ", line) for line in text.splitlines()]


def test_every_dimension_can_be_named() -> None:
    assert {by.value for by in By} == set(get_args(Dimension))


@pytest.mark.parametrize("args", [(), ("--csv",), ("--by", "session")])
def test_nothing_yet(cli: Cli, args: Sequence[str]) -> None:
    ran = cli.run("usage", *args)
    assert (ran.code, ran.out) == (0, "")
    assert re.fullmatch(r"no turn was recorded since 20[\d-]+T[\d:]+Z\n", ran.err)
    assert not cli.state_folder.exists()


def test_nothing_yet_in_json(cli: Cli) -> None:
    found = document(cli)
    assert set(found) == {"schema", "by", "since", "until", "prices", "groups", "total"}
    assert (found["schema"], found["groups"]) == ("codexlb.usage/1", [])
    assert found["total"] == {
        "requests": 0, "errors": 0, "attempts": 0, "input": None, "cached": None, "output": None,
        "reasoning": None, "cost": None, "cost_unknown": 0,
    }  # fmt: skip


def test_it_says_that_nothing_is_recorded(cli: Cli) -> None:
    cli.configure("[usage]\nkeep_days = 0\n")
    assert cli.run("usage").err.endswith("\n`[usage] keep_days` is 0, so nothing is recorded\n")


def test_the_table(cli: Cli) -> None:
    some(cli)
    ran = cli.run("usage")
    assert (ran.code, ran.err) == (0, PRICED + UNPRICED.format("1 answered turn"))
    assert lines(ran.out) == [
        "ACCOUNT REQUESTS ERRORS ATTEMPTS INPUT CACHED OUTPUT REASONING COST USD",
        "work 2 0 2 2000000 1000000 200000 4000 >= 2.25",
        "home 1 0 1 1000000 500000 100000 2000 2.25",
        "- 1 1 1 - - - - -",
        "total 4 1 4 3000000 1500000 300000 6000 >= 4.50",
    ]
    assert len({len(line) for line in ran.out.splitlines()}) == 1, "numbers end under each other"


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("model", ["m.1", "-", "other", "total"]),
        ("session", ["s1", "-", "prompt_cache k", "total"]),
    ],
)
def test_other_groups(cli: Cli, by: str, names: list[str]) -> None:
    some(cli)
    rows = cli.run("usage", "--by", by).out.splitlines()
    assert sorted(re.split(r"  +", row)[0] for row in rows[1:]) == sorted(names)
    assert rows[0].startswith(by.upper())


def test_an_unknown_price_costs_no_zero(cli: Cli) -> None:
    fill(cli, turn(model="other"))
    ran = cli.run("usage", "--by", "model")
    assert lines(ran.out)[1] == "other 1 0 1 1000000 500000 100000 2000 -"
    assert ran.err == UNPRICED.format("1 answered turn")
    assert document(cli)["total"]["cost"] is None


def test_prices_without_a_date(cli: Cli) -> None:
    cli.configure(PRICES.replace("2026-02-06", ""))
    fill(cli, turn())
    assert "without a date (`[usage] prices_as_of`)" in cli.run("usage").err
    assert document(cli)["prices"] == {"currency": "USD", "per_tokens": 1_000_000, "as_of": None}


def test_the_document(cli: Cli) -> None:
    some(cli)
    found = document(cli, "--by", "session", "--since", "2020-01-01", "--until", "2100-01-01")
    assert (found["by"], found["since"]) == ("session", "2020-01-01T00:00:00Z")
    assert found["until"] == "2100-01-01T00:00:00Z"
    assert found["prices"]["as_of"] == "2026-02-06"
    assert all(set(group) == {"name", "source"} | NUMBERS for group in found["groups"])
    assert {(g["source"], g["name"]) for g in found["groups"]} == {
        ("session", "s1"), ("prompt_cache", "k"), ("none", ""),
    }  # fmt: skip
    assert found["total"] == {
        "requests": 4, "errors": 1, "attempts": 4, "input": 3_000_000, "cached": 1_500_000,
        "output": 300_000, "reasoning": 6_000, "cost": 4.5, "cost_unknown": 1,
    }  # fmt: skip


def test_a_period(cli: Cli) -> None:
    fill(cli, turn(ago=3600), turn(ago=2 * DAY), turn(ago=10 * DAY))

    def requests(*args: str) -> int:
        return int(document(cli, *args)["total"]["requests"])

    assert requests() == 2, "a week by default"
    assert requests("--since", "24h") == 1
    assert requests("--since", "2w") == 3
    assert requests("--since", "2w", "--until", "1d") == 2
    until = iso_utc(time.time() - DAY)
    assert requests("--since", "2020-01-01", "--until", until) == 2


def test_days_are_in_order_and_utc(cli: Cli) -> None:
    fill(cli, *(turn(ago=n * DAY) for n in (0, 0, 1, 3)))
    names = [group["name"] for group in document(cli, "--by", "day")["groups"]]
    assert len(names) == 3
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", name) for name in names)


def test_sessions_are_limited(cli: Cli) -> None:
    fill(cli, *(turn(lane=Key("session", f"s{n}")) for n in range(51)))
    ran = cli.run("usage", "--by", "session")
    assert len(ran.out.splitlines()) == 52
    assert ran.err.startswith("only 50 of 51 are listed; `--limit 0` lists all\n")
    assert lines(ran.out)[-1].startswith("total 51 ")
    assert len(document(cli, "--by", "session", "--limit", "0")["groups"]) == 51
    assert len(cli.run("usage", "--by", "session", "--limit", "2").out.splitlines()) == 4


def test_csv(cli: Cli) -> None:
    some(cli)
    ran = cli.spawn("usage", "--csv", "--by", "session", stdin=b"")
    assert ran.returncode == 0
    assert ran.stdout.endswith(b"\r\n")
    assert ran.stdout.count(b"\n") == ran.stdout.count(b"\r\n") == 4
    header, *rows = csv.reader(io.StringIO(ran.stdout.decode("ascii"), newline=""))
    assert header == [
        "source", "session", "requests", "errors", "attempts", "input", "cached", "output",
        "reasoning", "cost_usd", "cost_unknown",
    ]  # fmt: skip
    numbers = ["2", "0", "2", "2000000", "1000000", "200000", "4000", "2.25", "1"]
    assert rows[0] == ["session", "s1", *numbers]
    assert ["none", "", "1", "1", "1", "", "", "", "", "", "0"] in rows


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(cli: Cli, text: str) -> None:
    fill(cli, turn(lane=Key("prompt_cache", text)))
    out = cli.run("usage", "--csv", "--by", "session").out
    (row,) = list(csv.reader(io.StringIO(out, newline="")))[1:]
    assert row[1].startswith("'")
    assert out.isascii()


def test_csv_quotes(cli: Cli) -> None:
    fill(cli, turn(model='a"b,c'))
    (row,) = list(csv.reader(io.StringIO(cli.run("usage", "--csv", "--by", "model").out)))[1:]
    assert row[0] == 'a"b,c'


def test_small_costs_have_no_exponent(cli: Cli) -> None:
    fill(cli, turn(tokens=Tokens(1, 0, 1, 0, 2)))
    assert ",0.000012," in cli.run("usage", "--csv").out
    assert cli.run("usage").out.splitlines()[1].endswith(" 0.0000")


def test_what_came_from_elsewhere_is_escaped_and_fits(cli: Cli) -> None:
    most = 10**12
    fill(
        cli,
        turn(model="\x1b[31m" + "x" * 120, tokens=Tokens(most, most, most, most, most)),
        *(turn(model="big", tokens=Tokens(most, 1, most, most, most)) for _ in range(20)),
    )
    for by in By:
        out = cli.run("usage", "--by", by.value).out
        assert out.isascii()
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) < 100


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--json", "--csv"), "`--json` and `--csv` cannot be used together"),
        (("--since", "soon"), "`--since` must be `7d`, `24h`, .*, not `soon`"),
        (("--until", "7"), "`--until` must be `7d`, `24h`, .*, not `7`"),
        (("--since", "1h", "--until", "2h"), "`--since` must be before `--until`"),
        (("--limit", "-1"), "`--limit` must be 0 or more, not -1"),
        (("--by", "hour"), ".*"),
    ],
)
def test_bad_options(cli: Cli, args: Sequence[str], message: str) -> None:
    ran = cli.run("usage", *args)
    assert (ran.code, ran.out) == (2, "")
    assert re.match(f"error: {message}\n", ran.err)


def test_a_broken_database(cli: Cli) -> None:
    cli.state_folder.mkdir(parents=True)
    database_path(cli.state_folder).write_bytes(b"no database" * 200)
    ran = cli.run("usage")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: usage cannot be read: ")


def test_what_a_running_gateway_recorded(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s1"))
        used = answer.events[-1].data["response"]["usage"]
        await stage.turn(headers=session("s1"))
        group: dict[str, Any] = {}
        for _ in range(50):  # it is written behind; each look takes a process
            ran = await stage.command("usage", "--by", "session", "--json", "--until", "2100-01-01")
            assert (ran.returncode, ran.stderr) == (0, b"")
            for group in json.loads(ran.stdout)["groups"]:
                assert (group["name"], group["source"]) == ("s1", "session")
            if group.get("requests") == 2:
                break
        assert (group["requests"], group["errors"], group["attempts"]) == (2, 0, 2)
        assert group["input"] == 2 * used["input_tokens"]
        assert group["output"] == 2 * used["output_tokens"]

    run(test, tmp_path)
