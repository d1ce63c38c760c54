"""The accounts of a running gateway: settings that are re-read, states that are learned."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from codexlb_cli.config.load import Settings
from codexlb_cli.core.accounts import (
    FRESH,
    Account,
    AccountState,
    Availability,
    Effect,
    Evidence,
    Transport,
    apply,
    completed,
    forgiven,
    learned,
    limit_in_force,
    transport_in_force,
)
from codexlb_cli.core.backoff import DialPace
from codexlb_cli.core.failures import not_refreshed
from codexlb_cli.core.headers import Header
from codexlb_cli.core.models import CatalogueEtags
from codexlb_cli.core.policies import Shares
from codexlb_cli.core.readings import from_headers
from codexlb_cli.core.selection import Pool, asked_for
from codexlb_cli.core.windows import Limits
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.keys import Recent
from codexlb_cli.gateway.logins import Logins
from codexlb_cli.store.cooldowns import read_resets, write_state
from codexlb_cli.store.credentials import CredentialSource, fingerprint
from codexlb_cli.store.database import change_marker
from codexlb_cli.store.running import PATIENCE_SECONDS, Store

MODEL_MISSING_SECONDS = 3600.0
"""How long an account is not asked again for a model that it does not have."""
LIMITS_WRITTEN_SECONDS = 2.0
"""Limits are told with every turn: what changes nothing else is written this often at most."""

Stamp = tuple[int, ...] | None


class Accounts:
    """What the gateway knows of its accounts, and the settings that are in force.

    Attributes:
        catalogue_etags: what clients have of the accounts' catalogues of models.

    Args:
        load: reads the settings anew; raises ConfigError while the file is broken.
        credentials: where keys come from.
        states: what earlier runs learned.
        store: where states are kept.
        logins: refreshes tokens.
        state_folder: where commands leave word of their changes; None if there are no commands.
        now: seconds since the epoch.
        warn: takes a warning for the person.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        credentials: CredentialSource,
        states: Mapping[str, AccountState],
        *,
        store: Store,
        logins: Logins | None = None,
        state_folder: Path | None,
        now: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._load = load
        self._credentials = credentials
        self.logins = logins or Logins(credentials, None, now)
        self._state_folder = state_folder
        self._store = store
        self._now = now
        self.settings = load()
        self._config_stamp = self._stamp(self.settings.config_file)
        self._marker = change_marker(state_folder) if state_folder else None
        self._marker_stamp = self._stamp(self._marker)
        self._resets = (read_resets(state_folder) or {}) if state_folder else {}
        self._states = dict(states)
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}
        self._in_flight: dict[str, int] = {}
        self._chosen: dict[str, int] = {}
        self._choices = 0
        self._shares = Shares()
        self._troubles: dict[str, tuple[str, float]] = {}
        self._unwritten: set[str] = set()
        self._writing: asyncio.TimerHandle | None = None
        self._paces: dict[str, DialPace] = {}
        self._without_model: Recent[tuple[str, str], float] = Recent(1_000)
        self._limit_headers: dict[str, dict[str, str]] = {}
        self.catalogue_etags = CatalogueEtags()

    def refresh(self) -> bool:
        """Take over changes of config.toml and of other commands; two `stat` calls at rest.

        Returns:
            Whether a command changed the database.
        """
        stamp = self._stamp(self.settings.config_file)
        if stamp != self._config_stamp:
            self._config_stamp = stamp
            self._reload()
        stamp = self._stamp(self._marker)
        if stamp is not None and stamp != self._marker_stamp:  # a folder that is gone says nothing
            self._marker_stamp = stamp
            self._take_resets()
            return True
        return False

    def pool(self, model: str | None = None, *, staying: str | None = None) -> Pool:
        """Return the accounts as they are now.

        Args:
            model: the model that a turn asks for.
            staying: the account where the asking turn itself is in flight.
        """
        accounts = self.settings.accounts
        self._forgive_changed_keys()
        pool = Pool(
            accounts=accounts,
            now=self._now(),
            states=self._states,
            missing_credentials=frozenset(a.name for a in accounts if not self._present(a)),
            in_flight=self._in_flight if staying is None else self._without(staying),
            max_turns=self.settings.lanes.max_turns,
            last_chosen=self._chosen,
            without_model=frozenset(a.name for a in accounts if self._lacks(a.name, model)),
            policy=self.settings.selection.policy,
            shares=self._shares,
            login_due=self.logins.needed(accounts),
        )
        return asked_for(pool, model)

    def transport(self, name: str) -> Transport:
        """Return how the account called `name` is spoken to now.

        Raises:
            ConfigError: it is no longer configured.
        """
        state = self._states.get(name, FRESH)
        return transport_in_force(self.settings.account(name), state, self._now())

    def secret(self, account: Account) -> str | None:
        """Return the account's credential; None if it is missing or unusable."""
        try:
            secret = self._credentials.secret(account)
        except ConfigError:
            return None
        return None if secret is None else secret.reveal()

    def blame(self, name: str, evidence: Evidence) -> None:
        """Learn something about an account."""
        state = apply(self._states.get(name, FRESH), evidence, self._now())
        if evidence.effect is Effect.LOGIN:
            refused = self._fingerprint(name)
            if refused is None:
                return  # what is not there cannot be refused, nor forgiven when it comes
            state = replace(state, refused_credential=refused)
        self._set(name, state)

    def turn_completed(self, name: str) -> None:
        """Note that the account completed a turn: it clears counts and cooldowns."""
        state = self._states.get(name, FRESH)
        cleared = completed(state)
        if cleared is not state:
            self._set(name, cleared)

    def model_missing(self, name: str, model: str) -> None:
        """Note that an account does not have a model."""
        self._without_model.put((name, model), self._now())

    def chosen(self, name: str) -> None:
        """Note that a turn chose the account."""
        self._choices += 1
        self._chosen[name] = self._choices
        account = next((a for a in self.settings.accounts if a.name == name), None)
        if account is not None:
            self._shares = self._shares.after(name, account.weight)

    def troubled(self, name: str, reason: str) -> None:
        """Note what went wrong at the account last, for people to see."""
        self._troubles[name] = (reason, self._now())

    def last_trouble(self, name: str) -> tuple[str, float] | None:
        """Return what went wrong at the account last, and when; None if nothing did."""
        return self._troubles.get(name)

    def turns_at(self, name: str) -> int:
        """Return how many turns are in flight at the account."""
        return self._in_flight.get(name, 0)

    def entered(self, name: str) -> None:
        """Note that a turn is in flight at the account."""
        self._in_flight[name] = self._in_flight.get(name, 0) + 1

    def left(self, name: str) -> None:
        """Note that a turn has left the account: its place goes to the first who waits."""
        waiting = self._waiting.get(name, [])
        while waiting:
            first = waiting.pop(0)
            if not first.done():
                first.set_result(name)
                return
        self._in_flight[name] -= 1

    async def room(self, names: Sequence[str]) -> str | None:
        """Wait in line until one of these full accounts has a place; it is in flight there then.

        Returns:
            The account; None if `[lanes] queue` turns wait for each of them already.
        """
        most = self.settings.lanes.queue
        lines = [self._waiting.setdefault(name, []) for name in names]
        open_lines = [line for line in lines if len(line) < most]
        if not open_lines:
            return None
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for line in open_lines:
            line.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.left(place.result())  # it was handed over, and nobody takes it
            raise
        finally:
            for line in open_lines:
                if place in line:
                    line.remove(place)

    def _without(self, name: str) -> dict[str, int]:
        return {**self._in_flight, name: self._in_flight.get(name, 0) - 1}

    def dial_wait(self, name: str) -> float:
        """Take a place for a new dial of the account: 0, or how long to wait and ask again."""
        wait, self._paces[name] = self._paces.get(name, DialPace()).dial(self._now())
        return wait

    def limits_seen(self, name: str, headers: list[Header], told: Limits | None = None) -> None:
        """Take what an account says of its limits.

        Args:
            name: the account.
            headers: what its clients may read of that.
            told: what it comes to, where that was read from more than the headers.
        """
        if headers:
            self._limit_headers.setdefault(name, {}).update(headers)
        told = told or from_headers(headers, self._now())
        if told is not None:
            self.learn(name, told)

    def learn(self, name: str, told: Limits) -> None:
        """Learn an account's limits; written at once only if they shut it out, or let it in."""
        now, before = self._now(), self._states.get(name, FRESH)
        state = learned(before, told, now)
        if limit_in_force(before, now) != limit_in_force(state, now):
            self._set(name, state)
            return
        self._states[name] = state
        self._unwritten.add(name)
        if self._writing is None:
            loop = asyncio.get_running_loop()
            self._writing = loop.call_later(LIMITS_WRITTEN_SECONDS, self.write_limits)

    def limits(self, name: str) -> Limits:
        """Return what is known of an account's limits."""
        return self._states.get(name, FRESH).limits

    def write_limits(self) -> None:
        """Write the limits that were learned since they were written last."""
        for name in tuple(self._unwritten):
            self._set(name, self._states[name])
        self.leave_unwritten()

    def leave_unwritten(self) -> None:
        """Leave unwritten what was not written yet, and write nothing any more."""
        self._unwritten.clear()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def limit_headers(self, name: str) -> dict[str, str]:
        """Return the rate-limit headers that an account sent last."""
        return self._limit_headers.get(name, {})

    def _lacks(self, name: str, model: str | None) -> bool:
        noted = self._without_model.get((name, model)) if model else None
        return noted is not None and self._now() - noted < MODEL_MISSING_SECONDS

    def _set(self, name: str, state: AccountState) -> None:
        self._states[name] = state
        self._unwritten.discard(name)
        self._store.submit(write_state(name, state))

    def _present(self, account: Account) -> bool:
        try:
            return self._credentials.present(account)
        except ConfigError:
            return False

    def _forgive_changed_keys(self) -> None:
        """A refused key keeps its account out until it is reset, or the key is another one."""
        for name, state in list(self._states.items()):
            if state.login_reason is not None:
                known = forgiven(state, self._fingerprint(name))
                if known is not state:
                    self._set(name, known)

    def _fingerprint(self, name: str) -> str | None:
        account = next((a for a in self.settings.accounts if a.name == name), None)
        return fingerprint(account, self._credentials) if account else None

    def worth_refreshing(self) -> list[Account]:
        """Return the accounts that sign in and may serve, now or after a limit."""
        pool = self.pool()
        lost = (Availability.DISABLED, Availability.NEEDS_LOGIN)
        return [a for a in pool.accounts if a.refreshable and pool.standing(a).state not in lost]

    def login_ended(self, name: str, refusal: str) -> None:
        """Note that an account must sign in again."""
        self.blame(name, not_refreshed(refusal).evidence)

    def _reload(self) -> None:
        try:
            self.settings = self._load()
        except ConfigError as exc:
            self._warn(f"{exc}; the earlier configuration stays in force")

    def _take_resets(self) -> None:
        if self._state_folder is None:
            return
        resets = read_resets(self._state_folder, PATIENCE_SECONDS)
        if resets is None:
            return
        for name, at in resets.items():
            if at != self._resets.get(name):
                self._set(name, FRESH)
        self._resets = resets

    @staticmethod
    def _stamp(path: Path | None) -> Stamp:
        if path is None:
            return None
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
