"""What `simulate close` prints of the outcomes that `core.reconnect.after_close` decided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from codexlb_cli.console import duration, escape, iso_utc, table
from codexlb_cli.core.closes import CloseRow, ReconnectPolicy, close_row
from codexlb_cli.core.reconnect import Move, Outcome, Phase, Situation, Strength, after_close
from codexlb_cli.core.selection import Reason, Verdict
from codexlb_cli.inspect.layout import wrapped
from codexlb_cli.inspect.pool import OfflinePool

SCHEMA = "codexlb.simulate.close/1"

_WHEN = {
    Phase.IDLE: "while no turn is in flight",
    Phase.SENT: "after response.create and before response.created",
    Phase.CREATED: "after response.created and before output reached the client",
    Phase.STREAMING: "after output reached the client",
}

# Why nothing is tried, by what the client sees.
_WHY_NOT = {
    "upstream_closed": "a turn is never sent again once response.created has been received",
    "upstream_protocol_error": "a protocol fault is not cured by another account",
    "request_too_large": "every account would refuse a frame of this size",
    "upstream_unavailable": "the rules allow this turn no other attempt",
}
_NONE_USABLE = "none that may serve this turn can be used now"


@dataclass(frozen=True, slots=True)
class Question:
    """What to simulate.

    Attributes:
        code: the close code, 1000 to 4999; 1006 stands for no close frame.
        closed: the account whose socket closes; it owns hard and soft turns.
        phase: how far the turn has come.
        affinities: which strengths to ask for, in the order of the answer.
        replays: how often the turn's frame was sent again already.
        session: the session that was named; None if none was.
    """

    code: int
    closed: str
    phase: Phase
    affinities: tuple[Strength, ...]
    replays: int
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Simulation:
    """What follows a close, for each affinity that was asked for."""

    question: Question
    row: CloseRow
    outcomes: tuple[Outcome, ...]
    offline: OfflinePool

    @property
    def gives_up(self) -> bool:
        """Whether any outcome gives up."""
        return any(outcome.move is Move.GIVE_UP for outcome in self.outcomes)


def simulate(question: Question, offline: OfflinePool, policy: ReconnectPolicy) -> Simulation:
    """Run the close table against the accounts; nothing is sent or changed.

    Raises:
        ValueError: the code is not between 1000 and 4999.
    """
    row = close_row(question.code, policy)
    outcomes = (
        after_close(
            row,
            Situation(
                closed=question.closed,
                phase=question.phase,
                strength=strength,
                owner=None if strength is Strength.NONE else question.closed,
                replays=question.replays,
            ),
            offline.pool,
            policy,
        )
        for strength in question.affinities
    )
    return Simulation(question, row, tuple(outcomes), offline)


def document(simulation: Simulation) -> dict[str, Any]:
    """Return the document of `--json`."""
    question = simulation.question
    return {
        "schema": SCHEMA,
        "code": question.code,
        "phase": question.phase.value,
        "closed": question.closed,
        "session": question.session,
        "outcomes": [_outcome(outcome) for outcome in simulation.outcomes],
    }


def text(simulation: Simulation) -> str:
    """Return the answer for a person."""
    question, row = simulation.question, simulation.row
    parts = [
        wrapped(
            f"Simulated: the upstream closes the socket of {_whose(question)} with {question.code}"
            f" ({row.meaning}), {_WHEN[question.phase]}. Nothing was sent or changed."
        ),
        _summary(simulation.outcomes),
        *_explanations(simulation),
    ]
    if any(outcome.replay for outcome in simulation.outcomes):
        parts.append(
            "A turn is replayed at most once."
            " The client reads it in the header x-codexlb-attempts: 2."
        )
    return "\n\n".join(parts)


def _whose(question: Question) -> str:
    if question.session is None:
        return question.closed
    return f"{question.closed}, which owns the session {question.session},"


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "affinity": outcome.affinity.value,
        "owner": outcome.owner,
        "move": outcome.move.value,
        "account": outcome.account,
        "replay": outcome.replay,
        "delay_seconds": outcome.delay_seconds,
        "reason": str(outcome.reason),
        "client_sees": outcome.client_sees,
        "verdicts": [verdict_document(verdict) for verdict in outcome.verdicts],
    }


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as `--json` shows it."""
    return {
        "account": verdict.account,
        "verdict": verdict.verdict,
        "reason": str(verdict.reason),
        "until": None if verdict.until is None else iso_utc(verdict.until),
        "credential_present": verdict.credential_present,
    }


