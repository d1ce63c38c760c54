"""Text of a TOML document with one change in it; every other character stays as it is.

Pure: text in, text out. Where a document is written in a way that has no place for the change, it
comes back unchanged; `edit` compares the outcome with the intention and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from codexlb_cli.config.scan import Entry, Scan

_Path = tuple[str, ...]


class HoldsComment(Exception):
    """What is to be deleted holds a comment.

    Attributes:
        line: the number of the comment's line, from 1.
    """

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def with_table(text: str, lines: Sequence[str]) -> str:
    """Append the lines of a table, after an empty line, in the text's own line ending."""
    newline = _newline(text)
    if text and not text.endswith("\n"):
        text += newline
    if text and not _ends_in_blank_line(text):
        text += newline
    return text + "".join(line + newline for line in lines)


def with_value(scan: Scan, table: _Path, key: str, value: str) -> str:
    """Set `key` of a table to `value`, both as TOML writes them.

    A key that is there keeps its place; a new one follows the last key of its table, and begins
    the document if that has no key above its first header. The empty path is the document's own
    table.
    """
    text = scan.text
    existing = _entry(scan, (*table, key))
    if existing is not None and existing.value is not None:
        return text[: existing.value] + value + text[existing.end :]
    whole = _entry(scan, table)
    if whole is not None and whole.value is not None:
        return _with_inline_value(scan, whole, f"{key} = {value}")
    above: _Path = ()
    last: tuple[Entry, _Path] | None = None
    for entry in scan.entries:
        if entry.value is None:
            above = entry.path
        if entry.inline or above != table[: len(above)]:  # in a table below, or beside
            continue
        if entry.path[: len(table)] == table:
            last = entry, above
    if last is None:
        return text if table else _with_first_key(text, f"{key} = {value}")
    entry, above = last
    prefix = "".join(f"{part}." for part in table[len(above) :])
    start = _line_start(text, entry.start)
    indent = text[start : entry.start]
    end = _line_end(text, entry.end)
    newline = _newline(text)
    head = text[:end] if text[:end].endswith("\n") else text[:end] + newline
    return f"{head}{indent}{prefix}{key} = {value}{newline}{text[end:]}"


def without_key(scan: Scan, path: _Path) -> str:
    """Delete a key that has whole lines for itself.

    Raises:
        HoldsComment: a comment stands on its last line.
    """
    text, entry = scan.text, _entry(scan, path)
    if entry is None or entry.value is None or entry.inline:
        return text
    start, end = _line_start(text, entry.start), _line_end(text, entry.end)
    if any(entry.start <= comment < end for comment in scan.comments):
        raise HoldsComment(text.count("\n", 0, entry.end) + 1)
    return _joined(text[:start], text[end:])


def without_table(scan: Scan, table: _Path, *, with_comments: bool) -> str:
    """Delete a table: its header, its keys, and the comments that belong to it.

    To it belong the comments between its header and its last key, and those directly above the
    header or directly below the last key, without an empty line between; comments directly above
    the next header belong to that one.

    Raises:
        HoldsComment: it has such a comment and `with_comments` is false.
    """
    text = scan.text
    spans = [_with_neighbours(scan, span) for span in _spans(scan, table)]
    if not with_comments:
        for start, end in spans:
            for comment in scan.comments:
                if start <= comment < end:
                    raise HoldsComment(text.count("\n", 0, comment) + 1)
    for start, end in reversed(spans):
        text = _joined(text[:start], text[end:])
    return text


def _with_first_key(text: str, assignment: str) -> str:
    newline = _newline(text)
    gap = newline if text.strip() and text[0] not in "\r\n" else ""
    return f"{assignment}{newline}{gap}{text}"


def _with_inline_value(scan: Scan, table: Entry, assignment: str) -> str:
    text = scan.text
    inside = [
        entry.end for entry in scan.entries if table.start < entry.start and entry.end < table.end
    ]
    if inside:
        return f"{text[: max(inside)]}, {assignment}{text[max(inside) :]}"
    return f"{text[: table.value]}{{ {assignment} }}{text[table.end :]}"


def _spans(scan: Scan, table: _Path) -> Iterator[tuple[int, int]]:
    """Yield the whole lines of the table's header with its keys, or of each key of its own."""
    entries = [entry for entry in scan.entries if not entry.inline]
    inside = False
    for position, entry in enumerate(entries):
        if entry.value is None:
            inside = entry.path[: len(table)] == table
            if not inside:
                continue
            keys = takewhile(lambda other: other.value is not None, entries[position + 1 :])
            last = max((key.end for key in keys), default=entry.end)
        elif inside or entry.path[: len(table)] != table:
            continue
        else:
            last = entry.end
        yield _line_start(scan.text, entry.start), _line_end(scan.text, last)


def _with_neighbours(scan: Scan, span: tuple[int, int]) -> tuple[int, int]:
    """Widen whole lines by the comment lines that touch them and belong to nothing else."""
    text = scan.text
    comments = {
        start
        for start, comment in ((_line_start(text, comment), comment) for comment in scan.comments)
        if not text[start:comment].strip()
    }
    start, end = span
    while start > 0 and _line_start(text, start - 1) in comments:
        start = _line_start(text, start - 1)
    below = end
    while below in comments and below < len(text):
        below = _line_end(text, below)
    if below == len(text) or not text[below : _line_end(text, below)].strip():
        end = below
    return start, end


def _joined(before: str, after: str) -> str:
    """Put two parts together without leaving two gaps where there was a table between them."""
    if not after.strip():
        if _ends_in_blank_line(before):
            before = before[: -2 if before.endswith("\r\n") else -1]
        return before + after
    if not before or _ends_in_blank_line(before):
        lines = after.splitlines(keepends=True)
        while not lines[0].strip():
            lines.pop(0)
        after = "".join(lines)
    return before + after


def _entry(scan: Scan, path: _Path) -> Entry | None:
    return next((entry for entry in scan.entries if entry.path == path), None)


def _newline(text: str) -> str:
    windows = text.count("\r\n")
    return "\r\n" if windows > text.count("\n") - windows else "\n"


def _ends_in_blank_line(text: str) -> bool:
    return text.endswith(("\n\n", "\n\r\n"))


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, offset: int) -> int:
    """Return where the line of `offset` ends, its line feed included."""
    found = text.find("\n", offset)
    return len(text) if found < 0 else found + 1
