"""What `inspect handshake` prints is what goes upstream for a WebSocket client, too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from codexlb_cli.inspect.clients import NAMES, recorded
from codexlb_cli.mock_upstream.rules import TurnRule
from tests.parity.sameness import HOME, assert_same
from tests.parity.test_handshake import CODEX_LINES, ODD_LINES
from tests.support.client import Header
from tests.support.gateway import Stage, play, run_each
from tests.support.sockets import client, types

_OWN = {
    "host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version",
    "sec-websocket-extensions", "content-length", "transfer-encoding", "content-encoding",
}  # fmt: skip
CLIENTS: dict[str, Sequence[Header]] = {
    **{name: recorded(name).headers for name in NAMES},
    "codex lines": CODEX_LINES,
    "odd lines": [line for line in ODD_LINES if line[0].lower() != "connection"],
    "none": [],
}


def test_every_client_on_every_socket(tmp_path: Path) -> None:
    """The first connect, a reconnect after 1011, and each turn after that."""

    async def one(headers: Sequence[Header], folder: Path) -> None:
        sent = [line for line in headers if line[0].lower() not in _OWN]

        async def test(stage: Stage) -> None:
            async with client(stage.port, headers=sent, user_agent_header=None) as ws:
                # The client's library writes lines of its own; their values are dropped anyway.
                assert ws.connection.request is not None
                lines = list(ws.connection.request.headers.raw_items())
                for _ in range(2):
                    assert types(await ws.turn(store=False))[-1] == "response.completed"
            assert len(stage.mock.handshakes) == 2
            for handshake in stage.mock.handshakes:
                assert_same(stage, lines, handshake)
            moved = [frame.get("client_metadata") for frame in stage.frames]
            assert moved[0] == moved[1] == moved[2]
            assert "authorization" not in json.dumps(moved).lower()

        await play(
            test, folder, TurnRule(times=1, close=1011), accounts=HOME, names=("work", "home")
        )

    run_each(CLIENTS, one, tmp_path)
