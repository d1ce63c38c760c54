"""Which accounts a turn may go to, in which order, and why not the others.

One verdict per configured account: those that would be tried first, in order, then the excluded
ones in configuration order. `codexlb` prints verdicts; it never derives them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from codexlb_cli.core.accounts import (
    FRESH,
    Account,
    AccountState,
    Availability,
    Standing,
    Transport,
    standing,
    transport_in_force,
)
from codexlb_cli.core.policies import (
    DEFAULT_POLICY,
    Candidate,
    PolicyName,
    Shares,
    budget,
    choose,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision says of one account.

    Attributes:
        account: its name.
        verdict: `picked`, `next` (tried after it, if a dial fails) or `excluded`.
        reason: a stable reason code.
        until: when the account's cooldown or limit ends, seconds since the epoch; None if none.
        credential_present: whether its credential can be read here.
    """

    account: str
    verdict: Literal["picked", "next", "excluded"]
    reason: str
    until: float | None = None
    credential_present: bool = True


class Reason(StrEnum):
    """Verdict reasons that are no availability."""

    OWNER = "owner"
    POLICY = "policy"
    CLOSED = "closed"
    ONLY_USABLE_ACCOUNT = "only_usable_account"
    NOT_OWNER = "not_owner"
    NO_REPLAY = "no_replay"
    CREDENTIAL_MISSING = "credential_missing"
    OWNER_FAILED = "owner_failed"
    MODEL_UNAVAILABLE = "model_unavailable"
    DIAL_FAILED = "dial_failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Pool:
    """The accounts and all that is known of them at one moment.

    Attributes:
        accounts: in configuration order.
        now: seconds since the epoch.
        states: what was learned, by account name; fresh where missing.
        missing_credentials: names of accounts whose credential cannot be read here.
        require_credentials: whether a missing credential makes an account unusable: in the
            gateway it does; a simulation only reports it.
        in_flight: turns in flight, by account name.
        max_turns: how many turns one account takes at a time, unless its own table says
            otherwise; 0 for no limit.
        last_chosen: a rising number for each choice, by account name.
        without_model: names of accounts that do not have the turn's model.
        not_taking: names of accounts whose configuration keeps the turn's model from them.
        policy: how a first turn is placed: a name of `POLICIES`.
        shares: how much each account has had of its share.
        counts_turns: whether an account that has as many turns as it takes is full.
        login_due: names of accounts whose token is to be refreshed before a dial.
    """

    accounts: tuple[Account, ...]
    now: float
    states: Mapping[str, AccountState] = field(default_factory=dict)
    missing_credentials: frozenset[str] = frozenset()
    require_credentials: bool = True
    in_flight: Mapping[str, int] = field(default_factory=dict)
    max_turns: int = 0
    last_chosen: Mapping[str, int] = field(default_factory=dict)
    without_model: frozenset[str] = frozenset()
    not_taking: frozenset[str] = frozenset()
    policy: PolicyName = DEFAULT_POLICY
    shares: Shares = field(default_factory=Shares)
    counts_turns: bool = True
    login_due: frozenset[str] = frozenset()

    def account(self, name: str) -> Account | None:
        """Return the account called `name`; None if it is not configured."""
        return next((a for a in self.accounts if a.name == name), None)

    def standing(self, account: Account) -> Standing:
        """Return the standing of `account` now."""
        present = not self.require_credentials or account.name not in self.missing_credentials
        state = self.states.get(account.name, FRESH)
        full = self.crowded(account.name)
        return standing(account, state, self.now, credential_present=present, full=full)

    def transport(self, name: str) -> tuple[Account, Transport]:
        """Return the account called `name`, and how it is spoken to now.

        Raises:
            KeyError: it is not configured.
        """
        account = self.account(name)
        if account is None:
            raise KeyError(name)
        return account, transport_in_force(account, self.states.get(name, FRESH), self.now)

    def standing_of(self, name: str) -> Standing | None:
        """Return the standing of the account called `name`; None if it is not configured."""
        account = self.account(name)
        return None if account is None else self.standing(account)

    def usable(self, name: str) -> bool:
        """Whether a turn may be sent to `name`: it is ready or cooling, and has the model."""
        known = self.standing_of(name)
        return known is not None and known.usable and self.has_model(name)

    def has_model(self, name: str) -> bool:
        """Whether `name` may be sent the turn's model, as far as is known."""
        return name not in self.without_model and name not in self.not_taking

    def crowded(self, name: str) -> bool:
        """Whether `name` has as many turns in flight as it takes, however else it stands."""
        account = self.account(name)
        own = account.max_turns if account is not None else None
        most = self.max_turns if own is None else own
        return self.counts_turns and 0 < most <= self.in_flight.get(name, 0)

    def full(self, name: str) -> bool:
        """Whether `name` could serve, but has as many turns in flight as it takes."""
        known = self.standing_of(name)
        return known is not None and known.state is Availability.FULL and self.has_model(name)

    def verdict(
        self, name: str, verdict: Literal["picked", "next", "excluded"], reason: str
    ) -> Verdict:
        """Make a verdict on `name` with its `until` and `credential_present`."""
        known = self.standing_of(name)
        return Verdict(
            account=name,
            verdict=verdict,
            reason=reason,
            until=known.until if known else None,
            credential_present=name not in self.missing_credentials,
        )


