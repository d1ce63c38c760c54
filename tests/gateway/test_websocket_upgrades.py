"""Upgrades among the other requests of a connection."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.client import request_head
from tests.support.gateway import RESPONSES, Stage, run, turn_body
from tests.support.sockets import masked, upgrade_request

CREATE = {"type": "response.create", "model": "mock", "input": "hello"}


@pytest.mark.parametrize("more", [b"", bytes(100_000)], ids=["alone", "with much behind it"])
def test_an_upgrade_waits_for_the_answers_before_it(tmp_path: Path, more: bytes) -> None:
    """Its 101 stood in the middle of them, and they among the frames."""

    async def test(stage: Stage) -> None:
        body = turn_body({})
        post = request_head(
            "POST",
            RESPONSES,
            [("Host", f"127.0.0.1:{stage.port}"), ("Content-Length", str(len(body)))],
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=2**20)
        writer.write((post + body) * 2 + upgrade_request(stage.port))
        writer.write(masked(1, json.dumps(CREATE).encode()))
        padding = masked(9, b"x" * 100)  # pings
        writer.write(padding * (len(more) // len(padding)))
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert b"response.completed" in await reader.readuntil(b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await reader.readuntil(b'"response.completed"')
        writer.transport.abort()

    run(test, tmp_path, TurnRule(delta_delay=0.1))
