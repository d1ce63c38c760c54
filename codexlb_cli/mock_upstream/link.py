"""A mock upstream in memory: the same sessions, rules and records as over sockets, without any.

Nothing here waits but by the `sleep` that is passed in, so that an event loop whose time jumps can
run it. There are no pings to answer or to ignore. `pipe` is the connection of an HTTP request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream.pipe import Pipe
from codexlb_cli.mock_upstream.session import Session
from codexlb_cli.mock_upstream.upgrades import record_upgrade, reply_to
from codexlb_cli.mock_upstream.upstream import Upstream
from codexlb_cli.mock_upstream.wire import Head

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from codexlb_cli.mock_upstream.recording import Handshake, Turn
    from codexlb_cli.mock_upstream.script import Script
    from codexlb_cli.mock_upstream.state import UpstreamState

_TARGET = "/v1/responses"
_UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"))


class LinkRefused(Exception):
    """The upgrade was answered with another status than 101.

    Attributes:
        status: the status.
        headers: those of the script; a server's own, such as content-length, are not among them.
        body: the body.
    """

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.headers = headers
        self.body = body


class LinkClosed(Exception):
    """The link is over.

    Attributes:
        code: the close code; 1005 for an empty close frame, 1006 if there was none.
        reason: what came beside it.
        ours: whether the client ended it, and not the upstream.
    """

    def __init__(self, code: int, reason: str = "", *, ours: bool = False) -> None:
        super().__init__(f"closed with {code}")
        self.code = code
        self.reason = reason
        self.ours = ours


class MemoryUpstream(Upstream):
    """A mock upstream that is reached by `connect` and `open_http`, and by nothing else.

    Args:
        script: what goes wrong, and how turns look; see `docs/scenarios.md`.
        accounts: the names of the accounts; others are refused with 401. None accepts every name.
        strict: as for `MockUpstream`.
        keep: how many handshakes, frames and turns are kept each.
        on_turn: called with every turn when it has ended.
        run: what response ids begin with, up to their count: the same run makes the same ids.
        clock: the monotonic clock of the records, in seconds.
        wall_clock: seconds since the epoch, for `created_at`.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        *,
        script: Script | None = None,
        accounts: Collection[str] | None = None,
        strict: bool = False,
        keep: int = 10_000,
        on_turn: Callable[[Turn], None] | None = None,
        run: str = "memory",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(
            script=script,
            accounts={},
            strict=strict,
            keep=keep,
            on_turn=on_turn,
            run=run,
            takes_files=False,
            clock=clock,
            wall_clock=wall_clock,
            sleep=sleep,
        )
        self._accounts = accounts
        self._links: set[Link] = set()
        self._pipes: set[Pipe] = set()

    async def connect(self, account: str, headers: Iterable[tuple[str, str]]) -> Link:
        """Upgrade to a WebSocket; it may take as long as the script says, or for ever.

        Args:
            account: who connects; an authorization among the headers is recorded, not looked at.
            headers: the lines of the upgrade, without those that the protocol adds.

        Raises:
            LinkRefused: the upgrade was refused.
            LinkClosed: with 1006: the connection was cut without an answer.
        """
        state = self._state
        head = Head(f"GET {_TARGET} HTTP/1.1", "GET", _TARGET, [*_UPGRADE, *headers])
        handshake = record_upgrade(state, head, self._known(account), state.next_socket())
        reply = reply_to(state, handshake)
        try:
            if reply.delay:
                await state.sleep(reply.delay)
            if reply.silence:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            state.ended(handshake, "client left")
            raise
        if reply.cut:
            state.ended(handshake, "close 1006")
            raise LinkClosed(1006)
        lines = list(reply.headers.items())
        state.answered(handshake, reply.status or 101)
        if reply.status is not None:
            raise LinkRefused(reply.status, lines, reply.body)
        link = Link(state, handshake, lines, self._links.discard)
        self._links.add(link)
        return link

    def open_http(self, account: str) -> Pipe:
        """Open a connection for HTTP requests of `account`, whatever key they carry."""
        pipe = Pipe(self._state, self._known(account), self._pipes.discard)
        self._pipes.add(pipe)
        return pipe

    async def stop(self) -> None:
        """Close every link with 1001, and end every connection."""
        for link in list(self._links):
            await link.going_away()
        for pipe in list(self._pipes):
            await pipe.stop()

    def _known(self, account: str) -> str | None:
        return account if self._accounts is None or account in self._accounts else None