def asked_for(pool: Pool, model: str | None) -> Pool:
    """Return the accounts as a turn of `model` finds them: some do not take it."""
    refusing = frozenset(a.name for a in pool.accounts if not a.takes(model))
    return replace(pool, not_taking=refusing)


def unusable_reason(pool: Pool, name: str) -> str | None:
    """Return why `name` cannot serve, as a verdict's reason; None if it can."""
    known = pool.standing_of(name)
    if known is None:
        return Reason.GONE
    if known.reason == "credential_missing":
        return Reason.CREDENTIAL_MISSING
    if not known.usable:
        return known.state.value
    return None if pool.has_model(name) else Reason.MODEL_UNAVAILABLE


def policy_reason(pool: Pool, name: str) -> str:
    """Return why a usable account that owns nothing is tried: in order, or last as it cools."""
    known = pool.standing_of(name)
    cooling = known is not None and known.state is Availability.COOLING_DOWN
    return Availability.COOLING_DOWN.value if cooling else Reason.POLICY


def in_order_after(pool: Pool, closed: str | None) -> list[str]:
    """Return the usable accounts in the order in which a reconnect tries them.

    Ready ones in configuration order, starting after `closed` and wrapping, then cooling ones by
    earliest end. Load plays no part, so that a simulation can tell the order.
    """
    names = [a.name for a in pool.accounts]
    if closed in names:
        start = names.index(closed) + 1
        names = names[start:] + names[:start]
    usable = [(name, pool.standing_of(name)) for name in names if pool.usable(name)]
    ready = [n for n, s in usable if s is not None and s.state is Availability.READY]
    cooling = [(s.until or 0.0, n) for n, s in usable if s is not None and n not in ready]
    return ready + [n for _, n in sorted(cooling, key=lambda pair: pair[0])]


def first_choice(pool: Pool) -> list[str]:
    """Return the usable accounts for a turn that no account owns, best first.

    The policy chooses among the ready ones. After it, the order is that of a failed dial.
    """
    order = in_order_after(pool, None)
    ready = [_candidate(pool, n, order.index(n)) for n in order if _is_ready(pool, n)]
    if not ready:
        return order
    best = choose(pool.policy, ready).name
    return [best, *(n for n in in_order_after(pool, best) if n != best)]


def unkeyed_account(pool: Pool) -> str | None:
    """Return the account that an unkeyed request would get, as far as can be said offline.

    The first ready one in configuration order, else the first cooling one, else the first that is
    configured; None if none is.
    """
    order = in_order_after(pool, None)
    if order:
        return order[0]
    return pool.accounts[0].name if pool.accounts else None


def verdicts(
    pool: Pool,
    tried: Sequence[tuple[str, str]],
    excluded: Mapping[str, str],
    *,
    otherwise: Mapping[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """Make one verdict per account.

    Args:
        pool: the accounts.
        tried: names and reasons in the order in which they would be tried; the first is picked.
        excluded: reasons that say more than an account's own state.
        otherwise: reasons for accounts whose own state does not exclude them; `no_replay` where
            missing.
    """
    taken = {name for name, _ in tried}
    result = [
        pool.verdict(name, "next" if i else "picked", reason)
        for i, (name, reason) in enumerate(tried)
    ]
    for name in (account.name for account in pool.accounts if account.name not in taken):
        reason = excluded.get(name) or unusable_reason(pool, name)
        reason = reason or (otherwise or {}).get(name, Reason.NO_REPLAY)
        result.append(pool.verdict(name, "excluded", reason))
    return tuple(result)


def _is_ready(pool: Pool, name: str) -> bool:
    known = pool.standing_of(name)
    return known is not None and known.state is Availability.READY


def _candidate(pool: Pool, name: str, place: int) -> Candidate:
    account = pool.account(name)
    assert account is not None, "a ready account is configured"
    return Candidate(
        name=name,
        place=place,
        in_flight=pool.in_flight.get(name, 0),
        last_chosen=pool.last_chosen.get(name, 0),
        weight=account.weight,
        priority=account.priority,
        share=pool.shares.start(name),
        budget=budget(pool.states.get(name, FRESH).limits, pool.now, account.weight),
    )