def _summary(outcomes: Iterable[Outcome]) -> str:
    return table(
        ("AFFINITY", "MOVE", "ACCOUNT", "REPLAY", "WAIT", "CLIENT SEES", "REASON"),
        [
            (
                outcome.affinity.value,
                outcome.move.value,
                outcome.account or "-",
                "yes" if outcome.replay else "no",
                _wait(outcome),
                outcome.client_sees,
                outcome.reason,
            )
            for outcome in outcomes
        ],
    )


def _wait(outcome: Outcome) -> str:
    if outcome.account is None:
        return "-"
    if outcome.delay_seconds == 0:
        return "none"
    return f"up to {math.ceil(outcome.delay_seconds * 100) / 100:g} s"


def _explanations(simulation: Simulation) -> Iterator[str]:
    """Explain each outcome; soft and unkeyed turns together where they fare alike."""
    groups = [
        list(group)
        for _, group in groupby(
            simulation.outcomes, lambda o: (o.affinity is Strength.HARD, o.client_sees, o.verdicts)
        )
    ]
    reasons = {_why_not(outcome) for outcome in simulation.outcomes}
    if len(reasons) == 1 and None not in reasons and not any(map(_short, simulation.outcomes)):
        yield wrapped(f"No account is tried: {reasons.pop()}.")
        return
    for group in groups:
        names = " and ".join(outcome.affinity.value for outcome in group)
        why_not = _why_not(group[0])
        if why_not is None:
            yield f"{names}: tried in this order\n{_verdicts(group, simulation)}"
        elif _short(group[0]):
            yield f"{names}: no account is tried, {why_not}\n{_verdicts(group, simulation)}"
        else:
            yield wrapped(f"{names}: no account is tried, {why_not}")


def _short(outcome: Outcome) -> bool:
    """Whether the accounts' states are why nothing is tried, so that they are worth a list."""
    return _why_not(outcome) == _NONE_USABLE


def _why_not(outcome: Outcome) -> str | None:
    if outcome.account is not None:
        return None
    return _WHY_NOT.get(outcome.client_sees, _NONE_USABLE)


def _verdicts(group: list[Outcome], simulation: Simulation) -> str:
    rows = []
    before = simulation.question.closed
    for rank, verdict in enumerate(group[0].verdicts, 1):
        tried = verdict.verdict != "excluded"
        rows.append(
            (
                str(rank) if tried else "-",
                verdict.account,
                verdict.verdict,
                verdict.reason,
                _detail(verdict, before, group, simulation),
            )
        )
        before = verdict.account
    # The table has no headings, so its first row stands where they would.
    return table([escape(cell) for cell in rows[0]], rows[1:], indent=2)


def _detail(verdict: Verdict, before: str, group: list[Outcome], simulation: Simulation) -> str:
    parts = []
    if verdict.verdict == "next":
        parts.append(f"if {before} cannot be dialled")
    elif words := _reason_in_words(verdict, group, simulation):
        parts.append(words)
    if verdict.reason != Reason.NOT_OWNER and (state := _state(verdict.account, simulation)):
        parts.append(state)
    detail = "; ".join(parts)
    if verdict.verdict != "excluded" and not verdict.credential_present:
        problem = simulation.offline.problems[verdict.account].replace("`", "")
        detail = f"{detail} ({problem})"
    return detail


def _reason_in_words(verdict: Verdict, group: list[Outcome], simulation: Simulation) -> str:
    closed = simulation.question.closed
    match verdict.reason:
        case Reason.OWNER if group[0].affinity is Strength.HARD:
            return "a close code never takes a session from its owner"
        case Reason.OWNER:
            idle = simulation.question.phase is Phase.IDLE
            return "the owner" if idle else "a soft turn stays with its owner after this code"
        case Reason.POLICY if verdict.account == closed:
            return "the same account again"
        case Reason.POLICY:
            return f"the first ready account after {closed}"
        case Reason.ONLY_USABLE_ACCOUNT:
            return "no other account can be used"
        case Reason.CLOSED if group[0].affinity is Strength.SOFT and simulation.offline.pool.usable(
            closed
        ):
            return "this turn only; a soft turn comes home next time"
        case Reason.CLOSED:
            return "this turn only"
    return ""


def _state(name: str, simulation: Simulation) -> str:
    """Say why the account is not ready, and for how long; nothing where the state says it all."""
    pool = simulation.offline.pool
    known = pool.standing_of(name)
    if known is None or known.reason is None or known.reason == known.state.value:
        return ""
    if known.until is None:
        return known.reason
    return f"{known.reason}, {duration(known.until - pool.now)} left"
