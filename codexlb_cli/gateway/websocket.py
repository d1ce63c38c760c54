"""WebSocket clients: their frames become turns, one lane beside the other.

Each lane of a client is paired with one upstream socket, so that what lives on that socket, the
chain of `store: false` responses, lives as long as it does. A reader is always pending, since
clients speak while a turn streams, and their pongs count only when they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from codexlb_cli.core.affinity import Key, on_socket, read_evidence
from codexlb_cli.core.client_errors import ClientError, queue_full
from codexlb_cli.core.client_frames import (
    CREATE,
    MOST_ACTIVE,
    MOST_STREAMS,
    ClientFrame,
    Told,
    error_frame,
    last_frame,
    no_such_response,
    over_http,
    read_frame,
    too_many_streams,
    turn_of,
    with_stream,
    without_stream,
)
from codexlb_cli.core.events import is_codex
from codexlb_cli.core.frames import InvalidBodyError
from codexlb_cli.core.giving_up import stopped
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import (
    invalid_body,
    refuse_background,
    size_error,
    wants_stream,
)
from codexlb_cli.errors import InvalidHeader
from codexlb_cli.gateway.bodies import ClientGone
from codexlb_cli.gateway.client_socket import (
    INTERNAL_ERROR,
    SERVICE_RESTART,
    ClientSocket,
    UpgradeOptions,
)
from codexlb_cli.gateway.frame_sink import FrameSink
from codexlb_cli.gateway.lanes import Holder, Seat
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.running import RunningTurns
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.turns import TurnRunner
from codexlb_cli.gateway.usage import turn_record

MOST_WAITING = 64
"""Turns that wait on one client's socket; more are refused rather than kept."""


class WebSockets:
    """The WebSocket side of the Responses endpoint.

    Args:
        services: the running gateway.
        request_log: takes a line per turn.
        keepalive_seconds: after how much silence Codex gets a keep-alive.
        bug: is told of an exception that nobody expected.
    """

    def __init__(
        self,
        services: Services,
        request_log: RequestLog,
        keepalive_seconds: float,
        bug: Callable[[Exception], None],
    ) -> None:
        self._shared = _Shared(services, request_log, keepalive_seconds, bug)
        self._sessions: dict[asyncio.Task[None], _Session] = {}

    @property
    def running(self) -> int:
        """How many turns are in flight."""
        return len(self._shared.turns)

    def options(self) -> UpgradeOptions:
        """Return how upgrades are answered now."""
        self._shared.services.refresh()
        settings = self._shared.services.settings
        return UpgradeOptions(settings.gateway.deflate, settings.limits.request_bytes)

    def serve(self, socket: ClientSocket, headers: list[Header]) -> None:
        """Serve a client's socket from now on.

        Args:
            socket: the client's, upgraded.
            headers: of its upgrade request.
        """
        session = _Session(self._shared, socket, headers)
        task = asyncio.create_task(session.run())
        self._sessions[task] = session
        task.add_done_callback(self._sessions.pop)
        if self._shared.stopping:
            session.finish()

    def stop_reading(self) -> None:
        """Take no more turns, and close the sockets on which none runs: the gateway stops."""
        self._shared.stopping = True
        for session in self._sessions.values():
            session.finish()

    async def drained(self) -> None:
        """Wait until every socket is closed."""
        while self._sessions:
            await asyncio.wait(list(self._sessions))

    async def stop_turns(self) -> None:
        """End every turn with an error frame, and every socket, because the drain is over."""
        self._shared.drain_over = True
        await self._shared.turns.stop()
        if self._sessions:
            await asyncio.wait(list(self._sessions), timeout=1.0)
        for session in list(self._sessions):
            session.cancel()


@dataclass(slots=True)
class _Shared:
    """What all sockets share.

    Attributes:
        stopping: whether no more turns are taken; those that wait are still run.
        drain_over: whether not even those are.
    """

    services: Services
    log: RequestLog
    keepalive_seconds: float
    bug: Callable[[Exception], None]
    turns: RunningTurns = field(default_factory=RunningTurns)
    stopping: bool = False
    drain_over: bool = False


