"""Files and uploads: which calls are taken, which account each goes to, and what is remembered.

A file lies in the account that it was uploaded to, and nowhere else. The gateway performs what is
decided here; `file_list` decides how the lists of several accounts become one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.client_errors import (
    ClientError,
    Shortage,
    nobody_can_serve,
    owner_unavailable,
    upstream_unavailable,
)
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.failures import Failure, Fault, parse
from codexlb_cli.core.ownership import Ownership
from codexlb_cli.core.plan import Plan, opening
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool, policy_reason, verdicts
from codexlb_cli.core.turn_events import TurnFacts

_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:-]{1,256}")
_NO_WAIT = ReconnectPolicy(on_account_failure="fail", wait_up_to=0.0)


class Verb(StrEnum):
    """What a call does."""

    CREATE = "create"
    LIST = "list"
    RETRIEVE = "retrieve"
    DELETE = "delete"
    CONTENT = "content"
    BEGIN = "begin"
    ADD_PART = "add_part"
    COMPLETE = "complete"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class CallRow:
    """One kind of call: its method, its path under the prefix, and what it does."""

    method: str
    path: str
    verb: Verb


CALLS: tuple[CallRow, ...] = (
    CallRow("POST", "/files", Verb.CREATE),
    CallRow("GET", "/files", Verb.LIST),
    CallRow("GET", "/files/{id}", Verb.RETRIEVE),
    CallRow("DELETE", "/files/{id}", Verb.DELETE),
    CallRow("GET", "/files/{id}/content", Verb.CONTENT),
    CallRow("POST", "/uploads", Verb.BEGIN),
    CallRow("POST", "/uploads/{id}/parts", Verb.ADD_PART),
    CallRow("POST", "/uploads/{id}/complete", Verb.COMPLETE),
    CallRow("POST", "/uploads/{id}/cancel", Verb.CANCEL),
)
"""Every call that is taken; the routes of the gateway are made from it."""

_ROWS = {row.verb: row for row in CALLS}


@dataclass(frozen=True, slots=True)
class FileCall:
    """A call.

    Attributes:
        verb: what it does.
        id: of the file or upload that it names; None if it names none.
    """

    verb: Verb
    id: str | None = None

    @property
    def method(self) -> str:
        """The method, upstream as downstream."""
        return _ROWS[self.verb].method

    @property
    def path(self) -> str:
        """The path after an account's base URL."""
        return _ROWS[self.verb].path.replace("{id}", self.id or "")

    @property
    def creates(self) -> bool:
        """Whether it makes something new, so that an account has to be chosen."""
        return self.verb in (Verb.CREATE, Verb.BEGIN)

    @property
    def takes_body(self) -> bool:
        """Whether the client's body goes upstream."""
        return self.method == "POST"


def file_key(name: str) -> Key:
    """Return the key of a file or an upload: turns that name a file are keyed alike."""
    return Key("file", name)


def is_id(name: str) -> bool:
    """Whether `name` can be an id: it may stand in a path as it is.

    `.` and `..` would lead elsewhere (RFC 3986 section 5.2.4).
    """
    return _ID.fullmatch(name) is not None


def read_call(row: CallRow, name: str | None) -> FileCall | None:
    """Return the call of a request that matched `row`; None if `name` cannot be an id."""
    if name is not None and not is_id(name):
        return None
    return FileCall(row.verb, name)


@dataclass(frozen=True, slots=True)
class FileRoute:
    """Where a call goes, and why.

    Attributes:
        plan: the accounts to try, in order, or why there is none.
        owner: the account that has what the call names, or owns the session; None if any may do.
        asks: whether nobody knows who has it, so that a 404 leads to the next account.
    """

    plan: Plan
    owner: str | None = None
    asks: bool = False


def route_new(
    ownership: Ownership, pool: Pool, policy: ReconnectPolicy, deadline: float
) -> FileRoute:
    """Say where something new goes: to its session's owner, else where a first turn would.

    Args:
        ownership: of the session that the headers name.
        pool: the accounts.
        policy: whether a session moves when its account fails, and how long it waits.
        deadline: until when it waits at the latest, seconds since the epoch.
    """
    record = ownership.record
    facts = TurnFacts(
        strength=ownership.key.strength,
        owner=record.owner,
        bound=record.bound,
        deadline=deadline,
    )
    plan = opening(facts, _without_turns(pool), policy)
    return FileRoute(plan, owner=record.owner if plan.moved_from is None else None)


