"""A text that does not show itself."""

from __future__ import annotations

import re

_VISIBLE = re.compile(r"[!-~]+")


class Secret:
    """A key. `repr`, `str` and formatting show `***`; only `reveal` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, to be put on the wire and nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def key_fault(text: str) -> str | None:
    """Say what keeps a text from being a key that a header can carry; None if nothing does.

    The words follow a subject such as "the key on stdin", and never show the text.
    """
    if not text:
        return "is empty"
    if _VISIBLE.fullmatch(text) is None:
        return "cannot be sent: it has blanks, control characters or characters that are not ASCII"
    return None
