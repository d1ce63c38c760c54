"""What was learned about accounts: cooldowns, limits, refused credentials; read by the CLI too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codexlb_cli.core.accounts import FRESH, AccountState
from codexlb_cli.core.windows import Credits, Limits, Rate, Window
from codexlb_cli.store.database import (
    BUSY_SECONDS,
    Write,
    database_path,
    open_for_writing,
    reading,
    tell_gateway,
    unusable,
)

_PARTS: Mapping[str, type[Window | Rate | Credits]] = {
    "primary": Window,
    "secondary": Window,
    "requests": Rate,
    "tokens": Rate,
    "credits": Credits,
}
_UPSERT = (
    "INSERT INTO accounts (name, state) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET state = excluded.state"
)


def read_states(
    state_folder: Path, warn: Callable[[str], None] | None = None
) -> dict[str, AccountState]:
    """Return what is known of each account; {} if nothing was stored, or it cannot be read.

    Args:
        state_folder: where the database lies.
        warn: is told if it cannot be read.
    """
    try:
        with reading(state_folder) as connection:
            if connection is None:
                return {}
            return states_in(connection)
    except sqlite3.Error as exc:
        if warn is not None:
            path = database_path(state_folder)
            warn(f"`{path}` cannot be read ({exc}), so what was learned about accounts is unknown")
        return {}


def states_in(connection: sqlite3.Connection) -> dict[str, AccountState]:
    """Return what an open database knows of each account."""
    rows = connection.execute("SELECT name, state FROM accounts").fetchall()
    return {name: _decode(text) for name, text in rows}


def read_resets(state_folder: Path, busy_seconds: float = BUSY_SECONDS) -> dict[str, float] | None:
    """Return when each account was last reset, seconds since the epoch; None if nobody can tell.

    Args:
        state_folder: where the database lies.
        busy_seconds: how long to wait for a process that has the database to itself.
    """
    try:
        with reading(state_folder, busy_seconds) as connection:
            if connection is None:
                return {}
            query = "SELECT name, reset_at FROM accounts WHERE reset_at IS NOT NULL"
            return dict(connection.execute(query).fetchall())
    except sqlite3.Error:
        return None


def reset_account(state_folder: Path, name: str, now: float) -> None:
    """Forget what was learned about an account, in a running gateway too.

    Raises:
        ConfigError: the database cannot be written.
    """
    path = database_path(state_folder)
    try:
        with closing(open_for_writing(path)) as connection, connection:
            connection.execute(_UPSERT, (name, _encode(FRESH)))
            connection.execute("UPDATE accounts SET reset_at = ? WHERE name = ?", (now, name))
        tell_gateway(state_folder, now)
    except (sqlite3.Error, OSError) as exc:
        raise unusable(path, f"the state of `{name}` cannot be reset", exc) from exc


def write_state(name: str, state: AccountState) -> Write:
    """Return a write that stores the state of one account."""
    text = _encode(state)

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(_UPSERT, (name, text))

    return write


def _encode(state: AccountState) -> str:
    return json.dumps(asdict(state))


def _decode(text: str) -> AccountState:
    try:
        fields = json.loads(text)
        limits = _limits(fields.get("limits") or {})
        counted = tuple(fields.get("counted", ()))
        return AccountState(**{**fields, "counted": counted, "limits": limits})
    except (ValueError, TypeError, AttributeError):
        return FRESH


def _limits(fields: dict[str, Any]) -> Limits:
    parts = {name: made(**fields[name]) for name, made in _PARTS.items() if fields.get(name)}
    return Limits(**{**fields, **parts})