def route_known(owner: str, pool: Pool, policy: ReconnectPolicy, deadline: float) -> FileRoute:
    """Say where a call goes whose file `owner` has: there and nowhere else.

    Args:
        owner: the account.
        pool: the accounts.
        policy: how long an owner that is out of use is waited for.
        deadline: until when at the latest, seconds since the epoch.
    """
    facts = TurnFacts(
        strength=Strength.HARD, owner=owner, bound=True, portable=False, deadline=deadline
    )
    plan = opening(facts, _without_turns(pool), policy)
    if plan.error is not None:
        plan = replace(plan, error=_of_a_file(plan.error, owner, pool))
    return FileRoute(plan, owner=owner)


def route_unknown(pool: Pool) -> FileRoute:
    """Say who is asked for a file that nobody knows: the usable accounts, as configured."""
    plan = opening(TurnFacts(asks=True), _without_turns(pool), _NO_WAIT)
    if plan.error is not None:
        return FileRoute(plan)
    names = listed_accounts(pool)
    tried = [(name, policy_reason(pool, name)) for name in names]
    told = verdicts(_without_turns(pool), tried, {})
    return FileRoute(replace(plan, candidates=tuple(names), verdicts=told), asks=True)


def route_list(owner: str | None, pool: Pool) -> FileRoute:
    """Say whether files can be listed from `owner` on, or from the first account if it is None."""
    return route_unknown(pool) if owner is None else route_known(owner, pool, _NO_WAIT, pool.now)


def listed_accounts(pool: Pool) -> list[str]:
    """Return the accounts whose files are listed, in an order that cooldowns do not change."""
    able = _without_turns(pool)
    return [account.name for account in pool.accounts if able.usable(account.name)]


def _without_turns(pool: Pool) -> Pool:
    """An account that takes no more turns still takes files."""
    return replace(pool, counts_turns=False)


# What an account answers

_ELSEWHERE = frozenset(
    {Fault.CREDENTIAL, Fault.FORBIDDEN, Fault.LIMIT, Fault.UPSTREAM, Fault.NETWORK}
)
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


def goes_on(route: FileRoute, failure: Failure, *, sent: bool) -> bool:
    """Whether the next account is tried after a refusal.

    Args:
        route: where the call goes.
        failure: what the account answered.
        sent: whether a byte of the client's body went out: a streamed body cannot be replayed.
    """
    if sent:
        return False
    return failure.row.fault in _ELSEWHERE or (route.asks and failure.status == 404)


def conclude(
    route: FileRoute, refusals: Mapping[str, Failure], pool: Pool
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
    return _of_a_file(error, route.owner, pool) if route.owner else error


def _limits(failure: Failure) -> bool:
    return failure.row.fault is Fault.LIMIT


def _counted(route: FileRoute, refusals: Mapping[str, Failure]) -> list[tuple[str, Failure]]:
    """Return the refusals that decide.

    Where the accounts were asked for a file, one that could not tell outweighs those that do not
    have it: the client should ask again. One that is out of use from now on does not.
    """
    every = list(refusals.items())
    if not route.asks:
        return every
    missing = [(name, f) for name, f in every if f.status == 404]
    rest = [(name, f) for name, f in every if f.status != 404]
    if missing:
        rest = [(name, f) for name, f in rest if f.row.fault is not Fault.CREDENTIAL]
    return rest or missing


def _of_a_file(error: ClientError, owner: str, pool: Pool) -> ClientError:
    if error.code != "owner_unavailable":
        return error
    return owner_unavailable(owner, pool, what="this file")


def pins(call: FileCall, document: object) -> tuple[Key, ...]:
    """Return what is known to lie in the account that served a call.

    Args:
        call: the call.
        document: the decoded answer; None if it is no JSON.
    """
    found = document if isinstance(document, Mapping) else {}
    match call.verb:
        case Verb.CREATE | Verb.BEGIN:
            return _keys(found.get("id"))
        case Verb.COMPLETE:
            made = found.get("file")
            return _keys(call.id, made.get("id") if isinstance(made, Mapping) else None)
        case Verb.RETRIEVE | Verb.CONTENT | Verb.ADD_PART:
            return _keys(call.id)
        case _:
            return ()


def _keys(*names: object) -> tuple[Key, ...]:
    return tuple(file_key(n) for n in names if isinstance(n, str) and is_id(n))
