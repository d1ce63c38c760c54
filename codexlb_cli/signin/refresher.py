"""Keeps the logins of accounts fresh: one refresh at a time, kept before it is used.

A refresh token that is used twice ends its login. So a refresh runs once per account, across the
processes of this program, and it runs to its end even if whoever asked for it has left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codexlb_cli.config.files import cannot_write, locked
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.backoff import doubled
from codexlb_cli.core.turn_events import Refreshed, RefreshFailed, RefreshOutcome
from codexlb_cli.errors import ConfigError, UpstreamError
from codexlb_cli.signin.refresh import (
    TOTAL_SECONDS,
    LoginRefused,
    Post,
    RefreshReason,
    post_json,
    refresh,
)
from codexlb_cli.store.logins import Login
from codexlb_cli.store.rotations import forget_note, note_path, noted, noting
from codexlb_cli.store.secrets import Secret

AGAIN_SECONDS = 5.0
"""After a failure that blames nobody an account is left alone for this long, doubled each time."""
LONGEST_AGAIN_SECONDS = 300.0
_PATIENCE_SECONDS = TOTAL_SECONDS + 5
_AT_ONCE = 8

FAILED = RefreshFailed()


class LoginStore(Protocol):
    """Where logins are kept."""

    def login(self, name: str) -> Login | None:
        """Return the login of an account as it is now; None if it is not signed in."""

    def store_login(self, name: str, login: Login, *, instead_of: Login | None = None) -> bool:
        """Keep a login, durably; say whether it is kept: not if another one stands there."""


@dataclass(slots=True)
class _Memory:
    """What is remembered of an account between refreshes.

    Attributes:
        failures: how many in a row blamed nobody.
        again_at: until when it is left alone, monotonic seconds.
        refused: the refresh token that was refused for good, and why.
        unkept: the login that was used up, and what came of it, if that could not be kept.
    """

    failures: int = 0
    again_at: float = 0.0
    refused: tuple[Secret | None, str] | None = None
    unkept: tuple[Login, Login] | None = None


class Refresher:
    """Refreshes logins.

    Args:
        store: where they are kept; used from threads.
        folder: the state folder, where the locks of accounts lie.
        post: asks the issuer.
        now: seconds since the epoch.
        clock: monotonic seconds.
        warn: takes a warning for the person.
        notes: whether a new login may lie in a file of its own until it is stored: not where it
            belongs in a keyring.
    """

    def __init__(
        self,
        store: LoginStore,
        folder: Path,
        *,
        post: Post = post_json,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], None] = lambda _: None,
        notes: bool = True,
    ) -> None:
        self._store = store
        self._folder = folder
        self._post = post
        self._now = now
        self._clock = clock
        self._warn = warn
        self._notes = notes
        self._memories: dict[str, _Memory] = {}
        self._running: dict[str, asyncio.Future[RefreshOutcome]] = {}
        # Joined when the program ends: a refresh under way is kept.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="codexlb-refresh")

    @property
    def busy(self) -> bool:
        """Whether a refresh is under way."""
        return bool(self._running)

    async def refresh(self, account: Account, refused: Secret | None = None) -> RefreshOutcome:
        """Refresh the login of an account, in a thread; who asks meanwhile shares the refresh.

        Args:
            account: the account.
            refused: the access token that the upstream refused; None if it is merely due.

        Returns:
            `Refreshed` if there is another access token than `refused`, and it is kept.
        """
        while True:
            running = self._running.get(account.name)
            shared = running is not None
            if running is None:
                running = self._begin(account.name, refused)
            outcome = await asyncio.shield(running)
            # Whoever ran it may have found the very token in order that was refused here.
            if not shared or outcome != Refreshed() or self._has_another(account.name, refused):
                return outcome

    def refresh_now(self, name: str, refused: Secret | None = None) -> RefreshOutcome:
        """Refresh the login of the account `name` in this thread; see `refresh`."""
        memory = self._memories.setdefault(name, _Memory())
        if self._clock() < memory.again_at:
            return Refreshed() if self._has_another(name, refused) else FAILED
        try:
            with locked(self._folder / f"refresh-{name}.lock", _PATIENCE_SECONDS):
                outcome = self._refresh_alone(name, refused, memory)
        except (UpstreamError, ConfigError) as exc:
            if isinstance(exc, ConfigError) and memory.failures == 0:
                self._warn(f"the login of `{name}` cannot be refreshed: {exc}")
            pause = doubled(AGAIN_SECONDS, memory.failures, LONGEST_AGAIN_SECONDS)
            memory.failures += 1
            memory.again_at = self._clock() + pause
            return FAILED
        memory.failures = 0
        return outcome

    def _begin(self, name: str, refused: Secret | None) -> asyncio.Future[RefreshOutcome]:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, self.refresh_now, name, refused)
        self._running[name] = running
        running.add_done_callback(lambda _: self._running.pop(name, None))
        return running

    def _has_another(self, name: str, refused: Secret | None) -> bool:
        """Whether the account has another token than the one that was refused, if one was."""
        try:
            login = self._store.login(name)
        except ConfigError:
            return False
        if login is None:
            return False
        if refused is None:
            return not login.refresh_due(self._now())
        return login.access_token != refused

    def _refresh_alone(self, name: str, refused: Secret | None, memory: _Memory) -> RefreshOutcome:
        """Refresh under the account's lock; nobody else of this program does so meanwhile.

        Raises:
            UpstreamError: the issuer could not tell.
            ConfigError: the login cannot be read or kept.
        """
        if memory.unkept is not None:
            self._keep(name, *memory.unkept, memory)
        login = self._store.login(name)  # anew: another process may have been here
        if login is None:
            return RefreshFailed("not_signed_in")
        left_over = noted(self._folder, name, login) if self._notes else None
        if left_over is not None:  # and was killed here
            self._keep(name, login, left_over, memory)
            forget_note(self._folder, name)
            login = left_over
        if refused is not None and login.access_token != refused:
            return Refreshed()
        if refused is None and not login.refresh_due(self._now()):
            return Refreshed()
        if memory.refused is not None and memory.refused[0] == login.refresh_token:
            return RefreshFailed(memory.refused[1])
        reason: RefreshReason = "proactive_expiry" if refused is None else "unauthorized_recovery"
        try:
            renewed = self._renew(name, login, reason, memory)
        except LoginRefused as exc:
            memory.refused = login.refresh_token, exc.code
            return RefreshFailed(exc.code)
        except OSError as exc:
            raise cannot_write(note_path(self._folder, name), exc) from None
        if renewed.access_token == login.access_token:
            raise UpstreamError("the issuer gave no new access token")
        return Refreshed()

    def _renew(self, name: str, login: Login, reason: RefreshReason, memory: _Memory) -> Login:
        """Ask the issuer, and keep what it gives.

        Raises:
            LoginRefused: the account must sign in again.
            UpstreamError: the issuer could not tell.
            ConfigError: what it gave cannot be kept.
            OSError: nothing could be kept, so nothing was asked.
        """
        if not self._notes:
            renewed = refresh(login, reason=reason, post=self._post, now=self._now)
            self._keep(name, login, renewed, memory)
            return renewed
        with noting(self._folder, name, login) as note:
            renewed = refresh(login, reason=reason, post=self._post, now=self._now)
            # Up to here the new refresh token lay in this process alone.
            with suppress(OSError):  # it may do without
                note.write(renewed)
            self._keep(name, login, renewed, memory)
        return renewed

    def _keep(self, name: str, used: Login, renewed: Login, memory: _Memory) -> None:
        """Store what came of a refresh; what cannot be stored is kept in mind for the next try.

        Raises:
            ConfigError: it cannot be stored.
        """
        memory.unkept = used, renewed
        self._store.store_login(name, renewed, instead_of=used)
        memory.unkept = None
