"""Lanes: which upstream sockets are kept, and which turn may use one.

A lane is one key, account, model and forwarded handshake set. One turn at a time runs on a socket;
a parallel turn on a busy lane gets another socket. Sockets retire before the upstream's 60-minute
limit and after an idle time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

from codexlb_cli.core.affinity import UNKEYED, Key
from codexlb_cli.core.failures import is_final
from codexlb_cli.core.frames import (
    STEER_EVENTS,
    TRAILING_EVENT,
    is_response_event,
    parse_event,
)
from codexlb_cli.core.handshake import Handshake
from codexlb_cli.core.headers import Header
from codexlb_cli.gateway.keys import MOST_REMEMBERED, Recent
from codexlb_cli.gateway.sockets import Socket, SocketGone

MOST_IDLE_PER_ACCOUNT = 40
"""Upstreams refuse new sockets when too many are open; the longest idle one retires first."""
RESERVE_SECONDS = 120.0
"""A socket that would retire within this time starts no turn."""


@dataclass(frozen=True, slots=True, repr=False)
class Lane:
    """What sockets must have in common to serve each other's turns."""

    key: Key
    account: str
    model: str | None
    forwarded: tuple[Header, ...]

    @classmethod
    def of(cls, key: Key, model: str | None, handshake: Handshake) -> Lane:
        """Return the lane of a turn."""
        return cls(key, handshake.account, model, handshake.forwarded_set)

    @property
    def token(self) -> str | None:
        """The credential with which its sockets were opened; None if none went along."""
        return dict(self.forwarded).get("authorization", "").removeprefix("Bearer ") or None


@dataclass(slots=True, repr=False, eq=False)
class Holder:
    """One lane of a client's WebSocket, which has an upstream socket for itself.

    Attributes:
        client: what stands for the client's WebSocket; its lanes share it.
        unasked: takes an event that came between turns: its type, its JSON, and its text.
        seat: the upstream socket; None until it has one.
    """

    client: object
    unasked: Callable[[str, dict[str, Any], str], Awaitable[None]]
    seat: Seat | None = None


@dataclass(slots=True, repr=False, eq=False, weakref_slot=True)
class Seat:
    """A socket in a lane.

    Attributes:
        socket: the socket.
        lane: its lane.
        latest: the id of the latest response that was made on it with `store: false`.
        free: set while no turn runs on it.
        waiting: how many anchored turns wait for it.
        holder: whose socket it is, and nobody else's; None if any turn of its lane may use it.
        asked: whether a client's event went out since the last turn, which may be answered.
    """

    socket: Socket
    lane: Lane
    latest: str | None = None
    free: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    watch: asyncio.Task[None] | None = None
    holder: Holder | None = None
    asked: bool = False

    async def forward(self, frame: str) -> bool:
        """Send a client's event; False if the socket is gone."""
        self.asked = True
        try:
            await self.socket.send(frame)
        except SocketGone:
            return False
        return True

    def answers(self, kind: str, event: dict[str, Any]) -> bool:
        """Whether an event between turns answers one of the client's."""
        return kind.startswith(STEER_EVENTS) or (kind == "error" and self.asked and is_final(event))


