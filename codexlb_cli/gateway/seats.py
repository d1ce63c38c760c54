"""Gets a turn its socket: the one that holds its previous response, an idle one, or a new one."""

from __future__ import annotations

from codexlb_cli.core.client_errors import (
    ClientError,
    previous_response_not_found,
    queue_full,
)
from codexlb_cli.core.handshake import Handshake, client_headers
from codexlb_cli.core.http_request import HttpRequest
from codexlb_cli.core.limits import limits_among
from codexlb_cli.gateway.lanes import Lane, Seat
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sockets import DialOptions


class NoSeat(Exception):
    """No socket can serve the turn, whatever is dialled; `error` is what the client is told."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.code)
        self.error = error


async def take_anchored(
    services: Services, request: TurnRequest, seat: Seat, response_id: str
) -> Seat:
    """Wait for the socket that holds a response.

    Raises:
        NoSeat: too many turns wait for it, or the response was lost meanwhile.
    """
    limit = services.settings.lanes.queue
    if not seat.free.is_set() and seat.waiting >= limit:
        raise NoSeat(queue_full(limit, "the socket that holds this response"))
    if not await services.lanes.take_anchored(seat, response_id, request.holder):
        raise NoSeat(previous_response_not_found())
    return seat


async def take(
    services: Services, request: TurnRequest, handshake: Handshake | HttpRequest
) -> Seat:
    """Take an idle socket of the turn's lane, or dial a new one at the account's pace.

    A connection for one POST joins no lane, and its account sets no pace for it.

    Raises:
        DialError: the account could not be reached, or refused the upgrade.
    """
    settings = services.settings
    options = DialOptions(
        timeout_seconds=settings.timeouts.dial,
        largest_event_bytes=settings.limits.request_bytes,
    )
    if isinstance(handshake, HttpRequest):
        alone = Lane(request.evidence.lane, handshake.account, request.model, ())
        return services.lanes.add(await services.connect(handshake, options), alone)
    lane = Lane.of(request.evidence.lane, request.model, handshake)
    while True:
        seat = await services.lanes.take(lane, request.holder)
        if seat is not None:
            return seat
        wait = services.accounts.dial_wait(handshake.account)
        if wait == 0:
            break
        await services.lanes.freed(wait)
    socket = await services.dial(handshake, options, services.now)
    seen = limits_among(client_headers(socket.response_headers))
    services.accounts.limits_seen(handshake.account, seen)
    return services.lanes.add(socket, lane, request.holder)
