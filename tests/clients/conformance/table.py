"""Writes the table of `docs/conformance.md` from what a run left behind.

Usage: python -m tests.clients.conformance.table RESULTS

After a run of some scenarios only, the page stays as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from tests.clients.conformance.environments import CLIENTS, ROOT
from tests.clients.conformance.scenario import Scenario
from tests.clients.conformance.scenarios import SCENARIOS

PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- from the last run -->\n", "<!-- end of the last run -->"


def table(passed: Mapping[str, bool]) -> str:
    """Return the generated part of the page.

    Args:
        passed: whether each scenario passed, by its id.
    """
    parts = [_summary(passed)]
    for name, group in groupby(SCENARIOS, lambda scenario: scenario.client):
        client = CLIENTS[name]
        rows = [(s.transport, s.name, outcome(s, passed=passed[s.id])) for s in group]
        parts.append(f"### {client.title} {client.version}")
        parts.append(_table(("transport", "scenario", "through the gateway"), rows))
    return "\n\n".join(parts)


def outcome(scenario: Scenario, *, passed: bool) -> str:
    """Return the last cell of a scenario's row."""
    if not passed:
        return "**failed**"
    return f"differs as meant: {scenario.why}" if scenario.why else "the same"


def renewed(text: str, passed: Mapping[str, bool]) -> str:
    """Return the text of the page with the table of this run.

    Raises:
        ValueError: it lacks the markers.
    """
    before, found, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found and found_end):
        raise ValueError(f"{PAGE.name} lacks its markers")
    return f"{before}{BEGIN}\n{table(passed)}\n\n{END}{after}"


def _summary(passed: Mapping[str, bool]) -> str:
    rows = []
    for name, group in groupby(SCENARIOS, lambda scenario: scenario.client):
        scenarios, client = list(group), CLIENTS[name]
        transports = ", ".join(dict.fromkeys(s.transport for s in scenarios))
        good = [s for s in scenarios if passed[s.id]]
        same = sum(not s.why for s in good)
        counts = (str(same), str(len(good) - same), str(len(scenarios) - len(good)))
        rows.append((client.title, client.version, transports, *counts))
    heads = ("client", "version", "transports", "the same", "differs as meant", "failed")
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: Sequence[str]) -> int:
    """Write the page if every scenario was run."""
    (file,) = argv
    passed: dict[str, bool] = json.loads(Path(file).read_text())
    missing = [scenario.id for scenario in SCENARIOS if scenario.id not in passed]
    if missing:
        some = f"{len(SCENARIOS) - len(missing)} of {len(SCENARIOS)} scenarios were run"
        sys.stderr.write(f"{some}; {PAGE.relative_to(ROOT)} stays as it is\n")
        return 0
    text = PAGE.read_text("utf-8")
    new = renewed(text, passed)
    if new != text:
        PAGE.write_text(new, "utf-8")
        sys.stderr.write(f"{PAGE.relative_to(ROOT)} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
