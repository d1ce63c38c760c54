"""Signs of life for a client that waits for the next event of its response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class KeepAlive:
    """Writes something whenever nothing was written for a while, once started.

    Args:
        seconds: how long the while is.
        write: writes it.
    """

    def __init__(self, seconds: float, write: Callable[[], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._write = write
        self._wrote_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Something was written: from now on the client waits."""
        self.wrote()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def wrote(self) -> None:
        """Something was written."""
        self._wrote_at = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """Write nothing more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._wrote_at + self._seconds - loop.time())
            # The very sum of the line above: another one might be rounded to something later.
            if loop.time() >= self._wrote_at + self._seconds:
                self.wrote()
                await self._write()
