from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codexlb_cli.config.scenario_toml import read_scenario
from codexlb_cli.core.accounts import Availability
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.errors import ConfigError
from codexlb_cli.inspect.scenario_file import (
    CONFIG_TABLES,
    STARTS_AT,
    AccountExpectation,
    AccountTable,
    RequestExpectation,
    RequestTable,
    RestartTable,
    parse_scenario_file,
)
from codexlb_cli.mock_upstream.scenario import parse_scenario

WORK = '[[account]]\nname = "work"\n'
HOME = '[[account]]\nname = "home"\n'
FULL = """
title = "Everything at once"

[config.reconnect]
replays = 0

[config.reconnect.close.1011]
hard = "give_up"

[config.timeouts]
first_event = 5

[[account]]
name = "work"
transport = "websocket"
expect = { state = "limited", reason = "rate_limit_exceeded" }

[[account]]
name = "home"
enabled = false

[[upstream]]
on = "turn"
account = "work"
close = 1011

[[request]]
session = "s1"
cache_key = "k"
conversation = "c1"
file = "file_1"
continues = "resp_1"
store = false
model = "gpt-5"
input = "hi"
stream = false
tools = ["mcp", "web_search"]
headers = { originator = "codex_cli_rs" }
leave = 1

[[request]]
at = 12.5
continues = 1
history = [1]

[request.expect]
status = 200
outcome = "response.completed"
account = "work"
attempts = 2
affinity = "hard"
dialled = ["work", "work"]
sent = ["work"]
retry_after = 7
at_least = 0.25
at_most = 1

[[restart]]
at = 60

[[restart]]
after = 2
"""


def test_the_whole_language() -> None:
    scenario = parse_scenario_file(FULL, "full.toml")
    assert scenario.title == "Everything at once"
    assert scenario.accounts == (
        AccountTable(
            name="work",
            transport="websocket",
            expect=AccountExpectation(state=Availability.LIMITED, reason="rate_limit_exceeded"),
        ),
        AccountTable(name="home", enabled=False),
    )
    first, second = scenario.requests
    assert first == RequestTable(
        session="s1", cache_key="k", conversation="c1", file="file_1", continues="resp_1",
        store=False, model="gpt-5", input="hi", stream=False, tools=("mcp", "web_search"),
        headers={"originator": "codex_cli_rs"}, leave=1.0,
    )  # fmt: skip
    assert (first.at, first.earlier) == (None, {"continues": (), "history": ()})
    assert (second.at, second.earlier) == (12.5, {"continues": (1,), "history": (1,)})
    assert second.expect == RequestExpectation(
        status=200, outcome="response.completed", account="work", attempts=2,
        affinity=Strength.HARD, dialled=("work", "work"), sent=("work",), retry_after=7,
        at_least=0.25, at_most=1.0,
    )  # fmt: skip
    assert scenario.restarts == (RestartTable(at=60.0), RestartTable(after=2))


def test_the_settings_are_those_of_the_file_and_the_defaults() -> None:
    settings = parse_scenario_file(FULL, "full.toml").settings()
    assert (settings.reconnect.replays, settings.reconnect.close[1011].hard) == (0, "give_up")
    assert (settings.timeouts.first_event, settings.timeouts.idle) == (5, 900)
    assert [(a.name, a.enabled) for a in settings.accounts] == [("work", True), ("home", False)]
    # Even a mistake could send nothing there.
    assert {a.websocket_url for a in settings.accounts} == {"wss://upstream.invalid/v1/responses"}


def test_little_is_needed() -> None:
    scenario = parse_scenario_file(f"{WORK}[[request]]", "short.toml")
    assert (scenario.title, scenario.restarts) == ("short.toml", ())
    assert scenario.requests == (RequestTable(),)
    plain = scenario.requests[0]
    assert (plain.model, plain.input, plain.stream, plain.store) == ("mock", "hello", True, None)
    assert scenario.settings().reconnect.replays == 1