class _Session:
    """A client's socket."""

    def __init__(self, shared: _Shared, socket: ClientSocket, headers: list[Header]) -> None:
        self.shared = shared
        self.socket = socket
        self.headers = headers
        self.key = uuid.uuid4().hex
        self.told = Told()
        self.active = asyncio.Semaphore(MOST_ACTIVE)
        self.turns = 0
        self._streams: dict[str | None, _Stream] = {}
        self._closing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Read the client's frames until it leaves; what it left behind is ended."""
        try:
            while True:
                await self._take(await self.socket.receive())
        except ClientGone:
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost loop of a client's socket
            await self.broke(exc)
        finally:
            self.socket.abort()
            for stream in self._streams.values():
                stream.waiting.clear()
            for stream in self._streams.values():
                await stream.end()
            self.shared.services.keys.ended(Key("session", self.key, passing=True))

    def finish(self) -> None:
        """Close the socket as soon as no turn runs: the gateway stops."""
        if self._closing is None and not any(s.busy for s in self._streams.values()):
            closing = self.socket.close(SERVICE_RESTART, "the gateway is stopping")
            self._closing = asyncio.create_task(closing)

    async def broke(self, exc: Exception) -> None:
        """Close the socket because of a bug of ours."""
        self.shared.bug(exc)
        await self.socket.close(INTERNAL_ERROR, "internal error of the gateway")

    async def fail(self, error: ClientError, stream_id: str | None = None) -> None:
        """Answer a frame that led to no turn."""
        line = RequestLine(request_id=str(uuid.uuid4()))
        self.shared.log.write(line.refused(error))
        await self.socket.send(error_frame(error, [("x-request-id", line.request_id)], stream_id))

    async def _take(self, text: str) -> None:
        limits = self.shared.services.settings.limits
        too_large = size_error(
            len(text), request_bytes=limits.request_bytes, frame_bytes=limits.frame_bytes
        )
        if too_large is not None:
            await self.fail(too_large)
            return
        try:
            frame = read_frame(text)
        except InvalidBodyError as exc:
            await self.fail(invalid_body(exc))
            return
        if frame.kind == CREATE:
            await self._create(frame)
        else:
            await self._event(frame)

    async def _create(self, frame: ClientFrame) -> None:
        name = frame.stream_id
        if self.shared.stopping:
            await self.fail(stopped(responding=False), name)
            return
        stream = self._streams.get(name)
        if stream is None:
            if name is not None and len(self._streams.keys() - {None}) >= MOST_STREAMS:
                await self.fail(too_many_streams(), name)
                return
            stream = self._streams[name] = _Stream(self, name)
        if sum(len(s.waiting) for s in self._streams.values()) >= MOST_WAITING:
            await self.fail(queue_full(MOST_WAITING, "this WebSocket"), name)
            return
        stream.add(frame)

    async def _event(self, frame: ClientFrame) -> None:
        """Hand an event to the upstream socket of the response that it is about."""
        seat = self._seat_of(frame.about)
        if seat is not None and seat.socket.serves_one_turn:
            await self.fail(over_http(), frame.stream_id)
        elif seat is None or not await seat.forward(without_stream(frame)):
            await self.fail(no_such_response(frame), frame.stream_id)

    def _seat_of(self, response_id: str | None) -> Seat | None:
        """Return the upstream socket on which a response runs, or ran last; None if it is gone."""
        if response_id is None:
            return None
        found = (stream.seat_of(response_id) for stream in self._streams.values())
        return next((seat for seat in found if seat is not None), None)


class _Stream:
    """A lane of a client's socket: its turns run one after the other."""

    def __init__(self, session: _Session, name: str | None) -> None:
        self.waiting: deque[ClientFrame] = deque()
        self._session = session
        self._name = name
        self._holder = Holder(session, self._unasked)
        self._runner: TurnRunner | None = None
        self._latest: tuple[str | None, Seat | None] = (None, None)
        self._worker: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._worker is not None

    def add(self, frame: ClientFrame) -> None:
        """Take a turn, to be run after those before it."""
        self.waiting.append(frame)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    def seat_of(self, response_id: str) -> Seat | None:
        """Return the upstream socket of a response that runs here, or ran last; None if none."""
        if self._runner is not None:
            return self._runner.serving if self._runner.response_id == response_id else None
        latest, seat = self._latest
        if latest != response_id or seat is None:
            return None
        ours = seat.holder is not None and seat.holder.client is self._session
        return seat if ours or seat.socket.serves_one_turn else None

    async def end(self) -> None:
        """End what runs, because the client has left."""
        if self._worker is not None:
            await asyncio.wait((self._worker,))  # its turn ends with the connection
        await self._session.shared.services.lanes.let_go(self._holder)

    async def _unasked(self, kind: str, event: dict[str, Any], text: str) -> None:
        is_error = kind == "error"
        told = last_frame(event, [], self._name) if is_error else with_stream(text, self._name)
        with contextlib.suppress(ClientGone):
            await self._session.socket.send(told)

    async def _work(self) -> None:
        session = self._session
        try:
            while self.waiting:
                async with session.active:
                    if self.waiting:  # the client may have left while others had their turn
                        await self._turn(self.waiting.popleft())
        except ClientGone:
            self.waiting.clear()  # the session is about to notice, too
        except Exception as exc:  # noqa: BLE001 - the outermost loop of a client's lane
            await session.broke(exc)
        finally:
            self._worker = None
            if session.shared.stopping:
                session.finish()

    async def _turn(self, frame: ClientFrame) -> None:
        session, services = self._session, self._session.shared.services
        if session.shared.drain_over:  # it waited for a turn that has just been ended
            await session.fail(stopped(responding=False), self._name)
            return
        line = RequestLine(request_id=str(uuid.uuid4()))
        services.refresh()
        try:
            request = self._request(frame, line.request_id)
        except InvalidBodyError as exc:
            await session.fail(invalid_body(exc), self._name)
            return
        except InvalidHeader as exc:
            await session.fail(ClientError("invalid_header", str(exc)), self._name)
            return
        shared = session.shared
        silence = shared.keepalive_seconds if is_codex(session.headers) else None
        sink = FrameSink(session.socket.send, self._name, session.told, silence)
        self._runner = runner = TurnRunner(services, request, sink)
        outcome = "client left"
        try:
            if await shared.turns.run(runner, session.socket.left()):
                outcome = ""
        except ClientGone:
            raise
        except Exception:
            runner.broke()
            outcome = ""
            error = ClientError("internal_error", "internal error of the gateway")
            await sink.fail(error, [("x-request-id", line.request_id)])
            raise
        finally:
            self._runner, self._latest = None, (runner.response_id, runner.serving)
            sink.close()
            shared.log.write(line.served(runner, sink.status, outcome))
            now = services.now()
            services.record(turn_record(request, runner, sink.status, line.started_at, now))

    def _request(self, frame: ClientFrame, request_id: str) -> TurnRequest:
        session = self._session
        session.turns += 1
        wants_stream(frame.body)
        refuse_background(frame.body)
        body, headers = turn_of(frame.body, session.headers, first=session.turns == 1)
        evidence = on_socket(read_evidence(headers, body), session.key)
        return TurnRequest(headers, body, evidence, request_id, self._holder)
