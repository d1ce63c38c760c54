"""The accounts' keys: in environment variables, or in a file that only this program writes.

The file, `credentials.toml` in the state folder, is readable by its owner alone. A key is handed
out as a `Secret`, which does not show itself; it is never part of a message.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from codexlb_cli.config.files import cannot_write, locked, replace_file
from codexlb_cli.config.load import DEMO_NAMES
from codexlb_cli.core.accounts import Account
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.secrets import Secret

_VISIBLE = re.compile(r"[!-~]+")


class CredentialSource(Protocol):
    """Where the keys of accounts come from."""

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key; None if there is none."""

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no usable key; None if it has one."""

    def present(self, account: Account) -> bool:
        """Say whether the account has a usable key."""


class DemoCredentials:
    """The built-in keys of the demo's accounts; they open nothing."""

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key; None if it is no account of the demo."""
        return Secret(f"demo-key-{account.name}") if account.name in DEMO_NAMES else None

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no key; None if it has one."""
        return None if account.name in DEMO_NAMES else f"`{account.name}` is no demo account"

    def present(self, account: Account) -> bool:
        """Say whether it is an account of the demo."""
        return account.name in DEMO_NAMES


@dataclass(slots=True)
class Credentials:
    """The keys of the configured accounts.

    The file is read again only when it changed, so asking is cheap.

    Attributes:
        folder: the state folder; it need not exist.
        environ: the environment.
    """

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    _read: tuple[tuple[int, ...], dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """The file with the stored keys; it need not exist."""
        return self.folder / "credentials.toml"

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key; None if there is none.

        Raises:
            ConfigError: no header can carry the key, or the file is broken or open to others.
        """
        text = self._text(account)
        if text is None:
            return None
        if fault := key_fault(text):
            raise ConfigError(f"{self._where(account)} {fault}")
        return Secret(text)

    def problem(self, account: Account) -> str | None:
        """Say in words why the account has no usable key; None if it has one.

        Raises:
            ConfigError: the file is broken or open to others.
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
            ConfigError: the file is broken or open to others.
        """
        return self.problem(account) is None

    def check(self) -> None:
        """Make sure that the file, if there is one, can be read and changed.

        Raises:
            ConfigError: the file is broken or open to others.
        """
        self._load()

    def store(self, name: str, secret: Secret) -> None:
        """Keep the key of the account `name`, instead of an earlier one.

        Raises:
            ConfigError: the key cannot be sent in a header, or the file cannot be written, is
                broken, or open to others.
        """
        if fault := key_fault(secret.reveal()):
            raise ConfigError(f"the key for `{name}` {fault}")
        with locked(self._lock):
            document = self._load()
            accounts = document.get("accounts", {})
            entry = accounts.get(name, {})
            self._write(
                {**document, "accounts": {**accounts, name: {**entry, "api_key": secret.reveal()}}}
            )

    def forget(self, name: str) -> bool:
        """Delete what is stored for the account `name`; say whether there was anything.

        Raises:
            ConfigError: the file cannot be written, is broken, or open to others.
        """
        if name not in self._load().get("accounts", {}):
            return False  # without leaving a lock where nothing was ever stored
        with locked(self._lock):
            document = self._load()
            accounts = document.get("accounts", {})
            rest = {other: entry for other, entry in accounts.items() if other != name}
            self._write({**document, "accounts": rest})
        return True

    @property
    def _lock(self) -> Path:
        return self.folder / "credentials.lock"

    def _where(self, account: Account) -> str:
        if account.credential.source == "env":
            return f"`{account.credential.name}`"
        return f"the stored key of `{account.name}`"

    def _text(self, account: Account) -> str | None:
        source = account.credential.source
        if source == "env":
            text = self.environ.get(account.credential.name)
        elif source == "file":
            text = self._load().get("accounts", {}).get(account.name, {}).get("api_key")
        else:
            text = None
        return (text.strip() or None) if text is not None else None

    def _load(self) -> dict[str, Any]:
        try:
            with self.file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)
                if self._read is not None and self._read[0] == stamp:
                    return self._read[1]
                self._check_owner(status)
                document = self._parse(opened.read())
        except FileNotFoundError:
            self._read = None
            return {}
        except OSError as exc:
            reason = (exc.strerror or type(exc).__name__).lower()
            raise ConfigError(f"cannot read `{self.file}`: {reason}") from None
        self._read = (stamp, document)
        return document

    def _check_owner(self, status: os.stat_result) -> None:
        if os.name != "posix":
            return
        if status.st_uid != os.geteuid():
            raise ConfigError(f"`{self.file}` belongs to another user", hint=f"ls -l {self.file}")
        if status.st_mode & 0o077:
            mode = f"{status.st_mode & 0o777:04o}"
            raise ConfigError(
                f"`{self.file}` can be used by others (mode {mode})",
                hint=f"chmod 600 {self.file}",
            )

    def _parse(self, content: bytes) -> dict[str, Any]:
        try:
            document = tomllib.loads(content.decode("utf-8"))
        except (ValueError, RecursionError):  # its message could hold a piece of a key
            document = None
        if document is None or not _is_sound(document):
            raise ConfigError(
                f"`{self.file}` is broken",
                hint="move it away, remove the accounts whose keys were in it and add them again",
            )
        return document

    def _write(self, document: dict[str, Any]) -> None:
        try:
            self.folder.chmod(0o700)
            replace_file(self.file, tomli_w.dumps(document).encode(), mode=0o600)
        except OSError as exc:
            raise cannot_write(self.file, exc) from None
        self._read = None


def _is_sound(document: dict[str, Any]) -> bool:
    accounts = document.get("accounts", {})
    return isinstance(accounts, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("api_key", ""), str)
        for entry in accounts.values()
    )


def key_fault(text: str) -> str | None:
    """Say what keeps a text from being a key that a header can carry; None if nothing does.

    The words follow a subject such as "the key on stdin", and never show the text.
    """
    if not text:
        return "is empty"
    if _VISIBLE.fullmatch(text) is None:
        return "cannot be sent: it has blanks, control characters or characters that are not ASCII"
    return None
