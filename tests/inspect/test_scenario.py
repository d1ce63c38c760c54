from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Availability, Standing
from codexlb_cli.inspect.scenario import Happening, Report, Result, check, document, report, text
from codexlb_cli.inspect.scenario_file import STARTS_AT, parse_scenario_file

FILE = """
title = "A session survives 1011"

[[account]]
name = "work"
expect = { state = "ready" }

[[account]]
name = "home"
expect = { state = "limited", reason = "usage_limit_reached" }

[[request]]
session = "s1"

[request.expect]
status = 200
outcome = "response.completed"
account = "work"
attempts = 2
affinity = "hard"
dialled = ["work", "work"]
sent = ["work", "work"]
at_least = 0.1
at_most = 0.3

[[request]]
expect = { status = 429, retry_after = 7, sent = [] }
"""
SCENARIO = parse_scenario_file(FILE, "f.toml")

TIMELINE = (
    Happening(0.0, 1, None, "asks with session-id s1"),
    Happening(0.0, 1, "work", "dialled", "policy"),
    Happening(0.0, 1, "work", "response.create sent"),
    Happening(0.0, 1, "work", "closed with 1011", "internal_error"),
    Happening(0.25, 1, "work", "dialled again", "hard_affinity_keeps_owner"),
    Happening(0.25, 1, None, "200 response.completed, 2 attempts"),
    Happening(12.5, None, None, "the gateway is killed and started again"),
)
FIRST = Result(
    number=1,
    status=200,
    outcome="response.completed",
    account="work",
    attempts=2,
    affinity="hard",
    dialled=("work", "work"),
    sent=("work", "work"),
    retry_after=None,
    seconds=0.1 + 0.2,  # a little more than 0.3
)
SECOND = replace(
    FIRST, number=2, status=429, outcome="rate_limit_exceeded", sent=(), retry_after=7, seconds=0.0
)
STANDINGS = {
    "work": Standing(Availability.READY),
    "home": Standing(Availability.LIMITED, "usage_limit_reached", STARTS_AT + 3600),
}


def played(*results: Result, **standings: Standing) -> Report:
    return report(SCENARIO, TIMELINE, results, STANDINGS | standings, 12.5)


def unmet(*results: Result, **standings: Standing) -> list[tuple[str, str, Any, Any]]:
    found = check(SCENARIO, results, STANDINGS | standings)
    assert len(found) == 15 + sum(e.name == "ended" for e in found)
    return [(e.subject, e.name, e.expected, e.found) for e in found if not e.met]


def test_what_was_expected_is_met() -> None:
    assert unmet(FIRST, SECOND) == []
    assert played(FIRST, SECOND).met


def test_what_is_otherwise_is_named_with_both_values() -> None:
    other = replace(FIRST, status=502, account=None, affinity="soft", sent=("work",), seconds=0.5)
    assert unmet(other, replace(SECOND, retry_after=None)) == [
        ("request 1", "status", 200, 502),
        ("request 1", "account", "work", None),
        ("request 1", "affinity", "hard", "soft"),
        ("request 1", "sent", ["work", "work"], ["work"]),
        ("request 1", "at_most", 0.3, 0.5),
        ("request 2", "retry_after", 7, None),
    ]
    assert unmet(replace(FIRST, seconds=0.05), SECOND) == [("request 1", "at_least", 0.1, 0.05)]


def test_an_account_that_stands_otherwise() -> None:
    cooling = Standing(Availability.COOLING_DOWN, "internal_error", STARTS_AT)
    assert unmet(FIRST, SECOND, work=cooling) == [
        ("account work", "state", "ready", "cooling_down")
    ]
    other = Standing(Availability.LIMITED, "rate_limit_exceeded", STARTS_AT)
    assert unmet(FIRST, SECOND, home=other) == [
        ("account home", "reason", "usage_limit_reached", "rate_limit_exceeded")
    ]