def test_every_table_but_the_accounts_and_the_listener_may_be_configured() -> None:
    assert {"reconnect", "affinity", "timeouts", "lanes", "limits", "headers", "selection"} <= set(
        CONFIG_TABLES
    )
    assert not {"accounts", "gateway"} & set(CONFIG_TABLES)
    for table in CONFIG_TABLES:
        assert parse_scenario_file(f"[config.{table}]\n{WORK}", "f.toml").config


ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))


def test_the_documentation_names_every_key() -> None:
    models = (AccountTable, AccountExpectation, RequestTable, RequestExpectation, RestartTable)
    keys = {key for model in models for key in model.model_fields}
    assert {key for key in keys if f"`{key}`" not in DOCS} == set()
    assert f"({STARTS_AT:.0f}," in DOCS


def test_the_documentation_shows_a_valid_scenario() -> None:
    block = DOCS.split("```toml\n")[1].split("```")[0]
    scenario = parse_scenario_file(block, "docs")
    assert scenario.title == "A session survives 1011"
    assert datetime.fromtimestamp(STARTS_AT, UTC).isoformat() == "2026-01-01T00:00:00+00:00"


ELSEWHERE = "see docs/scenarios.md"
REQUEST = "`[[request]]` 1 of `f.toml`"
BROKEN: Mapping[str, tuple[str, str]] = {
    "accounts = 1": ("`accounts` in `f.toml` is not a known key", "did you mean `account`?"),
    "title = 7": ("`title` in `f.toml` must be a string, not `7`", ELSEWHERE),
    "": ("`f.toml` has no account", 'add: [[account]] name = "work"'),
    '[account]\nname = "work"': (
        "`account` in `f.toml` must be an array of tables",
        "write `[[account]]`, with double brackets",
    ),
    "[[account]]": ("`[[account]]` 1 of `f.toml` needs `name`", ELSEWHERE),
    '[[account]]\nname = "Work"': (
        (
            "`name` in `[[account]]` 1 of `f.toml`: must be a-z, 0-9, `-` and `_`, "
            "a letter or digit first, 32 characters at most"
        ),
        ELSEWHERE,
    ),
    WORK * 2: ("`name` in `[[account]]` 2 of `f.toml` is taken: `work`", ELSEWHERE),
    f"{WORK}enabeld = true": (
        "`enabeld` in `[[account]]` 1 of `f.toml` is not a known key",
        "did you mean `enabled`?",
    ),
    f'{WORK}expect = {{ state = "fine" }}': (
        (
            "`expect.state` in `[[account]]` 1 of `f.toml` must be `ready`, `cooling_down`, "
            "`limited`, `full`, `disabled` or `needs_login`, not `fine`"
        ),
        ELSEWHERE,
    ),
    f"config = 1\n{WORK}": (
        "`config` in `f.toml` must be a table, not `1`",
        "write tables such as `[config.reconnect]`",
    ),
    f"[config.reconect]\n{WORK}": (
        "`config.reconect` in `f.toml` is not a known key",
        "did you mean `config.reconnect`?",
    ),
    f"[config.accounts.work]\n{WORK}": (
        "`config.accounts` in `f.toml` is not a known key",
        f"the keys are: {', '.join(CONFIG_TABLES)}",
    ),
    f"[config.reconnect]\nreplay = 1\n{WORK}": (
        "`config.reconnect.replay` in `f.toml` is not a known key",
        "did you mean `config.reconnect.replays`?",
    ),
    f"[config.reconnect]\nreplays = 2\n{WORK}": (
        "`config.reconnect.replays` in `f.toml` must be 0 or 1, not `2`",
        ELSEWHERE,
    ),
    f"[config.reconnect.close.99]\n{WORK}": (
        "`config.reconnect.close.99` in `f.toml` must be a close code from 1000 to 4999, not `99`",
        ELSEWHERE,
    ),
    f"{WORK}[request]": (
        "`request` in `f.toml` must be an array of tables",
        "write `[[request]]`, with double brackets",
    ),
    f"{WORK}[[request]]\nsesion = 's1'": (
        f"`sesion` in {REQUEST} is not a known key",
        "did you mean `session`?",
    ),
    f"{WORK}[[request]]\nsession = ''": (
        f"`session` in {REQUEST} must be a string that is not empty",
        ELSEWHERE,
    ),
    f'{WORK}[[request]]\nsession = "a\\nb"': (
        f"`session` in {REQUEST}: the value of header `session-id` holds a control character",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nat = -1": (f"`at` in {REQUEST} must be 0 or more, not `-1`", ELSEWHERE),
    f"{WORK}[[request]]\ncontinues = 1": (
        f"`continues` in {REQUEST} must be the number of an earlier request, not `1`",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\ncontinues = true": (
        (
            f"`continues` in {REQUEST}: must be the number of an earlier request, or the id of a "
            "response"
        ),
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nhistory = [2]": (
        f"`history` in {REQUEST} must be the number of an earlier request, not `2`",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nhistory = 1": (
        f"`history` in {REQUEST} must be an array, not `1`",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nheaders = {{ 'a b' = 'x' }}": (
        f"`headers` in {REQUEST}: `a b` is not a header name",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nexpect = {{ stauts = 200 }}": (
        f"`expect.stauts` in {REQUEST} is not a known key",
        "did you mean `expect.status`?",
    ),
    f"{WORK}[[request]]\nexpect = {{ affinity = 'firm' }}": (
        f"`expect.affinity` in {REQUEST} must be `hard`, `soft` or `none`, not `firm`",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\nexpect = {{ at_least = 2, at_most = 1 }}": (
        f"`expect` in {REQUEST}: has an `at_least` above its `at_most`",
        ELSEWHERE,
    ),
    f"{WORK}{HOME}[[request]]\nexpect = {{ sent = ['work', 'hom'] }}": (
        f"`expect.sent` in {REQUEST} names no account of the scenario: `hom`",
        "did you mean `home`?",
    ),
    f"{WORK}[[restart]]": (
        "`[[restart]]` 1 of `f.toml`: takes one of `at` and `after`",
        ELSEWHERE,
    ),
    f"{WORK}[[request]]\n[[restart]]\nafter = 2": (
        "`after` in `[[restart]]` 1 of `f.toml` must be the number of a request, not `2`",
        "the last request is 1",
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_says_where_and_how(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario_file(text, "f.toml")
    assert (str(caught.value), caught.value.hint) == BROKEN[text]


def test_the_mock_reads_its_part_of_the_same_file() -> None:
    [rule] = parse_scenario(FULL, "full.toml").rules
    assert rule.account == "work"


def test_a_rule_for_an_account_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="names no account of the scenario: `wrk`") as caught:
        parse_scenario(f'{WORK}[[upstream]]\non = "turn"\naccount = "wrk"', "f.toml")
    assert caught.value.hint == "did you mean `work`?"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_says_what_it_shows_and_what_it_expects(file: Path) -> None:
    text = file.read_text("utf-8")
    scenario = parse_scenario_file(*read_scenario(file))
    assert text.startswith("# ")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert scenario.title != file.name
    assert all(request.expect != RequestExpectation() for request in scenario.requests)
    assert scenario.requests


def test_the_examples_are_numbered_in_order_of_reading() -> None:
    numbers = [int(file.name.partition("-")[0]) for file in EXAMPLES]
    assert numbers == list(range(1, len(EXAMPLES) + 1))
    assert len(numbers) >= 12


def test_a_file_is_known_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"{WORK}[[request]]")
    assert parse_scenario_file(*read_scenario(file)).title == "mine.toml"
    with pytest.raises(ConfigError, match=r"cannot read the scenario `.*none\.toml`"):
        read_scenario(tmp_path / "none.toml")
