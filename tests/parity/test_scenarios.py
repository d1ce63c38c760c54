"""What `simulate scenario` plays is what happens: every example, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codexlb_cli.commands.rehearsal import rehearse
from codexlb_cli.inspect.scenario import Report, Result
from codexlb_cli.inspect.scenario_file import parse_scenario_file
from codexlb_cli.mock_upstream.scenario import parse_scenario
from tests.support.cli import ROOT
from tests.support.scenarios import Played, Seen, play_with_sockets

EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))

EXACT_SECONDS = 0.001
START_SECONDS = 0.02
"""A gateway takes a few milliseconds of virtual time to start, and who comes then waits for it."""


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_play_the_same_over_sockets(tmp_path: Path, file: Path) -> None:
    text = file.read_text()
    assert differences(*both(text, file.name, tmp_path)) == []


def test_what_differs_is_found(tmp_path: Path) -> None:
    """Else the comparison would prove nothing."""
    told = """
    [[account]]
    name = "work"
    [[account]]
    name = "home"
    [[upstream]]
    on = "turn"
    times = 1
    close = 1011
    [[request]]
    session = "s1"
    """
    simulated, _ = both(told, "told.toml", tmp_path / "told")
    other = told.replace("close = 1011", 'error = { code = "rate_limit_exceeded", status = 429 }')
    _, played = both(other, "other.toml", tmp_path / "other")
    found = {text.partition(": simulated")[0] for text in differences(simulated, played)}
    assert found == {
        "request 1: account", "request 1: dialled", "request 1: seconds", "request 1: sent",
        "request 1: steps", "work: reason", "work: state", "work: until", "the end", "all dialled",
        "all sent",
    }  # fmt: skip


def both(text: str, name: str, folder: Path) -> tuple[Report, Played]:
    scenario, script = parse_scenario_file(text, name), parse_scenario(text, name)
    return rehearse(scenario, script), play_with_sockets(scenario, script, folder)


def differences(simulated: Report, played: Played) -> list[str]:
    """Return in words where the simulation says something else than what happened."""
    found = [f"warned: {warning}" for warning in played.warnings]
    exact = not simulated.scenario.restarts
    results = {result.number: result for result in simulated.results}
    found += _differs("requests", sorted(results), sorted(played.seen))
    for number in results.keys() & played.seen.keys():
        told = [h.why for h in simulated.timeline if h.request == number][-1]
        subject = f"request {number}: "
        seen = played.seen[number]
        found += [subject + text for text in _of_request(results[number], told, seen, exact=exact)]
    for name, known in simulated.standings.items():
        real = played.standings[name]
        found += _differs(f"{name}: state", known.state, real.state)
        found += _differs(f"{name}: reason", known.reason, real.reason)
        if known.until is None or real.until is None:
            found += _differs(f"{name}: until", known.until, real.until)
        else:
            found += _timed(f"{name}: until", known.until, real.until, exact=exact)
    # In parallel, what falls in the same moment has no order.
    dialled = [name for result in simulated.results for name in result.dialled]
    sent = [name for result in simulated.results for name in result.sent]
    found += _differs("all dialled", sorted(dialled), sorted(played.dialled))
    found += _differs("all sent", sorted(sent), sorted(played.sent))
    found += _timed("the end", simulated.seconds, played.seconds, exact=exact)
    return found


def _of_request(result: Result, told: str, seen: Seen, *, exact: bool) -> Iterator[str]:
    yield from _differs("status", result.status, seen.status)
    yield from _differs("outcome", result.outcome, seen.outcome)
    yield from _differs("account", result.account, seen.account)
    yield from _differs("retry_after", result.retry_after, seen.retry_after)
    yield from _timed("seconds", result.seconds, seen.seconds, exact=exact)
    if seen.sent is not None:
        yield from _differs("sent", result.sent, seen.sent)
    if seen.attempts is not None:
        yield from _differs("attempts", result.attempts, seen.attempts)
    if seen.affinity is not None:
        yield from _differs("affinity", result.affinity, seen.affinity)
        yield from _differs("steps", told, seen.steps)
    if seen.alone:
        yield from _differs("dialled", result.dialled, seen.dialled)


def _differs(what: str, simulated: object, real: object) -> Iterator[str]:
    if simulated != real:
        yield f"{what}: simulated {simulated!r}, over sockets {real!r}"


def _timed(what: str, simulated: float, real: float, *, exact: bool) -> Iterator[str]:
    if abs(simulated - real) > (EXACT_SECONDS if exact else START_SECONDS):
        yield f"{what}: simulated {simulated:.6f}, over sockets {real:.6f}"
