"""How WebSocket clients' sockets end: the gateway stops, or the client leaves or breaks a rule."""

from __future__ import annotations

from pathlib import Path

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.gateway import Stage, run
from tests.support.sockets import to


def test_turns_that_wait_when_the_drain_is_over_are_told_and_not_sent(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            socket = to(stage)
            ws = await socket.__aenter__()
            for _ in range(3):
                await ws.create()
            await ws.until("response.output_text.delta")
        seen = [(await ws.until("error"))[-1] for _ in range(3)]
        assert [error["error"]["code"] for error in seen] == [
            "upstream_closed", "upstream_unavailable", "upstream_unavailable",
        ]  # fmt: skip
        assert await ws.closed() == 1012
        assert len(stage.sent) == 1
        await socket.__aexit__(None, None, None)

    more = "[timeouts]\ndrain = 0.2\n"
    run(test, tmp_path, TurnRule(delta_delay=30), serve=False, more=more)
