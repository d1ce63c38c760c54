"""Relays one response, from its first event to its last, and notes who made what."""

from __future__ import annotations

from typing import Any, NamedTuple

from codexlb_cli.core import frames
from codexlb_cli.core.affinity import Key
from codexlb_cli.core.closes import PROTOCOL_FAULT
from codexlb_cli.core.failures import Fault, refusal
from codexlb_cli.core.headers import Header
from codexlb_cli.core.ownership import outlasts
from codexlb_cli.gateway.head import Head
from codexlb_cli.gateway.lanes import Seat
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.silence import Silence
from codexlb_cli.gateway.sinks import Sink
from codexlb_cli.gateway.sockets import Socket, SocketGone
from codexlb_cli.store.running import Written


class Received(NamedTuple):
    """An upstream event: its type, its JSON, and its text as it came."""

    kind: str
    event: dict[str, Any]
    text: str


def parsed(socket: Socket, text: str) -> Received:
    """Return an event; what is no JSON object is a protocol fault of the upstream.

    Raises:
        SocketGone: it is, and the socket was ended.
    """
    try:
        return Received(*frames.parse_event(text), text)
    except ValueError:
        socket.end("not JSON", PROTOCOL_FAULT)
        raise SocketGone("not JSON", row=PROTOCOL_FAULT) from None


class Relay:
    """Relays the response of one turn.

    Args:
        services: the running gateway.
        request: the client's request.
        sink: where the events go.
        head: the part of the response head that the upstream decides.
        seat: the socket that responds.

    Attributes:
        last: the terminal event; None until it came.
        response_id: of the response; None if the upstream named none.
        seat: the socket that responds.
    """

    def __init__(
        self, services: Services, request: TurnRequest, sink: Sink, head: Head, seat: Seat
    ) -> None:
        self._services = services
        self._request = request
        self._sink = sink
        self._head = head
        self.seat = seat
        self._committed: Written | None = None
        self._on_socket: str | None = None
        self._steered = False
        self.response_id: str | None = None
        self.last: Received | None = None

    async def run(self, first: Received, headers: list[Header]) -> str:
        """Relay events, and return the type of the terminal one; the seat is given back then.

        Args:
            first: the first response event.
            headers: of the answer, besides those that the upstream decides.

        Raises:
            SocketGone: the socket closed before the terminal event.
        """
        sink, socket = self._sink, self.seat.socket
        received = first
        self._responded(received.event)
        await sink.begin([*self._head.headers(socket), *headers])
        idle_seconds = self._services.settings.timeouts.idle
        with Silence(idle_seconds, lambda: socket.end("silent")) as silence:
            while not self._ends(received):
                if received.kind == frames.ITEM_DONE_EVENT:
                    self._note_reasoning(received.event)
                elif received.kind == frames.CREATED_EVENT and received is not first:
                    self._responded(received.event)
                if frames.is_response_event(received.kind):
                    await sink.event(received.kind, received.text)
                else:
                    self._head.telemetry(received.kind, received.event, socket.account)
                    await sink.telemetry(received.kind, received.event, received.text)
                silence.listen()
                received = parsed(socket, await socket.receive())
                silence.broken()
        self.last = received
        await self._finish(received)
        return received.kind

    def _ends(self, received: Received) -> bool:
        """Whether the turn ends with this event.

        One whose response was cut off by steering goes on with the next response, unless the
        upstream says that there will be none.
        """
        if received.kind == frames.STEER_FAILED_EVENT:
            return self._steered
        if received.kind in frames.TERMINAL_EVENTS:
            steers = self._request.holder is not None
            self._steered = steers and frames.has_successor(received.kind, received.event)
            return not self._steered
        self._steered = self._steered and received.kind != frames.CREATED_EVENT
        return False

    def _responded(self, event: dict[str, Any]) -> None:
        """Note who works on the turn, and where its response will lie."""
        keys, account = self._services.keys, self.seat.socket.account
        told = [*self._request.evidence.stored, *self._asked_for()]
        response = event.get("response")
        response_id = response.get("id") if isinstance(response, dict) else None
        if isinstance(response_id, str):
            self.response_id = response_id
            if outlasts(self._request.body):
                told.append(Key("previous_response", response_id))
            else:
                self._on_socket = response_id
                self._services.lanes.made(self.seat, response_id)
        self._committed = keys.responded(told, account)

    def _asked_for(self) -> list[Key]:
        """Return the key of the stored response that this turn continues: who knew it is noted."""
        previous = self._request.evidence.previous_response
        if previous is None or self._services.lanes.made_on_socket(previous):
            return []
        return [Key("previous_response", previous)]

    async def _finish(self, last: Received) -> None:
        services, account = self._services, self.seat.socket.account
        if last.kind in ("response.completed", "response.incomplete"):
            pool = services.accounts.pool(self._request.model)
            services.keys.completed(self._request.evidence.stored, account, pool)
            services.accounts.turn_completed(account)
        if self._committed is not None:
            await services.store.committed(self._committed)
        self._learn(last)
        if last.kind == "error":
            services.lanes.retire(self.seat)
        else:
            services.lanes.made(self.seat, self._on_socket)
            services.lanes.release(self.seat)
        await self._sink.finish(last.kind, last.text)

    def _learn(self, last: Received) -> None:
        """Take what a failed response says about its account: a limit, or a refused credential."""
        frame = last.event.get("response") if last.kind == "response.failed" else last.event
        if last.kind not in ("error", "response.failed") or not isinstance(frame, dict):
            return
        failure, account = refusal(frame, self._services.now()), self.seat.socket.account
        if failure.row.fault in (Fault.LIMIT, Fault.CREDENTIAL):
            self._services.accounts.blame(account, failure.evidence)
            self._services.accounts.troubled(account, failure.evidence.reason)

    def _note_reasoning(self, event: dict[str, Any]) -> None:
        digest = frames.reasoning_digest(event.get("item"))
        if digest is not None:
            self._services.keys.reasoned(digest, self.seat.socket.account)
