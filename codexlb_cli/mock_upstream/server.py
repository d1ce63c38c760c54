"""A scriptable mock of the Responses upstream: WebSocket, and HTTP with SSE, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import time
from typing import TYPE_CHECKING, Self

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.http import HttpExchange, bad_request
from codexlb_cli.mock_upstream.upstream import Upstream
from codexlb_cli.mock_upstream.websocket import WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.script import Script

_BACKLOG = 1024
_STOP_SECONDS = 1.0
_LINGER_SECONDS = 1.0


class MockUpstream(Upstream):
    """A mock upstream with an issuer; an async context manager that listens while entered.

    Args:
        script: what goes wrong, and how turns look; see `docs/scenarios.md`.
        accounts: the API key of each account, by name; other keys are refused. None accepts every
            key: `demo-key-NAME` is account NAME, others are `account-1`, `account-2`, … in order
            of appearance. The access tokens of its own issuer are accepted in any case.
        strict: close with 1011 before `response.created` on sockets whose upgrade carried
            headers of an HTTP request.
        host: the address to listen on.
        port: the port; 0 for any free one.
        keep: how many handshakes, frames and turns are kept each.
        on_turn: called with every turn when it has ended.
        run: what the ids of responses and files begin with, up to their count; None makes it up.
        clock: the monotonic clock of the records, in seconds.
        wall_clock: seconds since the epoch, for `created_at`.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        *,
        script: Script | None = None,
        accounts: Mapping[str, str] | None = None,
        strict: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: int = 10_000,
        on_turn: Callable[[Turn], None] | None = None,
        run: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(
            script=script,
            accounts=accounts,
            strict=strict,
            keep=keep,
            on_turn=on_turn,
            run=secrets.token_hex(6) if run is None else run,
            takes_files=True,
            clock=clock,
            wall_clock=wall_clock,
            sleep=sleep,
        )
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._websockets: set[WebSocketConnection] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`."""
        return f"http://{self._host}:{self._port}/v1"

    @property
    def issuer_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{self._host}:{self._port}"

    @property
    def websocket_base_url(self) -> str:
        """`ws://127.0.0.1:PORT/v1`."""
        return f"ws://{self._host}:{self._port}/v1"

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is in use, or the address is not ours.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, backlog=_BACKLOG
            )
        except OSError as error:
            where = f"`{self._host}:{self._port}`"
            if error.errno == errno.EADDRINUSE:
                message = f"the mock upstream cannot listen on {where}: the port is in use"
                raise ConfigError(message, hint="choose another one with --port") from None
            raise ConfigError(f"the mock upstream cannot listen on {where}") from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, close every socket with 1001, and end every connection."""
        if self._server is None:
            return
        self._server.close()
        self._state.end_background()
        for websocket in self._websockets:
            websocket.going_away()
        connections = dict(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        ended = [asyncio.create_task(_closed(writer)) for writer in connections.values()]
        if ended:
            await asyncio.wait(ended, timeout=_STOP_SECONDS)
            # A client that does not read what was sent would hold up the end for ever.
            for writer in connections.values():
                writer.transport.abort()
            await asyncio.wait(ended)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        incoming = wire.Incoming(reader)
        try:
            try:
                await self._exchange(incoming, writer)
            except wire.BadRequestError as error:
                writer.write(bad_request(error))
                writer.write_eof()
                await incoming.discard(_LINGER_SECONDS)
        except (ConnectionError, asyncio.CancelledError):
            # The client has left, or `stop` ends the connection: there is nobody to tell.
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _exchange(self, incoming: wire.Incoming, writer: asyncio.StreamWriter) -> None:
        socket = self._state.next_socket()
        while (head := await incoming.head()) is not None:
            if head.asks_for_websocket and head.path.endswith("/responses"):
                websocket = WebSocketConnection(
                    state=self._state, head=head, incoming=incoming, writer=writer, socket=socket
                )
                self._websockets.add(websocket)
                try:
                    await websocket.serve()
                finally:
                    self._websockets.discard(websocket)
                return
            exchange = HttpExchange(
                state=self._state,
                identify=self._state.identify,
                head=head,
                incoming=incoming,
                writer=writer,
                socket=socket,
            )
            if not await exchange.serve():
                return


async def _closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
