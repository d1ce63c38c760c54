"""Background responses: asked for like turns, but posted to their account over HTTP."""

from __future__ import annotations

from codexlb_cli.gateway.exchanges import Client, unless_left
from codexlb_cli.gateway.http import Receive, Scope, disconnected
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sinks import Send, client_left
from codexlb_cli.gateway.stored import BackgroundExchange
from codexlb_cli.gateway.transfers import Transfers


class Background:
    """Serves background responses.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
        request_log: takes a line per request.
    """

    def __init__(self, services: Services, transfers: Transfers, request_log: RequestLog) -> None:
        self._services = services
        self._transfers = transfers
        self._log = request_log

    async def serve(
        self, request: TurnRequest, line: RequestLine, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one request; the client's leaving ends what goes on upstream."""
        query = scope["query_string"].decode("latin-1")
        client = Client(request.headers, query, send, request.request_id)
        exchange = BackgroundExchange(request, self._services, self._transfers, client)
        outcome = "client left"
        try:
            if await unless_left(exchange.run(), disconnected(receive)):
                outcome = exchange.outcome
        except Exception as exc:
            outcome = outcome if client_left(exc) else "internal_error"
            raise
        finally:
            line.account = exchange.account or line.account
            line.affinity = exchange.placement.ownership.key.strength.value
            self._log.write(line.answered(exchange.status, outcome))