def test_a_request_that_never_ended_meets_nothing() -> None:
    (ended, *others) = unmet(FIRST)
    assert ended == ("request 2", "ended", True, False)
    assert {(subject, found) for subject, _, _, found in others} == {("request 2", None)}
    assert not played(FIRST).met


def test_the_document_has_these_fields() -> None:
    shown = json.loads(json.dumps(document(played(FIRST, replace(SECOND, status=200)))))
    assert set(shown) == {
        "schema", "title", "seconds", "timeline", "requests", "accounts", "expectations", "met",
    }  # fmt: skip
    assert shown["schema"] == "codexlb.simulate.scenario/1"
    assert (shown["title"], shown["seconds"]) == ("A session survives 1011", 12.5)
    assert shown["timeline"][0] == {
        "at": 0.0, "request": 1, "account": None, "what": "asks with session-id s1", "why": None,
    }  # fmt: skip
    assert shown["requests"][0] == {
        "number": 1,
        "status": 200,
        "outcome": "response.completed",
        "account": "work",
        "attempts": 2,
        "affinity": "hard",
        "dialled": ["work", "work"],
        "sent": ["work", "work"],
        "retry_after": None,
        "seconds": 0.3,
    }
    assert shown["accounts"] == [
        {"name": "work", "state": "ready", "reason": None, "until": None},
        {
            "name": "home",
            "state": "limited",
            "reason": "usage_limit_reached",
            "until": "2026-01-01T01:00:00Z",
        },
    ]
    assert shown["expectations"][0] == {
        "subject": "request 1", "name": "status", "expected": 200, "found": 200, "met": True,
    }  # fmt: skip
    assert [e["met"] for e in shown["expectations"]].count(False) == 1
    assert shown["met"] is False


def test_the_text_of_a_scenario_that_went_as_expected() -> None:
    assert text(played(FIRST, SECOND)) == (
        """\
A session survives 1011. Played on a clock of its own, 12.5 s; no socket was opened.

TIME    REQUEST  ACCOUNT  WHAT                                     WHY
 0.000  1        -        asks with session-id s1
 0.000  1        work     dialled                                  policy
 0.000  1        work     response.create sent
 0.000  1        work     closed with 1011                         internal_error
 0.250  1        work     dialled again                            hard_affinity_keeps_owner
 0.250  1        -        200 response.completed, 2 attempts
12.500  -        -        the gateway is killed and started again

EXPECT  all 15 met"""
    )


def test_the_text_names_what_is_not_met() -> None:
    shown = text(played(replace(FIRST, account="home", sent=("work", "home")), SECOND))
    assert shown.split("EXPECT  ")[1] == (
        """\
13 of 15 met

  SUBJECT    NAME     EXPECTED    FOUND
  request 1  account  work        home
  request 1  sent     work, work  work, home"""
    )


def test_a_file_without_expectations_says_so() -> None:
    scenario = parse_scenario_file('[[account]]\nname = "work"\n[[request]]', "f.toml")
    shown = text(report(scenario, [], [FIRST], {}, 0.0))
    assert shown.endswith("EXPECT  nothing; the file has no `expect`")
    assert shown.startswith("f.toml. Played on a clock of its own, 0 s;")


words = st.text(st.characters(codec="utf-8"), max_size=200)
names = st.text("abc-", min_size=1, max_size=32)
happenings = st.builds(
    Happening,
    at=st.floats(0, 1e7),
    request=st.none() | st.integers(1, 999),
    account=st.none() | names,
    what=words,
    why=words,
)


@given(st.lists(happenings, max_size=4), st.lists(names, max_size=30))
def test_the_text_is_ascii_and_fits_whatever_comes(
    timeline: list[Happening], accounts: list[str]
) -> None:
    result = replace(FIRST, dialled=tuple(accounts), outcome="x" * 90)
    shown = text(report(SCENARIO, timeline, [result, SECOND], STANDINGS, 1.0))
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) < 100
    assert all(line == line.rstrip() for line in shown.splitlines())
