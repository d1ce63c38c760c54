"""The page of the documentation is that of these scenarios; needs none of the clients."""

from __future__ import annotations

import pytest

from tests.clients.conformance.environments import CLIENTS, HERE
from tests.clients.conformance.scenarios import SCENARIOS
from tests.clients.conformance.table import PAGE, outcome, renewed, table

ALL = {scenario.id: True for scenario in SCENARIOS}


def test_the_page_has_every_scenario_and_no_other() -> None:
    text = PAGE.read_text("utf-8")
    rows = text.count("**failed**")
    passed = {s.id: f"| {s.transport} | {s.name} | **failed** |" not in text for s in SCENARIOS}
    assert list(passed.values()).count(False) <= rows
    assert renewed(text, passed) == text, "run: make test-clients"


def test_a_failure_is_said() -> None:
    first = SCENARIOS[0]
    text = table(ALL | {first.id: False})
    assert f"| {first.transport} | {first.name} | **failed** |" in text
    assert "**failed**" not in table(ALL)
    different = next(scenario for scenario in SCENARIOS if scenario.why)
    assert outcome(different, passed=True) == f"differs as meant: {different.why}"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        renewed("no table here", ALL)


def test_every_client_is_driven_and_has_scenarios() -> None:
    assert {scenario.client for scenario in SCENARIOS} == set(CLIENTS)
    for client in CLIENTS.values():
        assert (HERE / "drivers" / client.driver).is_file()
        assert client.version[0].isdigit()
