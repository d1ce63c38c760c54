"""The accounts' credentials: keys and logins, in variables, in a file, or in the system's keyring.

A key or a token is handed out as a `Secret`, which does not show itself; it is never part of a
message. What lies in the keyring has an entry in the file, too, which says so and no more.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from codexlb_cli.config.load import DEMO_NAMES
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.tokens import read_claims
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials_file import CredentialsFile, Entry
from codexlb_cli.store.logins import (
    LOGIN_MEMBERS,
    Login,
    login_document,
    login_fault,
    read_login,
)
from codexlb_cli.store.secrets import Secret, key_fault
from codexlb_cli.store.system_keyring import Backend, SystemKeyring, system_backend

__all__ = ["CredentialSource", "Credentials", "DemoCredentials", "key_fault", "signed_in_as"]


class CredentialSource(Protocol):
    """Where the keys of accounts come from."""

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key or access token; None if there is none."""

    def login(self, name: str) -> Login | None:
        """Return the login of the account `name`; None if it is not signed in."""

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no usable key; None if it has one."""

    def present(self, account: Account) -> bool:
        """Say whether the account has a usable key."""


class DemoCredentials:
    """The built-in keys of the demo's accounts; they open nothing."""

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key; None if it is no account of the demo."""
        return Secret(f"demo-key-{account.name}") if account.name in DEMO_NAMES else None

    def login(self, name: str) -> Login | None:  # noqa: ARG002 - they all have keys
        """Return None: no account of the demo signs in."""
        return None

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no key; None if it has one."""
        return None if account.name in DEMO_NAMES else f"`{account.name}` is no demo account"

    def present(self, account: Account) -> bool:
        """Say whether it is an account of the demo."""
        return account.name in DEMO_NAMES


