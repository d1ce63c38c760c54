"""Calls to accounts over HTTP: who is asked, in which order, and what the client is told.

A file, a stored response, a conversation: each lies in one account and nowhere else. What a call
names decides where it goes; `files`, `stored` and `passing` say which calls there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from codexlb_cli.core.client_errors import (
    ClientError,
    Shortage,
    nobody_can_serve,
    owner_unavailable,
    upstream_unavailable,
)
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.failures import CONNECTION_BROKE, Failure, Fault, parse
from codexlb_cli.core.ownership import Ownership
from codexlb_cli.core.plan import Plan, opening, with_models
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool, policy_reason, verdicts
from codexlb_cli.core.turn_events import TurnFacts

_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:-]{1,256}")
_NO_WAIT = ReconnectPolicy(on_account_failure="fail", wait_up_to=0.0)


class Call(Protocol):
    """A call, as an account gets it."""

    @property
    def method(self) -> str:
        """The method, upstream as downstream."""

    @property
    def path(self) -> str:
        """The path after an account's base URL, in the client's own percent-encoding."""

    @property
    def repeatable(self) -> bool:
        """Whether it does no harm if it is done twice (RFC 9110 section 9.2.2)."""

    @property
    def takes_body(self) -> bool:
        """Whether the client's body goes upstream."""

    @property
    def works(self) -> bool:
        """Whether the account may be silent for long because it works on it."""


def is_id(name: str) -> bool:
    """Whether `name` can be an id: it may stand in a path as it is.

    `.` and `..` would lead elsewhere (RFC 3986 section 5.2.4).
    """
    return _ID.fullmatch(name) is not None


# Where a call goes


@dataclass(frozen=True, slots=True)
class CallRoute:
    """Where a call goes, and why.

    Attributes:
        plan: the accounts to try, in order, or why there is none.
        owner: the account that has what the call names, or owns the session; None if any may do.
        asks: whether nobody knows who has it, so that a not-found leads to the next account.
        what: what the owner has, for a person.
    """

    plan: Plan
    owner: str | None = None
    asks: bool = False
    what: str = "this conversation"


def route_new(
    ownership: Ownership,
    pool: Pool,
    policy: ReconnectPolicy,
    deadline: float,
    *,
    portable: bool = True,
) -> CallRoute:
    """Say where something new goes: to the owner of its key, else where a first turn would.

    Args:
        ownership: of what the headers and the body name.
        pool: the accounts, as the call's model leaves them.
        policy: whether a session moves when its account fails, and how long it waits.
        deadline: until when it waits at the latest, seconds since the epoch.
        portable: whether the call may move with its session: nothing that it carries is for one
            account alone.
    """
    record = ownership.record
    facts = TurnFacts(
        strength=ownership.key.strength,
        owner=record.owner,
        bound=record.bound,
        portable=portable,
        asks=ownership.asks,
        hint=ownership.hint,
        deadline=deadline,
    )
    plan = opening(facts, with_models(_without_turns(pool), is_hard=facts.is_hard), policy)
    owner = record.owner if facts.is_hard and plan.moved_from is None else None
    return CallRoute(plan, owner=owner, asks=ownership.asks)


def route_known(
    owner: str, pool: Pool, policy: ReconnectPolicy, deadline: float, *, what: str
) -> CallRoute:
    """Say where a call goes if `owner` has what it names: there and nowhere else.

    Args:
        owner: the account.
        pool: the accounts.
        policy: how long an owner that is out of use is waited for.
        deadline: until when at the latest, seconds since the epoch.
        what: what it has, for a person: `this file`.
    """
    facts = TurnFacts(
        strength=Strength.HARD, owner=owner, bound=True, portable=False, deadline=deadline
    )
    plan = opening(facts, _without_turns(pool), policy)
    if plan.error is not None:
        plan = replace(plan, error=_naming(what, plan.error, owner, pool))
    return CallRoute(plan, owner=owner, what=what)


def route_unknown(pool: Pool) -> CallRoute:
    """Say who is asked for what nobody knows: the usable accounts, as configured."""
    return route_in_order(listed_accounts(pool), pool, asks=True)


def route_in_order(names: list[str], pool: Pool, *, asks: bool) -> CallRoute:
    """Say that these accounts are tried, in this order; all usable ones must be among them.

    Args:
        names: the accounts.
        pool: the accounts as they are now.
        asks: whether a not-found leads to the next.
    """
    plan = opening(TurnFacts(asks=True), _without_turns(pool), _NO_WAIT)
    if plan.error is not None:
        return CallRoute(plan)
    tried = [(name, policy_reason(pool, name)) for name in names]
    told = verdicts(_without_turns(pool), tried, {})
    return CallRoute(replace(plan, candidates=tuple(names), verdicts=told), asks=asks)


