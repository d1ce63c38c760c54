"""The mock upstream in memory and over sockets: the same messages, ends and records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from codexlb_cli.mock_upstream.link import Link, LinkClosed, LinkRefused, MemoryUpstream
from codexlb_cli.mock_upstream.rules import (
    ErrorSpec,
    FailedSpec,
    HandshakeRule,
    RateLimits,
    RateWindow,
    TurnRule,
)
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream
from codexlb_cli.mock_upstream.upstream import Upstream
from tests.mock_upstream.client import ACCOUNTS, TERMINAL

PASSES_THE_GATE = 99.0
Said = list[Any]
Play = Callable[["Way"], Awaitable[None]]
TOOLS = [{"type": "function", "name": "exec_command"}]


class Peer(Protocol):
    """A WebSocket's client, of either kind."""

    async def send(self, text: str) -> None: ...
    async def receive(self) -> str | bytes: ...
    def abort(self) -> None: ...


class Gone(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason


class OverSocket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise gone(closed) from None

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise gone(closed) from None

    def abort(self) -> None:
        self._connection.transport.abort()


def gone(closed: ConnectionClosed) -> Gone:
    return Gone(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else Gone(1006, "")


class InMemory:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def send(self, text: str) -> None:
        try:
            await self._link.send(text)
        except LinkClosed as closed:
            raise Gone(closed.code, closed.reason) from None

    async def receive(self) -> str | bytes:
        try:
            return await self._link.receive()
        except LinkClosed as closed:
            raise Gone(closed.code, closed.reason) from None

    def abort(self) -> None:
        self._link.abort()


class Way:
    """One way to a mock upstream, and all that came back over it."""

    def __init__(self, upstream: MockUpstream | MemoryUpstream) -> None:
        self.upstream: Upstream = upstream
        self.said: Said = []
        self.gate = asyncio.Event()
        self._upstream = upstream

    @asynccontextmanager
    async def socket(self, account: str = "work", **headers: str) -> AsyncIterator[Talk]:
        """Connect, and close politely in the end; a refusal is noted, and nobody is there then."""
        lines = [("Authorization", f"Bearer {ACCOUNTS[account]}"), *headers.items()]
        if isinstance(self._upstream, MemoryUpstream):
            try:
                link = await self._upstream.connect(account, lines)
            except LinkRefused as refused:
                self._refused(refused.status, refused.headers, refused.body)
                raise Away from None
            except LinkClosed as closed:
                self.said.append(("cut", closed.code))
                raise Away from None
            yield Talk(self, InMemory(link))
            await link.close()
            return
        url = f"{self._upstream.websocket_base_url}/responses"
        connecting = connect(
            url, additional_headers=lines, proxy=None, compression=None, max_size=None
        )
        try:
            connection = await connecting
        except InvalidStatus as refusal:
            answer = refusal.response
            self._refused(
                answer.status_code, list(answer.headers.raw_items()), bytes(answer.body or b"")
            )
            raise Away from None
        except (InvalidMessage, ConnectionError):
            self.said.append(("cut", 1006))
            raise Away from None
        async with connection:
            yield Talk(self, OverSocket(connection))

    def _refused(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        own = {"content-type", "content-length", "connection"}
        scripted = [line for line in headers if line[0].lower() not in own]
        self.said.append(("refused", status, scripted, body.decode()))


class Away(Exception):
    """Nobody answered; what came instead has been noted."""


class Talk:
    def __init__(self, way: Way, peer: Peer) -> None:
        self.way = way
        self.peer = peer

    async def send(self, **fields: object) -> None:
        frame = {"type": "response.create", "model": "mock", "input": "hello there"} | fields
        await self.peer.send(json.dumps(frame))

    async def next(self) -> Any:
        message = await self.peer.receive()
        try:
            event = json.loads(message) if isinstance(message, str) else message
        except ValueError:
            event = message
        self.way.said.append(event)
        return event

    async def rest(self) -> None:
        """Note all messages up to a terminal event or the end of the socket."""
        try:
            while True:
                event = await self.next()
                if isinstance(event, dict) and event.get("type") in TERMINAL:
                    return
        except Gone as end:
            self.way.said.append(("closed", end.code, end.reason))

    async def turn(self, **fields: object) -> None:
        try:
            await self.send(**fields)
        except Gone as end:
            self.way.said.append(("not sent", end.code))
            return
        await self.rest()


def both(play: Play, *rules: HandshakeRule | TurnRule, strict: bool = False) -> tuple[Said, Any]:
    """Play over both ways, compare everything, and return what was said and recorded."""

    async def over(kind: type[MockUpstream | MemoryUpstream]) -> tuple[Said, list[float], Any]:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if seconds == PASSES_THE_GATE:
                await way.gate.wait()

        options: dict[str, Any] = {
            "script": Script(rules),
            "accounts": ACCOUNTS,
            "strict": strict,
            "run": "same",
            "clock": lambda: 5.0,
            "wall_clock": lambda: 1_800_000_000.9,
            "sleep": sleep,
        }
        upstream = kind(**options)
        way = Way(upstream)
        async with asyncio.timeout(30):
            if isinstance(upstream, MockUpstream):
                await upstream.start()
            await play(way)
            await upstream.wait_for(settled)
            await upstream.stop()
        return way.said, slept, recorded(upstream)

    sockets, memory = asyncio.run(over(MockUpstream)), asyncio.run(over(MemoryUpstream))
    assert memory == sockets
    return sockets[0], sockets[2]


def settled(upstream: Upstream) -> bool:
    open_ones = [h for h in upstream.handshakes if h.status == 101 and h.ended is None]
    return not open_ones and all(turn.outcome is not None for turn in upstream.turns)


def outcome(upstream: Upstream) -> str | None:
    return upstream.turns[-1].outcome


def recorded(upstream: Upstream) -> Any:
    """The record, without the header lines that only a server and a library add."""
    return (
        [(h.socket, h.account, h.at, h.status, h.ended) for h in upstream.handshakes],
        [(f.socket, f.account, f.text) for f in upstream.frames],
        list(upstream.turns),
        upstream.overlaps,
    )


async def two_turns_each(way: Way) -> None:
    """Two turns on a socket, and two on another one; a turn may find its socket closed."""
    for account in ("work", "home"):
        try:
            async with way.socket(account) as talk:
                await talk.turn()
                await talk.turn(store=False)
        except Away:
            pass


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [TurnRule(close=1011, reason="why", times=1)],
        [TurnRule(close=1011, when="created", skip=1)],
        [TurnRule(close=1013, when="streaming", after=2, fault_delay=2, delta_delay=1)],
        [TurnRule(close=1005)],
        [TurnRule(close=1006, when="streaming")],
        [TurnRule(close=1001, when="idle", fault_delay=3)],
        [TurnRule(error=ErrorSpec(status=429, code="x", headers={"retry-after": 7}), times=1)],
        [TurnRule(error=ErrorSpec(code="x"), close=1013, when="streaming")],
        [TurnRule(failed=FailedSpec()), TurnRule(incomplete="max_output_tokens")],
        [TurnRule(send=("{", '{"type": "keepalive"}'), binary=True, delay=4)],
        [TurnRule(reasoning=True, deltas=5, completed_bytes=100_000)],
        [TurnRule(metadata={"a": 1}, rate_limits=RateLimits(primary=RateWindow(used_percent=9)))],
        [HandshakeRule(account="work", status=503, headers={"retry-after": 3}), TurnRule()],
        [HandshakeRule(status=429, error=ErrorSpec(code="x", headers={"a": "b"}), delay=2)],
        [HandshakeRule(status=426, body="<html>", times=1), HandshakeRule(delay=1, cut=True)],
    ],
    ids=str,
)
def test_a_script_plays_alike(rules: list[HandshakeRule | TurnRule]) -> None:
    said, _ = both(two_turns_each, *rules)
    assert len(said) >= 2


def test_memory_of_responses_errors_and_shortcuts_play_alike() -> None:
    async def play(way: Way) -> None:
        async with way.socket() as talk, way.socket() as other, way.socket("home") as home:
            await talk.turn(store=False)
            made = way.said[-1]["response"]["id"]
            for peer in (other, talk, talk):
                await peer.turn(previous_response_id=made, store=False)
            await talk.turn(include=["reasoning.encrypted_content"])
            answer = way.said[-1]["response"]
            await home.turn(input=answer["output"])
            await home.turn(previous_response_id=answer["id"])
            await other.turn(previous_response_id=answer["id"], model="mock-failed")
            for model in ("mock-tool", "mock-429", "mock-429", "mock-close-1012"):
                await other.turn(model=model, tools=TOOLS, stream_id="main")
            for text in ("{", "null", '{"type": "response.cancel"}', '{"type":"response.create"}'):
                await home.peer.send(text)
                await home.rest()

    said, record = both(play)
    assert [turn.outcome for turn in record[2]].count("error 400 previous_response_not_found") == 3
    assert said[-1]["error"]["code"] == "missing_required_parameter"


def test_turns_that_wait_and_clients_that_leave_play_alike() -> None:
    async def play(way: Way) -> None:
        async with way.socket() as talk:
            await talk.send(model="mock-silent")
            await way.upstream.wait_for(
                lambda upstream: len(upstream.turns) == 1 and outcome(upstream) == "silence"
            )
            for _ in range(66):
                await talk.send()
            await talk.rest()
            talk.peer.abort()

    said, record = both(play)
    assert said[0]["error"]["code"] == "rate_limit_exceeded"
    _, _, turns, overlaps = record
    assert [turn.outcome for turn in turns[:2]] == ["silence", "client left"]
    assert overlaps == 66


def test_an_interrupt_plays_alike() -> None:
    async def play(way: Way) -> None:
        async with way.socket() as talk:
            await talk.send()
            response_id = (await talk.next())["response"]["id"]
            for interrupted in ("resp_x", response_id):
                frame = {"type": "response.interrupt", "response_id": interrupted}
                await talk.peer.send(json.dumps(frame))
            await way.upstream.wait_for(lambda upstream: len(upstream.frames) == 3)
            way.gate.set()
            await talk.rest()
            await talk.rest()

    said, _ = both(play, TurnRule(delta_delay=PASSES_THE_GATE))
    assert said[-1]["response"]["incomplete_details"] == {"reason": "interrupted"}


def test_strict_mode_plays_alike() -> None:
    async def play(way: Way) -> None:
        async with way.socket(accept="text/event-stream") as talk:
            await talk.turn()
        beta = {"openai-beta": "responses_websockets=2026-02-06"}
        async with way.socket(**beta) as talk:
            await talk.turn()

    said, record = both(play, strict=True)
    assert said[0] == ("closed", 1011, "")
    assert [turn.outcome for turn in record[2]] == ["close 1011", "response.completed"]
