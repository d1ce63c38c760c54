"""The accounts as a command sees them offline: their stored state, and which keys are here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codexlb_cli.core.accounts import Account, AccountState
from codexlb_cli.core.selection import Pool
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import CredentialSource


@dataclass(frozen=True, slots=True)
class OfflinePool:
    """The pool of a simulation, and what it says about keys but does not decide by.

    Attributes:
        pool: the accounts; one without a key is not excluded, since the shell that serves may
            have it.
        problems: why an account has no usable key here, in words, by account name.
    """

    pool: Pool
    problems: Mapping[str, str]


def offline_pool(
    accounts: tuple[Account, ...],
    states: Mapping[str, AccountState],
    credentials: CredentialSource,
    now: float,
) -> OfflinePool:
    """Put together what is known of the accounts at `now`, in seconds since the epoch."""
    problems = dict(_problems(accounts, credentials))
    pool = Pool(
        accounts=accounts,
        now=now,
        states=states,
        missing_credentials=frozenset(problems),
        require_credentials=False,
    )
    return OfflinePool(pool, problems)


def _problems(
    accounts: Iterable[Account], credentials: CredentialSource
) -> Iterable[tuple[str, str]]:
    for account in accounts:
        try:
            problem = credentials.problem(account)
        except ConfigError as exc:  # a store that cannot be used holds no key that can
            problem = str(exc)
        if problem is not None:
            yield account.name, problem
