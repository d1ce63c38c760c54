"""Plays a scenario with sockets: a running gateway, the mock upstream, a clock that jumps.

What a scenario is and what its client hears is the simulation's; everything else is real.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codexlb_cli.core.accounts import Standing
from codexlb_cli.gateway.memory import KEEPALIVE_SECONDS, MadeUpCredentials
from codexlb_cli.gateway.run import Gateway, GatewayInputs
from codexlb_cli.gateway.server import listen
from codexlb_cli.inspect.scenario import CLIENT_LEFT
from codexlb_cli.inspect.scenario_client import LOST, Heard, composed, hear
from codexlb_cli.inspect.scenario_file import STARTS_AT, RequestTable, Scenario
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.support.client import Exchange, Header, connection, request_head
from tests.support.virtual import LIMIT_SECONDS, VirtualLoop, virtual_loop


@dataclass
class Seen:
    """What could be seen of one request from outside.

    Attributes:
        status: None if no head came before the client left or was left.
        attempts: what `x-codexlb-attempts` says; None without it.
        affinity: as the request log has it; None if the gateway was killed before.
        steps: what the request log says beyond the outcome.
        sent: None if nobody knows whose turns were whose.
        alone: whether no other request ran meanwhile; else nobody knows whose upgrade was whose.
    """

    number: int
    status: int | None = None
    outcome: str = CLIENT_LEFT
    account: str | None = None
    attempts: int | None = None
    affinity: str | None = None
    steps: str | None = None
    retry_after: int | None = None
    dialled: tuple[str, ...] = ()
    sent: tuple[str, ...] | None = ()
    seconds: float = 0.0
    alone: bool = True


@dataclass
class Played:
    """A scenario that was played.

    Attributes:
        dialled: the accounts of all upgrades, in order.
        sent: the accounts of all turns, in order.
        seconds: what the scenario's clock shows at the end.
    """

    seen: dict[int, Seen] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    dialled: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


def play_with_sockets(scenario: Scenario, script: Script, folder: Path) -> Played:
    """Play a scenario in `folder`, an empty one, where the gateway keeps its state."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_Player(scenario, script, folder).play())


