"""`credentials.toml`: a file that only this program writes, for its owner alone.

What an entry means is said by `credentials`; a message never holds a piece of the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from codexlb_cli.config.files import cannot_write, locked, replace_file
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.logins import is_login_document

Entry = dict[str, Any]
"""What is stored for one account; members that are not known here stay as they are."""


@dataclass(slots=True)
class CredentialsFile:
    """The file, read again only when it changed, so asking is cheap.

    Attributes:
        folder: the state folder; it need not exist.
    """

    folder: Path
    _read: tuple[tuple[int, ...], dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The file; it need not exist."""
        return self.folder / "credentials.toml"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this program from changing the file.

        Raises:
            ConfigError: another one does so for long, or the lock cannot be made.
        """
        with locked(self.folder / "credentials.lock"):
            yield

    def entries(self) -> dict[str, Entry]:
        """Return what is stored, by account name; not to be changed.

        Raises:
            ConfigError: the file is broken or open to others.
        """
        entries: dict[str, Entry] = self._document().get("accounts", {})
        return entries

    def replace(self, name: str, entry: Entry | None) -> None:
        """Store the entry of an account, or delete it; under the lock.

        Raises:
            ConfigError: the file cannot be written, is broken, or open to others.
        """
        document = self._document()
        entries = {n: e for n, e in document.get("accounts", {}).items() if n != name or entry}
        if entry:
            entries[name] = entry
        content = tomli_w.dumps({**document, "accounts": entries}).encode()
        try:
            self.folder.chmod(0o700)
            replace_file(self.path, content, mode=0o600)
        except OSError as exc:
            raise cannot_write(self.path, exc) from None
        self._read = None

    def _document(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as opened:
                status = os.fstat(opened.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)
                read = self._read  # another thread may forget it meanwhile
                if read is not None and read[0] == stamp:
                    return read[1]
                self._check_owner(status)
                document = self._parse(opened.read())
        except FileNotFoundError:
            self._read = None
            return {}
        except OSError as exc:
            reason = (exc.strerror or type(exc).__name__).lower()
            raise ConfigError(f"cannot read `{self.path}`: {reason}") from None
        self._read = (stamp, document)
        return document

    def _check_owner(self, status: os.stat_result) -> None:
        if os.name != "posix":
            return
        if status.st_uid != os.geteuid():
            raise ConfigError(f"`{self.path}` belongs to another user", hint=f"ls -l {self.path}")
        if status.st_mode & 0o077:
            mode = f"{status.st_mode & 0o777:04o}"
            raise ConfigError(
                f"`{self.path}` can be used by others (mode {mode})",
                hint=f"chmod 600 {self.path}",
            )

    def _parse(self, content: bytes) -> dict[str, Any]:
        try:
            document = tomllib.loads(content.decode("utf-8"))
        except (ValueError, RecursionError):  # its message could hold a piece of a key
            document = None
        if document is None or not _is_sound(document):
            raise ConfigError(
                f"`{self.path}` is broken",
                hint="move it away, remove the accounts whose keys were in it and add them again",
            )
        return document


def is_entry(value: object) -> bool:
    """Whether a value can be what is stored for an account."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key, ""), str) for key in ("api_key", "keyring"))
        and ("login" not in value or is_login_document(value["login"]))
    )


def _is_sound(document: dict[str, Any]) -> bool:
    accounts = document.get("accounts", {})
    return isinstance(accounts, dict) and all(map(is_entry, accounts.values()))
