"""What one WebSocket does with its messages: one turn after the other, interrupts, and the end.

How the messages travel is its `Channel`'s business: bytes on a socket (`websocket`), or a queue in
memory (`link`).
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.answers import compose
from codexlb_cli.mock_upstream.outlets import FrameOutlet, Frames
from codexlb_cli.mock_upstream.recording import Frame
from codexlb_cli.mock_upstream.requests import RefusedError, invalid_request, parse_request
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.turns import TurnPerformance

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.recording import Handshake, Turn
    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.state import UpstreamState
    from codexlb_cli.mock_upstream.stream import ResponseStream

_QUEUED_TURNS = 64


class Channel(Frames, Protocol):
    """The way to the client, and its end."""

    def stopping(self) -> None:
        """Be told, once, that nothing but perhaps a close is sent from now on."""

    async def close(self, code: int, reason: str) -> None:
        """End the connection with a close code; 1005 is an empty close frame, 1006 a cut.

        Frames that were flushed before still arrive.
        """


class Session:
    """An accepted WebSocket.

    Args:
        state: what all connections share.
        handshake: the record of its upgrade.
        channel: the way to the client.

    Attributes:
        stopped: whether it sends nothing any more.
    """

    def __init__(self, state: UpstreamState, handshake: Handshake, channel: Channel) -> None:
        self.stopped = False
        self._state = state
        self._handshake = handshake
        self._account = handshake.account or ""
        self._channel = channel
        self._turns: asyncio.Queue[tuple[TurnRequest, Turn]] = asyncio.Queue(_QUEUED_TURNS)
        self._outlet = FrameOutlet(channel, self.close)
        self._running: TurnPerformance | None = None
        self._latest: str | None = None
        self._steered: TurnRequest | None = None
        self._successor: tuple[TurnRequest, Turn] | None = None

    @property
    def ignores_pings(self) -> bool:
        """Whether it is so silent that not even pings are answered."""
        return self._outlet.ignores_pings

    async def text(self, message: bytes) -> None:
        """Take a text message of the client's."""
        try:
            text = message.decode()
        except UnicodeDecodeError:
            await self.close(1007, "invalid UTF-8")
            return
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        self._state.recording.frame(Frame(self._handshake.socket, self._account, text, body))
        try:
            await self._client_event(body, len(message))
        except RefusedError as refused:
            await self._outlet.frame_error(refused.error, _stream_id(body))

    async def binary(self) -> None:
        """Take a binary message of the client's, which is one too many."""
        await self.close(1003, "text frames only")

    async def perform_turns(self) -> None:
        """Answer the turns in the order of their arrival, until the session is over."""
        while not self.stopped:
            request, turn = await self._turns.get()
            try:
                await self._perform(request, turn)
                while self._successor is not None:
                    (request, turn), self._successor = self._successor, None
                    await self._perform(request, turn)
            except ConnectionError:
                return

    async def close(self, code: int, reason: str) -> None:
        """End the connection from our side; the first end counts."""
        if self.stopped:
            return
        self.stop(f"close {code}")
        await self._channel.close(code, reason)

    def stop(self, how: str) -> None:
        """Send nothing any more.

        Args:
            how: the end for the record: `close 1011`, `client close 1000` or `client left`.
        """
        if not self.stopped:
            self._channel.stopping()
        self.stopped = True
        self._outlet.closed = True
        self._state.ended(self._handshake, how)

    def leave(self) -> None:
        """Clear up: the socket is over, and so is whatever waits or runs."""
        self.stop("client left")
        recording = self._state.recording
        if self._running is not None:
            recording.finish(self._running.turn, "client left")
            self._running = None
        while not self._turns.empty():
            recording.finish(self._turns.get_nowait()[1], self._handshake.ended or "client left")

    # What the client sends

    async def _client_event(self, body: Any, size: int) -> None:
        kind = body.get("type") if isinstance(body, dict) else None
        if kind == "response.create":
            await self._create(body, size)
        elif kind == "response.interrupt":
            self._interrupt(body)
        elif kind == "response.steer":
            await self._steer(body)
        elif body is None:
            raise invalid_request("The message is not valid JSON.", code="invalid_json")
        else:
            raise invalid_request("Unknown client event type.", code="unknown_event", param="type")

    async def _create(self, body: Any, size: int) -> None:
        recording, socket = self._state.recording, self._handshake.socket
        request = parse_request(body, size)
        turn = recording.begin(
            socket=socket,
            account=self._account,
            transport="websocket",
            model=request.model,
            warm_up=request.warm_up,
        )
        if self._handshake.violations:
            recording.finish(turn, "close 1011")
            await self.close(1011, "")
            return
        if self._running is not None or not self._turns.empty():
            recording.overlap()
        if self._turns.full():
            error = ErrorSpec(
                status=429, code="rate_limit_exceeded", message="Too many turns wait."
            )
            recording.finish(turn, error.label)
            raise RefusedError(error)
        self._turns.put_nowait((request, turn))

    def _interrupt(self, body: Any) -> None:
        running = self._running
        if running is None or body.get("response_id") != running.turn.response_id:
            raise invalid_request(
                "There is no such response in progress.",
                code="response_not_found",
                param="response_id",
            )
        running.cut_short("interrupted")

    async def _steer(self, body: Any) -> None:
        """Cut the running response short; its successor answers what the client says instead."""
        asked, running = body.get("previous_response_id"), self._running
        steer = {"previous_response_id": asked, "input": body.get("input")}
        if running is None or running.turn.response_id != asked:
            code = "response_already_completed" if asked == self._latest else "response_not_found"
            error = {"code": code, "message": "There is no such response in progress."}
            await self._say("response.steer.failed", steer=steer, error=error)
            return
        self._steered = parse_request(
            {**self._steered_body(running), **steer}, len(wire.to_json(steer))
        )
        await self._say("response.steer.accepted", steer=steer)
        running.cut_short("steered")

    def _steered_body(self, running: TurnPerformance) -> dict[str, object]:
        request = running.stream.request
        return {"model": request.model, "store": request.stored}

    async def _say(self, kind: str, **fields: object) -> None:
        """Send an event that belongs to no response."""
        self._channel.put_text(wire.to_json({"type": kind, "sequence_number": 0, **fields}))
        await self._outlet.flush()

    # What the upstream sends

    async def _perform(self, request: TurnRequest, turn: Turn) -> None:
        state = self._state
        try:
            state.check(self._account, request, self._latest)
        except RefusedError as refused:
            self._evict(request)
            state.recording.finish(turn, refused.error.label)
            await self._outlet.frame_error(refused.error, request.stream_id)
            return
        rule = state.turn_rule(self._account, request)
        stream = state.response(self._account, request, compose(request, rule))
        self._running = TurnPerformance(
            turn=turn,
            rule=rule,
            stream=stream,
            outlet=self._outlet,
            sleep=state.sleep,
            ended=lambda outcome: self._turn_ended(turn, stream, outcome),
        )
        await self._running.perform()

    def _turn_ended(self, turn: Turn, stream: ResponseStream, outcome: str) -> None:
        # A silent turn is not over: whatever comes next overlaps it.
        if outcome != "silence":
            self._running = None
            self._succeed()
        if outcome in {"response.completed", "response.incomplete"} and turn.response_id:
            self._latest = turn.response_id
            self._state.remember(stream)
        elif outcome != "silence":
            self._evict(stream.request)
        self._state.recording.finish(turn, outcome)

    def _succeed(self) -> None:
        """Begin the successor of a steered response, before whatever else waits."""
        request, self._steered = self._steered, None
        if request is None:
            return
        turn = self._state.recording.begin(
            socket=self._handshake.socket,
            account=self._account,
            transport="websocket",
            model=request.model,
            warm_up=False,
        )
        self._successor = (request, turn)

    def _evict(self, request: TurnRequest) -> None:
        """Forget the response that a failed turn continued; the socket knows no other way back."""
        if request.previous_response_id == self._latest:
            self._latest = None


def _stream_id(body: Any) -> str | None:
    lane = body.get("stream_id") if isinstance(body, dict) else None
    return lane if isinstance(lane, str) else None