class _Player:
    def __init__(self, scenario: Scenario, script: Script, folder: Path) -> None:
        self._scenario = scenario
        self._script = script
        self._folder = folder
        self._settings = scenario.settings()
        self._lines: list[str] = []
        self._claimed = 0
        self._played = Played()
        self._heard: dict[int, Heard] = {}
        self._ended = {number: asyncio.Event() for number in range(1, len(scenario.requests) + 1)}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._up = asyncio.Event()
        self._former = AsyncExitStack()

    async def play(self) -> Played:
        self._loop = virtual_loop()
        self._begins = self._loop.time()
        names = [account.name for account in self._settings.accounts]
        self._mock = MockUpstream(
            script=self._script,
            accounts={name: f"made-up-{name}" for name in names},
            run="memory",
            clock=self._loop.time,
            wall_clock=self._now,
        )
        async with self._mock, self._former:
            with self._loop.jumping.watching(lambda: self._gateway.store.busy):
                await self._play()
        return self._played

    async def _play(self) -> None:
        accounts = (replace(a, base_url=self._mock.base_url) for a in self._settings.accounts)
        self._settings = replace(self._settings, accounts=tuple(accounts))
        self._gateway = self._made()
        await self._start()
        self._begins = self._loop.time()  # a gateway takes its time to start; the scenario does not
        async with asyncio.TaskGroup() as group:
            for at, step in self._steps():
                group.create_task(self._at(at, step))
        played = self._played
        played.seconds = self._loop.time() - self._begins
        pool = self._gateway.services.accounts.pool()
        played.standings = {account.name: pool.standing(account) for account in pool.accounts}
        played.dialled = [handshake.account or "nobody" for handshake in self._mock.handshakes]
        played.sent = [turn.account for turn in self._mock.turns]

    def _now(self) -> float:
        return STARTS_AT + self._loop.time() - self._begins

    def _steps(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        """What begins by itself, in the order of the simulation: restarts come first."""
        steps: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (restart.at, self._restart)
            for restart in self._scenario.restarts
            if restart.at is not None
        ]
        for number, request in enumerate(self._scenario.requests, 1):
            steps.append((request.at or 0.0, self._starter(number, request)))
        return sorted(steps, key=lambda step: step[0])

    def _starter(self, number: int, request: RequestTable) -> Callable[[], Awaitable[None]]:
        return lambda: self._request(number, request)

    async def _at(self, at: float, step: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._begins + at - self._loop.time())
        self._loop.jumping.stir()  # however short the sleep: what follows takes threads and sockets
        await step()

    # The gateway

    def _made(self) -> Gateway:
        settings = self._settings
        inputs = GatewayInputs(
            load=lambda: settings,
            credentials=MadeUpCredentials(),
            state_folder=self._folder,
            write_line=self._lines.append,
            warn=self._played.warnings.append,
            now=self._now,
            draw=lambda: 1.0,
            keepalive_seconds=KEEPALIVE_SECONDS,
        )
        return Gateway(inputs, listener=listen("127.0.0.1", 0))

    async def _start(self) -> None:
        await self._former.enter_async_context(self._gateway)
        self._up.set()

    async def _restart(self) -> None:
        """Kill the gateway: nobody gets an answer, and what it has stored is all that is left.

        It goes on without clients, sockets and accounts until the end, since going takes time.
        """
        self._up.clear()
        killed = self._gateway
        for task in list(self._running.values()):
            task.cancel()
        while killed.responses.running:
            await asyncio.sleep(0)
        await killed.services.lanes.close()
        await asyncio.wrap_future(killed.store.submit(lambda _: None))
        self._gateway = self._made()
        await self._start()

    # A request

    async def _request(self, number: int, request: RequestTable) -> None:
        before = [number - 1] if request.at is None and number > 1 else []
        for earlier in (*before, *(n for numbers in request.earlier.values() for n in numbers)):
            await self._ended[earlier].wait()
        await self._up.wait()
        headers, body = composed(number, request, self._heard)
        body["metadata"] = {"number": str(number)}  # by which its frames are known
        seen = self._played.seen[number] = Seen(number, alone=not self._running)
        for other in self._running:
            self._played.seen[other].alone = False
        dials, turns = len(self._mock.handshakes), len(self._mock.turns)
        began = self._loop.time()
        task = asyncio.create_task(self._exchange(seen, headers, body, request.leave))
        self._running[number] = task
        await asyncio.wait((task,))
        del self._running[number]
        seen.seconds = self._loop.time() - began
        await self._read_log(seen)
        if task.cancelled():
            seen.outcome, seen.affinity, seen.steps = LOST, None, None
        else:
            task.result()
        seen.dialled = tuple(h.account or "nobody" for h in self._mock.handshakes[dials:])
        seen.sent = tuple(turn.account for turn in self._mock.turns[turns:])
        if not seen.alone:
            seen.sent = self._sent(number)
        self._heard.setdefault(number, Heard(seen.outcome))
        for restart in self._scenario.restarts:
            if restart.after == number:
                await self._restart()
        self._ended[number].set()

    async def _exchange(
        self, seen: Seen, headers: list[Header], body: dict[str, Any], leave: float | None
    ) -> None:
        data, port = json.dumps(body).encode(), self._gateway.port
        own = [("Host", f"127.0.0.1:{port}"), ("Content-Length", str(len(data)))]
        async with connection(port, LIMIT_SECONDS) as exchange:
            try:
                async with asyncio.timeout(leave):
                    head = request_head("POST", "/v1/responses", [*own, *headers])
                    await exchange.send(head + data)
                    answer = await exchange.answer()
                assert answer.complete, "the gateway has cut an answer off"
                heard = self._heard[seen.number] = hear(answer.status, answer.body, body)
                seen.outcome = heard.outcome
            except TimeoutError:
                assert leave is not None
            finally:
                self._read_head(seen, exchange)
                exchange.leave()

    @staticmethod
    def _read_head(seen: Seen, exchange: Exchange) -> None:
        if not exchange.status:
            return
        found = {name.lower(): value for name, value in exchange.headers}
        seen.status = exchange.status
        seen.account = found.get("x-codexlb-account")
        attempts, retry_after = found.get("x-codexlb-attempts"), found.get("retry-after")
        seen.attempts = int(attempts) if attempts else None
        seen.retry_after = int(retry_after) if retry_after else None

    async def _read_log(self, seen: Seen) -> None:
        """Take the request's line; the gateway writes it when the answer is on its way."""
        while len(self._lines) <= self._claimed:
            await asyncio.sleep(0)
        words = self._lines[self._claimed].split()
        self._claimed += 1
        seen.affinity = words[3]
        seen.steps = " ".join(words).partition(": ")[2]

    def _sent(self, number: int) -> tuple[str, ...] | None:
        """The accounts of a request's frames; None where POSTs were sent, which are not kept."""
        if any(turn.transport == "http" for turn in self._mock.turns):
            return None
        return tuple(
            frame.account
            for frame in self._mock.frames
            if frame.json.get("metadata") == {"number": str(number)}
        )
