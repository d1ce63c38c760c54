"""Which accounts a turn may go to, in which order, and why not the others.

One verdict per configured account: those that would be tried first, in order, then the excluded
ones in configuration order. `codexlb` prints verdicts; it never derives them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from codexlb_cli.core.accounts import (
    FRESH,
    Account,
    AccountState,
    Availability,
    Standing,
    standing,
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
        max_turns: how many turns one account takes at a time; 0 for no limit.
        last_chosen: a rising number for each choice, by account name.
        without_model: names of accounts that do not have the turn's model.
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

    def standing_of(self, name: str) -> Standing | None:
        """Return the standing of the account called `name`; None if it is not configured."""
        account = self.account(name)
        return None if account is None else self.standing(account)

    def usable(self, name: str) -> bool:
        """Whether a turn may be sent to `name`: it is ready or cooling, and has the model."""
        known = self.standing_of(name)
        return known is not None and known.usable and name not in self.without_model

    def crowded(self, name: str) -> bool:
        """Whether `name` has as many turns in flight as it takes, however else it stands."""
        return 0 < self.max_turns <= self.in_flight.get(name, 0)

    def full(self, name: str) -> bool:
        """Whether `name` could serve, but has as many turns in flight as it takes."""
        known = self.standing_of(name)
        return known is not None and known.state is Availability.FULL

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


def unusable_reason(pool: Pool, name: str) -> str | None:
    """Return why `name` cannot serve, as a verdict's reason; None if it can."""
    known = pool.standing_of(name)
    if known is None:
        return Reason.GONE
    if known.reason == "credential_missing":
        return Reason.CREDENTIAL_MISSING
    if not known.usable:
        return known.state.value
    return Reason.MODEL_UNAVAILABLE if name in pool.without_model else None


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

    The fewest turns in flight, then the least recently chosen, then configuration order decide
    who is first. After it, the order is that of a failed dial.
    """
    order = in_order_after(pool, None)
    ready = [n for n in order if _is_ready(pool, n)]
    if not ready:
        return order
    first = min(
        ready, key=lambda n: (pool.in_flight.get(n, 0), pool.last_chosen.get(n, 0), order.index(n))
    )
    return [first, *(n for n in in_order_after(pool, first) if n != first)]


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