class Link:
    """A WebSocket in memory, as its client sees it. What is not read waits without bounds.

    Attributes:
        socket: its number, as the recording has it.
        response_headers: those of the 101 that the script adds.
    """

    def __init__(
        self,
        state: UpstreamState,
        handshake: Handshake,
        response_headers: list[tuple[str, str]],
        over: Callable[[Link], None],
    ) -> None:
        self.socket = handshake.socket
        self.response_headers = response_headers
        self._channel = _MemoryChannel()
        self._session = Session(state, handshake, self._channel)
        self._over = over
        self._worker = asyncio.create_task(self._session.perform_turns())
        self._worker.add_done_callback(self._worked)

    @property
    def open(self) -> bool:
        """Whether a message can be sent."""
        return self._channel.end is None

    @property
    def ignores_pings(self) -> bool:
        """Whether it is so silent that a ping would not be answered."""
        return self._session.ignores_pings

    async def send(self, text: str) -> None:
        """Send a text message.

        Raises:
            LinkClosed: the link is over.
        """
        if self._channel.end is not None:
            raise self._channel.end.with_traceback(None)
        await self._session.text(text.encode())
        if self._session.stopped:
            self._worker.cancel()

    async def receive(self) -> str | bytes:
        """Return the next message; those that came before a close are still delivered.

        Raises:
            LinkClosed: the link is over.
        """
        return await self._channel.receive()

    async def close(self, code: int = 1000) -> None:
        """Close politely; whatever still runs has lost its client."""
        self._leave(f"client close {code}", code)
        await asyncio.wait([self._worker])

    def abort(self) -> None:
        """Cut the connection."""
        self._leave("client left", 1006)

    async def going_away(self) -> None:
        """Be closed with 1001: the upstream stops."""
        await self._session.close(1001, "")
        self._worker.cancel()
        await asyncio.wait([self._worker])

    def _leave(self, how: str, code: int) -> None:
        self._session.stop(how)
        self._channel.ended(LinkClosed(code, ours=True))
        self._worker.cancel()

    def _worked(self, worker: asyncio.Task[None]) -> None:
        # A socket's client answers a close frame by leaving; here nobody need be waited for.
        self._session.leave()
        self._over(self)
        if not worker.cancelled() and (fault := worker.exception()) is not None:
            self._channel.ended(fault)


class _MemoryChannel:
    """A queue of messages with an end."""

    def __init__(self) -> None:
        self.buffered_bytes = 0
        self.end: BaseException | None = None
        self._put: list[str | bytes] = []
        self._sent: deque[str | bytes] = deque()
        self._arrived = asyncio.Event()

    def put_text(self, payload: bytes) -> None:
        self._put.append(payload.decode())
        self.buffered_bytes += len(payload)

    def put_binary(self, payload: bytes) -> None:
        self._put.append(payload)
        self.buffered_bytes += len(payload)

    def discard(self) -> None:
        self._put.clear()
        self.buffered_bytes = 0

    async def flush(self) -> None:
        self._sent += self._put
        self.discard()
        self._arrived.set()

    def stopping(self) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        self.ended(LinkClosed(code, reason))

    def ended(self, end: BaseException) -> None:
        if self.end is None:
            self.end = end
            self._arrived.set()

    async def receive(self) -> str | bytes:
        while not self._sent:
            if self.end is not None:
                raise self.end.with_traceback(None)
            self._arrived.clear()
            await self._arrived.wait()
        return self._sent.popleft()
