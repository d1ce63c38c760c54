"""The login in the `auth.json` of the Codex CLI, read leniently and never changed.

Its refresh token is good for one refresh. Whoever refreshes first signs the other out, so a login
that is taken from there is a loan: an own one is better.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from codexlb_cli.core.signin import ISSUER_MUST_BE, is_issuer, read_object
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import key_fault
from codexlb_cli.store.logins import CLIENT_ID, ISSUER, Login
from codexlb_cli.store.secrets import Secret

LARGEST_BYTES = 1024 * 1024
_KNOWN = {"auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh"}
_KNOWN_TOKENS = {"id_token", "access_token", "refresh_token", "account_id", "oauth_provenance"}


class NoLogin(ConfigError):
    """The file is that of the Codex CLI, but there is no login in it.

    Attributes:
        has_key: whether there is an API key instead.
    """

    def __init__(self, message: str, *, has_key: bool = False) -> None:
        super().__init__(message)
        self.has_key = has_key


@dataclass(frozen=True, slots=True)
class CodexAuth:
    """What an `auth.json` holds.

    Attributes:
        login: its login.
        set_aside: the names of the keys that mean nothing here.
        open_to_others: whether other users of this computer can read the file.
    """

    login: Login
    set_aside: tuple[str, ...] = ()
    open_to_others: bool = False


def read_codex_auth(file: Path) -> CodexAuth:
    """Read the login of the Codex CLI.

    Args:
        file: its `auth.json`, or a link to it.

    Raises:
        ConfigError: it cannot be read, is too large, no such file, or holds no login.
    """
    content, mode = _content(file)
    document = read_object(content)
    if document is None:
        raise ConfigError(f"`{file}` is no auth.json of the Codex CLI: it holds no JSON object")
    tokens = document.get("tokens")
    if not isinstance(tokens, dict):
        if isinstance(document.get("OPENAI_API_KEY"), str):
            raise NoLogin(f"`{file}` holds an API key and no login", has_key=True)
        raise NoLogin(f"`{file}` holds no login")
    set_aside = sorted(set(document) - _KNOWN)
    set_aside += [f"tokens.{name}" for name in sorted(set(tokens) - _KNOWN_TOKENS)]
    return CodexAuth(
        login=_login(document, tokens, file),
        set_aside=tuple(set_aside),
        open_to_others=os.name == "posix" and bool(mode & 0o077),
    )


def _content(file: Path) -> tuple[bytes, int]:
    """Return the bytes and the mode of a file, and never wait for a pipe or a device."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"`{file}` is not a regular file")
            content = opened.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = (getattr(exc, "strerror", None) or type(exc).__name__).lower()
        raise ConfigError(f"cannot read `{file}`: {reason}") from None
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"`{file}` is larger than 1 MiB, so it is no auth.json")
    return content, status.st_mode


def _login(document: Mapping[str, Any], tokens: Mapping[str, Any], file: Path) -> Login:
    access = _token(tokens, "access_token", file)
    if access is None:
        raise ConfigError(f"`{file}` holds no access token")
    provenance = tokens.get("oauth_provenance")
    issuer, client_id = _provenance(provenance if isinstance(provenance, dict) else {}, file)
    login = Login(
        access_token=access,
        refresh_token=_token(tokens, "refresh_token", file),
        id_token=_token(tokens, "id_token", file),
        account_id=_account_id(tokens.get("account_id")),
        refreshed_at=_seconds(document.get("last_refresh")),
        issuer=issuer,
        client_id=client_id,
        shared=True,
    )
    if login.account_id is not None:
        return login
    named = _account_id(login.claims.account_id)
    if named is None:
        raise ConfigError(f"`{file}` holds tokens that name no account")
    return replace(login, account_id=named)


def _provenance(found: Mapping[str, Any], file: Path) -> tuple[str, str]:
    """Return who gave the tokens, and to which client; Codex's usual ones where it is not said.

    Raises:
        ConfigError: the issuer is one to which no token may be sent.
    """
    issuer, client_id = found.get("issuer"), found.get("client_id")
    url = issuer if isinstance(issuer, str) and issuer else ISSUER
    if not is_issuer(url):
        raise ConfigError(f"`tokens.oauth_provenance.issuer` in `{file}` must be {ISSUER_MUST_BE}")
    usable = isinstance(client_id, str) and key_fault(client_id) is None
    return url.rstrip("/"), str(client_id) if usable else CLIENT_ID


def _token(tokens: Mapping[str, Any], name: str, file: Path) -> Secret | None:
    value = tokens.get(name)
    if not isinstance(value, str) or not value:
        return None
    if fault := key_fault(value):
        raise ConfigError(f"`tokens.{name}` in `{file}` {fault}")
    return Secret(value)


def _account_id(value: object) -> str | None:
    return value if isinstance(value, str) and value and key_fault(value) is None else None


def _seconds(value: object) -> float:
    """Return a time of RFC 3339 in seconds since the epoch; 0 if it is none."""
    try:
        return max(datetime.fromisoformat(str(value)).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0
