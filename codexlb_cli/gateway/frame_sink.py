"""How a turn is written to a WebSocket client: the upstream's own frames, and error frames."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.client_frames import (
    KEEPALIVE_FRAME,
    Told,
    error_frame,
    last_frame,
    passed_frame,
    status_of,
    with_stream,
)
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.headers import Header
from codexlb_cli.gateway.bodies import ClientGone
from codexlb_cli.gateway.keepalive import KeepAlive

SendText = Callable[[str], Awaitable[None]]


class FrameSink:
    """Writes one turn of a client's lane.

    Attributes:
        status: what the client was told: 200 from the first event of the response on, or that of
            an error frame; None until then.

    Args:
        send: sends a text frame to the client.
        stream_id: the lane; None for the unnamed one.
        told: what the client's socket was told beside responses.
        keepalive_seconds: after how much silence Codex gets a keep-alive; None for other clients.
    """

    def __init__(
        self,
        send: SendText,
        stream_id: str | None,
        told: Told,
        keepalive_seconds: float | None,
    ) -> None:
        self.status: int | None = None
        self._ended = False
        self._send = send
        self._stream_id = stream_id
        self._told = told
        self._headers: list[Header] = []
        self._keepalive: KeepAlive | None = None
        if keepalive_seconds is not None:
            self._keepalive = KeepAlive(keepalive_seconds, self._sign_of_life)

    async def begin(self, headers: list[Header]) -> None:
        """Say what an answer's head says over HTTP, where that is news to the client."""
        self.status = 200
        self._headers = headers
        for text in self._told.events(headers):
            await self._write(text)
        if self._keepalive is not None:
            self._keepalive.start()

    async def event(self, _kind: str, text: str) -> None:
        """Write an event."""
        await self._write(text)

    async def telemetry(self, kind: str, event: Mapping[str, Any], text: str) -> None:
        """Write what the upstream says beside the response."""
        self._told.saw(kind, event)
        await self._write(text)

    async def finish(self, kind: str, text: str) -> None:
        """Write the terminal event; an upstream's error with its status."""
        if kind != "error":
            await self._end(self.status, with_stream(text, self._stream_id))
            return
        event = json.loads(text)
        await self._end(status_of(event), last_frame(event, self._headers, self._stream_id))

    async def fail(self, error: ClientError, headers: list[Header]) -> None:
        """Write an error of ours."""
        await self._end(error.status, error_frame(error, headers, self._stream_id))

    async def pass_on(self, failure: Failure, headers: list[Header]) -> None:
        """Write the upstream's own error."""
        await self._end(*passed_frame(failure, headers, self._stream_id))

    def close(self) -> None:
        """Stop the keep-alives; the client is gone or the turn has ended."""
        if self._keepalive is not None:
            self._keepalive.stop()

    async def _end(self, status: int | None, text: str) -> None:
        """Write the terminal event: the first one, though its write may have been broken off."""
        self.close()
        if not self._ended:
            self._ended, self.status = True, status
            await self._send(text)

    async def _sign_of_life(self) -> None:
        with contextlib.suppress(ClientGone):
            await self._send(with_stream(KEEPALIVE_FRAME, self._stream_id))

    async def _write(self, text: str) -> None:
        if self._keepalive is not None:
            self._keepalive.wrote()
        await self._send(with_stream(text, self._stream_id))
