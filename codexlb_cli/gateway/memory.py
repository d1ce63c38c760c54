"""A gateway in memory: the production endpoint without a listener, sockets or files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codexlb_cli.config.load import Settings
from codexlb_cli.core.accounts import Account, Standing
from codexlb_cli.core.headers import Header
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import Action, Event
from codexlb_cli.gateway.accounts import Accounts
from codexlb_cli.gateway.http import Responses
from codexlb_cli.gateway.keys import Keys
from codexlb_cli.gateway.lanes import Lanes
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.sockets import Connector, Dialler
from codexlb_cli.store.cooldowns import states_in
from codexlb_cli.store.logins import Login
from codexlb_cli.store.running import MemoryStore
from codexlb_cli.store.secrets import Secret

KEEPALIVE_SECONDS = 15.0


class MadeUpCredentials:
    """A key for every account, which opens nothing."""

    def secret(self, account: Account) -> Secret | None:
        """Return the account's key."""
        return Secret(f"made-up-{account.name}")

    def login(self, name: str) -> Login | None:  # noqa: ARG002 - their keys are made up
        """Return None: nobody signs in."""
        return None

    def problem(self, account: Account) -> str | None:  # noqa: ARG002 - every account has one
        """Return None: there is no problem."""
        return None

    def present(self, account: Account) -> bool:  # noqa: ARG002 - every account has one
        """Return True: there is a key."""
        return True


@dataclass(slots=True)
class Exchange:
    """One request to a gateway in memory, and its answer as far as it has come.

    Attributes:
        status: None until the head came.
        complete: whether the answer has ended.
        line: the line of the request log; None until it was written.
    """

    status: int | None = None
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    line: RequestLine | None = None

    def header(self, name: str) -> str | None:
        """Return the value of a header of the answer; None if it is not there."""
        return next((value for key, value in self.headers if key == name), None)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take a piece of the answer (ASGI)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]
            ]
        else:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


class MemoryGateway:
    """The turns of a gateway, with sockets that are passed in.

    Args:
        settings: the configuration.
        store: what outlives the gateway.
        dial: opens a socket to an account.
        connect: opens a connection to one that has no WebSocket.
        now: seconds since the epoch.
        draw: a number from 0 to 1 for the jitter of a back-off.
        observe: is told of every decision.
    """

    def __init__(
        self,
        settings: Settings,
        store: MemoryStore,
        *,
        dial: Dialler,
        connect: Connector,
        now: Callable[[], float],
        draw: Callable[[], float],
        observe: Callable[[Turn, Event, Sequence[Action]], None],
    ) -> None:
        self._lines: list[RequestLine] = []
        self._running: set[asyncio.Task[None]] = set()
        lanes = settings.lanes
        self._services = Services(
            accounts=Accounts(
                lambda: settings,
                MadeUpCredentials(),
                store.find(states_in),
                store=store,
                state_folder=None,
                now=now,
                warn=lambda _: None,
            ),
            keys=Keys(store, now),
            lanes=Lanes(lambda: lanes.idle, lambda: lanes.max_age),
            store=store,
            dial=dial,
            connect=connect,
            now=now,
            draw=draw,
            observe=observe,
        )
        self._responses = Responses(self._services, _Kept(self._lines), KEEPALIVE_SECONDS)

    def standings(self) -> dict[str, Standing]:
        """Return how each account stands now."""
        pool = self._services.accounts.pool()
        return {account.name: pool.standing(account) for account in pool.accounts}

    async def serve(
        self, headers: Sequence[Header], body: bytes, leave_after: float | None = None
    ) -> Exchange:
        """Serve `POST /v1/responses`.

        Args:
            headers: the client's.
            body: the request's.
            leave_after: after how many seconds the client leaves; None if it stays.
        """
        exchange = Exchange()
        left = asyncio.Event()
        incoming = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/responses",
            "http_version": "1.1",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers],
        }
        leaving = None
        if leave_after is not None:
            leaving = asyncio.get_running_loop().call_later(leave_after, left.set)
        task = asyncio.create_task(self._responses(scope, receive, exchange.send))
        self._running.add(task)
        before = len(self._lines)
        await asyncio.wait((task,))
        self._running.discard(task)
        if leaving is not None:
            leaving.cancel()
        if not task.cancelled():
            task.result()
            exchange.line = self._lines[-1] if len(self._lines) > before else None
        return exchange

    async def kill(self) -> None:
        """End at once, as `kill -9` does: whoever waits for an answer gets none."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._services.lanes.close()


class _Kept(RequestLog):
    """Keeps the lines of the request log."""

    def __init__(self, lines: list[RequestLine]) -> None:
        super().__init__(write=lambda _: None)
        self._lines = lines

    def write(self, line: RequestLine) -> None:
        self._lines.append(line)
