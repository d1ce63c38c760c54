"""The logins of a running gateway: whose token is due, and who refreshes it.

How a refresh is done is not known here: the gateway is handed a function. A token that expires soon
is refreshed in the background, and at the latest before a socket is opened with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.turn_events import RefreshFailed, RefreshOutcome
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import CredentialSource, signed_in_as
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret

Refresh = Callable[[Account, Secret | None], Awaitable[RefreshOutcome]]
"""Refreshes the login of an account; the token that was refused, or None if it is merely due."""

WATCH_SECONDS = 30.0
"""How often the background looks for tokens that are due."""

_NOBODY_REFRESHES = RefreshFailed("no_refresh_token")


class Logins:
    """The logins of the accounts.

    Args:
        credentials: where they lie.
        refresh: refreshes one; None if nobody can, so that a refused token is refused for good.
        now: seconds since the epoch.
    """

    def __init__(
        self, credentials: CredentialSource, refresh: Refresh | None, now: Callable[[], float]
    ) -> None:
        self._credentials = credentials
        self._refresh = refresh
        self._now = now

    def account_id(self, account: Account) -> str | None:
        """Return the value of an account's `chatgpt-account-id`; None if it has none."""
        try:
            return signed_in_as(account, self._credentials)
        except ConfigError:
            return None

    def of(self, account: Account) -> Login | None:
        """Return the login of an account; None if it has none that can be read."""
        if not account.refreshable:
            return None
        try:
            return self._credentials.login(account.name)
        except ConfigError:
            return None

    def needed(self, accounts: Iterable[Account]) -> frozenset[str]:
        """Return the accounts whose token expires too soon to open a socket with it."""
        return self._whose(accounts, Login.refresh_needed)

    def due(self, accounts: Iterable[Account]) -> frozenset[str]:
        """Return the accounts whose token is to be refreshed before long."""
        return self._whose(accounts, Login.refresh_due)

    async def refresh(self, account: Account, refused: str | None = None) -> RefreshOutcome:
        """Refresh the login of an account; it goes on if whoever waits for it leaves.

        Args:
            account: the account.
            refused: the access token that the upstream refused; None if it is merely due.
        """
        if self._refresh is None or not account.refreshable:
            return _NOBODY_REFRESHES
        return await self._refresh(account, None if refused is None else Secret(refused))

    def _whose(
        self, accounts: Iterable[Account], due: Callable[[Login, float], bool]
    ) -> frozenset[str]:
        if self._refresh is None:
            return frozenset()
        now = self._now()
        found = ((account.name, self.of(account)) for account in accounts)
        return frozenset(name for name, login in found if login is not None and due(login, now))


async def keep_fresh(
    logins: Logins,
    usable: Callable[[], Iterable[Account]],
    ended: Callable[[str, str], None],
) -> None:
    """Refresh what is due, for ever; several accounts at once.

    Args:
        logins: the logins.
        usable: returns the accounts that are worth it.
        ended: is told the name of an account whose login has ended, and why, a code.
    """

    async def refresh(account: Account) -> None:
        outcome = await logins.refresh(account)
        if isinstance(outcome, RefreshFailed) and outcome.refusal is not None:
            ended(account.name, outcome.refusal)

    running: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            accounts = {account.name: account for account in usable()}
            running = {name: task for name, task in running.items() if not task.done()}
            for name in sorted(logins.due(accounts.values()) - running.keys()):
                running[name] = asyncio.create_task(refresh(accounts[name]))
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        for task in running.values():
            task.cancel()
