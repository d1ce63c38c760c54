"""The gateway as an ASGI application: the guard first, the hot path raw, the rest in FastAPI."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Awaitable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from codexlb_cli.core.accounts import Availability
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.requests import CHAT_PATH, PREFIXES, TURN_PATHS
from codexlb_cli.gateway.backend_api import add_account_services
from codexlb_cli.gateway.exchanges import while_there
from codexlb_cli.gateway.guard import Guard
from codexlb_cli.gateway.http import Receive, Responses, Scope, inbound_headers
from codexlb_cli.gateway.live import LIVE_PATH, live_document
from codexlb_cli.gateway.models import Models
from codexlb_cli.gateway.replies import error_reply, json_reply
from codexlb_cli.gateway.request_log import RequestLine, RequestLog
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.sinks import Send, client_left, send_json
from codexlb_cli.gateway.surface import METHODS, Surface
from codexlb_cli.gateway.transfers import Transfers
from codexlb_cli.gateway.websocket import WebSockets

log = logging.getLogger("codexlb.gateway")

PROBES = frozenset({"/healthz", "/readyz", LIVE_PATH})
"""Asked again and again by supervisors and by our own commands; not worth a line."""


class GatewayApp:
    """The outermost application.

    Args:
        services: the running gateway.
        responses: the Responses endpoint.
        guard: who may speak to it.
        request_log: takes a line per request.
        websockets: the same endpoint for WebSocket clients.
    """

    def __init__(
        self,
        services: Services,
        responses: Responses,
        guard: Guard,
        request_log: RequestLog,
        websockets: WebSockets,
    ) -> None:
        self.guard = guard
        self.websockets = websockets
        self.request_log = request_log
        self._responses = responses
        self._rest = build_rest(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a bug ends it with our own envelope, never with a traceback."""
        sent = _Sent(send)
        try:
            refusal = self.guard.refuse(inbound_headers(scope))
            if refusal is None and scope["path"] in TURN_PATHS and scope["method"] == "POST":
                await self._responses(scope, receive, sent)
            else:
                await self._other(refusal, scope, receive, sent)
        except Exception as exc:
            if client_left(exc):
                return
            log_bug(exc)
            if sent.status is not None:
                raise
            await _answer(send, ClientError("internal_error", "internal error of the gateway"))

    async def _other(
        self, refusal: ClientError | None, scope: Scope, receive: Receive, sent: _Sent
    ) -> None:
        line = RequestLine(request_id="")
        path = scope["path"]
        if refusal is not None:
            await _answer(sent, refusal)
        elif path in TURN_PATHS and (path, scope["method"]) != (CHAT_PATH, "GET"):
            error = ClientError("method_not_allowed", "this endpoint takes POST")
            await _answer(sent, error, ("allow", "POST"))
        else:
            await self._rest(scope, receive, sent)
        if path not in PROBES:
            line.account = sent.account or line.account
            outcome = refusal.code if refusal else f"{scope['method']} {path}"
            self.request_log.write(line.answered(sent.status, outcome))


class _Sent:
    """ASGI's send, remembering the status and the account that answered."""

    __slots__ = ("_send", "account", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.account: str | None = None
        self.status: int | None = None

    def __call__(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            account = dict(message["headers"]).get(b"x-codexlb-account")
            self.account = account.decode("latin-1") if account else None
        return self._send(message)


def build_rest(services: Services) -> FastAPI:
    """Return the application for everything that is not hot."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    models = Models(services)
    surface = Surface(services, Transfers())

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_reply(200, {"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        services.refresh()
        pool = services.accounts.pool()
        states = {a.name: pool.standing(a).state for a in pool.accounts}
        ready = Availability.READY in states.values()
        status = "ready" if ready else "not_ready"
        return json_reply(200 if ready else 503, {"status": status, "accounts": states})

    @app.get(LIVE_PATH)
    async def live() -> Response:
        services.refresh()
        return json_reply(200, live_document(services))

    app.get(CHAT_PATH)(_no_stored_chat)
    app.api_route(f"{CHAT_PATH}/{{path:path}}", methods=METHODS)(_no_stored_chat)
    for prefix in PREFIXES:
        app.get(f"{prefix}/models")(while_there(models.list))
        app.get(f"{prefix}/models/{{name:path}}")(while_there(models.one))
    surface.register(app)
    surface.register_rest(app)
    add_account_services(app, services)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)  # it is raised again afterwards
    return app


async def _no_stored_chat(_request: Request) -> Response:
    message = "stored chat completions are not there: chat completions run as responses here"
    return error_reply(ClientError("not_supported", message))


async def _http_error(_request: Request, exc: Exception) -> Response:
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        error = ClientError("method_not_allowed", "this endpoint takes other methods")
        return error_reply(error, exc.headers)
    return error_reply(ClientError("not_found", "there is no such endpoint"))


async def _bug(_request: Request, _exc: Exception) -> Response:
    return error_reply(ClientError("internal_error", "internal error of the gateway"))


async def _answer(send: Send, error: ClientError, *headers: tuple[str, str]) -> None:
    own = [("x-request-id", str(uuid.uuid4())), *error.headers(), *headers]
    await send_json(send, error.status, own, error.envelope())


def log_bug(exc: Exception) -> None:
    """Say that something happened that nobody expected."""
    log.error("internal error: %s at %s", type(exc).__name__, _place(exc))


def _place(exc: BaseException) -> str:
    """Return where a bug is; its text could hold a secret."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "-"
