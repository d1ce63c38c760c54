"""How a turn is written to a WebSocket client."""

from __future__ import annotations

import asyncio
import json

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.client_frames import Told
from codexlb_cli.gateway.frame_sink import FrameSink


def test_a_turn_that_ends_while_its_client_does_not_read_has_one_end() -> None:
    """The drain ended it while its last event waited for room: a second one came after it."""

    async def test() -> None:
        written: list[str] = []

        async def send(text: str) -> None:
            written.append(text)
            if len(written) == 1:
                await asyncio.Event().wait()

        sink = FrameSink(send, None, Told(), None)
        last = '{"type":"response.completed"}'
        ending = asyncio.create_task(sink.finish("response.completed", last))
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.wait((ending,))
        await sink.fail(ClientError("upstream_closed", "the gateway is stopping"), [])
        assert [json.loads(text)["type"] for text in written] == ["response.completed"]

    asyncio.run(test())
