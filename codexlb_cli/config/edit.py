"""Changes to the user's config.toml that touch nothing but what is to change.

A change is made in the text itself, at the place that `scan` found. It is written only if the new
text, read again, says exactly what was intended, and if the file is still the one that was read:
an edit by hand in between wins.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from codexlb_cli.config.faults import no_such_account
from codexlb_cli.config.files import cannot_write, locked, replace_file
from codexlb_cli.config.load import check_content, parse_config, read_config
from codexlb_cli.config.scan import Scan
from codexlb_cli.config.splice import (
    HoldsComment,
    with_table,
    with_value,
    without_table,
)
from codexlb_cli.errors import ConfigError

_Content = dict[str, Any]


def create_config(file: Path, content: bytes) -> None:
    """Write a config.toml where there is none, folders included.

    Raises:
        ConfigError: there is one, or it cannot be written.
    """
    file = file.resolve()  # a link that leads nowhere yet is followed
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise cannot_write(file, exc) from None
    try:
        opened = file.open("xb")
    except FileExistsError:
        raise ConfigError(
            f"`{file}` exists already", hint="codexlb config show prints what it says"
        ) from None
    except OSError as exc:
        raise cannot_write(file, exc) from None
    try:
        with opened:
            opened.write(content)
    except OSError as exc:  # a full disk: half a file would be in the way of the next try
        file.unlink()
        raise cannot_write(file, exc) from None


def add_account(file: Path, state_folder: Path, name: str, table: Mapping[str, str]) -> None:
    """Append the table of a new account; a missing file is created.

    Args:
        file: the user's config.toml.
        state_folder: where the lock among our own processes lies.
        name: a valid name.
        table: its keys and values, valid as well.

    Raises:
        ConfigError: the name is taken, or the file is broken, changes meanwhile, or cannot be
            written.
    """
    lines = [f"[accounts.{name}]", *(f"{key} = {json.dumps(table[key])}" for key in table)]

    def intended(content: _Content) -> None:
        accounts = content.setdefault("accounts", {})
        refuse_taken(name, accounts, file)
        accounts[name] = dict(table)

    apply_edit(
        file,
        state_folder,
        change=lambda scan: with_table(scan.text, lines),
        intended=intended,
        by_hand="append these lines:\n\n" + "\n".join(lines),
    )


def refuse_taken(name: str, taken: Collection[str], file: Path) -> None:
    """Refuse a name that an account has already.

    Raises:
        ConfigError: it is taken.
    """
    if name in taken:
        raise ConfigError(
            f"an account named `{name}` is in `{file.name}` already",
            hint=f"codexlb accounts show {name}",
        )


def set_enabled(file: Path, state_folder: Path, name: str, *, enabled: bool) -> None:
    """Set `enabled` of an account that is in the file.

    Raises:
        ConfigError: the file is broken, changes meanwhile, or cannot be written.
    """
    value = "true" if enabled else "false"

    def intended(content: _Content) -> None:
        _still_there(content, file, name)["enabled"] = enabled

    apply_edit(
        file,
        state_folder,
        change=lambda scan: with_value(scan, ("accounts", name), "enabled", value),
        intended=intended,
        by_hand=f"write this into `accounts.{name}`:\n\nenabled = {value}",
    )


def remove_account(file: Path, state_folder: Path, name: str, *, with_comments: bool) -> None:
    """Delete the table of an account that is in the file.

    Args:
        file: the user's config.toml.
        state_folder: where the lock among our own processes lies.
        name: the account.
        with_comments: delete comments of the table as well.

    Raises:
        ConfigError: the table holds a comment and `with_comments` is false, or the file is broken,
            changes meanwhile, or cannot be written.
    """

    def intended(content: _Content) -> None:
        _still_there(content, file, name)
        del content["accounts"][name]

    def change(scan: Scan) -> str:
        try:
            return without_table(scan, ("accounts", name), with_comments=with_comments)
        except HoldsComment as exc:
            raise ConfigError(
                f"`accounts.{name}` in `{file.name}` holds a comment of yours (line {exc.line})",
                hint=f"codexlb accounts remove {name} --delete deletes it too; or keep both:"
                f" codexlb accounts disable {name}",
            ) from None

    apply_edit(
        file,
        state_folder,
        change=change,
        intended=intended,
        by_hand=f"delete the lines of `accounts.{name}`",
    )


def apply_edit(
    file: Path,
    state_folder: Path,
    *,
    change: Callable[[Scan], str],
    intended: Callable[[_Content], None],
    by_hand: str,
) -> None:
    """Change the file, or leave every byte of it as it is.

    Args:
        file: the user's config.toml; if it is a link, what it leads to is changed.
        state_folder: where the lock among our own processes lies.
        change: returns the new text.
        intended: makes the same change to what the file says.
        by_hand: what to tell a person to do where `change` cannot.

    Raises:
        ConfigError: the file was and stays broken, the change is not possible here, or somebody
            else changed the file meanwhile.
    """
    with locked(state_folder / "config.lock"):
        before = read_config(file)
        parsed = parse_config(file, before or b"")
        check_content(file, parsed)
        content = copy.deepcopy(parsed.content)
        intended(content)
        after = change(parsed.scan)
        if not _says(after, content):
            raise ConfigError(
                f"`{file.name}` is written in a way that this command cannot change",
                hint=f"edit {file} yourself; {by_hand}",
            )
        _write(file, before, after.encode())


def _still_there(content: _Content, file: Path, name: str) -> _Content:
    accounts: _Content = content.get("accounts", {})
    if name not in accounts:
        raise no_such_account(name, list(accounts), file)
    account: _Content = accounts[name]
    return account


def _says(text: str, content: _Content) -> bool:
    try:
        return _comparable(tomllib.loads(text)) == _comparable(content)
    except tomllib.TOMLDecodeError:
        return False


def _comparable(content: _Content) -> tuple[str, list[str]]:
    """Return what tells true from 1 and 1 from 1.0, and the order of the accounts."""
    accounts = content.get("accounts", {})
    rest = {key: value for key, value in content.items() if key != "accounts"}
    return json.dumps([rest, accounts], sort_keys=True, default=repr), list(accounts)


def _still(file: Path, before: bytes) -> None:
    """Make sure that the file says what it said when this change was made."""
    if read_config(file) != before:
        raise ConfigError(
            f"`{file.name}` was changed by somebody else meanwhile, so nothing was written",
            hint="run the command again",
        )


def _write(file: Path, before: bytes | None, after: bytes) -> None:
    if before is None:
        create_config(file, after)
        return
    if after == before:
        return
    target = file.resolve()
    try:
        mode = target.stat().st_mode & 0o7777
        replace_file(target, after, mode=mode, check=lambda: _still(file, before))
    except OSError as exc:
        raise cannot_write(file, exc) from None
