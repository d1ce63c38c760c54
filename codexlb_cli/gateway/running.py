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
        """
        turn = asyncio.create_task(runner.run())
        gone = asyncio.create_task(left)
        self._running[turn] = runner
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                turn.cancel()
                await asyncio.wait((turn,))
                return False
            if turn.cancelled():
                await runner.abort()
                return True
            turn.result()
            return True
        finally:
            del self._running[turn]
            turn.cancel()  # of no effect but where this request itself was cancelled
            gone.cancel()