def listed_accounts(pool: Pool) -> list[str]:
    """Return the usable accounts in an order that cooldowns do not change: as configured."""
    able = _without_turns(pool)
    return [account.name for account in pool.accounts if able.usable(account.name)]


def _without_turns(pool: Pool) -> Pool:
    """An account that takes no more turns still takes calls."""
    return replace(pool, counts_turns=False)


# What an account answers

_ELSEWHERE = frozenset(
    {Fault.CREDENTIAL, Fault.FORBIDDEN, Fault.LIMIT, Fault.UPSTREAM, Fault.NETWORK}
)
_LEADS_ON = _ELSEWHERE | {Fault.TURN}
_TRANSPORT = frozenset({Fault.FORBIDDEN, Fault.UPSTREAM, Fault.NETWORK})


def refusal(status: int, body: object, headers: Mapping[str, object], now: float) -> Failure:
    """Turn an account's refusal into a failure.

    Args:
        status: its HTTP status; a redirect is a refusal, it would carry the credentials elsewhere.
        body: the decoded JSON body; None if it is none.
        headers: of the answer.
        now: seconds since the epoch.
    """
    # What 404 and 426 say of an upgrade they do not say here.
    return parse(status, body, headers, now, handshake=status not in (404, 426))


def is_missing(failure: Failure) -> bool:
    """Whether the account says that it does not have what the call names."""
    return failure.status == 404 or failure.row.fault is Fault.CLIENT_STATE


def goes_on(
    route: CallRoute, failure: Failure, *, sent: bool, replays_left: int | None = None
) -> bool:
    """Whether the next account is tried after a refusal.

    Args:
        route: where the call goes.
        failure: what the account answered.
        sent: whether a byte of a streamed body went out, which cannot be replayed.
        replays_left: how often a call that may have begun may be sent again; None if doing it
            twice does no harm. What an account refused for itself has not begun.
    """
    if sent or failure.row is CONNECTION_BROKE:
        return False
    if failure.row.fault is Fault.UPSTREAM and replays_left is not None and replays_left <= 0:
        return False
    return failure.row.fault in _LEADS_ON or (route.asks and is_missing(failure))


def conclude(
    route: CallRoute, refusals: Mapping[str, Failure], pool: Pool
) -> ClientError | Failure:
    """Say what the client is told when no account has served its call.

    Args:
        route: where the call went.
        refusals: what each account answered, in the order in which they were tried; not empty.
        pool: the accounts, with what was learned from the refusals.

    Returns:
        An error of ours, or the upstream's own, which is passed on.
    """
    counted = _counted(route, refusals)
    name, failure = counted[-1]
    if failure.row is CONNECTION_BROKE:
        return connection_broke(name)
    faults = {refused.row.fault for _, refused in counted}
    if failure.row.fault not in _ELSEWHERE:
        return failure
    untried = [n for n in route.plan.candidates if n not in refusals and pool.usable(n)]
    if untried or faults & _TRANSPORT:
        return upstream_unavailable(f"account `{name}` did not take this: {failure.row.reason}")
    tried = [refused for refused, _ in counted]
    until = {n: f.retry_at or pool.now + f.row.unnamed_seconds for n, f in counted if _limits(f)}
    candidates = tried if route.owner or route.asks else [a.name for a in pool.accounts]
    error = nobody_can_serve(Shortage(candidates, route.owner, until), pool)
    return _naming(route.what, error, route.owner, pool) if route.owner else error


def connection_broke(name: str) -> ClientError:
    """Say that an account may have taken a call that is not to be done twice."""
    return ClientError(
        "upstream_closed",
        f"the connection to account `{name}` broke after this was sent; it may have been taken",
    )


def _limits(failure: Failure) -> bool:
    return failure.row.fault is Fault.LIMIT


def _counted(route: CallRoute, refusals: Mapping[str, Failure]) -> list[tuple[str, Failure]]:
    """Return the refusals that decide.

    Where the accounts were asked for something, one that could not tell outweighs those that do
    not have it: the client should ask again. One that is out of use from now on does not.
    """
    every = list(refusals.items())
    if not route.asks:
        return every
    missing = [(name, f) for name, f in every if is_missing(f)]
    rest = [(name, f) for name, f in every if not is_missing(f)]
    if missing:
        rest = [(name, f) for name, f in rest if f.row.fault is not Fault.CREDENTIAL]
    return rest or missing


def _naming(what: str, error: ClientError, owner: str, pool: Pool) -> ClientError:
    if error.code != "owner_unavailable":
        return error
    return owner_unavailable(owner, pool, what=what)
