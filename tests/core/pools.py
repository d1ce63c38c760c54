"""Pools of accounts for tests: names with a state, and Hypothesis strategies for any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account, AccountState, CredentialRef, TransportChoice
from codexlb_cli.core.selection import Pool

NOW = 1_800_000_000.0

READY = AccountState()
COOLING = AccountState(cooling_until=NOW + 20, cooling_reason="try_again_later", cooldowns=1)
LIMITED = AccountState(limited_until=NOW + 42, limited_reason="rate_limit_exceeded")
BACK_SOON = AccountState(limited_until=NOW + 4, limited_reason="rate_limit_exceeded")
LIMITED_FOR_LONG = AccountState(limited_until=NOW + 7200, limited_reason="usage_limit_reached")
NEEDS_LOGIN = AccountState(login_reason="credentials_rejected")
DISABLED = "disabled"

STATES: dict[str, AccountState | str] = {
    "ready": READY,
    "cooling": COOLING,
    "limited": LIMITED,
    "back_soon": BACK_SOON,
    "limited_for_long": LIMITED_FOR_LONG,
    "needs_login": NEEDS_LOGIN,
    "disabled": DISABLED,
}


def pool(*names: str, missing: frozenset[str] = frozenset(), **states: str) -> Pool:
    """Make a pool of `names`, all ready but those whose state is named."""
    return pool_of({name: states.get(name, "ready") for name in names}, missing=missing)


def pool_of(states: Mapping[str, str], *, missing: frozenset[str] = frozenset()) -> Pool:
    """Make a pool of accounts with the named states."""
    accounts = tuple(Account(name, enabled=state != DISABLED) for name, state in states.items())
    known = {n: found for n, s in states.items() if isinstance(found := STATES[s], AccountState)}
    return Pool(accounts, NOW, known, missing_credentials=missing)


@st.composite
def pools(draw: st.DrawFn, smallest: int = 1) -> Pool:
    """Draw a pool of one to four accounts in any states."""
    count = draw(st.integers(smallest, 4))
    names = ["work", "home", "spare", "team"][:count]
    drawn = pool_of({name: draw(st.sampled_from(sorted(STATES))) for name in names})
    transports = st.sampled_from(get_args(TransportChoice))
    credentials = st.sampled_from([CredentialRef("file", "x"), CredentialRef("login", "x")])
    return replace(
        drawn,
        accounts=tuple(
            replace(a, transport=draw(transports), credential=draw(credentials))
            for a in drawn.accounts
        ),
        login_due=draw(st.frozensets(st.sampled_from(names), max_size=2)),
        without_model=draw(st.frozensets(st.sampled_from(names), max_size=1)),
        missing_credentials=draw(st.frozensets(st.sampled_from(names), max_size=1)),
        require_credentials=draw(st.booleans()),
        in_flight={name: draw(st.integers(0, 2)) for name in names},
        max_turns=draw(st.sampled_from([0, 0, 2])),
        last_chosen={name: draw(st.integers(0, 5)) for name in names},
    )
