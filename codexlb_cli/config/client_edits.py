"""Changes to a configuration file of another program, in its own text, and the way back.

Pure. Every edit is read again and must say exactly what was intended: the wanted values, and
everything else as before. Where a file is written in a way that has no place for a value, the edit
raises and the file stays.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from codexlb_cli.config import jsonc
from codexlb_cli.config.scan import scan
from codexlb_cli.config.splice import (
    HoldsComment,
    with_table,
    with_value,
    without_key,
    without_table,
)

Path = tuple[str, ...]
Changes = Mapping[Path, Any]
"""What each path is to be: a string, a boolean, None where nothing is to be, or {} where a table
is to be, whatever it holds."""

_MISSING = object()


class NotReadable(ValueError):
    """The file is not of its format.

    Attributes:
        line: the number of the line, from 1; None if that is not known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class CannotEdit(Exception):
    """The file is written in a way that has no place for the change, or holds a comment there."""


class Touched(Exception):
    """What was written has been changed by hand since.

    Attributes:
        path: the first such path.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class Format(Protocol):
    """How a file is written: TOML or JSON with comments."""

    def read(self, text: str) -> dict[str, Any]:
        """Return what the text says.

        Raises:
            NotReadable: it is not of this format.
        """

    def write(self, value: Any) -> str:
        """Return a value as the format writes it, on one line."""

    def value(self, written: str) -> Any:
        """Return the value that is written so."""

    def values(self, text: str) -> Iterator[tuple[Path, int, int]]:
        """Yield path, start and end of every value that is no table."""

    def with_value(self, text: str, path: Path, value: str) -> str:
        """Set the value of a path; the text comes back as it is where there is no place."""

    def with_values(self, text: str, table: Path, values: Mapping[str, str]) -> str:
        """Add a table that is not there yet."""

    def without(self, text: str, path: Path) -> str:
        """Delete what stands at a path; the text comes back as it is where that cannot be."""


class Toml:
    """config.toml of the Codex CLI."""

    def read(self, text: str) -> dict[str, Any]:
        """Return what the text says."""
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            what, _, place = str(exc).partition(" (at line ")
            line = place.partition(",")[0]
            raise NotReadable(
                what[:1].lower() + what[1:], int(line) if line.isdigit() else None
            ) from None
        except RecursionError:
            raise NotReadable("it is nested too deeply") from None

    def write(self, value: Any) -> str:
        """Return a string or a boolean as TOML."""
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def value(self, written: str) -> Any:
        """Return the value that is written so."""
        return self.read(f"it = {written}")["it"]

    def values(self, text: str) -> Iterator[tuple[Path, int, int]]:
        """Yield path, start and end of every value."""
        for entry in scan(text).entries:
            if entry.value is not None:
                yield entry.path, entry.value, entry.end

    def with_value(self, text: str, path: Path, value: str) -> str:
        """Set a key of a table that is there."""
        return with_value(scan(text), path[:-1], path[-1], value)

    def with_values(self, text: str, table: Path, values: Mapping[str, str]) -> str:
        """Append a table, or add it to an inline one above it."""
        found = scan(text)
        above = next((e for e in found.entries if e.path == table[:-1]), None)
        if above is not None and above.value is not None:
            inner = ", ".join(f"{key} = {value}" for key, value in values.items())
            return with_value(found, table[:-1], table[-1], f"{{ {inner} }}")
        lines = [f"[{'.'.join(table)}]", *(f"{key} = {value}" for key, value in values.items())]
        return with_table(text, lines)

    def without(self, text: str, path: Path) -> str:
        """Delete a key or a table."""
        try:
            shorter = without_key(scan(text), path)
            if shorter == text:
                shorter = without_table(scan(text), path, with_comments=False)
        except HoldsComment:
            raise CannotEdit("a comment of yours stands there") from None
        return shorter


class Jsonc:
    """opencode.json and opencode.jsonc."""

    def read(self, text: str) -> dict[str, Any]:
        """Return what the text says."""
        if not text.strip():
            return {}
        try:
            content = jsonc.read(text)
        except jsonc.NotJson as exc:
            raise NotReadable(str(exc), exc.line) from None
        if not isinstance(content, dict):
            raise NotReadable("it is no object")
        return content

    def write(self, value: Any) -> str:
        """Return a value as JSON."""
        return json.dumps(value, ensure_ascii=False)

    def value(self, written: str) -> Any:
        """Return the value that is written so."""
        return jsonc.read(written)

    def values(self, text: str) -> Iterator[tuple[Path, int, int]]:
        """Yield path, start and end of every value."""
        if text.strip():
            for path, node in jsonc.leaves(jsonc.parse(text)):
                yield path, node.start, node.end

    def with_value(self, text: str, path: Path, value: str) -> str:
        """Set a member; objects that lack are made."""
        return jsonc.with_member(text if text.strip() else "{}\n", path, value)

    def with_values(self, text: str, table: Path, values: Mapping[str, str]) -> str:
        """Add the members one by one."""
        for key, value in values.items():
            text = self.with_value(text, (*table, key), value)
        return text

    def without(self, text: str, path: Path) -> str:
        """Delete a member."""
        return jsonc.without_member(text, path)


def changed(form: Format, text: str, changes: Changes) -> str:
    """Return the text with the changes in it, and nothing else changed.

    Raises:
        NotReadable: the text is not of its format.
        CannotEdit: it has no place for a change.
    """
    content = form.read(text)
    written = {
        path: None if value is None else form.write(value)
        for path, value in changes.items()
        if not _is(_at(content, path), value)
    }
    return _edited(form, text, written)


def holds(form: Format, text: str, changes: Changes) -> bool:
    """Whether the text says what the changes would make it say."""
    content = form.read(text)
    return all(_is(_at(content, path), value) for path, value in changes.items())


def taken_back(
    form: Format, *, now: str, before: str, written: Changes, unit: Path | None = None
) -> str:
    """Return the text without what was written into it; everything else stays.

    Args:
        form: how it is written.
        now: the text, changed since by somebody else.
        before: the text before the changes were made.
        written: the changes that were made.
        unit: the table that is ours as a whole, such as a provider's: it goes as a whole.

    Raises:
        NotReadable: the text is not of its format.
        CannotEdit: that cannot be done in the text.
        Touched: what was written is not there as it was written.
    """
    present, past = form.read(now), form.read(before)
    raws = {path: before[start:end] for path, start, end in form.values(before)}
    back: dict[Path, str | None] = {}
    for path, value in written.items():
        old, new = _at(past, path), _at(present, path)
        if _is(old, value) or _same(new, old):
            continue
        if not _is(new, value) or (value == {} and new != {}):
            raise Touched(path)
        if old is not _MISSING and path not in raws:
            raise CannotEdit("a table stood there before")
        back[path] = None if old is _MISSING else raws[path]
    return _edited(form, now, _pruned(back, present, past, unit))


def _pruned(
    back: dict[Path, str | None], present: dict[str, Any], past: dict[str, Any], unit: Path | None
) -> dict[Path, str | None]:
    """Delete whole tables that were not there before and hold nothing else, instead of keys."""
    left = copy.deepcopy(present)
    gone: list[Path] = []
    for path in [path for path, value in back.items() if value is None]:
        _delete(left, path)
        gone.append(path)
        for length in range(len(path) - 1, 0, -1):
            if _at(past, path[:length]) is not _MISSING or _at(left, path[:length]) != {}:
                break
            _delete(left, path[:length])
            gone.append(path[:length])
    if unit is not None and _at(past, unit) is _MISSING and _at(left, unit) is not _MISSING:
        raise Touched(unit)
    covered = [p for p in gone if not any(p[: len(q)] == q for q in gone if len(q) < len(p))]
    kept: dict[Path, str | None] = {path: v for path, v in back.items() if v is not None}
    return {**kept, **dict.fromkeys(covered)}


def _edited(form: Format, text: str, raws: Mapping[Path, str | None]) -> str:
    """Make each change, and require after each that it is the only one."""
    done: set[Path] = set()
    for path, raw in raws.items():
        content = form.read(text)
        if path in done or (raw is None and _at(content, path) is _MISSING):
            continue
        table = path[:-1]
        if raw is None:
            step: dict[Path, str | None] = {path: None}
            texts = iter((form.without(text, path),))
        elif not table or isinstance(_at(content, table), dict):
            step = {path: raw}
            texts = _ways(form, text, path, raw)
        else:
            step = {p: r for p, r in raws.items() if p[:-1] == table and r is not None}
            rows = {p[-1]: r for p, r in step.items() if r is not None}
            texts = iter((form.with_values(text, table, rows),))
        text = _first_sound(form, content, step, texts)
        done |= set(step)
    return text


def _ways(form: Format, text: str, path: Path, raw: str) -> Iterator[str]:
    """Yield the text with a value set, in one way after the other."""
    yield form.with_value(text, path, raw)
    if path[:-1]:  # a table of which only the tables below have a header
        yield form.with_values(text, path[:-1], {path[-1]: raw})


def _first_sound(
    form: Format, content: dict[str, Any], step: Mapping[Path, str | None], texts: Iterator[str]
) -> str:
    intended = copy.deepcopy(content)
    for path, raw in step.items():
        if raw is None:
            _delete(intended, path)
        else:
            _put(intended, path, form.value(raw))
    for text in texts:
        try:
            if _same(form.read(text), intended):
                return text
        except NotReadable:
            continue
    raise CannotEdit("it is written in a way that has no place for it")


def _at(content: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return _MISSING
        content = content[key]
    return content


def _put(content: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        below = content.setdefault(key, {})
        if not isinstance(below, dict):
            raise CannotEdit(f"`{key}` is no table there")
        content = below
    content[path[-1]] = value


def _delete(content: dict[str, Any], path: Path) -> None:
    above = _at(content, path[:-1])
    if isinstance(above, dict):
        above.pop(path[-1], None)


def _is(found: Any, wanted: Any) -> bool:
    if wanted is None:
        return found is _MISSING
    return isinstance(found, dict) if wanted == {} else _same(found, wanted)


def _same(one: Any, other: Any) -> bool:
    """Whether two contents are the same; true is not 1, and 1 is not 1.0."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return _told_apart(one) == _told_apart(other)


def _told_apart(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=repr)
