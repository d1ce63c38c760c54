"""A limit on silence that costs nothing per event: one timer that looks back when it fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Silence:
    """Calls `too_long` when nothing broke the silence for `seconds`; a context manager."""

    def __init__(self, seconds: float, too_long: Callable[[], None]) -> None:
        self._seconds = seconds
        self._too_long = too_long
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    def broken(self) -> None:
        """Note that something came."""
        self._since = self._loop.time()

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        rest = self._since + self._seconds - self._loop.time()
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self._too_long()