@dataclass(slots=True)
class Credentials:
    """The credentials of the configured accounts.

    The file is read again only when it changed, so asking is cheap.

    Attributes:
        folder: the state folder; it need not exist.
        environ: the environment.
        place: where new credentials are kept. Where those of an account lie, its entry says.
        backend: returns the library of the keyring; called when something lies there.
    """

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    place: Literal["file", "keyring"] = "file"
    backend: Callable[[], Backend] = field(default=system_backend, repr=False)
    _file: CredentialsFile = field(init=False, repr=False)
    _keyring: SystemKeyring = field(init=False, repr=False)
    _logins: dict[str, tuple[Entry, Login]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Make the two places; neither is touched yet."""
        self._file = CredentialsFile(self.folder)
        self._keyring = SystemKeyring(self.folder, self.backend)

    @property
    def file(self) -> Path:
        """The file with the stored keys; it need not exist."""
        return self._file.path

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key or access token; None if there is none.

        Raises:
            ConfigError: no header can carry it, or what is stored cannot be used.
        """
        text = self._text(account)
        if text is None:
            return None
        if fault := key_fault(text):
            raise ConfigError(f"{self._where(account)} {fault}")
        return Secret(text)

    def login(self, name: str) -> Login | None:
        """Return the login of the account `name`; None if it is not signed in.

        Raises:
            ConfigError: what is stored cannot be used.
        """
        entry = self._entry(name)
        if "login" not in entry:
            return None
        known = self._logins.get(name)
        if known is None or known[0] is not entry:
            known = self._logins[name] = entry, read_login(entry["login"])
        return known[1]

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no usable key; None if it has one.

        Raises:
            ConfigError: what is stored cannot be used.
        """
        text = self._text(account)
        where = self._where(account)
        if text is not None:
            fault = key_fault(text)
            return f"{where} {fault}" if fault else None
        if account.credential.source == "env":
            unset = account.credential.name not in self.environ
            return f"{where} is not set in this shell" if unset else f"{where} is empty"
        if account.credential.source == "login":
            return f"`{account.name}` is not signed in"
        return f"no key is stored for `{account.name}`"

    def present(self, account: Account) -> bool:
        """Say whether the account has a usable key.

        Raises:
            ConfigError: what is stored cannot be used.
        """
        return self.problem(account) is None

    def check(self) -> None:
        """Make sure that what is stored can be read and changed.

        Raises:
            ConfigError: the file is broken or open to others, or the keyring cannot be used.
        """
        for name in self._file.entries():
            self._entry(name)

    def store(self, name: str, secret: Secret) -> None:
        """Keep the key of the account `name`, instead of an earlier one.

        Raises:
            ConfigError: the key cannot be sent in a header, or what is stored cannot be changed.
        """
        if fault := key_fault(secret.reveal()):
            raise ConfigError(f"the key for `{name}` {fault}")
        with self._file.locked():
            self._keep(name, {**self._entry(name), "api_key": secret.reveal()})

    def store_login(self, name: str, login: Login, *, instead_of: Login | None = None) -> bool:
        """Keep the login of the account `name`; it is on disk when this returns.

        Args:
            name: the account's.
            login: the new one; what else stands beside the earlier one stays.
            instead_of: the login that it follows from; None for a new one. If another one was
                stored meanwhile, that stays.

        Returns:
            Whether it is kept.

        Raises:
            ConfigError: the login cannot be used, or what is stored cannot be changed.
        """
        if fault := login_fault(login):
            raise ConfigError(f"the login of `{name}` {fault}")
        with self._file.locked():
            if instead_of is not None and self.login(name) != instead_of:
                return False
            entry = self._entry(name)
            earlier = entry.get("login", {})
            known = {key: value for key, value in earlier.items() if key not in LOGIN_MEMBERS}
            self._keep(name, {**entry, "login": {**known, **login_document(login)}})
        return True

    def forget(self, name: str) -> bool:
        """Delete what is stored for the account `name`; say whether there was anything.

        Raises:
            ConfigError: what is stored cannot be changed.
        """
        if name not in self._file.entries():
            return False  # without leaving a lock where nothing was ever stored
        with self._file.locked():
            if "keyring" in self._file.entries().get(name, {}):
                self._keyring.forget(name)
            self._file.replace(name, None)
        return True

    def _where(self, account: Account) -> str:
        match account.credential.source:
            case "env":
                return f"`{account.credential.name}`"
            case "login":
                return f"the access token of `{account.name}`"
        return f"the stored key of `{account.name}`"

    def _text(self, account: Account) -> str | None:
        match account.credential.source:
            case "env":
                text = self.environ.get(account.credential.name)
            case "login":
                login = self.login(account.name)
                text = None if login is None else login.access_token.reveal()
            case _:
                text = self._entry(account.name).get("api_key")
        return (text.strip() or None) if text is not None else None

    def _entry(self, name: str) -> Entry:
        entry = self._file.entries().get(name, {})
        return self._keyring.entry(name, entry["keyring"]) if "keyring" in entry else entry

    def _keep(self, name: str, entry: Entry) -> None:
        """Store an entry where new ones go, and leave nothing of it in the other place."""
        marked = self._file.entries().get(name, {})
        if self.place == "keyring":
            stamp = uuid.uuid4().hex
            self._keyring.store(name, stamp, entry)
            known = {k: v for k, v in marked.items() if k not in _ENTRY_MEMBERS}
            self._file.replace(name, {**known, "keyring": stamp})
            return
        kept = {k: v for k, v in marked.items() if k != "keyring"}
        self._file.replace(name, {**kept, **entry})
        if "keyring" in marked:
            self._keyring.forget(name)


_ENTRY_MEMBERS = frozenset({"api_key", "login", "keyring"})


def signed_in_as(account: Account, credentials: CredentialSource) -> str | None:
    """Return the value of an account's `chatgpt-account-id`; None if it has none.

    Raises:
        ConfigError: what is stored cannot be used.
    """
    if account.kind != "chatgpt":
        return None
    if account.credential.source == "login":
        login = credentials.login(account.name)
        return None if login is None else login.sent_account_id
    secret = credentials.secret(account)
    named = None if secret is None else read_claims(secret.reveal()).account_id
    return named if named is not None and key_fault(named) is None else None
