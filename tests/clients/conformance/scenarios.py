"""All scenarios, in the order of the table."""

from __future__ import annotations

from tests.clients.conformance import openai_python
from tests.clients.conformance.scenario import Scenario

SCENARIOS: list[Scenario] = [*openai_python.SCENARIOS]
