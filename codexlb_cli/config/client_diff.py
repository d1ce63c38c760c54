"""The lines that an edit of a foreign configuration file changes, without its secrets.

A terminal is shared and recorded, and such a file may hold keys. So no line of context is shown,
and in the changed lines every text is masked whose name, or whose looks, say that it is a secret;
what the edit itself writes is shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from difflib import SequenceMatcher

from codexlb_cli.config.client_edits import Format

MASK = "***"
_NAMES_A_SECRET = re.compile(
    r"key|token|secret|passw|auth|credential|bearer|cookie|header|env|args|command", re.IGNORECASE
)
_LOOKS_LIKE_ONE = re.compile(r"\b(?:sk|sess|rk|pk|gh[a-z]|xox[a-z])[-_][\w-]{6,}|\beyJ[\w.-]{12,}")
_NAMES_A_VARIABLE = ("env_key",)


def unified_diff(
    form: Format, name: str, before: str | None, after: str | None, *, ours: Collection[object]
) -> str:
    """Return the difference as `diff -U0` shows it.

    Args:
        form: how the file is written.
        name: its name, for the head.
        before: its text; None if there is no file.
        after: its new text; None if the file goes.
        ours: the values that the edit writes or takes back: none of them is a secret.
    """
    shown_before = _lines(masked(form, before or "", ours))
    shown_after = _lines(masked(form, after or "", ours))
    old, new = _lines(before), _lines(after)
    lines = [
        f"--- {'/dev/null' if before is None else name}",
        f"+++ {'/dev/null' if after is None else name}",
    ]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            lines.append(f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@")
            lines += [f"-{line}" for line in shown_before[i1:i2]]
            lines += [f"+{line}" for line in shown_after[j1:j2]]
    return "\n".join(lines)


def masked(form: Format, text: str, ours: Collection[object] = ()) -> str:
    """Return the text with its secrets masked, line for line."""
    for start, end in sorted(_secrets(form, text, ours), reverse=True):
        hidden = "\n".join(f'"{MASK}"' for _ in text[start:end].split("\n"))
        text = text[:start] + hidden + text[end:]
    return _LOOKS_LIKE_ONE.sub(MASK, text)


def _secrets(form: Format, text: str, ours: Collection[object]) -> Iterator[tuple[int, int]]:
    covered = 0
    for path, start, end in sorted(form.values(text), key=lambda found: (found[1], -found[2])):
        named = any(_NAMES_A_SECRET.search(part) for part in path)
        if start < covered or not named or path[-1] in _NAMES_A_VARIABLE:
            continue
        value = form.value(text[start:end])
        if not isinstance(value, bool | int | float) and value not in ours:
            covered = end
            yield start, end


def _lines(text: str | None) -> list[str]:
    """Return the lines as a terminal shows them, without the feeds and returns at their ends."""
    lines = (text or "").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _range(start: int, end: int) -> str:
    """Return a range of lines as diff writes it: `3`, `3,2`, and `3,0` for none behind line 3."""
    length = end - start
    return str(end) if length == 1 else f"{start + 1 if length else start},{length}"
