"""JSON with comments and trailing commas, as editors and opencode read it: meaning, and edits.

Pure: text in, text out. An edit touches nothing but its member; where a document has no place for
it, the text comes back unchanged, and the caller sees that from what it means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_Path = tuple[str, ...]

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)"""
    r"""|(?P<string>"(?:\\.|[^"\\\r\n])*")"""
    r"""|(?P<mark>[{}\[\]:,])"""
    r"""|(?P<word>[^\s{}\[\]:,"/]+)""",
    re.DOTALL,
)
_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*[^\r\n]*?\*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n)")
_DEFAULT_UNIT = "  "


class NotJson(ValueError):
    """The text is not JSON, comments and trailing commas aside.

    Attributes:
        line: the number of the line, from 1.
    """

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Node:
    """A value. Offsets count characters.

    Attributes:
        start: where it begins.
        end: where it ends.
        members: those of an object, in order; None if it is none.
    """

    start: int
    end: int
    members: tuple[Member, ...] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object.

    Attributes:
        key: its name.
        start: where the name begins.
        value: its value.
        comma: where the comma behind it stands; None if there is none.
    """

    key: str
    start: int
    value: Node
    comma: int | None = None


def read(text: str) -> Any:
    """Return what a document means.

    Raises:
        NotJson: it is not JSON, or an object names a member twice.
    """
    plain = _plain(text)
    try:
        return json.loads(plain, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        raise NotJson(exc.msg[:1].lower() + exc.msg[1:], exc.lineno) from None
    except _Refused as exc:
        raise NotJson(str(exc), 1) from None
    except RecursionError:
        raise NotJson("it is nested too deeply", 1) from None


def parse(text: str) -> Node:
    """Find the places of a document that `read` accepts."""
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup != "blank"]
    node, _ = _node(tokens, 0)
    return node


def find(root: Node, path: _Path) -> Node | None:
    """Return the value of a path; None if there is none."""
    node = root
    for key in path:
        member = _member(node, key)
        if member is None:
            return None
        node = member.value
    return node


def leaves(node: Node, above: _Path = ()) -> Iterator[tuple[_Path, Node]]:
    """Yield path and place of everything that is no object."""
    if node.members is None:
        yield above, node
        return
    for member in node.members:
        yield from leaves(member.value, (*above, member.key))


def with_member(text: str, path: _Path, value: str) -> str:
    """Set the member of a path to `value`, which is JSON; objects that lack are made."""
    node = parse(text)
    for depth, key in enumerate(path):
        if node.members is None:
            return text
        member = _member(node, key)
        if member is None:
            return _with_new_member(text, node, path[depth:], value)
        node = member.value
    return text[: node.start] + value + text[node.end :]


def without_member(text: str, path: _Path) -> str:
    """Delete the member of a path, with its comma; comments stay."""
    node = find(parse(text), path[:-1])
    if node is None or node.members is None:
        return text
    place = next((i for i, m in enumerate(node.members) if m.key == path[-1]), None)
    if place is None:
        return text
    member = node.members[place]
    end = member.value.end if member.comma is None else member.comma + 1
    start = member.start
    line = text.rfind("\n", 0, start) + 1
    rest = re.compile(r"[ \t]*\r?\n").match(text, end)
    if rest and not text[line:start].strip():
        start, end = line, rest.end()
    before, after = text[:start], text[end:]
    comma = node.members[place - 1].comma if place else None
    if member.comma is None and comma is not None:
        before = before[:comma] + before[comma + 1 :]
    return before + after


class _Refused(Exception):
    """What JSON's grammar allows and this does not."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("an object names a member twice")
    return found


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is no JSON")


