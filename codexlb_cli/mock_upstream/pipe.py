"""A connection in memory for HTTP requests: bytes both ways, the mock's own exchange behind them.

No socket and no kernel: what is written has arrived, and what is not read waits without bounds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.http import HttpExchange, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from codexlb_cli.mock_upstream.state import UpstreamState


class Pipe:
    """A connection, as its client sees it.

    Args:
        state: what all connections share.
        account: whose requests they are; None if nobody's.
        over: is told when the mock is done with it.

    Attributes:
        ended: whether nothing more arrives; what has arrived may still be read.
    """

    def __init__(
        self, state: UpstreamState, account: str | None, over: Callable[[Pipe], None]
    ) -> None:
        self.ended = False
        self._fault: BaseException | None = None
        self._unread = bytearray()
        self._changed = asyncio.Event()
        self._reader = asyncio.StreamReader()
        self._over = over
        self._worker = asyncio.create_task(self._serve(state, account))
        self._worker.add_done_callback(self._worked)

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the connection has ended."""
        if not self.ended:
            self._reader.feed_data(data)

    async def written(self) -> None:
        """Return at once: whatever is written has arrived."""

    async def read(self) -> bytes:
        """Return what has arrived, at least one byte; empty at the end."""
        while not self._unread and not self.ended:
            self._changed.clear()
            await self._changed.wait()
        if self._fault is not None:  # the mock itself is broken, which no silence should hide
            raise self._fault
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def abort(self) -> None:
        """End the connection, from either side."""
        if not self.ended:
            self.ended = True
            self._reader.feed_eof()
        self._changed.set()

    async def stop(self) -> None:
        """Be cut off: the upstream stops."""
        self._worker.cancel()
        await asyncio.wait([self._worker])

    def arrive(self, data: bytes) -> bool:
        """Take bytes from the mock; False if the client has left."""
        if not self.ended:
            self._unread += data
            self._changed.set()
        return not self.ended

    async def _serve(self, state: UpstreamState, account: str | None) -> None:
        incoming, back = wire.Incoming(self._reader), _WayBack(self)
        socket = state.next_socket()
        try:
            while (head := await incoming.head()) is not None:
                exchange = HttpExchange(
                    state=state,
                    identify=lambda _: account,
                    head=head,
                    incoming=incoming,
                    writer=back,
                    socket=socket,
                )
                if not await exchange.serve():
                    return
        except wire.BadRequestError as error:
            back.write(bad_request(error))
        except ConnectionError:  # the client has left: there is nobody to tell
            pass

    def _worked(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled():
            self._fault = worker.exception()
        self.abort()
        self._over(self)


class _WayBack:
    """The mock's way back to the client; its own transport, since nothing lies under it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._left = False

    @property
    def transport(self) -> wire.Cuttable:
        return self

    def write(self, data: bytes) -> None:
        self._left = not self._pipe.arrive(data)

    async def drain(self) -> None:
        if self._left:
            raise ConnectionResetError("the client has left")

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        """Nothing is buffered."""

    def abort(self) -> None:
        self._pipe.abort()
