"""A limit on silence that costs nothing per event: one timer that looks back when it fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Silence:
    """Calls `too_long` when it was listened in vain for `seconds`; a context manager.

    While nobody listens, because the client is slow, the upstream cannot be called silent.
    """

    def __init__(self, seconds: float, too_long: Callable[[], None]) -> None:
        self._seconds = seconds
        self._too_long = too_long
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def listen(self) -> None:
        """Note that from now on something is awaited."""
        self._since = self._loop.time()

    def broken(self) -> None:
        """Note that something came."""
        self._since = None

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
        now = self._loop.time()
        rest = (now if self._since is None else self._since) + self._seconds - now
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self._too_long()
