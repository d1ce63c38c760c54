"""What keeps a client waiting while the upstream thinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from tests.gateway.test_endings import CODEX
from tests.support.gateway import Stage, session
from tests.support.virtual import run_virtually

THINKS = TurnRule(model="thinks", silence=True, when="streaming")
COMMENT = ": keep-alive"
EVENT = 'data: {"type":"keepalive"}'


@pytest.mark.parametrize("codex", [True, False])
def test_they_come_while_nothing_else_does(tmp_path: Path, codex: bool) -> None:
    async def test(stage: Stage) -> None:
        headers = CODEX[0] if codex else []
        async with stage.streaming(model="thinks", headers=headers) as exchange:
            await exchange.head()
            await exchange.until("response.output_text.delta")
            for _ in range(3):
                assert await exchange.block() == (EVENT if codex else COMMENT)
            exchange.leave()
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended == "client left", 60)

    run_virtually(test, tmp_path, THINKS)


@pytest.mark.parametrize("stream", [True, False])
def test_none_comes_before_the_head(tmp_path: Path, stream: bool) -> None:
    """The head is held back instead, so that an error may still be a status."""

    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=stream)
        assert (answer.status, answer.error["code"]) == (400, "late")

    error = ErrorSpec(status=400, code="late")
    run_virtually(test, tmp_path, TurnRule(error=error, fault_delay=90))


def test_none_disturbs_an_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for headers in (session("s"), [*CODEX[0], *session("s")]):
            answer = await stage.turn(headers=headers)
            kept = answer.body.count(COMMENT.encode()) + answer.types.count("keepalive")
            assert kept == 12  # two before each delta, which starts the count anew
            events = [e for e in answer.events if e.data["type"] != "keepalive"]
            numbers = [event.data["sequence_number"] for event in events]
            assert numbers == list(range(len(numbers)))
            assert events[-1].data["type"] == "response.completed"
            assert answer.body.endswith(b"\n\n")
            last = answer.body.decode().split("\n\n")[-2]
            assert "response.completed" in last  # nothing comes after the end
        whole = await stage.turn(stream=False)
        assert whole.json["status"] == "completed"

    run_virtually(test, tmp_path, TurnRule(deltas=6, delta_delay=40))
