"""The routes of what goes to accounts over HTTP: files, stored objects, and all the rest."""

from __future__ import annotations

from fastapi import FastAPI, Request

from codexlb_cli.core.files import CALLS, CallRow, read_call
from codexlb_cli.core.passing import read_passed
from codexlb_cli.core.requests import PREFIXES
from codexlb_cli.core.stored import STORED, StoredRow, read_stored
from codexlb_cli.gateway.exchanges import Client, ClientExchange, Make, endpoint
from codexlb_cli.gateway.files import FileExchange
from codexlb_cli.gateway.passing import PassedExchange
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.stored import StoredExchange
from codexlb_cli.gateway.transfers import ClientBody, Transfers

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


class Surface:
    """Registers the routes; `register_rest` takes what no other route does, so it comes last.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
    """

    def __init__(self, services: Services, transfers: Transfers) -> None:
        self._services = services
        self._transfers = transfers

    def register(self, app: FastAPI) -> None:
        """Add the routes of files, stored responses and conversations."""
        rows: list[tuple[CallRow | StoredRow, Make]] = [
            *((row, self._files(row)) for row in CALLS),
            *((row, self._stored(row)) for row in STORED),
        ]
        for prefix in PREFIXES:
            for row, make in rows:
                handler = endpoint(self._services, make)
                app.api_route(f"{prefix}{row.path}", methods=[row.method])(handler)

    def register_rest(self, app: FastAPI) -> None:
        """Add the routes of every other path."""
        for prefix in PREFIXES:
            handler = endpoint(self._services, self._passing(prefix))
            app.api_route(f"{prefix}/{{path:path}}", methods=METHODS)(handler)

    def _files(self, row: CallRow) -> Make:
        def make(request: Request, client: Client, body: ClientBody) -> ClientExchange:
            call = read_call(row, request.path_params.get("id"))
            return FileExchange(call, self._services, self._transfers, client, body)

        return make

    def _stored(self, row: StoredRow) -> Make:
        def make(request: Request, client: Client, body: ClientBody) -> ClientExchange:
            call = read_stored(row, request.path_params, client.query)
            return StoredExchange(call, self._services, self._transfers, client, body)

        return make

    def _passing(self, prefix: str) -> Make:
        def make(request: Request, client: Client, body: ClientBody) -> ClientExchange:
            path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
            call = read_passed(request.method, prefix, path, client.inbound)
            return PassedExchange(call, self._services, self._transfers, client, body)

        return make
