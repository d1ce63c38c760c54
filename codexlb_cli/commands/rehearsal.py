"""Plays a scenario: the production gateway and the mock upstream, in memory, on one virtual clock.

This is wiring. The gateway decides, the mock's script decides what goes wrong, and
`inspect.scenario` says whether that was expected.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from codexlb_cli.core.accounts import Standing
from codexlb_cli.core.closes import LIVENESS_TIMEOUT, PROTOCOL_FAULT, CloseRow
from codexlb_cli.core.failures import DIAL_FAILURE, parse
from codexlb_cli.core.handshake import Handshake
from codexlb_cli.core.http_request import HttpRequest
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import Action, Event
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.http_connection import Connection
from codexlb_cli.gateway.http_upstream import HttpUpstream
from codexlb_cli.gateway.memory import Exchange, MemoryGateway
from codexlb_cli.gateway.sockets import (
    PING_SECONDS,
    PONG_SECONDS,
    DialError,
    DialOptions,
    SocketGone,
)
from codexlb_cli.gateway.virtual_time import Stalled, run_virtually
from codexlb_cli.inspect.narration import Way, answered, narrate
from codexlb_cli.inspect.scenario import CLIENT_LEFT, Happening, Report, Result, report
from codexlb_cli.inspect.scenario_client import LOST, Heard, composed, hear, json_object
from codexlb_cli.inspect.scenario_file import STARTS_AT, RequestTable, Scenario
from codexlb_cli.mock_upstream.link import Link, LinkClosed, LinkRefused, MemoryUpstream
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.store.running import MemoryStore

_playing: ContextVar[int] = ContextVar("_playing")


def rehearse(scenario: Scenario, script: Script) -> Report:
    """Play a scenario; opens no socket and changes no file. The same file plays the same.

    Raises:
        ConfigError: the scenario contradicts itself.
    """
    player = _Player(scenario, script)
    try:
        run_virtually(player.play())
    except Stalled:  # whoever still waits has no result, which no expectation allows
        player.stalled()
    return player.report()


class LinkSocket:
    """A socket of the gateway that is a link to the mock upstream.

    Args:
        account: the account's name.
        link: the link.
        sending: is told the account when a frame is sent.
    """

    def __init__(self, account: str, link: Link, sending: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self.account = account
        self.opened_at = loop.time()
        self.response_headers = link.response_headers
        self.refused = False
        self.serves_one_turn = False
        self._link = link
        self._sending = sending
        self._gone: SocketGone | None = None
        self._keepalive = asyncio.create_task(self._ping())

    @property
    def open(self) -> bool:
        """Whether a frame can be sent."""
        return self._gone is None and self._link.open

    async def send(self, frame: str) -> None:
        """Send a text frame."""
        if self.open:
            self._sending(self.account)
        try:
            await self._link.send(frame)
        except LinkClosed as exc:
            raise self._fact(exc) from None

    async def receive(self) -> str:
        """Return the next event's text."""
        try:
            message = await self._link.receive()
        except LinkClosed as exc:
            raise self._fact(exc) from None
        if isinstance(message, bytes):
            self.end("binary frame", PROTOCOL_FAULT)
            raise SocketGone("binary frame", row=PROTOCOL_FAULT)
        return message

    def end(self, label: str, row: CloseRow | None = None) -> None:
        """End the socket at once."""
        if self._gone is None:
            self._gone = SocketGone(label, row=row)
        self._keepalive.cancel()
        self._link.abort()

    async def close(self) -> None:
        """Close politely."""
        self._keepalive.cancel()
        await self._link.close()

    def _fact(self, exc: LinkClosed) -> SocketGone:
        self._keepalive.cancel()
        return self._gone or SocketGone(str(exc.code), code=exc.code)

    async def _ping(self) -> None:
        """End the socket when no pong would come."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            if self._link.ignores_pings:
                await asyncio.sleep(PONG_SECONDS)
                self.end("no pong", LIVENESS_TIMEOUT)
                return


class PostSocket(HttpUpstream):
    """A connection of the gateway that is a pipe to the mock upstream.

    Args:
        request: the head of the POST.
        connection: the pipe.
        largest: the size of the largest event, in bytes.
        sending: is told the account when a POST is sent.
    """

    def __init__(
        self,
        request: HttpRequest,
        connection: Connection,
        largest: int,
        sending: Callable[[str], None],
    ) -> None:
        super().__init__(request, connection, largest)
        self._sending = sending

    async def send(self, frame: str) -> None:
        """Post what the frame asks for."""
        await super().send(frame)
        self._sending(self.account)


class _Player:
    def __init__(self, scenario: Scenario, script: Script) -> None:
        self._scenario = scenario
        self._script = script
        self._settings = scenario.settings()
        self._store = MemoryStore()
        self._timeline: list[Happening] = []
        self._results: dict[int, Result] = {}
        self._heard: dict[int, Heard] = {}
        self._dialled: dict[int, list[str]] = {}
        self._sent: dict[int, list[str]] = {}
        self._ways: dict[int, Way] = {}
        self._at_account: dict[int, str | None] = {}
        self._ended = {number: asyncio.Event() for number in range(1, len(scenario.requests) + 1)}

        self._standings: dict[str, Standing] = {}
        self._seconds = 0.0

    def report(self) -> Report:
        """Return what was seen."""
        results = [self._results[number] for number in sorted(self._results)]
        return report(self._scenario, self._timeline, results, self._standings, self._seconds)

    def stalled(self) -> None:
        """Note that nothing can happen any more although somebody waits."""
        self._see()
        self._tell(None, None, "nothing more can happen, although somebody waits")

    async def play(self) -> None:
        """Play the scenario to its end."""
        self._loop = asyncio.get_running_loop()
        self._upstream = MemoryUpstream(
            script=self._script,
            accounts=[account.name for account in self._settings.accounts],
            clock=self._loop.time,
            wall_clock=self._now,
        )
        self._gateway = self._started()
        try:
            async with asyncio.TaskGroup() as group:
                for at, _, step in sorted(self._steps(), key=lambda step: step[:2]):
                    group.create_task(self._at(at, step))
        except* ConfigError as errors:
            raise errors.exceptions[0] from None
        self._see()
        await self._gateway.kill()
        await self._upstream.stop()
        self._store.close()

    def _see(self) -> None:
        self._seconds = self._loop.time()
        self._standings = self._gateway.standings()

    def _steps(self) -> Sequence[tuple[float, int, Callable[[], Any]]]:
        """Return what begins by itself, with its time and its place among what begins then."""
        restarts = [r for r in self._scenario.restarts if r.at is not None]
        steps: list[tuple[float, int, Callable[[], Any]]] = [
            (restart.at or 0.0, 0, self._restart) for restart in restarts
        ]
        for number, request in enumerate(self._scenario.requests, 1):
            # One without a time waits for the one before it, from the beginning.
            steps.append((request.at or 0.0, number, self._starter(number, request)))
        return steps

    def _starter(self, number: int, request: RequestTable) -> Callable[[], Any]:
        return lambda: self._request(number, request)

    async def _at(self, at: float, step: Callable[[], Any]) -> None:
        await asyncio.sleep(at - self._loop.time())
        await step()

    async def _request(self, number: int, request: RequestTable) -> None:
        before = [number - 1] if request.at is None and number > 1 else []
        for earlier in (*before, *(n for numbers in request.earlier.values() for n in numbers)):
            await self._ended[earlier].wait()
        headers, body = composed(number, request, self._heard)
        _playing.set(number)
        self._dialled[number], self._sent[number] = [], []
        started = self._loop.time()
        self._tell(number, None, "POST /v1/responses")
        exchange = await self._gateway.serve(headers, json.dumps(body).encode(), request.leave)
        self._finish(number, exchange, body, self._loop.time() - started)
        for restart in self._scenario.restarts:
            if restart.after == number:
                await self._restart()
        self._ended[number].set()

    def _finish(
        self, number: int, exchange: Exchange, body: dict[str, Any], seconds: float
    ) -> None:
        line = exchange.line
        heard = Heard(LOST if line is None else CLIENT_LEFT)
        if exchange.complete and exchange.status is not None:
            heard = hear(exchange.status, exchange.body, body)
        self._heard[number] = heard
        retry_after = exchange.header("retry-after")
        result = Result(
            number=number,
            status=exchange.status,
            outcome=heard.outcome,
            account=exchange.header("x-codexlb-account"),
            attempts=len(self._sent[number]),
            affinity=line.affinity if line else "none",
            dialled=tuple(self._dialled[number]),
            sent=tuple(self._sent[number]),
            retry_after=int(retry_after) if retry_after else None,
            seconds=seconds,
        )
        self._results[number] = result
        self._tell(number, result.account, *answered(result, line.outcome if line else ""))

    async def _restart(self) -> None:
        self._tell(None, None, "the gateway is killed, and started again")
        await self._gateway.kill()
        self._gateway = self._started()

    def _started(self) -> MemoryGateway:
        return MemoryGateway(
            self._settings,
            self._store,
            dial=self._dial,
            connect=self._connect,
            now=self._now,
            draw=lambda: 1.0,  # every wait is as long as it may be
            observe=self._observe,
        )

    def _now(self) -> float:
        return STARTS_AT + self._loop.time()

    async def _dial(
        self, handshake: Handshake, options: DialOptions, now: Callable[[], float]
    ) -> LinkSocket:
        number, name = _playing.get(), handshake.account
        self._dialled[number].append(name)
        self._ways[number] = "dialled"
        self._tell(number, name, "dial")
        lines = [(line.name, line.value) for line in handshake.additional]
        try:
            async with asyncio.timeout(options.timeout_seconds):
                link = await self._upstream.connect(name, lines)
        except LinkRefused as exc:
            body, headers = json_object(exc.body), dict(exc.headers)
            raise DialError(parse(exc.status, body, headers, now(), handshake=True)) from None
        except (LinkClosed, TimeoutError):
            raise DialError(DIAL_FAILURE) from None
        return LinkSocket(name, link, self._sending)

    async def _connect(self, post: HttpRequest, options: DialOptions) -> PostSocket:
        self._ways[_playing.get()] = "http"
        pipe = self._upstream.open_http(post.account)
        return PostSocket(post, pipe, options.largest_event_bytes, self._sending)

    def _sending(self, account: str) -> None:
        # Asked anew for every frame: a socket serves one request after the other.
        self._sent[_playing.get()].append(account)

    def _observe(self, turn: Turn, event: Event, actions: Sequence[Action]) -> None:
        number, before = _playing.get(), self._at_account.get(_playing.get())
        way = self._ways.pop(number, "open socket")
        for account, what, why in narrate(before, event, actions, way=way):
            self._tell(number, account, what, why)
        self._at_account[number] = turn.account

    def _tell(self, request: int | None, account: str | None, what: str, why: str = "") -> None:
        self._timeline.append(Happening(self._loop.time(), request, account, what, why))
