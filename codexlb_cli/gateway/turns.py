"""Performs one turn: asks `core.turn` what to do, does it, and reports what happened.

Nothing here decides where a turn goes. What is awaited before the first event is bounded by one
deadline; what is awaited after it, by the idle time.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import cached_property
from typing import Any, NamedTuple

from codexlb_cli.config.policies import reconnect_policy
from codexlb_cli.core import frames
from codexlb_cli.core.affinity import UNKEYED, Key, KeyRecord, anchor_lost
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import PROTOCOL_FAULT, TRANSPORT_LOST
from codexlb_cli.core.failures import DIAL_FAILURE, MODEL_UNAVAILABLE, Failure, parse
from codexlb_cli.core.handshake import Handshake, client_headers
from codexlb_cli.core.headers import Header
from codexlb_cli.core.http_request import HttpRequest
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import Turn, stopped
from codexlb_cli.core.turn_events import (
    Action,
    Answer,
    Begin,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    DialFailed,
    Event,
    Finished,
    Opened,
    OutOfTime,
    PassOn,
    Refused,
    Responded,
    Send,
    Silent,
    TurnFacts,
)
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.dial import DialError, DialOptions, SocketGone, Upstream, dial
from codexlb_cli.gateway.head import Head
from codexlb_cli.gateway.http_upstream import open_http
from codexlb_cli.gateway.lanes import Lane, Seat
from codexlb_cli.gateway.outbound import Outbound, prepare, too_large
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.silence import Silence
from codexlb_cli.gateway.sinks import Sink

OWNER_COMMIT_SECONDS = 0.1


class _Ended(Exception):
    def __init__(self, error: ClientError) -> None:
        super().__init__(error.code)
        self.error = error


class _Received(NamedTuple):
    kind: str
    event: dict[str, Any]
    text: str


class TurnRunner:
    """Runs one turn.

    Attributes:
        turn: its state; None until it was planned.
        key: the key that decided; its strength is the turn's affinity.
        ended_with: the terminal event's type; None if it ended otherwise.
        first_event_at: loop time of the first response event.
    """

    def __init__(self, services: Services, request: TurnRequest, sink: Sink) -> None:
        self.turn: Turn | None = None
        self.ended_with: str | None = None
        self.first_event_at: float | None = None
        self._services = services
        self._settings = services.settings
        self._request = request
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        total = self._settings.timeouts.before_first_event_total
        self._deadline = self._loop.time() + total
        self._in_flight: str | None = None
        self._seat: Seat | None = None
        self._outbound: Outbound | None = None
        self._first: _Received | None = None
        self._refusal: str | None = None
        self._head = Head(services)
        self._committed: Future[None] | None = None
        self.key: Key = UNKEYED
        self._record = KeyRecord()

    @property
    def strength(self) -> Strength:
        """The turn's affinity."""
        return Strength.HARD if self._anchored_seat else self.key.strength

    @property
    def outcome(self) -> str:
        """What became of the turn, for the request log: one line without secrets."""
        if self._refusal is not None or self.turn is None:
            return self._refusal or "-"
        told = [self.ended_with or _error_code(self.turn.error)]
        if self.turn.attempts > 1:
            told.append(f"{self.turn.attempts} attempts")
        steps = ", ".join([*self.turn.steps, *self._losses()])
        return f"{', '.join(told)}: {steps}" if steps else ", ".join(told)

    def _losses(self) -> list[str]:
        dropped = self._outbound.dropped_reasoning if self._outbound else 0
        items = "1 reasoning item" if dropped == 1 else f"{dropped} reasoning items"
        return [f"{items} of another account dropped"] if dropped else []

    async def run(self) -> None:
        """Run the turn to its end; the sink has been given exactly one end after it.

        Raises:
            asyncio.CancelledError: the client is gone; its socket is retired.
        """
        try:
            await self._run()
        except _Ended as exc:
            self._refusal = exc.error.code
            await self._sink.fail(exc.error, self._answer_headers())
        finally:
            self._services.keys.leave(self.key)
            self._leave_account()
            if self._seat is not None:
                self._services.lanes.retire(self._seat)

    async def abort(self) -> None:
        """End the stream with an error of ours, because the gateway stops."""
        error = stopped(self.turn)
        self._refusal = f"{error.code}: {error.message}"
        await self._sink.fail(error, self._answer_headers())

    async def _run(self) -> None:
        self.turn = turn = Turn(self._facts(), reconnect_policy(self._settings))
        event: Event | None = Begin()
        while event is not None:
            actions = turn.receive(event, self._pool(), draw=self._services.draw())
            responded, event = isinstance(event, Responded), None
            for action in actions:
                event = await self._perform(action)
            if responded:
                event = await self._stream()
        if turn.gave_up:
            self._services.keys.failed(self.key)

    async def _perform(self, action: Action) -> Event | None:
        match action:
            case Dial(account, after):
                return await self._in_time(self._dial(account, after))
            case Send():
                return await self._send()
            case Blame(account, evidence):
                self._services.accounts.blame(account, evidence)
            case Answer(error):
                await self._sink.fail(error, self._answer_headers())
            case PassOn(failure):
                await self._sink.pass_on(failure, self._answer_headers())
        return None

    # Planning

    def _facts(self) -> TurnFacts:
        # No await from here to the claim in `_dial`: parallel first turns share an account.
        self.key, self._record = self._services.keys.enter(self._request.evidence)
        request, record = self._request, self._record
        seat = self._anchored_seat
        if self._anchor_lost(seat):
            raise _Ended(_previous_response_not_found())
        acts = frames.has_side_effects(request.body)
        replayable = self._settings.reconnect.replay_hosted_tools or not acts
        return TurnFacts(
            strength=self.strength,
            owner=seat.lane.account if seat else record.owner,
            bound=seat is not None or record.bound,
            portable=request.evidence.portable,
            replayable=replayable and record.may_replay(self._services.now()),
            anchored=seat is not None,
            owner_failed=record.owner_keeps_failing,
            failures=record.failures,
            deadline=self._services.now() + self._settings.timeouts.before_first_event_total,
        )

    @cached_property
    def _anchored_seat(self) -> Seat | None:
        previous = self._request.evidence.previous_response
        return self._services.lanes.anchor(previous) if previous else None

    def _anchor_lost(self, seat: Seat | None) -> bool:
        evidence, services = self._request.evidence, self._services
        previous = evidence.previous_response or ""
        return anchor_lost(
            evidence,
            on_socket=services.lanes.made_on_socket(previous),
            live=seat is not None,
            owner_known=self.key.source == "previous_response",
        )

    def _pool(self) -> Pool:
        return self._services.accounts.pool(self._request.model)

    # Before the first event

    async def _in_time(self, step: Any) -> Event:
        try:
            async with asyncio.timeout_at(self._deadline):
                event: Event = await step
                return event
        except TimeoutError:
            return OutOfTime()

    async def _dial(self, name: str, after_seconds: float) -> Event:
        self._leave_account()
        services = self._services
        services.accounts.chosen(name)
        self._in_flight = name
        services.keys.claim(self.key, name)
        if after_seconds > 0:
            await asyncio.sleep(after_seconds)
        try:
            transport = services.accounts.transport(name)
            if self._anchored_seat is not None:  # that is a socket, whatever was learned since
                transport = "websocket"
            home = self._record.owner
            self._outbound = prepare(services, self._request, name, home, transport)
            error = too_large(self._outbound.frame, self._settings.limits.frame_bytes)
            if error is not None:
                raise _Ended(error)
            self._seat = await self._take_seat(self._outbound.handshake)
        except ConfigError:  # the account was removed while this turn waited for it
            return DialFailed(DIAL_FAILURE)
        except DialError as exc:
            return DialFailed(exc.failure)
        record = services.keys.record(self.key)
        if self._bound_by_another(record) and record.owner is not None and record.owner != name:
            services.lanes.release(self._seat)
            self._seat = None
            return BoundElsewhere(record.owner)
        return Opened()

    def _bound_by_another(self, record: KeyRecord) -> bool:
        """Whether a parallel first turn bound the key while this one was dialling."""
        first_try = self.turn is not None and self.turn.attempts == 0
        return first_try and not self._record.bound and record.bound and self._is_hard

    @property
    def _is_hard(self) -> bool:
        return self.strength is Strength.HARD

    async def _take_seat(self, handshake: Handshake | HttpRequest) -> Seat:
        services = self._services
        if self._anchored_seat is not None:
            return await self._take_anchored(self._anchored_seat)
        if isinstance(handshake, HttpRequest):
            return await self._connect(handshake)
        lane = Lane.of(self._request.evidence.lane, self._request.model, handshake)
        while True:
            seat = await services.lanes.take(lane)
            if seat is not None:
                return seat
            wait = services.accounts.dial_wait(handshake.account)
            if wait == 0:
                break
            await services.lanes.freed(wait)
        socket = await dial(handshake, self._dial_options, services.now)
        seen = client_headers(socket.response_headers)
        services.accounts.limits_seen(handshake.account, seen)
        return services.lanes.add(socket, lane)

    async def _connect(self, post: HttpRequest) -> Seat:
        """Connect for one POST; such a seat joins no lane, and its account sets no pace for it."""
        lane = Lane(self._request.evidence.lane, post.account, self._request.model, ())
        return self._services.lanes.add(await open_http(post, self._dial_options), lane)

    @property
    def _dial_options(self) -> DialOptions:
        return DialOptions(
            timeout_seconds=self._settings.timeouts.dial,
            largest_event_bytes=self._settings.limits.request_bytes,
        )

    async def _take_anchored(self, seat: Seat) -> Seat:
        limit = self._settings.lanes.queue
        if not seat.free.is_set() and seat.waiting >= limit:
            raise _Ended(
                ClientError(
                    "queue_full",
                    f"{limit} turns wait for the socket that holds this response already",
                    retry_after=1,
                )
            )
        if not await self._services.lanes.take_anchored(
            seat, self._request.evidence.previous_response or ""
        ):
            raise _Ended(_previous_response_not_found())
        return seat

    async def _send(self) -> Event:
        for key in {self.key, self._request.evidence.lane}:
            self._services.keys.bind(key, self._socket.account)
        assert self._outbound is not None, "a socket was opened for it"
        was_open = self._socket.open
        due = self._due()
        try:
            async with asyncio.timeout_at(due):
                await self._socket.send(self._outbound.frame)
            return await self._first_event()
        except TimeoutError:  # the upstream does not read
            return self._silent(due)
        except SocketGone as exc:
            return self._closed(exc, sent=was_open)

    def _due(self) -> float:
        """Until when the next sign of the upstream is awaited before the first event."""
        return min(self._loop.time() + self._settings.timeouts.first_event, self._deadline)

    def _silent(self, due: float) -> Event:
        self._retire("silent")
        return OutOfTime() if due == self._deadline else Silent(TRANSPORT_LOST)

    async def _first_event(self) -> Event:
        """Read until the first response event; telemetry extends the time up to the total."""
        while True:
            due = self._due()
            try:
                async with asyncio.timeout_at(due):
                    received = self._parsed(await self._socket.receive())
            except TimeoutError:
                return self._silent(due)
            if received.kind == "error":
                return self._refused(received.event)
            if not frames.is_response_event(received.kind):
                self._head.telemetry(received.kind, received.event, self._socket.account)
            elif received.kind != frames.TRAILING_EVENT:  # the end of an earlier turn
                self._first = received
                return Responded()

    def _refused(self, frame: dict[str, Any]) -> Event:
        headers = frame.get("headers")
        status = frame.get("status", frame.get("status_code"))
        failure = parse(
            status if isinstance(status, int) and not isinstance(status, bool) else None,
            frame,
            headers if isinstance(headers, dict) else {},
            self._services.now(),
            handshake=False,
            answer=self._socket.refused,
        )
        account = self._socket.account
        self._services.accounts.limits_seen(account, client_headers(failure.headers.items()))
        if failure.row is MODEL_UNAVAILABLE and self._request.model:
            self._services.accounts.model_missing(account, self._request.model)
        if failure.spares_socket:
            self._give_back(response_id=None)
        else:
            self._retire(failure.row.reason)
        return Refused(failure)

    # From the first event on

    async def _stream(self) -> Event:
        """Relay events until the terminal one."""
        sink, socket = self._sink, self._socket
        assert self._first is not None, "the turn has responded"
        received = self._first
        self.first_event_at = self._loop.time()
        response_id = self._responded(received.event)
        await sink.begin([*self._head.headers(socket), *self._answer_headers()])
        with Silence(self._settings.timeouts.idle, lambda: socket.end("silent")) as silence:
            try:
                while received.kind not in frames.TERMINAL_EVENTS:
                    if received.kind == frames.ITEM_DONE_EVENT:
                        self._note_reasoning(received.event)
                    if frames.is_response_event(received.kind):
                        await sink.event(received.kind, received.text)
                    else:
                        self._head.telemetry(received.kind, received.event, socket.account)
                    silence.listen()
                    received = self._parsed(await socket.receive())
                    silence.broken()
            except SocketGone as exc:
                return self._closed(exc)
        await self._finish(received, response_id)
        return Finished()

    def _responded(self, event: dict[str, Any]) -> str | None:
        """Note who works on the turn; return the response's id if it lives on this socket only."""
        keys, account = self._services.keys, self._socket.account
        self._committed = keys.responded(self._stored_key, account)
        response = event.get("response")
        response_id = response.get("id") if isinstance(response, dict) else None
        if not isinstance(response_id, str):
            return None
        if self._request.body.get("store") is not False:
            keys.stores(response_id, account)
            return None
        assert self._seat is not None, "events come from a socket"
        self._services.lanes.made(self._seat, response_id)
        return response_id

    @property
    def _stored_key(self) -> Key:
        """The key whose owner row this turn writes: its conversation's, not a single response's."""
        return self._request.evidence.lane

    async def _finish(self, last: _Received, response_id: str | None) -> None:
        services, account = self._services, self._socket.account
        self.ended_with = last.kind
        if last.kind in ("response.completed", "response.incomplete"):
            services.keys.completed(self._stored_key, account, self._pool())
            services.accounts.turn_completed(account)
        if self._committed is not None:
            await self._wait_for_commit(self._committed)
        if last.kind == "error":
            self._retire(last.kind)
        else:
            self._give_back(response_id=response_id)
        await self._sink.finish(last.kind, last.text)

    async def _wait_for_commit(self, committed: Future[None]) -> None:
        done, _ = await asyncio.wait([asyncio.wrap_future(committed)], timeout=OWNER_COMMIT_SECONDS)
        if not done:
            self._services.warn("the owner of a conversation is not on disk yet; going on")

    # Both

    def _parsed(self, text: str) -> _Received:
        """Return an event; what is no JSON object is a protocol fault of the upstream.

        Raises:
            SocketGone: it is.
        """
        try:
            return _Received(*frames.parse_event(text), text)
        except ValueError:
            self._socket.end("not JSON", PROTOCOL_FAULT)
            raise SocketGone("not JSON", row=PROTOCOL_FAULT) from None

    def _note_reasoning(self, event: dict[str, Any]) -> None:
        digest = frames.reasoning_digest(event.get("item"))
        if digest is not None:
            self._services.keys.reasoned(digest, self._socket.account)

    def _closed(self, gone: SocketGone, *, sent: bool = True) -> Event:
        policy = reconnect_policy(self._settings)
        self._retire(gone.label)
        return Closed(gone.close_row(policy), gone.label, sent)

    def _retire(self, label: str) -> None:
        if self._seat is not None:
            self._seat.socket.end(label)
            self._services.lanes.retire(self._seat)
            self._seat = None

    def _give_back(self, response_id: str | None) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            self._services.lanes.made(seat, response_id)
            self._services.lanes.release(seat)

    def _leave_account(self) -> None:
        if self._in_flight is not None:
            self._services.accounts.left(self._in_flight)
            self._in_flight = None

    @property
    def _socket(self) -> Upstream:
        assert self._seat is not None, "no socket was opened yet"
        return self._seat.socket

    def _answer_headers(self) -> list[Header]:
        headers = [("x-request-id", self._request.request_id)]
        if self.turn is not None and self.turn.account is not None:
            headers += [
                ("x-codexlb-account", self.turn.account),
                ("x-codexlb-attempts", str(self.turn.attempts)),
            ]
        return headers


def _error_code(error: ClientError | Failure | None) -> str:
    return "-" if error is None else error.code or "upstream error"


def _previous_response_not_found() -> ClientError:
    return ClientError(
        "previous_response_not_found",
        "no open socket holds the previous response; send the full input",
        param="previous_response_id",
    )
