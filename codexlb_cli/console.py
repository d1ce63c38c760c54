"""stdout, stderr, JSON and tables: the one place that writes to the terminal.

stdout carries the answer of a command and nothing else; everything else goes to stderr. Human
output is ASCII, and text that comes from elsewhere (files, headers, the environment) reaches a
terminal only with its control characters escaped.
"""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

WIDTH = 99
_GAP = "  "
_COLOURS = {"error": "31", "warning": "33", "hint": "36"}


class OutputClosed(Exception):
    """stdout takes no more, as in `codexlb accounts list | head -1`.

    Attributes:
        reason: what went wrong, such as a full disk; None if its reader has read enough.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


def escape(text: str, *, lines: bool = False) -> str:
    r"""Return `text` in printable ASCII: everything else becomes `\n`, `\x1b`, `\u2026`, ...

    Args:
        text: what came from elsewhere.
        lines: keep line feeds, for text of ours that has several lines.
    """
    return "".join(
        c if " " <= c <= "~" or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 0) -> str:
    """Lay out rows in plain columns under their headers, without a trailing line feed.

    Cells are escaped. A last column that would pass 99 columns is wrapped under itself.
    """
    lines = [tuple(headers), *(tuple(escape(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers) - 1)]
    margin = " " * indent
    left = indent + sum(width + len(_GAP) for width in widths)
    room = max(WIDTH - left, 20)
    text = []
    for line in lines:
        wrapped = textwrap.wrap(line[-1], room) or [""]
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        text.append((margin + _GAP.join([*cells, wrapped[0]])).rstrip())
        text.extend(" " * left + more for more in wrapped[1:])
    return "\n".join(text)


def iso_utc(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, rounded up to a second: `2026-02-06T12:00:00Z`."""
    return datetime.fromtimestamp(math.ceil(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """Return a waiting time for people, rounded up: `42 s`, `12 min`, `3 h 20 min`."""
    whole = max(math.ceil(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    minutes = math.ceil(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{math.ceil(hours / 24)} days"


@dataclass(slots=True)
class Console:
    """Where a command writes.

    Attributes:
        quiet: say nothing on stderr but errors.
        verbose: show the traceback of an internal error.
        options: the global options that commands in hints repeat, such as `--demo`.
    """

    quiet: bool = False
    verbose: bool = False
    options: str = ""

    def answer(self, text: str) -> None:
        """Write one piece of the answer and a line feed to stdout.

        Raises:
            OutputClosed: nobody reads stdout any more, or it cannot be written.
        """
        if sys.stdout is None:
            raise OutputClosed
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as exc:
            raise OutputClosed(exc.strerror) from None

    def json(self, document: Mapping[str, object]) -> None:
        """Write one JSON document to stdout, in ASCII."""
        self.answer(json.dumps(document, indent=2, allow_nan=False))

    def note(self, text: str) -> None:
        """Write a remark to stderr, unless quiet."""
        if not self.quiet:
            self._say(text)

    def ask(self, text: str) -> None:
        """Write to stderr what a person has to do now, even when quiet."""
        self._say(text)

    def warning(self, text: str) -> None:
        """Write `warning: ...` to stderr, unless quiet."""
        if not self.quiet:
            self._say(text, label="warning")

    def hint(self, text: str) -> None:
        """Write `hint: ...` and the empty line before it to stderr, unless quiet."""
        if not self.quiet:
            self._say("")
            self._say(self._repeated(text), label="hint")

    def error(self, message: str, hint: str | None = None) -> None:
        """Write `error: ...` and its hint to stderr, even when quiet."""
        self._say(message, label="error")
        if hint:
            self._say("")
            self._say(self._repeated(hint), label="hint")

    def _repeated(self, hint: str) -> str:
        """Return a hint whose command works on the same configuration as this one."""
        if not self.options or not hint.startswith("codexlb "):
            return hint
        return f"codexlb {self.options} {hint.removeprefix('codexlb ')}"

    def _say(self, text: str, *, label: str | None = None) -> None:
        if sys.stderr is None:
            return
        head = f"{_paint(sys.stderr, label)} " if label else ""
        with suppress(OSError):  # there is no third place to complain to
            sys.stderr.write(f"{head}{escape(text, lines=True)}\n")
            sys.stderr.flush()


def _paint(stream: TextIO, label: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return f"{label}:"
    return f"\x1b[{_COLOURS[label]}m{label}:\x1b[0m"