class Lanes:
    """All sockets that no turn uses, and the anchors that live on sockets.

    Args:
        idle_seconds: returns `[lanes] idle`.
        max_age_seconds: returns `[lanes] max_age`.
    """

    def __init__(
        self, idle_seconds: Callable[[], float], max_age_seconds: Callable[[], float]
    ) -> None:
        self._idle_seconds = idle_seconds
        self._max_age_seconds = max_age_seconds
        self._idle: dict[Lane, list[Seat]] = {}
        # Of a socket that is gone nothing is kept but which responses lived on it.
        self._anchors: Recent[str, ReferenceType[Seat]] = Recent(MOST_REMEMBERED)
        self._seats: set[Seat] = set()
        self._free: dict[str, dict[Seat, None]] = {}
        self._waiters: set[asyncio.Future[None]] = set()

    async def take(self, lane: Lane, holder: Holder | None = None) -> Seat | None:
        """Return an idle socket of the lane, now busy; None if there is none.

        Args:
            lane: the lane.
            holder: whose own socket comes first; it becomes the holder of any other.
        """
        seat = holder.seat if holder is not None else None
        if seat is not None and seat.lane == lane and seat.free.is_set():
            await self._occupy(seat)
            if seat.socket.open and self._young(seat):
                return seat
            self.retire(seat)
        seat = await self._take_idle(lane)
        if seat is not None:
            self._hold(seat, holder)
        return seat

    async def _take_idle(self, lane: Lane) -> Seat | None:
        while seats := self._idle.get(lane):
            seat = seats.pop()
            await self._occupy(seat)
            if seat.socket.open and self._young(seat):
                return seat
            self.retire(seat)
        self._idle.pop(lane, None)
        return None

    def add(self, socket: Socket, lane: Lane, holder: Holder | None = None) -> Seat:
        """Take over a new socket, busy with the turn that dialled it."""
        seat = Seat(socket, lane)
        self._seats.add(seat)
        self._hold(seat, holder)
        return seat

    def _hold(self, seat: Seat, holder: Holder | None) -> None:
        if holder is None:
            return
        former, holder.seat, seat.holder = holder.seat, seat, holder
        if former is not None:
            former.holder = None
            if former.free.is_set():
                self.retire(former)

    async def let_go(self, holder: Holder) -> None:
        """Take back the socket of a client that has left: for other turns of its conversation."""
        seat, holder.seat = holder.seat, None
        if seat is None:
            return
        seat.holder = None
        if not seat.free.is_set():
            return  # a turn of another lane of the client's is about to end
        if seat.lane.key.passing:
            self.retire(seat)  # the conversation has ended with its client
            return
        await self._occupy(seat)
        self.release(seat)

    def anchor(self, response_id: str, holder: Holder | None = None) -> Seat | None:
        """Return the live socket whose latest response is `response_id`; None if it is gone.

        Args:
            response_id: the response.
            holder: who asks; a socket that a client holds is there for its own lanes alone.
        """
        made_on = self._anchors.get(response_id)
        seat = None if made_on is None else made_on()
        if seat is None or seat.latest != response_id or not seat.socket.open:
            return None
        foreign = seat.holder is not None and (
            holder is None or holder.client is not seat.holder.client
        )
        return None if foreign else seat

    async def freed(self, seconds: float) -> None:
        """Wait until a socket was given back, `seconds` at most."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._waiters.discard(waiter)

    def made_on_socket(self, response_id: str) -> bool:
        """Whether the response was made with `store: false`, here, not long ago."""
        return self._anchors.get(response_id) is not None

    async def take_anchored(
        self, seat: Seat, response_id: str, holder: Holder | None = None
    ) -> bool:
        """Wait until the socket is free and take it; False if the anchor was lost meanwhile."""
        seat.waiting += 1
        try:
            while self.anchor(response_id, holder) is seat and not seat.free.is_set():
                await seat.free.wait()  # and look again: another waiter may have been faster
        finally:
            seat.waiting -= 1
        if self.anchor(response_id, holder) is not seat:
            return False
        idle = self._idle.get(seat.lane, [])
        if seat in idle:
            idle.remove(seat)
        await self._occupy(seat)
        return seat.socket.open

    def made(self, seat: Seat, response_id: str | None) -> None:
        """Note the latest response of a socket; None drops the earlier one (a failed turn)."""
        seat.latest = response_id
        if response_id is not None:
            self._anchors.put(response_id, ref(seat))

    def release(self, seat: Seat) -> None:
        """Give a socket back after its terminal event."""
        if seat.socket.serves_one_turn or not seat.socket.open or not self._young(seat):
            self.retire(seat)
            return
        if seat.holder is not None:
            self._free_again(seat)
            return
        # A socket that holds an unkeyed conversation serves nobody but that conversation.
        if seat.latest is None or seat.lane.key is not UNKEYED:
            self._idle.setdefault(seat.lane, []).append(seat)
        self._free_again(seat)
        free = self._free.setdefault(seat.lane.account, {})
        free[seat] = None
        if len(free) > MOST_IDLE_PER_ACCOUNT:
            self.retire(next(iter(free)))

    def _free_again(self, seat: Seat) -> None:
        seat.watch = asyncio.create_task(self._watch(seat))
        seat.free.set()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def retire(self, seat: Seat) -> None:
        """End a socket: its turn failed or its client left, or it is too old."""
        seat.socket.end("retired")
        self._forget(seat)

    async def close(self) -> None:
        """End all sockets."""
        for seat in list(self._seats):
            if seat.watch is not None:
                seat.watch.cancel()
            seat.socket.end("gateway stopped")
        self._seats.clear()
        self._idle.clear()
        self._free.clear()

    def __len__(self) -> int:
        return len(self._seats)

    def _young(self, seat: Seat) -> bool:
        age = asyncio.get_running_loop().time() - seat.socket.opened_at
        limit = self._max_age_seconds()
        return age < limit - min(RESERVE_SECONDS, limit / 10)

    async def _occupy(self, seat: Seat) -> None:
        seat.free.clear()
        seat.asked = False
        self._free.get(seat.lane.account, {}).pop(seat, None)
        if seat.watch is not None:
            seat.watch.cancel()
            try:
                # Only one reader at a time: the watch must have let go of the socket.
                await asyncio.wait([seat.watch])
            except asyncio.CancelledError:
                self.retire(seat)  # nobody has it, so nobody would give it back
                raise
            seat.watch = None

    def _forget(self, seat: Seat) -> None:
        self._seats.discard(seat)
        self._free.get(seat.lane.account, {}).pop(seat, None)
        idle = self._idle.get(seat.lane)
        if idle is not None and seat in idle:
            idle.remove(seat)
            if not idle:
                del self._idle[seat.lane]
        seat.latest = None
        holder, seat.holder = seat.holder, None
        if holder is not None:
            holder.seat = None
        seat.free.set()

    async def _watch(self, seat: Seat) -> None:
        """Read an idle socket, so that its pongs and its end are seen; end it after its time.

        One that a client holds stays open as long as the upstream lets it: it would lose its
        conversation otherwise, whose next turn may be an hour away.
        """
        age = asyncio.get_running_loop().time() - seat.socket.opened_at
        idle = self._idle_seconds() if seat.holder is None else float("inf")
        rest = max(0.0, min(idle, self._max_age_seconds() - age))
        try:
            async with asyncio.timeout(rest):
                while True:
                    text = await seat.socket.receive()
                    kind, event = parse_event(text)
                    holder = seat.holder
                    if holder is not None and seat.answers(kind, event):
                        await holder.unasked(kind, event, text)
                    elif kind == "error" or (is_response_event(kind) and kind != TRAILING_EVENT):
                        break  # it belongs to no turn: nothing here can be trusted
        except (TimeoutError, SocketGone, ValueError):
            pass
        self._forget(seat)
        await seat.socket.close()
