"""What `simulate scenario` prints: what happened, and whether it is what the file expects.

The player fills the values in; here they are compared and laid out, never decided.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from codexlb_cli.console import WIDTH, escape, iso_utc, table
from codexlb_cli.core.accounts import Standing
from codexlb_cli.inspect.layout import wrapped
from codexlb_cli.inspect.scenario_file import RequestExpectation, Scenario

SCHEMA = "codexlb.simulate.scenario/1"

CLIENT_LEFT = "client left"
"""The outcome of a request whose client did not wait for its end."""

_CLOCK_ERROR_SECONDS = 1e-6
"""Sums of waits such as 0.1 + 0.2 are not exact."""
_LEAST_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the timeline.

    Attributes:
        at: seconds on the scenario's clock.
        request: its number; None where no request is concerned, such as a restart.
        account: None where no account is concerned.
        what: what happened.
        why: the reason code or the words that explain it; empty where there is nothing to explain.
    """

    at: float
    request: int | None
    account: str | None
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request.

    Attributes:
        number: of the request, from 1.
        status: the HTTP status; None if the client left before there was one.
        outcome: the type of the terminal event, the code of the error, or `CLIENT_LEFT`.
        account: the account that the answer names; None if it names none.
        attempts: how often it was sent upstream.
        affinity: `hard`, `soft` or `none`.
        dialled: the accounts of its upgrades, in order.
        sent: the accounts that were sent its `response.create` or its POST, in order.
        retry_after: the header of that name, in seconds; None if there was none.
        seconds: from its start to its end, on the scenario's clock.
    """

    number: int
    status: int | None
    outcome: str
    account: str | None
    attempts: int
    affinity: str
    dialled: tuple[str, ...]
    sent: tuple[str, ...]
    retry_after: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of an `expect`, held against what was found.

    Attributes:
        subject: `request 1` or `account work`.
        name: the entry, such as `status`.
        found: None where there was nothing, such as no Retry-After.
    """

    subject: str
    name: str
    expected: Any
    found: Any
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A scenario that was played.

    Attributes:
        timeline: in the order of happening.
        results: in the order of the requests; one that never ended is missing.
        standings: how each account stands at the end, by name; `until` in seconds since the epoch.
        expectations: from `check`.
        seconds: what the scenario's clock shows at the end.
    """

    scenario: Scenario
    timeline: tuple[Happening, ...]
    results: tuple[Result, ...]
    standings: Mapping[str, Standing]
    expectations: tuple[Expectation, ...]
    seconds: float

    @property
    def met(self) -> bool:
        """Whether every expectation is met."""
        return all(expectation.met for expectation in self.expectations)


def report(
    scenario: Scenario,
    timeline: Sequence[Happening],
    results: Sequence[Result],
    standings: Mapping[str, Standing],
    seconds: float,
) -> Report:
    """Put together what the player saw, and check it."""
    expectations = check(scenario, results, standings)
    return Report(scenario, tuple(timeline), tuple(results), standings, expectations, seconds)


def check(
    scenario: Scenario, results: Sequence[Result], standings: Mapping[str, Standing]
) -> tuple[Expectation, ...]:
    """Hold what happened against the file: the requests first, then the accounts."""
    by_number = {result.number: result for result in results}
    found: list[Expectation] = []
    for number, request in enumerate(scenario.requests, 1):
        found += _of_request(f"request {number}", request.expect, by_number.get(number))
    for account in scenario.accounts:
        if account.expect is not None:
            known = standings.get(account.name)
            subject = f"account {account.name}"
            state = None if known is None else known.state.value
            found.append(_equal(subject, "state", account.expect.state.value, state))
            if account.expect.reason is not None:
                reason = None if known is None else known.reason
                found.append(_equal(subject, "reason", account.expect.reason, reason))
    return tuple(found)


def document(played: Report) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "schema": SCHEMA,
        "title": played.scenario.title,
        "seconds": _rounded(played.seconds),
        "timeline": [
            {
                "at": _rounded(happening.at),
                "request": happening.request,
                "account": happening.account,
                "what": happening.what,
                "why": happening.why or None,
            }
            for happening in played.timeline
        ],
        "requests": [_result(result) for result in played.results],
        "accounts": [
            {
                "name": name,
                "state": known.state.value,
                "reason": known.reason,
                "until": None if known.until is None else iso_utc(known.until),
            }
            for name, known in played.standings.items()
        ],
        "expectations": [
            {
                "subject": expectation.subject,
                "name": expectation.name,
                "expected": expectation.expected,
                "found": expectation.found,
                "met": expectation.met,
            }
            for expectation in played.expectations
        ],
        "met": played.met,
    }


def text(played: Report) -> str:
    """Return the answer for a person."""
    title = played.scenario.title
    end = "" if title.endswith((".", "!", "?")) else "."
    passed = f"{played.seconds:.3f}".rstrip("0").rstrip(".")
    opening = f"{title}{end} Played on a clock of its own, {passed} s; no socket was opened."
    return "\n\n".join((wrapped(opening), _timeline(played.timeline), _verdict(played)))


def _of_request(
    subject: str, expect: RequestExpectation, result: Result | None
) -> Iterator[Expectation]:
    if result is None:
        yield Expectation(subject, "ended", True, False, met=False)
    for name in RequestExpectation.model_fields:
        expected = getattr(expect, name)
        if expected is None:
            continue
        if name in ("at_least", "at_most"):
            yield _timed(subject, name, expected, result)
            continue
        found = None if result is None else getattr(result, name)
        yield _equal(subject, name, _plain(expected), _plain(found))


def _equal(subject: str, name: str, expected: Any, found: Any) -> Expectation:
    return Expectation(subject, name, expected, found, expected == found)


def _timed(subject: str, name: str, expected: float, result: Result | None) -> Expectation:
    if result is None:
        return Expectation(subject, name, expected, None, met=False)
    over = result.seconds - expected
    met = over >= -_CLOCK_ERROR_SECONDS if name == "at_least" else over <= _CLOCK_ERROR_SECONDS
    return Expectation(subject, name, expected, _rounded(result.seconds), met)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: an array for a tuple, a string for an enumeration."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str) else value


def _rounded(seconds: float) -> float:
    return round(seconds, 6)


def _result(result: Result) -> dict[str, Any]:
    return {
        "number": result.number,
        "status": result.status,
        "outcome": result.outcome,
        "account": result.account,
        "attempts": result.attempts,
        "affinity": result.affinity,
        "dialled": list(result.dialled),
        "sent": list(result.sent),
        "retry_after": result.retry_after,
        "seconds": _rounded(result.seconds),
    }


def _timeline(timeline: Sequence[Happening]) -> str:
    times = [f"{happening.at:.3f}" for happening in timeline]
    width = max(map(len, times), default=0)
    return _wide_table(
        ("TIME", "REQUEST", "ACCOUNT", "WHAT", "WHY"),
        [
            (
                time.rjust(width),
                "-" if happening.request is None else str(happening.request),
                happening.account or "-",
                happening.what,
                happening.why,
            )
            for time, happening in zip(times, timeline, strict=True)
        ],
    )


def _verdict(played: Report) -> str:
    expectations = played.expectations
    if not expectations:
        return "EXPECT  nothing; the file has no `expect`"
    unmet = [expectation for expectation in expectations if not expectation.met]
    if not unmet:
        return f"EXPECT  all {len(expectations)} met"
    rows = [(e.subject, e.name, _shown(e.expected), _shown(e.found)) for e in unmet]
    lines = _wide_table(("SUBJECT", "NAME", "EXPECTED", "FOUND"), rows, indent=2)
    return f"EXPECT  {len(expectations) - len(unmet)} of {len(expectations)} met\n\n{lines}"


def _wide_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0) -> str:
    """Lay out rows whose last two columns may be long: each is wrapped under itself."""
    lines = [[escape(cell) for cell in row] for row in rows]
    fixed = zip(headers[:-2], *(line[:-2] for line in lines), strict=True)
    room = WIDTH - indent - sum(max(map(len, column)) + 2 for column in fixed)
    longest = max((len(line[-2]) for line in lines), default=0)
    first = min(longest, max(_LEAST_COLUMNS, room * 3 // 5))
    second = max(_LEAST_COLUMNS, room - first - 2)
    wrapped_rows: list[tuple[str, ...]] = []
    for *cells, left, right in lines:
        pairs = zip_longest(_lines(left, first), _lines(right, second), fillvalue="")
        for number, pair in enumerate(pairs):
            wrapped_rows.append((*(cells if number == 0 else [""] * len(cells)), *pair))
    return table(headers, wrapped_rows, indent=indent)


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False) or [""]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
