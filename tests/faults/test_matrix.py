"""A sample of the fault matrix; `make test-faults` plays all of it."""

from __future__ import annotations

import pytest

from tests.faults.cells import AFFINITIES, cells, sample
from tests.faults.expected import expected
from tests.faults.report import summary, table
from tests.faults.running import Result, run_cells
from tests.faults.table import faults

PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_a_sample_of_the_matrix(part: int) -> None:
    results = run_cells(sample()[part::PARTS])
    failed = [str(result) for result in results if not result.passed]
    assert failed == []


def test_the_rules_speak_of_every_cell() -> None:
    labels = set()
    for cell in cells():
        assert expected(cell).endings
        labels.add(cell.label)
    assert len(labels) == len(cells())


def test_the_sample_holds_each_fault_in_every_circumstance() -> None:
    chosen = sample()
    assert {c.fault.name for c in chosen} == {c.fault.name for c in cells()}
    for affinity in AFFINITIES:
        assert sum(cell.affinity == affinity for cell in chosen) > len(chosen) / 50
    assert {c.accounts for c in chosen} == {"1", "2", "3", "limited", "disabled"}
    assert {c.client for c in chosen} == {"stream", "codex", "whole", "socket"}
    assert {c.fault.meaning for c in chosen if c.resends} == MEANINGS - {"network", "no_websocket"}
    assert {c.transport for c in chosen} == {"auto", "websocket", "http"}


def test_the_report_counts_and_names_what_failed() -> None:
    good, bad, known, socket = (cell for cell in cells() if cell.label in LABELS)
    results = [
        Result(good, (), None),
        Result(bad, ("it is broken",), None),
        Result(socket, (), None),
        Result(known, ("so they say",), "a defect"),
    ]
    text = table(results)
    assert [line.split() for line in text.splitlines()] == [
        ["over", "WebSocket", "sent"],
        ["hard", "soft"],
        ["close", "1011", "1/1", "0/1!"],
        ["close", "1012", "1/1*", "-"],
        [],
        ["over", "WebSocket,", "for", "WebSocket", "clients", "sent"],
        ["hard"],
        ["close", "1012", "1/1"],
    ]
    assert list(summary(results)) == [
        f"failed: {bad.label}: it is broken",
        "known: a defect (1 cells)",
        "3 of 4 cells as they should be",
    ]
    mended = Result(known, (), "a defect")
    assert not mended.passed
    assert "is mended: a defect" in str(mended)


MEANINGS = {fault.meaning for fault in faults()}
LABELS = {
    "close 1011 / sent / session / 1 / once / stream / auto",
    "close 1011 / sent / cache / 1 / once / stream / auto",
    "close 1012 / sent / session / 1 / once / stream / auto",
    "close 1012 / sent / none / 1 / once / socket / auto",
}
