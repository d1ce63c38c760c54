"""`inspect route` for a person: what `route` decided, in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from codexlb_cli.console import duration, escape, table
from codexlb_cli.core.accounts import FRESH, Availability
from codexlb_cli.core.plan import Plan
from codexlb_cli.core.requests import model_of
from codexlb_cli.core.selection import Pool, Reason, Verdict
from codexlb_cli.inspect.handshake import decision_count, header_table, shown_metadata
from codexlb_cli.inspect.inputs import shown_key
from codexlb_cli.inspect.layout import shortened, wrapped
from codexlb_cli.inspect.route import (
    Asked,
    Route,
    Sent,
    dropped_members,
    frame_members,
)

_KEY_WIDTH = 44

_STARTS = {
    "unkeyed": "the request names no conversation, so any account may serve",
    "first_turn": "nobody owns its conversation yet, so any account may serve, and owns it then",
    "owner": "the owner of its conversation",
    "owner_is_waited_for": "the owner of its conversation, after a wait",
    "owner_cannot_serve": "its owner cannot serve now; the next turn goes home",
    "owner_keeps_failing": "its owner keeps failing, so the conversation moves",
    "account_failed": "the account of its owner failed",
    "unknown_response": "nobody is known to store the previous response, so each is asked",
    "full": "as many turns are in flight as may be, so it waits in line",
    "no_accounts": "no account is enabled",
}


def text(route: Route, source: str) -> str:
    """Return the answer for a person.

    Args:
        route: what `routed` returned.
        source: where the request comes from, in words.
    """
    parts = [wrapped(f"Dry run, nothing was sent. Request: {source}{_summary(route.asked)}.")]
    if route.asked is not None:
        parts += [*_evidence(route.asked), _affinity(route.asked)]
    if route.error is not None:
        error = route.error
        parts.append(wrapped(f"REFUSED  {error.status} {error.code}: {error.message}"))
    if route.asked is not None and route.asked.evidence.anchored and route.plan is None:
        parts.append("A running gateway may still have the socket that made it.")
    if route.plan is not None:
        parts += _plan(route, route.plan)
    if route.asked is not None and route.sent is not None:
        parts += [
            *_handshake(route.asked, route.sent),
            *_frame(route.asked, route.sent),
            _chances(route.asked),
        ]
    return "\n\n".join(parts)


def _summary(asked: Asked | None) -> str:
    if asked is None:
        return ""
    stored = "not stored" if asked.body.get("store") is False else "stored"
    streamed = "streamed" if asked.stream else "answered as a whole"
    return f"; model {model_of(asked.body) or '(none)'}, {streamed}, {stored} upstream"


def _evidence(asked: Asked) -> Iterator[str]:
    yield "EVIDENCE  what says where the turn belongs, the strongest first"
    if not asked.ownership.witnesses:
        yield "  The request names no response, conversation, file, session or cache key."
        return
    rows = [
        (
            witness.key.source,
            shortened(escape(shown_key(witness.key)), _KEY_WIDTH),
            witness.owner or "-",
            witness.role,
        )
        for witness in asked.ownership.witnesses
    ]
    yield table(("SOURCE", "KEY", "OWNER", "ROLE"), rows, indent=2)


def _affinity(asked: Asked) -> str:
    facts, source = asked.facts, asked.ownership.key.source
    if source == "none":
        return "AFFINITY  none: every turn like this one is free"
    owner = f"owned by {facts.owner}" if facts.owner else "not owned yet"
    return wrapped(f"AFFINITY  {facts.strength.value}, by its {source}, {owner}")


def _plan(route: Route, plan: Plan) -> Iterator[str]:
    wait = f"after {duration(plan.wait_seconds)}" if plan.wait_seconds > 0 else "at once"
    where = "nobody" if route.account is None or plan.error else f"{route.account}, {wait}"
    moved = f" It leaves {plan.moved_from}." if plan.moved_from else ""
    yield wrapped(f"PLAN  {where} ({plan.reason}): {_STARTS[str(plan.reason)]}.{moved}")
    if plan.verdicts:
        yield table(
            ("", "ACCOUNT", "VERDICT", "REASON"),
            [_verdict(rank, verdict, route) for rank, verdict in enumerate(plan.verdicts, 1)],
            indent=2,
        )


def _verdict(rank: int, verdict: Verdict, route: Route) -> tuple[str, ...]:
    tried = verdict.verdict != "excluded"
    reason = str(verdict.reason)
    if verdict.until is not None:
        reason += f", {duration(verdict.until - route.offline.pool.now)} left"
    if why := ", ".join(_why(verdict, route.offline.pool)):
        reason += f" ({why})"
    if tried and not verdict.credential_present:
        reason += f" ({route.offline.problems[verdict.account].replace('`', '')})"
    return (str(rank) if tried else "-", verdict.account, verdict.verdict, reason)


def _why(verdict: Verdict, pool: Pool) -> Iterator[str]:
    """Yield what lies behind a verdict: which limit, or what the policy went by."""
    known, account = pool.standing_of(verdict.account), pool.account(verdict.account)
    if verdict.reason == Availability.LIMITED and known is not None and known.reason:
        yield known.reason
    if verdict.reason != Reason.POLICY or account is None:
        return
    if verdict.verdict == "picked":
        yield pool.policy
    limits = pool.states.get(account.name, FRESH).limits
    for name, window in limits.windows:
        left = math.floor(100 - window.used(pool.now))
        yield f"{left} % of its {window.label(name)} left"
    if account.priority:
        yield f"priority {account.priority}"
    if account.weight != 1:
        yield f"weight {account.weight:g}"


def _handshake(asked: Asked, sent: Sent) -> Iterator[str]:
    handshake = sent.handshake
    if asked.background:
        yield wrapped(f"UPSTREAM REQUEST  background responses take HTTP: POST {handshake.url}")
    elif sent.transport == "http":
        yield wrapped(f"UPSTREAM REQUEST  the account has no WebSocket: POST {handshake.url}")
    else:
        yield wrapped(
            f"UPSTREAM HANDSHAKE  unless a socket of its lane is open: GET {handshake.url}"
        )
    yield header_table(handshake)
    yield wrapped(
        f"Client headers: {decision_count(handshake)} `codexlb inspect handshake` says why."
    )


def _frame(asked: Asked, sent: Sent) -> Iterator[str]:
    what = "BODY  as it came" if asked.background else "FRAME  response.create"
    yield f"{what}, {len(sent.frame.encode())} bytes"
    rows = [(name, kind, str(size)) for name, kind, size in frame_members(sent.frame)]
    yield table(("MEMBER", "TYPE", "BYTES"), rows, indent=2)
    said = []
    if asked.left_out:
        said.append(f"Left out, since responses have no such thing: {', '.join(asked.left_out)}.")
    if dropped := dropped_members(asked, sent):
        said.append(f"Left out, since it is for HTTP alone: {', '.join(dropped)}.")
    if moved := shown_metadata(sent.handshake):
        said.append(f"Moved from headers into client_metadata: {', '.join(moved)}.")
    if sent.dropped_reasoning:
        items = "item" if sent.dropped_reasoning == 1 else "items"
        said.append(f"Left out: {sent.dropped_reasoning} reasoning {items} of another account.")
    if said:
        yield wrapped(" ".join(said))


def _chances(asked: Asked) -> str:
    portable = "portable: nothing that it names lies in one account"
    if not asked.portable:
        portable = "not portable: what it names lies in one account"
    return f"REPLAY  {_replay(asked)}\nMOVE    {portable}"


def _replay(asked: Asked) -> str:
    if asked.replays == 0:
        return "never: `[reconnect] replays` is 0"
    if asked.acts:
        return "never: its hosted tools might act twice"
    if not asked.replayable:
        return "never: its previous response lives on one socket"
    if asked.background:
        return "once at most, where an account refused it with a 5xx"
    return "once at most, and only before response.created"
