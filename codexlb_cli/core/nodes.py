"""A request's JSON with the place of every value, so that an error can name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codexlb_cli.core.frames import InvalidBodyError


@dataclass(frozen=True, slots=True, repr=False)
class Node:
    """A value of a request.

    Attributes:
        value: the value; None if it is null or missing.
        path: where it stands, as OpenAI's own errors name it: `messages[2].content`.
    """

    value: Any
    path: str

    def get(self, name: str) -> Node:
        """Return a member of an object; its value is None if it is missing.

        Raises:
            InvalidBodyError: this is no object.
        """
        return Node(self.members().get(name), f"{self.path}.{name}")

    def members(self) -> dict[str, Any]:
        """Return the members of an object.

        Raises:
            InvalidBodyError: this is no object.
        """
        if not isinstance(self.value, dict):
            raise self.wrong("must be an object")
        return self.value

    def elements(self) -> Iterator[Node]:
        """Yield the elements of an array.

        Raises:
            InvalidBodyError: this is no array.
        """
        if not isinstance(self.value, list):
            raise self.wrong("must be an array")
        for index, element in enumerate(self.value):
            yield Node(element, f"{self.path}[{index}]")

    def text(self) -> str:
        """Return a string.

        Raises:
            InvalidBodyError: this is none.
        """
        if not isinstance(self.value, str):
            raise self.wrong("must be a string")
        return self.value

    def wrong(self, why: str) -> InvalidBodyError:
        """Return the error about this value.

        Args:
            why: what follows the value's name in a sentence.
        """
        return InvalidBodyError(f"`{self.path}` {why}", param=self.path)
