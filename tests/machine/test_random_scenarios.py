"""Scenarios that nobody wrote: whatever the upstream does, the promises hold.

Each is played by the production gateway against the mock upstream, in memory, on a virtual clock.
Faults are finite, so that at the end every conversation must be served again.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from codexlb_cli.commands.rehearsal import rehearse
from codexlb_cli.inspect.scenario import CLIENT_LEFT, Report, Result
from codexlb_cli.inspect.scenario_client import LOST
from codexlb_cli.inspect.scenario_file import Scenario, parse_scenario_file
from codexlb_cli.mock_upstream.scenario import parse_scenario

NAMES = ("work", "home", "spare")
TOTAL_SECONDS = 240.0
LATER_SECONDS = 100_000.0
"""Every limit, cooldown and learned fact is over by then."""
LAST_REQUESTS = 18
"""So many turns of one session use up every fault that can strike it."""

codes = st.sampled_from(
    [1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 3008, 4000]
)
errors = st.sampled_from(
    [
        {"status": 429, "code": "rate_limit_exceeded", "headers": {"retry-after": "2"}},
        {"status": 429, "code": "rate_limit_exceeded", "headers": {"retry-after": "30"}},
        {"status": 429, "code": "rate_limit_exceeded"},
        {"status": 429, "type": "usage_limit_reached", "resets_in_seconds": 7200},
        {"status": 503, "code": "server_is_overloaded"},
        {"status": 500},
        {"status": 400, "code": "invalid_value"},
        {"status": 400, "code": "websocket_connection_limit_reached"},
        {"status": 404, "code": "model_not_found"},
        {"code": "server_error"},
    ]
)
turn_faults: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda code, when: {"close": code, "when": when}, codes,
              st.sampled_from(["before_created", "created", "streaming", "idle"])),
    st.builds(lambda error: {"error": error}, errors),
    st.just({"silence": True}),
    st.just({"silence": True, "pong": False}),
    st.just({"silence": True, "when": "streaming"}),
    st.just({"failed": {"code": "server_error"}}),
    st.just({"send": ["no JSON"]}),
    st.just({"binary": True}),
    st.just({"delay": 3.0, "delta_delay": 0.5}),
)  # fmt: skip
handshake_faults: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([403, 429, 500, 503, 404, 426, 302]).map(lambda status: {"status": status}),
    st.just({"status": 429, "headers": {"retry-after": "5"}}),
    st.just({"silence": True}),
    st.just({"cut": True}),
    st.just({"delay": 4.0}),
)
who = st.fixed_dictionaries(
    {"times": st.integers(1, 3), "skip": st.integers(0, 2)},
    optional={"account": st.sampled_from(NAMES)},
)
rules = st.one_of(
    st.builds(lambda fault, whom: {"on": "turn", **whom, **fault}, turn_faults, who),
    st.builds(lambda fault, whom: {"on": "handshake", **whom, **fault}, handshake_faults, who),
)
accounts = st.fixed_dictionaries(
    {}, optional={"transport": st.sampled_from(["auto", "websocket", "http"])}
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "session": st.sampled_from(["s1", "s2"]),
        "cache_key": st.just("k1"),
        "at": st.sampled_from([0.0, 0.1, 1.0, 40.0, 300.0]),
        "stream": st.booleans(),
        "store": st.booleans(),
        "tools": st.just(["mcp"]),
        "leave": st.sampled_from([0.0, 0.2, 50.0]),
    },
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{k}" = {toml(v)}' for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def tables(name: str, rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"[[{name}]]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in row.items())
        for row in rows
    )


@st.composite
def upstreams(draw: st.DrawFn) -> str:
    """The accounts, and what their upstream does."""
    names = NAMES[: draw(st.integers(1, 3))]
    upstream = [
        rule for rule in draw(st.lists(rules, max_size=5)) if rule.get("account") in (None, *names)
    ]
    table = tables("account", [{"name": name} | draw(accounts) for name in names])
    return f"{table}\n{tables('upstream', upstream)}"


@st.composite
def scenarios(draw: st.DrawFn) -> str:
    parts = [draw(upstreams())]
    asked = draw(st.lists(requests, min_size=1, max_size=5))
    asked += [{"session": "s1", "at": LATER_SECONDS + 8000.0 * n} for n in range(LAST_REQUESTS)]
    parts.append(tables("request", asked))
    if draw(st.booleans()):
        parts.append(tables("restart", [{"at": draw(st.sampled_from([0.05, 0.5, 60.0]))}]))
    return "\n".join(parts) + "\n"


def played(text: str) -> Report:
    scenario: Scenario = parse_scenario_file(text, "random.toml")
    return rehearse(scenario, parse_scenario(text, "random.toml"))


@given(scenarios())
@settings(max_examples=120, deadline=None)
def test_the_promises_hold_in_every_scenario(text: str) -> None:
    report = played(text)
    note(text)
    note("\n".join(map(str, report.timeline)))
    requests = report.scenario.requests
    assert len(report.results) == len(requests), "a request never ended"
    for request, result in zip(requests, report.results, strict=True):
        check_result(result, acts=bool(request.tools))
    assert report.results[-1].status == 200, "a conversation stays dead"


def check_result(result: Result, *, acts: bool) -> None:
    assert len(result.sent) <= 2, "sent again more than once"
    assert len(result.sent) <= 1 or not acts, "what hosted tools did was done twice"
    assert " terminal events" not in result.outcome, result
    if result.outcome not in (CLIENT_LEFT, LOST):
        assert result.status is not None
        assert result.status not in (401, 403), "an upstream's word about its account"
    first_event_in_time = TOTAL_SECONDS + 1.0
    assert len(result.sent) == 0 or result.seconds <= first_event_in_time + 910.0
    if result.status is not None and result.status >= 400:
        assert result.seconds <= first_event_in_time
