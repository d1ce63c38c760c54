"""The system's keyring as a place for credentials: an extra, loaded when it is needed.

One secret per account: the entry as JSON. Whether it changed is told by a stamp that stands in the
credentials file, so that the keyring, which may be slow, is asked once for each change.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials_file import Entry, is_entry

SERVICE = "codexlb"
AGAIN_SECONDS = 10.0
"""How long a keyring that failed is left alone."""

_FILE_INSTEAD = 'store = "file" in [credentials] of config.toml keeps them in a file instead'


class Backend(Protocol):
    """What is used of the `keyring` library."""

    def get_password(self, service_name: str, username: str) -> str | None:
        """Return a secret; None if there is none."""

    def set_password(self, service_name: str, username: str, password: str) -> None:
        """Keep a secret."""

    def delete_password(self, service_name: str, username: str) -> None:
        """Forget a secret."""


def system_backend(library: str = "keyring") -> Backend:
    """Load the library that speaks to the system's keyring.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return cast(Backend, importlib.import_module(library))
    except ImportError:
        raise ConfigError(
            "credentials are kept in the keyring, but its library is not installed",
            hint="pip install 'codexlb-cli[keyring]'",
        ) from None


@dataclass(slots=True)
class SystemKeyring:
    """The entries that lie in the keyring.

    Attributes:
        folder: the state folder: each has entries of its own.
        backend: returns the library, or raises ConfigError.
        clock: monotonic seconds.
    """

    folder: Path
    backend: Callable[[], Backend] = system_backend
    clock: Callable[[], float] = time.monotonic
    _read: dict[str, tuple[str, Entry]] = field(default_factory=dict, repr=False)
    _failed: dict[str, tuple[float, ConfigError]] = field(default_factory=dict, repr=False)

    def entry(self, name: str, stamp: str) -> Entry:
        """Return the entry of an account as it was when `stamp` was given; empty if it is gone.

        Raises:
            ConfigError: the keyring cannot be used.
        """
        known = self._read.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        until, error = self._failed.get(name, (0.0, None))
        if error is not None and self.clock() < until:
            raise error
        try:
            text = self._ask(lambda backend: backend.get_password(SERVICE, self._user(name)))
        except ConfigError as exc:
            self._failed[name] = (self.clock() + AGAIN_SECONDS, exc)
            raise
        entry = _parsed(text)
        self._read[name] = (stamp, entry)
        self._failed.pop(name, None)
        return entry

    def store(self, name: str, stamp: str, entry: Entry) -> None:
        """Keep the entry of an account; `stamp` tells this one from earlier ones.

        Raises:
            ConfigError: the keyring cannot be used.
        """
        text = json.dumps(entry)
        self._ask(lambda backend: backend.set_password(SERVICE, self._user(name), text))
        self._read[name] = (stamp, entry)
        self._failed.pop(name, None)

    def forget(self, name: str) -> None:
        """Delete the entry of an account.

        Raises:
            ConfigError: the keyring cannot be used.
        """
        user = self._user(name)
        if self._ask(lambda backend: backend.get_password(SERVICE, user)) is not None:
            self._ask(lambda backend: backend.delete_password(SERVICE, user))
        self._read.pop(name, None)

    def _user(self, name: str) -> str:
        return f"{name} in {self.folder.absolute()}"

    def _ask(self, call: Callable[[Backend], str | None]) -> str | None:
        backend = self.backend()
        try:
            return call(backend)
        # Backends raise what their platforms do; a message could hold what was to be stored.
        except Exception as exc:  # noqa: BLE001
            reason = type(exc).__name__
        if reason == "NoKeyringError":
            message = "this system has no keyring that can be used"
        else:
            message = f"the system's keyring refused ({reason})"
        raise ConfigError(message, hint=_FILE_INSTEAD)


def _parsed(text: str | None) -> Entry:
    try:
        entry = json.loads(text or "{}")
    except (ValueError, RecursionError):
        entry = None
    if not is_entry(entry):
        raise ConfigError(
            "what the keyring holds is broken",
            hint="remove the accounts whose keys were in it and add them again",
        )
    return cast(Entry, entry)
