"""Keeps what became of each scenario, for the table in `docs/conformance.md`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

RESULTS = os.environ.get("CLIENTS_RESULTS", "")
"""The file that is written: whether a scenario passed, by its id."""


class Results:
    """Collects the outcome of the tests that name a scenario."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._passed: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, scenario in report.user_properties:
            if name == "conformance":
                key = str(scenario)
                self._passed[key] = self._passed.get(key, True) and report.passed

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._passed, indent=1) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist report to their controller.
    if RESULTS and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(Path(RESULTS)))
