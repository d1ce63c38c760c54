"""The limit on silence: it counts only while somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from codexlb_cli.gateway.silence import Silence
from tests.support.virtual import VirtualLoop

SECONDS = 900.0


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(test)


def test_a_slow_client_does_not_make_the_upstream_silent() -> None:
    async def test() -> None:
        fired = asyncio.Event()
        with Silence(SECONDS, fired.set) as silence:
            silence.listen()
            silence.broken()
            await asyncio.sleep(SECONDS * 5)  # the client is slow; nobody listens
            assert not fired.is_set()
            silence.listen()
            await fired.wait()

    run(test())


def test_nothing_fires_after_the_end() -> None:
    async def test() -> None:
        fired = asyncio.Event()
        with Silence(SECONDS, fired.set) as silence:
            silence.listen()
        await asyncio.sleep(SECONDS * 5)
        assert not fired.is_set()

    run(test())
