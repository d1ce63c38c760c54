"""Puts a gateway together, runs it until a signal comes, and takes it apart again."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from codexlb_cli.config.load import Settings
from codexlb_cli.errors import ExitStatus
from codexlb_cli.gateway.accounts import Accounts
from codexlb_cli.gateway.app import GatewayApp, log_bug
from codexlb_cli.gateway.background import Background
from codexlb_cli.gateway.dial import dial
from codexlb_cli.gateway.guard import Guard
from codexlb_cli.gateway.http import Responses
from codexlb_cli.gateway.http_upstream import open_http
from codexlb_cli.gateway.keys import Keys
from codexlb_cli.gateway.lanes import Lanes
from codexlb_cli.gateway.logins import Logins, Refresh, keep_fresh
from codexlb_cli.gateway.request_log import RequestLog
from codexlb_cli.gateway.server import Listener, listen
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.transfers import Transfers
from codexlb_cli.gateway.usage import UsageLog
from codexlb_cli.gateway.usage_poll import UsagePoll
from codexlb_cli.gateway.websocket import WebSockets
from codexlb_cli.store.cooldowns import read_states
from codexlb_cli.store.credentials import CredentialSource
from codexlb_cli.store.database import database_path
from codexlb_cli.store.presence import Presence, announce, withdraw
from codexlb_cli.store.running import Database


@dataclass(slots=True)
class GatewayInputs:
    """What a gateway is made of.

    Attributes:
        load: reads the settings; called again when the file changes.
        credentials: where keys come from.
        refresh: refreshes the login of an account; None if nobody does.
        state_folder: where the database lies.
        write_line: takes a line for the request log.
        warn: takes a warning, without `warning:`.
        now: seconds since the epoch.
        draw: a random number from 0 to 1.
        monotonic: seconds that never go back; by them the database is tried again.
        keepalive_seconds: after how much silence a stream gets a keep-alive; clients give up
            after 300 s of it.
    """

    load: Callable[[], Settings]
    credentials: CredentialSource
    state_folder: Path
    write_line: Callable[[str], None]
    warn: Callable[[str], None]
    now: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic
    keepalive_seconds: float = 15.0
    refresh: Refresh | None = None


class Gateway:
    """A gateway; an async context manager that listens while entered.

    Attributes:
        services: accounts, keys and lanes.
        store: what survives a restart.
        responses: the endpoint.
        websockets: the same for WebSocket clients.
        port: the port that it listens on.

    Args:
        inputs: what it is made of.
        listener: a bound socket; None to bind the configured address.
        hurry: set when draining should end at once.
    """

    def __init__(
        self,
        inputs: GatewayInputs,
        listener: socket.socket | None = None,
        hurry: asyncio.Event | None = None,
    ) -> None:
        settings = inputs.load()
        host = settings.gateway.host
        self._socket = listener or listen(host, settings.gateway.port)
        self.port: int = self._socket.getsockname()[1]
        self._hurry = hurry or asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._refreshes = inputs.refresh is not None
        self.store = Database(database_path(inputs.state_folder), inputs.warn, inputs.monotonic)
        accounts = Accounts(
            inputs.load,
            inputs.credentials,
            read_states(inputs.state_folder),
            store=self.store,
            logins=Logins(inputs.credentials, inputs.refresh, inputs.now),
            state_folder=inputs.state_folder,
            now=inputs.now,
            warn=inputs.warn,
        )
        self._usage_poll = UsagePoll(accounts, inputs.now, inputs.draw)
        self._state_folder = inputs.state_folder
        self._presence = Presence(host, self.port, uuid.uuid4().hex)
        self.services = Services(
            accounts=accounts,
            keys=Keys(self.store, inputs.now),
            lanes=Lanes(
                lambda: accounts.settings.lanes.idle, lambda: accounts.settings.lanes.max_age
            ),
            store=self.store,
            dial=dial,
            connect=open_http,
            now=inputs.now,
            draw=inputs.draw,
            record=UsageLog(self.store, lambda: accounts.settings.usage, inputs.now).write,
            wants_limits=self._usage_poll.wanted,
            limits_at_once=self._usage_poll.at_once,
            instance=self._presence.instance,
        )
        request_log = RequestLog(inputs.write_line)
        background = Background(self.services, Transfers(), request_log)
        self.responses = Responses(
            self.services, request_log, inputs.keepalive_seconds, background.serve
        )
        self.websockets = WebSockets(self.services, request_log, inputs.keepalive_seconds, log_bug)
        guard = Guard(host, self.port)
        app = GatewayApp(self.services, self.responses, guard, request_log, self.websockets)
        self._listener = Listener(app, self.responses, self._socket)

    async def __aenter__(self) -> Self:
        await self._listener.start()
        await asyncio.to_thread(announce, self._state_folder, self._presence)
        if self._refreshes:
            accounts = self.services.accounts
            keeping = keep_fresh(accounts.logins, accounts.worth_refreshing, accounts.login_ended)
            self._keeping = asyncio.create_task(keeping)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
        await self._listener.stop(self.services.settings.timeouts.drain, self._hurry)
        await asyncio.to_thread(withdraw, self._state_folder, self._presence)
        await self._usage_poll.close()
        await self.services.lanes.close()
        self.services.accounts.write_limits()
        await asyncio.to_thread(self.store.close)


class StopSignals:
    """Ctrl-C and SIGTERM, from the moment that this is made.

    Attributes:
        hurry: set by the second signal: whoever drains should end now.
    """

    def __init__(self) -> None:
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[ExitStatus] = loop.create_future()
        _on_signal(loop, signal.SIGINT, lambda: self._stop(ExitStatus.INTERRUPTED))
        _on_signal(loop, signal.SIGTERM, lambda: self._stop(ExitStatus.DONE))

    async def wait(self) -> ExitStatus:
        """Wait for the first signal and return its exit code."""
        return await self._stopped

    def _stop(self, status: ExitStatus) -> None:
        if self._stopped.done():
            self.hurry.set()
        else:
            self._stopped.set_result(status)


async def run_until_signal(
    signals: StopSignals, stack: AsyncExitStack, gateway: Gateway, say: Callable[[str], None]
) -> ExitStatus:
    """Wait for Ctrl-C or SIGTERM, drain, and return the exit code.

    Args:
        signals: made before anything was started.
        stack: what is running; closed here.
        gateway: the gateway, entered in `stack`.
        say: takes what the person is told.
    """
    status = await signals.wait()
    running = gateway.responses.running + gateway.websockets.running
    if running:
        turns = "1 turn is" if running == 1 else f"{running} turns are"
        say(f"stopping when {turns} done; Ctrl-C again to end now")
    await stack.aclose()
    say("stopped" if running else "stopped, no turn was running")
    return status


def run_event_loop(main: Coroutine[Any, Any, ExitStatus]) -> ExitStatus:
    """Run `main` on uvloop, or on asyncio's own loop where there is no uvloop."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _on_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, act: Callable[[], None]
) -> None:
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))
