"""All scenarios, in the order of the table."""

from __future__ import annotations

from tests.clients.conformance import (
    codex,
    openai_python,
    openai_python_websocket,
    other_clients,
)
from tests.clients.conformance.scenario import Scenario

SCENARIOS: list[Scenario] = [
    *codex.SCENARIOS,
    *openai_python.SCENARIOS,
    *openai_python_websocket.SCENARIOS,
    *other_clients.SCENARIOS,
]

_IDS = [scenario.id for scenario in SCENARIOS]
if len(_IDS) != len(set(_IDS)):
    raise ValueError(f"two scenarios share a name: {sorted(_IDS)}")
