"""HTTP at the mock upstream, in memory and over sockets: the same bytes, ends and records."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from codexlb_cli.gateway.http_connection import connect
from codexlb_cli.mock_upstream.link import MemoryUpstream
from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream
from codexlb_cli.mock_upstream.upstream import Upstream
from tests.mock_upstream.client import ACCOUNTS

BODY: dict[str, Any] = {"model": "mock", "input": "hello there", "stream": True}
RULES: dict[str, tuple[TurnRule, ...]] = {
    "a normal answer": (),
    "a slow one": (TurnRule(delay=2, delta_delay=0.5),),
    "a cut before the first event": (TurnRule(close=1011),),
    "a cut after the beginning": (TurnRule(close=1006, when="created"),),
    "a cut in the middle": (TurnRule(close=4000, when="streaming", fault_delay=1),),
    "a cut after the end": (TurnRule(close=1000, when="idle"),),
    "a refusal": (TurnRule(error=ErrorSpec(status=429, code="x", headers={"retry-after": 7})),),
    "an error in the middle": (TurnRule(error=ErrorSpec(code="x"), when="streaming"),),
    "a failure": (TurnRule(failed=FailedSpec(code="server_error")),),
    "no JSON": (TurnRule(send=("no\nJSON",), when="created"),),
    "bytes that are no text": (TurnRule(binary=True, when="created"),),
    "headers": (TurnRule(metadata={"openai-model": "gpt-mock"}),),
}


class Connection(Protocol):
    """What both clients' ends have in common."""

    def write(self, data: bytes) -> None: ...
    async def read(self) -> bytes: ...
    def abort(self) -> None: ...


@dataclass
class Seen:
    """What came back on each connection, and what the mock has recorded."""

    answers: list[bytes] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    record: Any = None


def post(body: bytes, key: str = ACCOUNTS["work"], *lines: str) -> bytes:
    head = [
        "POST /v1/responses HTTP/1.1",
        "host: mock",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def create(**fields: object) -> bytes:
    return post(json.dumps(BODY | fields).encode())


async def whole(connection: Connection, request: bytes) -> tuple[bytes, bool]:
    """Send a request; return its answer, and whether the mock ended the connection."""
    connection.write(request)
    answer = b""
    while data := await connection.read():
        answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int((head.lower().partition(b"content-length: ")[2] or b"-1").split(b"\r\n")[0])
        if answer.endswith(b"0\r\n\r\n") or len(body) == length:
            # Whether the connection ends now, or never: a second request tells.
            connection.write(post(b"[]"))
            return answer, not await connection.read()
    return answer, True


async def play(kind: type[Upstream], requests: list[bytes], rules: tuple[TurnRule, ...]) -> Seen:
    seen = Seen()

    async def sleep(seconds: float) -> None:
        seen.slept.append(seconds)

    options: dict[str, Any] = {
        "script": Script(rules),
        "run": "test",
        "clock": lambda: 0.0,
        "wall_clock": lambda: 7.0,
        "sleep": sleep,
    }
    if kind is MockUpstream:
        async with MockUpstream(accounts=ACCOUNTS, **options) as mock:
            for request in requests:
                await _one(await connect(mock.base_url, 5), request, seen)
            seen.record = mock._recording.document()
        return seen
    memory = MemoryUpstream(accounts=list(ACCOUNTS), **options)
    for request in requests:
        await _one(memory.open_http("ghost" if b"ghost" in request else "work"), request, seen)
    seen.record = memory._recording.document()
    await memory.stop()
    return seen


async def _one(connection: Connection, request: bytes, seen: Seen) -> None:
    answer, ended = await whole(connection, request)
    seen.answers.append(answer)
    seen.ended.append(ended)
    connection.abort()


def both(*requests: bytes, rules: tuple[TurnRule, ...] = ()) -> Seen:
    async def main() -> list[Seen]:
        async with asyncio.timeout(30):
            return [
                await play(kind, list(requests), rules) for kind in (MockUpstream, MemoryUpstream)
            ]

    over_sockets, in_memory = asyncio.run(main())
    assert in_memory == over_sockets
    return in_memory


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_turns(rules: tuple[TurnRule, ...], stream: bool) -> None:
    seen = both(create(stream=stream), create(), rules=rules)
    assert len(seen.record["turns"]) == 2
    assert {turn["transport"] for turn in seen.record["turns"]} == {"http"}


def test_a_cut_ends_the_connection_and_keeps_what_was_sent_before() -> None:
    seen = both(create(), rules=(TurnRule(close=1011, when="created"),))
    assert seen.ended == [True]
    assert b"response.created" in seen.answers[0]
    assert b"response.completed" not in seen.answers[0]
    assert seen.record["turns"][0]["outcome"] == "close 1011"


def test_requests_that_are_none() -> None:
    seen = both(
        b"no HTTP\r\n\r\n",
        post(b"no JSON"),
        post(b"{}", "ghost"),
        post(b"", ACCOUNTS["work"], "transfer-encoding: chunked") + b"x\r\n",
        create(previous_response_id="resp_unknown"),
        create().replace(b"/responses", b"/nowhere"),
        create().replace(b"host: mock", b"expect: 100-continue"),
    )
    statuses = [int(answer.split(b" ")[1]) for answer in seen.answers]
    assert statuses == [400, 400, 401, 400, 400, 404, 100]


def test_a_client_that_leaves_ends_its_turn() -> None:
    async def test() -> None:
        memory = MemoryUpstream(script=Script((TurnRule(silence=True, when="created"),)))
        pipe = memory.open_http("work")
        pipe.write(create())
        assert b"response.created" in await pipe.read()
        pipe.abort()
        assert pipe.ended
        assert await pipe.read() == b""
        pipe.write(create())  # to nobody
        await pipe.written()
        await memory.stop()
        # As the mock over sockets: the first word on a turn counts, and it was silent first.
        assert [turn.outcome for turn in memory.turns] == ["silence"]

    asyncio.run(test())


def test_a_client_that_leaves_in_the_middle() -> None:
    async def test() -> None:
        memory = MemoryUpstream(script=Script((TurnRule(deltas=5, delta_delay=3600),)))
        pipe = memory.open_http("work")
        pipe.write(create())
        await pipe.read()
        pipe.abort()
        await memory.wait_for(lambda memory: memory.turns[0].outcome is not None)
        assert memory.turns[0].outcome == "client left"

    asyncio.run(test())


def test_a_stop_cuts_who_still_waits() -> None:
    async def test() -> None:
        memory = MemoryUpstream(script=Script((TurnRule(silence=True),)))
        pipe = memory.open_http("work")
        pipe.write(create())
        await memory.wait_for(lambda memory: bool(memory.turns and memory.turns[0].outcome))
        await memory.stop()
        assert await pipe.read() == b""

    asyncio.run(test())


def test_handshake_rules_are_not_asked() -> None:
    async def test() -> None:
        memory = MemoryUpstream(script=Script((HandshakeRule(status=426),)))
        answer, _ = await whole(memory.open_http("work"), create())
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert memory.handshakes == []

    asyncio.run(test())


def test_what_breaks_the_mock_is_not_a_silent_upstream() -> None:
    async def broken(seconds: float) -> None:
        raise ZeroDivisionError

    async def test() -> None:
        memory = MemoryUpstream(script=Script((TurnRule(delay=1),)), sleep=broken)
        pipe = memory.open_http("work")
        pipe.write(create())
        with pytest.raises(ZeroDivisionError):
            await pipe.read()

    asyncio.run(test())