def _plain(text: str) -> str:
    """Return the document as plain JSON of the same length and lines."""
    pieces: list[str] = []
    at, previous = 0, ""
    comma: int | None = None  # the place in `pieces` of one that may turn out to be the last
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotJson("unexpected character", text.count("\n", 0, at) + 1)
        piece = match.group()
        if match.lastgroup == "blank":
            pieces.append(re.sub(r"[^\r\n]", " ", piece))
        else:
            if piece in ("}", "]") and comma is not None:
                pieces[comma] = " "
            ends_value = previous not in ("", "{", "[", ",", ":")
            comma = len(pieces) if piece == "," and ends_value else None
            previous = piece
            pieces.append(piece)
        at = match.end()
    return "".join(pieces)


def _node(tokens: Sequence[re.Match[str]], at: int) -> tuple[Node, int]:
    """Return the value at a token, and the place of the token behind it."""
    opening = tokens[at]
    if opening.group() == "[":
        at += 1
        while tokens[at].group() != "]":
            if tokens[at].group() == ",":
                at += 1
            else:
                _, at = _node(tokens, at)
        return Node(opening.start(), tokens[at].end()), at + 1
    if opening.group() != "{":
        return Node(opening.start(), opening.end()), at + 1
    members: list[Member] = []
    at += 1
    while tokens[at].group() != "}":
        name = tokens[at]
        value, at = _node(tokens, at + 2)
        comma = None
        if tokens[at].group() == ",":
            comma, at = tokens[at].start(), at + 1
        members.append(Member(json.loads(name.group()), name.start(), value, comma))
    return Node(opening.start(), tokens[at].end(), tuple(members)), at + 1


def _member(node: Node, key: str) -> Member | None:
    return next((member for member in node.members or () if member.key == key), None)


def _with_new_member(text: str, node: Node, path: _Path, value: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if not node.members:
        return _with_first_member(text, node, path, value, newline)
    last = node.members[-1]
    end = last.value.end
    first = node.members[0].start
    if "\n" not in text[node.start : first]:
        return f"{text[:end]}, {_on_one_line(path, value)}{text[end:]}"
    indent = _indent(text, first)
    tail = end if last.comma is None else last.comma + 1
    rest = _REST_OF_LINE.match(text, tail)
    here = rest.end() if rest else tail
    member = _laid_out(path, value, indent, _unit(text), newline)
    joint, close = (",", "") if last.comma is None else ("", ",")
    return f"{text[:end]}{joint}{text[end:here]}{newline}{indent}{member}{close}{text[here:]}"


def _with_first_member(text: str, node: Node, path: _Path, value: str, newline: str) -> str:
    unit = _unit(text)
    outer = _indent(text, node.start)
    indent = outer + unit
    member = _laid_out(path, value, indent, unit, newline)
    inside = text[node.start + 1 : node.end - 1]
    if "\n" in inside:  # comments, each of which keeps its line
        kept = inside[: inside.rfind("\n")].removesuffix("\r")
        here = node.start + 1 + len(kept)
        return f"{text[:here]}{newline}{indent}{member}{text[here:]}"
    head = text[: node.start + 1] + inside.rstrip()
    return f"{head}{newline}{indent}{member}{newline}{outer}{text[node.end - 1 :]}"


def _laid_out(path: _Path, value: str, indent: str, unit: str, newline: str) -> str:
    """Write a member over several lines, the objects on its way included."""
    name = json.dumps(path[0], ensure_ascii=False)
    if len(path) == 1:
        return f"{name}: {value}"
    inner = _laid_out(path[1:], value, indent + unit, unit, newline)
    return f"{name}: {{{newline}{indent}{unit}{inner}{newline}{indent}}}"


def _on_one_line(path: _Path, value: str) -> str:
    name = json.dumps(path[0], ensure_ascii=False)
    inner = value if len(path) == 1 else f"{{ {_on_one_line(path[1:], value)} }}"
    return f"{name}: {inner}"


def _indent(text: str, offset: int) -> str:
    """Return the blanks that the line of `offset` begins with."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """Return what one level of the document is indented by."""
    root = parse(text)
    first = root.members[0] if root.members else None
    return (_indent(text, first.start) if first else "") or _DEFAULT_UNIT
