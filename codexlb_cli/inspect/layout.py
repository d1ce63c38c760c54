"""Tables whose cells may be longer than a line of the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from codexlb_cli.console import escape

TEXT_WIDTH = 95


def broken(cells: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    """Break a row into as many rows as its longest cell needs, so that nothing is cut off.

    Args:
        cells: the row; escaped here, since an escape counts as the columns that it takes.
        widths: how many columns each cell may take.
    """
    columns = [
        [text[start : start + width] for start in range(0, len(text), width)]
        for text, width in zip((escape(cell) for cell in cells), widths, strict=True)
    ]
    return list(zip_longest(*columns, fillvalue=""))


def flowed(text: str, width: int) -> list[str]:
    """Break a list of names or a sentence into lines, between its words only."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def shortened(text: str, most: int) -> str:
    """Shorten a cell in the middle: ids often begin alike."""
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"


def wrapped(text: str) -> str:
    """Break a paragraph into lines of less than 100 columns."""
    return "\n".join(flowed(escape(text), TEXT_WIDTH))
