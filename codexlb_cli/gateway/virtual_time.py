"""An event loop whose clock jumps: it never waits, but goes straight to what happens next.

For simulations in memory. Where nothing is left to happen although somebody still waits, a real
loop would wait for ever; this one raises `Stalled`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stalled(Exception):
    """Somebody waits for something that can never happen."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at time 0 and jumps from timer to timer."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWait(self))

    def time(self) -> float:
        """Return the seconds since the beginning, on the virtual clock."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _NoWait(selectors.SelectSelector):
    """Finds no events, since there are no sockets, and lets time pass instead of waiting."""

    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled("nothing is left to happen")
        if timeout > 0:
            self._loop.jump(timeout)
        return []


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a loop of its own whose clock jumps.

    Raises:
        Stalled: it waits for something that can never happen.
    """
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
