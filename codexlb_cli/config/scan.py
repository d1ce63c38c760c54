"""Where each key of a TOML document stands: tomllib says what it means, this says where.

Made for documents that tomllib has read without an error; about others it promises nothing.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field

_BLANK = re.compile(r"[ \t\r\n]*")
_COMMENT = re.compile(r"#[^\n]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{0,2})', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")  # a date may hold a space


@dataclass(frozen=True, slots=True)
class Entry:
    """A table header or a `key = value` of a document. Offsets count characters.

    Attributes:
        path: the whole path of the table or key.
        start: where the header or the key begins.
        end: where the header or the value ends.
        value: where the value begins; None for a header.
        inline: whether it stands inside an inline table.
    """

    path: tuple[str, ...]
    start: int
    end: int
    value: int | None = None
    inline: bool = False


@dataclass(slots=True)
class Scan:
    """A document's headers and keys, in the order of the text, and the places of its comments."""

    text: str
    entries: list[Entry] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)

    def lines(self) -> dict[tuple[str, ...], int]:
        """Return the number of the line, from 1, where each path first stands."""
        found: dict[tuple[str, ...], int] = {}
        line, counted = 1, 0
        for entry in sorted(self.entries, key=lambda entry: entry.start):
            line += self.text.count("\n", counted, entry.start)
            counted = entry.start
            for length in range(1, len(entry.path) + 1):
                found.setdefault(entry.path[:length], line)
        return found


def scan(text: str) -> Scan:
    """Find the headers, keys and comments of a valid document."""
    scanner = _Scanner(Scan(text), text)
    scanner.document()
    return scanner.found


@dataclass(slots=True)
class _Scanner:
    found: Scan
    text: str
    at: int = 0

    def document(self) -> None:
        table: tuple[str, ...] = ()
        while self._skip() < len(self.text):
            start = self.at
            if self.text[self.at] == "[":
                brackets = 2 if self.text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self._path()
                self.at += brackets
                self.found.entries.append(Entry(table, start, self.at))
            else:
                self._key_value(table, inline=False)

    def _skip(self) -> int:
        """Pass blanks, line feeds and comments; return where that ends."""
        while True:
            self._blanks()
            if not self.text.startswith("#", self.at):
                return self.at
            self.found.comments.append(self.at)
            self._take(_COMMENT)

    def _blanks(self) -> None:
        self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group()

    def _expect(self, pattern: re.Pattern[str]) -> str:
        taken = self._take(pattern)
        if taken is None:
            raise ValueError(f"no valid TOML at character {self.at}")
        return taken

    def _path(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._blanks()
            parts.append(self._key())
            self._blanks()
            if not self.text.startswith(".", self.at):
                return tuple(parts)
            self.at += 1

    def _key(self) -> str:
        if self.text[self.at] in "\"'":
            quoted = self._expect(_STRINGS[2] if self.text[self.at] == '"' else _STRINGS[3])
            return str(tomllib.loads(f"key = {quoted}")["key"])
        return self._expect(_BARE_KEY)

    def _key_value(self, table: tuple[str, ...], *, inline: bool) -> None:
        start = self.at
        path = table + self._path()
        self.at += 1  # the equals sign
        self._blanks()
        value = self.at
        place = len(self.found.entries)
        self._value(path)
        self.found.entries.insert(place, Entry(path, start, self.at, value, inline))

    def _value(self, path: tuple[str, ...]) -> None:
        opening = self.text[self.at]
        if opening in "[{":
            self.at += 1
            closing = "]" if opening == "[" else "}"
            while self.text[self._skip()] != closing:
                if self.text[self.at] == ",":
                    self.at += 1
                elif opening == "[":
                    self._value(path)
                else:
                    self._key_value(path, inline=True)
            self.at += 1
        elif not any(self._take(string) for string in _STRINGS):
            self._expect(_SCALAR)
