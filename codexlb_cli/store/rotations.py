"""A note of what came of a refresh, for the moment until it is stored.

To store a login durably takes some milliseconds of waiting for the disk. A process that is killed
then would take the only copy of the new refresh token with it, so it is noted first, with one write
to a file that is open already. Who refreshes next finds the note.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from codexlb_cli.store.logins import Login, is_login_document, login_document, read_login

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
_MOST_BYTES = 1024 * 1024


@dataclass(slots=True)
class Note:
    """A note that is open, and still empty.

    Attributes:
        descriptor: of its file.
        used: the login whose refresh token is sent to the issuer.
    """

    descriptor: int
    used: Login

    def write(self, renewed: Login) -> None:
        """Note what came of it.

        Raises:
            OSError: it cannot be written.
        """
        document = {"used": _digest(self.used), "login": login_document(renewed)}
        os.write(self.descriptor, json.dumps(document).encode())


@contextmanager
def noting(folder: Path, name: str, used: Login) -> Iterator[Note]:
    """Have a note for a refresh of the account `name`; whoever leaves in order deletes it.

    Raises:
        OSError: it cannot be made: then nothing could be stored either.
    """
    path = note_path(folder, name)
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        yield Note(descriptor, used)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)


def noted(folder: Path, name: str, used: Login) -> Login | None:
    """Return what came of `used` in a process that ended before it stored that; None if nothing."""
    try:
        with note_path(folder, name).open("rb") as opened:
            status = os.fstat(opened.fileno())
            if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
                return None  # nobody else's word is taken
            document = json.loads(opened.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("used") != _digest(used):
        return None
    return read_login(document["login"]) if is_login_document(document.get("login")) else None


def forget_note(folder: Path, name: str) -> None:
    """Delete what was noted for the account `name`."""
    with suppress(OSError):
        note_path(folder, name).unlink(missing_ok=True)


def note_path(folder: Path, name: str) -> Path:
    """Return where the note of the account `name` lies while its login is refreshed."""
    return folder / f"refresh-{name}.note"


def _digest(login: Login) -> str:
    token = login.refresh_token.reveal() if login.refresh_token is not None else ""
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
