"""Performs one turn: asks `core.turn` what to do, does it, and reports what happened.

Nothing here decides where a turn goes. What is awaited before the first event is bounded by one
deadline; what is awaited after it, by the idle time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import cached_property
from typing import Any

from codexlb_cli.config.policies import reconnect_policy
from codexlb_cli.core import frames
from codexlb_cli.core.accounts import Transport
from codexlb_cli.core.affinity import turn_state_key
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import NO_CLOSE_FRAME, close_row
from codexlb_cli.core.failures import DIAL_FAILURE, MODEL_UNAVAILABLE, Failure, refusal
from codexlb_cli.core.giving_up import stopped
from codexlb_cli.core.handshake import client_headers
from codexlb_cli.core.headers import Header
from codexlb_cli.core.limits import limits_among
from codexlb_cli.core.ownership import UNOWNED, Ownership, Seated, facts_of, plan_error
from codexlb_cli.core.readings import from_error
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.requests import acts_twice, frame_error
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import State, Turn
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
    Queue,
    QueueFull,
    Refresh,
    RefreshFailed,
    Refused,
    Responded,
    RoomFree,
    Send,
    Silent,
    TurnFacts,
    trouble,
)
from codexlb_cli.core.usage import outcome_of
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway import seats
from codexlb_cli.gateway.head import Head
from codexlb_cli.gateway.lanes import Seat
from codexlb_cli.gateway.outbound import Outbound, prepare
from codexlb_cli.gateway.relay import Received, Relay, parsed
from codexlb_cli.gateway.seats import NoSeat
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sinks import Sink
from codexlb_cli.gateway.sockets import DialError, Socket, SocketGone

_MOST_TELEMETRY = 63
"""How many events beside the response are kept until it begins."""


class TurnRunner:
    """Runs one turn.

    Attributes:
        turn: its state; None until it was planned.
        ownership: who owns it, and the key that decided.
        ended_with: the terminal event's type; None if it ended otherwise.
        first_event_at: loop time of the first response event.
        relay: of its response; None until it responded.
    """

    def __init__(self, services: Services, request: TurnRequest, sink: Sink) -> None:
        self.turn: Turn | None = None
        self.ownership: Ownership = UNOWNED
        self.ended_with: str | None = None
        self.first_event_at: float | None = None
        self.relay: Relay | None = None
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
        self._first: Received | None = None
        self._refusal: str | None = None
        self._telemetry: list[Received] = []
        self._tokens: dict[str, str | None] = {}
        self._head = Head(services)

    @property
    def strength(self) -> Strength:
        """The turn's affinity."""
        return Strength.HARD if self._anchored_seat else self.ownership.key.strength

    @property
    def response_id(self) -> str | None:
        """The response that is under way; None before it begins."""
        return self.relay.response_id if self.relay is not None else None

    @property
    def serving(self) -> Seat | None:
        """The socket that responds, or responded last; None before the response begins."""
        return self.relay.seat if self.relay is not None else None

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

    @property
    def recorded_outcome(self) -> str | None:
        """What became of the turn, as it is remembered; None if it came to no end."""
        if self._refusal is not None:
            return self._refusal.partition(":")[0]
        return outcome_of(self.ended_with, self.turn.error if self.turn is not None else None)

    def _losses(self) -> list[str]:
        dropped = self._outbound.dropped_reasoning if self._outbound else 0
        items = "1 reasoning item" if dropped == 1 else f"{dropped} reasoning items"
        return [f"{items} of another account dropped"] if dropped else []

    async def run(self) -> None:
        """Run the turn to its end; the sink has been given exactly one end after it.

        Raises:
            asyncio.CancelledError: the client is gone; its socket is retired.
        """
        evidence = self._request.evidence
        await self._services.keys.recall(
            evidence.keys, frames.reasoning_digests(self._request.body)
        )
        # No await from here to the claim in `_dial`: parallel first turns share an account.
        self.ownership = self._services.keys.enter(evidence)
        try:
            await self._run()
        except NoSeat as exc:
            self._refusal = exc.error.code
            await self._sink.fail(exc.error, self._answer_headers())
        finally:
            self._services.keys.leave(self.ownership.key)
            self._leave_account()
            if self._seat is not None:
                self._services.lanes.retire(self._seat)

    async def abort(self) -> None:
        """End the stream with an error of ours, because the gateway stops."""
        responding = self.turn is not None and self.turn.state is State.RESPONDING
        error = stopped(responding=responding)
        self._refusal = f"{error.code}: {error.message}"
        await self._sink.fail(error, self._answer_headers())

    def broke(self) -> None:
        """Note that a bug ended the turn, so that it is not taken for a client that left."""
        self._refusal = "internal_error"

    async def _run(self) -> None:
        error = plan_error(self.ownership, self._request.evidence, self._seated)
        if error is not None:
            raise NoSeat(error)
        self.turn = turn = Turn(self._facts(), reconnect_policy(self._settings))
        event: Event | None = Begin()
        while event is not None:
            happened, at_account = event, turn.account
            actions = turn.receive(event, self._pool(), draw=self._services.draw())
            self._services.observe(turn, happened, actions)
            if at_account is not None and (reason := trouble(happened)) is not None:
                self._services.accounts.troubled(at_account, reason)
            event = None
            for action in actions:
                event = await self._perform(action)
            if isinstance(happened, Responded):
                event = await self._relay()
        self._learn(turn)

    def _learn(self, turn: Turn) -> None:
        evidence, keys = self._request.evidence, self._services.keys
        if turn.gave_up:
            keys.failed({self.ownership.key, evidence.lane})
        if turn.moved_from is not None and evidence.turn_state is not None:
            keys.drop(turn_state_key(evidence.turn_state))  # it stays behind with its account

    async def _perform(self, action: Action) -> Event | None:
        match action:
            case Queue(accounts):
                return await self._in_time(self._queue(accounts))
            case Dial(account, after):
                return await self._in_time(self._dial(account, after))
            case Refresh(account):
                return await self._in_time(self._refresh(account))
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
        services, request, settings = self._services, self._request, self._settings
        now = services.now()
        return facts_of(
            self.ownership,
            request.evidence,
            services.keys.record(request.evidence.lane),
            self._seated,
            now=now,
            acts=acts_twice(request.body, reconnect_policy(settings)),
            deadline=now + settings.timeouts.before_first_event_total,
            resends=request.holder is not None,
        )

    @cached_property
    def _anchored_seat(self) -> Seat | None:
        previous = self._request.evidence.previous_response
        return self._services.lanes.anchor(previous, self._request.holder) if previous else None

    @cached_property
    def _seated(self) -> Seated:
        """Where the previous response lives, if it was made with `store: false`."""
        previous, seat = self._request.evidence.previous_response or "", self._anchored_seat
        return Seated(
            account=seat.lane.account if seat else None,
            made=self._services.lanes.made_on_socket(previous),
        )

    def _pool(self) -> Pool:
        return self._services.accounts.pool(self._request.model, staying=self._in_flight)

    # Before the first event

    async def _in_time(self, step: Awaitable[Event]) -> Event:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await step
        except TimeoutError:
            return OutOfTime()

    async def _queue(self, accounts: tuple[str, ...]) -> Event:
        name = await self._services.accounts.room(accounts)
        if name is None:
            return QueueFull(self._settings.lanes.queue)
        self._in_flight = name
        return RoomFree()

    async def _dial(self, name: str, after_seconds: float) -> Event:
        services = self._services
        self._claim(name)
        if after_seconds > 0:
            await asyncio.sleep(after_seconds)
        try:
            home = self.ownership.owner
            self._outbound = prepare(services, self._request, name, home, self._transport(name))
            error = frame_error(self._outbound.frame, self._settings.limits.frame_bytes)
            if error is not None:
                raise NoSeat(error)
            self._tokens[name] = self._outbound.secret
            self._seat = await self._take_seat(self._outbound)
        except ConfigError:  # the account was removed while this turn waited for it
            return DialFailed(DIAL_FAILURE)
        except DialError as exc:
            self._limits_in(exc.failure, name)
            return DialFailed(exc.failure)
        owner = self._bound_by_another()
        if owner is not None and owner != name:
            services.lanes.release(self._seat)
            self._seat = None
            return BoundElsewhere(owner)
        return Opened()

    async def _refresh(self, name: str) -> Event:
        """Refresh the login of an account: what was refused is what went out last, to it."""
        self._claim(name)
        try:
            account = self._services.settings.account(name)
        except ConfigError:  # it was removed meanwhile
            return RefreshFailed()
        return await self._services.accounts.logins.refresh(account, self._tokens.get(name))

    def _claim(self, name: str) -> None:
        self._go_to_account(name)
        self._services.keys.claim(self.ownership.key, name)

    def _transport(self, name: str) -> Transport:
        """How the account is spoken to; what lives on a socket is, whatever was learned since."""
        anchored = self._anchored_seat is not None
        return "websocket" if anchored else self._services.accounts.transport(name)

    async def _take_seat(self, outbound: Outbound) -> Seat:
        seat, previous = self._anchored_seat, self._request.evidence.previous_response
        if seat is not None and previous is not None:
            self._tokens[seat.lane.account] = seat.lane.token
            return await seats.take_anchored(self._services, self._request, seat, previous)
        return await seats.take(self._services, self._request, outbound.handshake)

    def _bound_by_another(self) -> str | None:
        """Return the owner, if a parallel first turn bound the key while this one was dialling."""
        record = self._services.keys.record(self.ownership.key)
        first_try = self.turn is not None and self.turn.attempts == 0
        was_free = first_try and not self.ownership.record.bound and self._anchored_seat is None
        return record.owner if was_free and record.bound and self._is_hard else None

    @property
    def _is_hard(self) -> bool:
        return self.strength is Strength.HARD

    async def _send(self) -> Event:
        self._services.keys.bind(
            {self.ownership.key, self._request.evidence.lane}, self._socket.account
        )
        assert self._outbound is not None, "a socket was opened for it"
        self._telemetry.clear()
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
        lost = close_row(NO_CLOSE_FRAME, reconnect_policy(self._settings))
        return OutOfTime() if due == self._deadline else Silent(lost)

    async def _first_event(self) -> Event:
        """Read until the first response event; telemetry extends the time up to the total."""
        while True:
            due = self._due()
            try:
                async with asyncio.timeout_at(due):
                    received = parsed(self._socket, await self._socket.receive())
            except TimeoutError:
                return self._silent(due)
            if received.kind == "error":
                return self._refused(received.event)
            if not frames.is_response_event(received.kind):
                self._head.telemetry(received.kind, received.event, self._socket.account)
                self._telemetry = [*self._telemetry[-_MOST_TELEMETRY:], received]
            elif received.kind != frames.TRAILING_EVENT:  # the end of an earlier turn
                self._first = received
                return Responded()

    def _refused(self, frame: dict[str, Any]) -> Event:
        failure = refusal(frame, self._services.now(), answer=self._socket.refused)
        account = self._socket.account
        self._limits_in(failure, account)
        if failure.row is MODEL_UNAVAILABLE and self._request.model:
            self._services.accounts.model_missing(account, self._request.model)
        if failure.spares_socket and not self.ownership.record.bound:
            self._services.keys.release(self.ownership.key)
        if failure.spares_socket and self._seat is not None:
            self._services.lanes.made(self._seat, None)
            self._services.lanes.release(self._seat)
            self._seat = None
        else:
            self._retire(failure.row.reason)
        return Refused(failure)

    def _limits_in(self, failure: Failure, account: str) -> None:
        seen = limits_among(client_headers(failure.headers.items()))
        told = from_error(failure.error, failure.headers, self._services.now())
        self._services.accounts.limits_seen(account, seen, told)

    # From the first event on

    async def _relay(self) -> Event:
        """Relay the response; its seat is given back with the terminal event."""
        assert self._first is not None, "the turn has responded"
        assert self._seat is not None, "events come from a socket"
        self.first_event_at = self._loop.time()
        relay = Relay(self._services, self._request, self._sink, self._head, self._seat)
        self.relay = relay
        for received in self._telemetry:
            await self._sink.telemetry(received.kind, received.event, received.text)
        try:
            self.ended_with = await relay.run(self._first, self._answer_headers())
        except SocketGone as exc:
            return self._closed(exc)
        self._seat = None
        return Finished()

    # Both

    def _closed(self, gone: SocketGone, *, sent: bool = True) -> Event:
        policy = reconnect_policy(self._settings)
        self._retire(gone.label)
        return Closed(gone.close_row(policy), gone.label, sent)

    def _retire(self, label: str) -> None:
        if self._seat is not None:
            self._seat.socket.end(label)
            self._services.lanes.retire(self._seat)
            self._seat = None

    def _go_to_account(self, name: str) -> None:
        if self._in_flight != name:
            self._leave_account()
            self._in_flight = name
            self._services.accounts.entered(name)
        self._services.accounts.chosen(name)

    def _leave_account(self) -> None:
        if self._in_flight is not None:
            self._services.accounts.left(self._in_flight)
            self._in_flight = None

    @property
    def _socket(self) -> Socket:
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
