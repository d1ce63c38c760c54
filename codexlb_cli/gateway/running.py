"""Turns in flight: run, left by their client, or ended because the gateway stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from codexlb_cli.gateway.turns import TurnRunner


class RunningTurns:
    """The turns of one kind of client that are in flight."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], TurnRunner] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def stop(self) -> None:
        """End every turn with a terminal event, because the time to drain is over."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def run(self, runner: TurnRunner, left: Coroutine[Any, Any, None]) -> bool:
        """Run a turn; False if the client left before its end.

        Args:
            runner: the turn.
            left: ends when the client leaves.

        Raises:
            Exception: what the turn raised, also where the client left at the same moment.
        """
        turn = asyncio.create_task(runner.run())
        gone = asyncio.create_task(left)
        self._running[turn] = runner
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
            left_first = not turn.done()
            if left_first:
                turn.cancel()
                await asyncio.wait((turn,))
            if not turn.cancelled():
                turn.result()
                return True
            if not left_first:
                await runner.abort()
            return not left_first
        finally:
            del self._running[turn]
            turn.cancel()  # of no effect but where this request itself was cancelled
            gone.cancel()
