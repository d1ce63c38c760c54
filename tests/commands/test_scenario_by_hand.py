"""A scenario as a person plays it: the mock and the demo's gateway as programs, and a client."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.support.cli import ROOT, Cli
from tests.support.client import Answer, request
from tests.support.serving import LAST_LINE, Program, running

DEFECT = ROOT / "examples" / "scenarios" / "01-session-survives-1011.toml"


def neighbours() -> int:
    """Return a free port whose successor is free too: the demo's upstream is expected there."""
    while True:
        with ExitStack() as stack:
            try:
                first, second = (stack.enter_context(socket.socket()) for _ in range(2))
                first.bind(("127.0.0.1", 0))
                port: int = first.getsockname()[1]
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


async def ask(gateway: Program) -> Answer:
    body = json.dumps({"model": "mock", "input": "hello"}).encode()
    headers = [
        ("User-Agent", "curl/8.5.0"),
        ("Accept", "*/*"),
        ("Content-Type", "application/json"),
        ("Session-Id", "s1"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return await request(gateway.port, "POST", "/v1/responses", headers, body)


async def play(home: Path) -> tuple[list[Answer], list[str]]:
    cli, port = Cli(home), neighbours()
    mocking = running(
        cli, "mock-upstream", "--scenario", str(DEFECT), port=port + 1, until="Ctrl-C stops it."
    )
    async with mocking as mock, running(cli, "--demo", "serve", port=port, until=LAST_LINE) as demo:
        answers = [await ask(demo) for _ in range(2)]
        mock.terminate()
        assert await mock.exit_code() == 0
        return answers, mock.err


def test_the_reported_defect_by_hand(tmp_path: Path) -> None:
    answers, turns = asyncio.run(play(tmp_path))
    for answer, attempts in zip(answers, ("2", "1"), strict=True):
        assert (answer.status, answer.complete) == (200, True)
        assert answer.json["status"] == "completed"
        assert answer.header("x-codexlb-account") == "work"
        assert answer.header("x-codexlb-attempts") == attempts
    assert [(line.split()[2], line.split()[-2:]) for line in turns] == [
        ("work", ["close", "1011"]),
        ("work", ["mock:", "response.completed"]),
        ("work", ["mock:", "response.completed"]),
    ]
