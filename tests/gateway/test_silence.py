"""The limit on silence: it counts only while somebody listens."""

from __future__ import annotations

import asyncio

from codexlb_cli.gateway.silence import Silence

SECONDS = 0.01


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

    asyncio.run(test())


def test_nothing_fires_after_the_end() -> None:
    async def test() -> None:
        fired = asyncio.Event()
        with Silence(SECONDS, fired.set) as silence:
            silence.listen()
        await asyncio.sleep(SECONDS * 5)
        assert not fired.is_set()

    asyncio.run(test())
