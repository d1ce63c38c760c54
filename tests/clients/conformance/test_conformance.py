"""Real clients see through the gateway what they would see of the upstream itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conformance.comparing import complaints
from tests.clients.conformance.environments import FOLDER
from tests.clients.conformance.playing import play
from tests.clients.conformance.scenario import Scenario
from tests.clients.conformance.scenarios import SCENARIOS

if not FOLDER:
    pytest.skip("needs real clients: make test-clients", allow_module_level=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.id) for s in SCENARIOS])
def test_the_client_sees_the_same(
    scenario: Scenario, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("conformance", scenario.id)
    wrong = complaints(scenario, play(scenario, tmp_path))
    assert not wrong, "\n\n".join(wrong)
