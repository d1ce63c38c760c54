"""Client headers as a person writes them: `-H` options, a request head, or JSON.

Inside, a header value is its bytes decoded as ISO-8859-1, which is how the gateway gets it from
the wire. Text of the command line and of files is UTF-8; `as_text` is the way back. No message
here holds a value, nor anything of a line that is not a header: it could be a secret.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.headers import Header, check_header
from codexlb_cli.errors import InvalidHeader, UsageError

LONGEST_INPUT_BYTES = 1 << 20

REQUEST_LINE = re.compile(r"\S+ \S+ HTTP/\d(?:\.\d)?")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_FORMS = 'write [["name", "value"], ...], [{"name": ..., "value": ...}] or {"name": "value"}'


def as_text(value: str) -> str:
    """Return a header value as its sender meant it: UTF-8 where its bytes are, else ISO-8859-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def shown_key(key: Key) -> str:
    """Return an affinity key as its client sent it; of a turn state its digest."""
    return as_text(key.value) if key.source == "session" else key.value


def from_options(options: Sequence[str]) -> tuple[Header, ...]:
    """Read `name: value` texts of the command line.

    Raises:
        InvalidHeader: one has no colon, or cannot be sent.
    """
    lines = []
    for number, option in enumerate(options, 1):
        where = "`-H`" if len(options) == 1 else f"`-H` number {number}"
        try:
            octets = option.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise InvalidHeader(f"{where} is not UTF-8") from None
        lines.append(_header(octets.decode("latin-1"), where))
    return tuple(lines)


def read(source: str) -> bytes:
    """Return what lies in a file, or in standard input if `source` is `-`.

    Raises:
        UsageError: it cannot be read, or is larger than 1 MiB.
    """
    content = read_some(source, LONGEST_INPUT_BYTES + 1)
    if len(content) > LONGEST_INPUT_BYTES:
        raise UsageError(f"`{source}` is larger than 1 MiB, which no request head is")
    return content


def read_some(source: str, most: int) -> bytes:
    """Return the first `most` bytes of a file, or of standard input if `source` is `-`.

    Raises:
        UsageError: it cannot be read.
    """
    if source == "-" and sys.stdin is None:
        raise UsageError("cannot read `-`: standard input is closed")
    try:
        if source == "-":
            return sys.stdin.buffer.read(most)
        with Path(source).open("rb") as file:
            return file.read(most)
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise UsageError(f"cannot read `{source}`: {reason}") from None


def from_content(content: bytes) -> tuple[Header, ...]:
    """Read a request head, or JSON where the first character is `[` or `{`.

    Raises:
        InvalidHeader: a line is no header, or cannot be sent.
        UsageError: the JSON is broken, or has another form.
    """
    content = content.removeprefix(BYTE_ORDER_MARK)
    if content.lstrip()[:1] in (b"[", b"{"):
        return _from_json(content)
    return _from_head(content.decode("latin-1"))


def _from_head(text: str) -> tuple[Header, ...]:
    """Read a raw HTTP/1 request head, with or without its request line (RFC 9112 section 2)."""
    lines: list[Header] = []
    begun = False
    for number, ended in enumerate(text.split("\n"), 1):
        line = ended.removesuffix("\r")
        if not line:
            if begun:
                break
            continue  # RFC 9112 section 2.2: empty lines may precede the request line
        if begun or not REQUEST_LINE.fullmatch(line):
            lines.append(_header(line, f"line {number} of the headers"))
        begun = True
    return tuple(lines)


def _header(line: str, where: str) -> Header:
    if line[:1] in (" ", "\t"):
        raise InvalidHeader(
            f"{where} begins with a blank",
            hint="a header that continues on the next line is obsolete (RFC 9112 section 5.2)",
        )
    name, colon, value = line.partition(":")
    if not colon:
        raise InvalidHeader(f"{where} has no colon", hint="write it as `name: value`")
    return _checked(name, value.strip(" \t"), where)


def _checked(name: str, value: str, where: str) -> Header:
    try:
        check_header(name, "")
    except InvalidHeader:
        raise InvalidHeader(
            f"{where} does not begin with the name of a header", hint="write it as `name: value`"
        ) from None
    check_header(name, value)
    return name, value


def _from_json(content: bytes) -> tuple[Header, ...]:
    try:
        # Pairs, so that a name that comes twice stays two lines.
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        raise UsageError("the headers begin like JSON but are not", hint=_JSON_FORMS) from None
    pairs = _object_pairs(document) if isinstance(document, _Object) else _array_pairs(document)
    return tuple(
        _json_header(name, value, f"entry {number} of the headers")
        for number, (name, value) in enumerate(pairs, 1)
    )


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order."""


def _object_pairs(document: _Object) -> Iterable[tuple[object, object]]:
    for name, value in document:
        if isinstance(value, list) and not isinstance(value, _Object):
            yield from ((name, one) for one in value)
        else:
            yield name, value


def _array_pairs(document: list[object]) -> Iterable[tuple[object, object]]:
    for number, entry in enumerate(document, 1):
        if isinstance(entry, _Object):
            fields = dict(entry)
            yield fields.get("name"), fields.get("value")
        elif isinstance(entry, list) and len(entry) == 2:
            yield entry[0], entry[1]
        else:
            raise UsageError(f"entry {number} of the headers is no pair", hint=_JSON_FORMS)


def _json_header(name: object, value: object, where: str) -> Header:
    if not isinstance(name, str) or not isinstance(value, str):
        raise UsageError(f"{where} is not a name and a value that are texts", hint=_JSON_FORMS)
    try:
        octets = value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidHeader(f"{where} has a value that is not Unicode") from None
    return _checked(name, octets.decode("latin-1").strip(" \t"), where)
