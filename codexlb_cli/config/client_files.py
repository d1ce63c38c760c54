"""The configuration file of another program: written with a backup beside it, and put back.

What was written is remembered in the state folder, without any text of the file itself. A file
that is still what was written comes back byte for byte from its backup; from one that changed
since, only what was written is taken back. In doubt nothing is touched.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codexlb_cli.config import client_edits
from codexlb_cli.config.client_edits import CannotEdit, Changes, Format, NotReadable, Touched
from codexlb_cli.config.files import cannot_write, locked, replace_file
from codexlb_cli.config.load import read_config
from codexlb_cli.core.client_settings import ClientSettings
from codexlb_cli.errors import ConfigError

_SCHEMA = "codexlb.client_file/1"
_Path = client_edits.Path
_BOM = codecs.BOM_UTF8
"""Some editors of Windows write it, and the clients read past it; TOML and JSON know none."""


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A client's configuration file, and where is remembered what was written into it.

    Attributes:
        client: the client's name.
        path: the file as the client names it; it may be a link, and need not exist.
        form: how it is written.
        records: the folder that remembers.
        undo: the command that takes back what was written.
    """

    client: str
    path: Path
    form: Format = field(repr=False)
    records: Path
    undo: str

    @property
    def record(self) -> Path:
        """The file that remembers what was written."""
        named = os.fsencode(self.path.absolute())
        return self.records / f"{self.client}-{hashlib.sha256(named).hexdigest()[:16]}.json"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written into a file.

    Attributes:
        digest: the SHA-256 of the file as it was left.
        backup: the file as it was before; None if there was none.
        changes: what was set and deleted.
        unit: the table that is ours as a whole.
        folders: the folders that were made for it, the innermost first.
    """

    digest: str
    backup: Path | None
    changes: Changes = field(repr=False)
    unit: _Path | None = None
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A change of the file that can be shown before it is made.

    Attributes:
        now: what the file holds; None if there is no file.
        after: what it will hold; None if it will go.
        base: what it held before anything was written into it; None if there was no file.
        earlier: what was remembered of it.
        changes: what is written; empty to take back.
        unit: the table that is ours as a whole.
    """

    now: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)
    base: bytes | None = field(default=None, repr=False)
    earlier: Written | None = None
    changes: Changes = field(default_factory=dict, repr=False)
    unit: _Path | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether the file is as it is to be."""
        return self.now == self.after


def plan_write(file: ClientFile, settings: ClientSettings) -> Step:
    """Say what writing the settings would make of the file.

    What was written earlier is taken back first, so that no trace of another variant stays.

    Raises:
        ConfigError: it cannot be read, is broken, or has no place for the changes.
    """
    now = read_config(file.path)
    earlier = _remembered(file)
    text = _text(file, now)
    try:
        if now is not None and _same(earlier, settings) and _holds(file, text, settings):
            return Step(now, now)
        base = now if earlier is None or now is None else _base(file, now, earlier)
        changes = settings.fresh if base is None else settings.changes
        after = client_edits.changed(file.form, _text(file, base), changes)
    except NotReadable as exc:
        raise _broken(file, exc) from None
    except CannotEdit as exc:
        raise ConfigError(
            f"`{file.path}` stays as it is: {exc}", hint=f"edit it yourself:\n\n{settings.text}"
        ) from None
    return Step(now, _content(after, base), base, earlier, changes, settings.unit)


def plan_undo(file: ClientFile) -> Step | None:
    """Say how to take back what was written; None if nothing was.

    Raises:
        ConfigError: what was written has been changed since, or the backup is gone.
    """
    earlier = _remembered(file)
    if earlier is None:
        return None
    now = read_config(file.path)
    base = None if earlier.backup is None else _backup(file, earlier.backup)
    if now is None:
        if base is not None:
            raise ConfigError(
                f"`{file.path}` is gone, so there is nothing to take back",
                hint=f"what it held before lies in {earlier.backup}",
            )
        return Step(None, None, None, earlier)
    if _digest(now) == earlier.digest:
        return Step(now, base, base, earlier)
    try:
        text = _without(file, now, base, earlier)
    except NotReadable as exc:
        raise _broken(file, exc) from None
    except (Touched, CannotEdit) as exc:
        what = f"`{'.'.join(exc.path)}`" if isinstance(exc, Touched) else "it"
        where = f"; what it held before lies in {earlier.backup}" if earlier.backup else ""
        raise ConfigError(
            f"`{file.path}` stays as it is: {what} was changed by hand since",
            hint=f"take it back by hand{where}",
        ) from None
    gone = earlier.backup is None and not text.strip()
    return Step(now, None if gone else _content(text, now), base, earlier)


def carry_out(file: ClientFile, step: Step) -> Path | None:
    """Make a planned change; returns the backup that is kept, if there is one.

    Raises:
        ConfigError: somebody changed the file meanwhile, or it cannot be written.
    """
    with locked(file.records / "clients.lock"):
        _still(file, step.now)
        try:
            return _write(file, step) if step.changes else _undo(file, step)
        except OSError as exc:
            raise cannot_write(file.path, exc) from None


def _write(file: ClientFile, step: Step) -> Path | None:
    earlier, backup = step.earlier, None
    made: tuple[Path, ...] = ()
    if step.base is not None:
        kept = earlier.backup if earlier else None
        is_kept = kept is not None and _bytes(kept) == step.base
        backup = kept if is_kept else _new_backup(file, step.base)
    if step.now is None:
        made = _make_folders(file.path.resolve().parent)
    elif earlier is not None:
        made = earlier.folders
    after = step.after or b""
    written = Written(_digest(after), backup, step.changes, step.unit, made)
    _remember(file, written)
    try:
        _replace(file, step.now, after)
    except BaseException:
        if earlier is not None:
            _remember(file, earlier)
        else:
            file.record.unlink(missing_ok=True)
        if backup is not None and (earlier is None or backup != earlier.backup):
            backup.unlink(missing_ok=True)
        raise
    old = earlier.backup if earlier else None
    if old is not None and old != backup and step.base != step.now:
        old.unlink(missing_ok=True)  # the new one holds what it held, and what was added since
    return backup


def _undo(file: ClientFile, step: Step) -> Path | None:
    earlier = step.earlier
    if earlier is None:
        return None
    if step.after is not None:
        _replace(file, step.now, step.after)
    else:
        file.path.resolve().unlink(missing_ok=True)
        for folder in earlier.folders:
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
    file.record.unlink(missing_ok=True)
    backup = earlier.backup
    if backup is None or step.after != step.base:
        return backup
    backup.unlink(missing_ok=True)
    return None


def _base(file: ClientFile, now: bytes, earlier: Written) -> bytes | None:
    """Return the file without what was written earlier; as it is where that cannot be told."""
    try:
        base = None if earlier.backup is None else _backup(file, earlier.backup)
        if _digest(now) == earlier.digest:
            return base
        return _content(_without(file, now, base, earlier), now)
    except (ConfigError, CannotEdit, Touched):
        return now


def _without(file: ClientFile, now: bytes, base: bytes | None, earlier: Written) -> str:
    return client_edits.taken_back(
        file.form,
        now=_text(file, now),
        before=_text(file, base),
        written=earlier.changes,
        unit=earlier.unit,
    )


def _text(file: ClientFile, content: bytes | None) -> str:
    try:
        return (content or b"").removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as exc:
        line = (content or b"").count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            f"`{file.path}` is not UTF-8", hint=f"see line {line} of {file.path}"
        ) from None


def _content(text: str, before: bytes | None) -> bytes:
    """Return the text as the file holds it: with a byte order mark, if it had one."""
    mark = _BOM if before is not None and before.startswith(_BOM) else b""
    return mark + text.encode()


def _broken(file: ClientFile, exc: NotReadable) -> ConfigError:
    where = f" (line {exc.line})" if exc.line else ""
    return ConfigError(
        f"`{file.path}` is broken, so it stays as it is: {exc}{where}",
        hint=f"mend it first: {file.client} cannot read it either",
    )


def _still(file: ClientFile, before: bytes | None) -> None:
    if read_config(file.path) != before:
        raise ConfigError(
            f"`{file.path}` was changed by somebody else meanwhile, so nothing was written",
            hint="run the command again",
        )


def _replace(file: ClientFile, now: bytes | None, after: bytes) -> None:
    """Put the new content in place; a link is followed, a new file is for its owner alone."""
    target = file.path.resolve()
    mode = 0o600
    if now is not None:
        mode = target.stat().st_mode & 0o7777
        if not os.access(target, os.W_OK):
            raise PermissionError(None, "it is read-only")
    replace_file(target, after, mode=mode, check=lambda: _still(file, now))


def _new_backup(file: ClientFile, content: bytes) -> Path:
    """Write a backup beside the file, under a name that is free, with the file's own mode.

    It lies beside the link if the file is one: what the link leads to may be a repository.
    """
    mode = file.path.stat().st_mode & 0o777
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        backup = file.path.absolute().with_name(f"{file.path.name}.codexlb-backup{suffix}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            backup.chmod(mode)
        except BaseException:
            backup.unlink()
            raise
        return backup


def _make_folders(folder: Path) -> tuple[Path, ...]:
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, path in enumerate(missing) if path.is_dir())]
    for path in reversed(missing):
        path.mkdir(mode=0o700)
    return tuple(missing)


def _backup(file: ClientFile, backup: Path) -> bytes:
    content = _bytes(backup)
    if content is None:
        raise ConfigError(
            f"the backup `{backup}` is gone, so `{file.path}` stays as it is",
            hint="take back by hand what was written",
        )
    return content


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _holds(file: ClientFile, text: str, settings: ClientSettings) -> bool:
    return client_edits.holds(file.form, text, settings.changes)


def _same(earlier: Written | None, settings: ClientSettings) -> bool:
    """Whether the same was written before; a file that nothing was written into counts, too."""
    return earlier is None or dict(earlier.changes) in (settings.changes, settings.fresh)


def _remember(file: ClientFile, written: Written) -> None:
    document = {
        "schema": _SCHEMA,
        "file": str(file.path.absolute()),
        "sha256": written.digest,
        "backup": None if written.backup is None else str(written.backup),
        "changes": [{"path": list(p), "value": value} for p, value in written.changes.items()],
        "unit": None if written.unit is None else list(written.unit),
        "folders": [str(folder) for folder in written.folders],
    }
    file.records.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(file.record, json.dumps(document, indent=2).encode(), mode=0o600)


def _remembered(file: ClientFile) -> Written | None:
    content = _bytes(file.record)
    try:
        return None if content is None else _recalled(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _recalled(document: Mapping[str, Any]) -> Written | None:
    if document["schema"] != _SCHEMA:
        return None
    return Written(
        digest=str(document["sha256"]),
        backup=None if document["backup"] is None else Path(document["backup"]),
        changes={tuple(change["path"]): change["value"] for change in document["changes"]},
        unit=None if document["unit"] is None else tuple(document["unit"]),
        folders=tuple(Path(folder) for folder in document["folders"]),
    )
