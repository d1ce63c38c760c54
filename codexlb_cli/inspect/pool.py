"""The accounts as a command sees them offline: their stored state, and which keys are here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from codexlb_cli.core.accounts import Account, AccountState
from codexlb_cli.core.handshake import MASKED
from codexlb_cli.core.selection import Pool
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import CredentialSource, signed_in_as


@dataclass(frozen=True, slots=True)
class OfflinePool:
    """The pool of a simulation, and what it says about keys but does not decide by.

    Attributes:
        pool: the accounts; one without a key is not excluded, since the shell that serves may
            have it.
        problems: why an account has no usable key here, in words, by account name.
        unnamed: accounts that sign in without telling the upstream whose account it is.
    """

    pool: Pool
    problems: Mapping[str, str]
    unnamed: frozenset[str] = frozenset()

    def account_id(self, account: Account) -> str | None:
        """Return what stands for the account's `chatgpt-account-id`; None if it sends none."""
        sends = account.kind == "chatgpt" and account.name not in self.unnamed
        return MASKED if sends else None


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
    return OfflinePool(pool, problems, frozenset(_unnamed(accounts, credentials, problems)))


def _unnamed(
    accounts: Iterable[Account], credentials: CredentialSource, problems: Mapping[str, str]
) -> Iterator[str]:
    """Yield who is signed in without an account id; one that is not yet will have one."""
    for account in accounts:
        present = account.kind == "chatgpt" and account.name not in problems
        if present and signed_in_as(account, credentials) is None:
            yield account.name


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
