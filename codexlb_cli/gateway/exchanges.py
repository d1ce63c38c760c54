"""One call of a client's over HTTP, from its head to the last byte of its answer.

What `Files`, `Stored`, `Background` and `Passing` have in common: the client's side. `calls` asks
the accounts.
"""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from codexlb_cli.core.affinity import Evidence, read_evidence
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import passed_on
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.file_headers import answer_headers
from codexlb_cli.core.frames import Body, InvalidBodyError
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import invalid_body
from codexlb_cli.errors import InvalidHeader
from codexlb_cli.gateway.bodies import BodyError, ClientGone, Receive
from codexlb_cli.gateway.calls import Calls, Head, NotServed
from codexlb_cli.gateway.calls import Request as CallRequest
from codexlb_cli.gateway.http import disconnected
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.sinks import Send, encoded, send_json
from codexlb_cli.gateway.transfers import (
    ClientBody,
    Incoming,
    RequestBody,
    TransferError,
    Transfers,
)

Scope = dict[str, Any]
Serve = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True, repr=False)
class Client:
    """The client's side of a call.

    Attributes:
        inbound: its header lines.
        query: of its target.
        send: ASGI's send.
        request_id: the value of `x-request-id`.
    """

    inbound: list[Header]
    query: str
    send: Send
    request_id: str


class Exchange(ABC):
    """One call of a client's.

    Attributes:
        status: what the client was told; None until then.
        error: what went wrong; None if nothing did.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
        client: who asks.
    """

    def __init__(self, services: Services, transfers: Transfers, client: Client) -> None:
        self.status: int | None = None
        self.error: ClientError | Failure | None = None
        self._services = services
        self._transfers = transfers
        self._inbound = client.inbound
        self._query = client.query
        self._send = client.send
        self._request_id = client.request_id
        self._calls: Calls | None = None

    async def run(self) -> None:
        """Serve the call; every error becomes an answer."""
        try:
            await self._serve()
        except ClientGone:
            return
        except (NotServed, BodyError) as exc:
            await self._fail(exc.error)
        except InvalidHeader as exc:
            await self._fail(ClientError("invalid_header", str(exc)))
        except InvalidBodyError as exc:
            await self._fail(invalid_body(exc))

    @abstractmethod
    async def _serve(self) -> None:
        """Serve the call.

        Raises:
            NotServed: no account serves it.
            BodyError: the client's body cannot be taken.
            ClientGone: the client left.
            InvalidHeader: one of its headers cannot be sent.
            InvalidBodyError: its body cannot be read.
        """

    @property
    def account(self) -> str | None:
        """The account that was asked last; None if none was."""
        return self._calls.asked if self._calls is not None else None

    def _to_accounts(
        self, body: RequestBody, head: Head, evidence: Evidence | None = None, **more: Any
    ) -> Calls:
        """Return what asks the accounts; `more` as for `calls.Request`."""
        told = evidence or read_evidence(self._inbound, Body({}))
        request = CallRequest(self._inbound, body, head, told, **more)
        self._calls = Calls(self._services, self._transfers, request)
        return self._calls

    # The client's answer

    async def _relay(self, answer: Incoming) -> None:
        """Relay an answer as it comes; where it breaks off, so does the client's connection."""
        await self._start(answer.status, answer_headers(answer.headers, content=True))
        try:
            async for piece in answer.pieces():
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except TransferError:
            return
        await self._send({"type": "http.response.body", "body": b""})

    async def _whole(self, answer: Incoming, body: bytes) -> None:
        """Write an answer whose body was read."""
        headers = answer_headers(answer.headers, content=False)
        await self._start(answer.status, [*headers, ("content-length", f"{len(body)}")])
        await self._send({"type": "http.response.body", "body": body})

    async def _fail(self, error: ClientError | Failure) -> None:
        self.error = error
        if isinstance(error, Failure):
            self.status, headers, body = passed_on(error)
        else:
            self.status, headers, body = error.status, error.headers(), error.envelope()
        await send_json(self._send, self.status, [*headers, *self._own_headers()], body)

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.status = status
        lines = encoded([*headers, *self._own_headers()])
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    def _own_headers(self) -> list[Header]:
        lines = [("x-request-id", self._request_id)]
        if self.account is not None:
            lines.append(("x-codexlb-account", self.account))
        return lines


class ClientExchange(Exchange):
    """A call whose body is read here.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
        client: who asks.
        body: the client's body.
    """

    def __init__(
        self, services: Services, transfers: Transfers, client: Client, body: ClientBody
    ) -> None:
        super().__init__(services, transfers, client)
        self._body = body
        self._to_client = self._send
        self._send = self._answer

    async def _answer(self, message: MutableMapping[str, Any]) -> None:
        await self._body.answering(self._to_client)(message)

    def _own_headers(self) -> list[Header]:
        lines = super()._own_headers()
        if not self._body.complete:
            lines.append(("connection", "close"))  # the rest of the body is not read
        return lines


class Streamed(Response):
    """A response that writes itself."""

    def __init__(self, serve: Serve) -> None:
        super().__init__()
        self._serve = serve

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Write it."""
        await self._serve(scope, receive, send)


Make = Callable[[Request, Client, ClientBody], ClientExchange]
"""Makes the exchange of a request."""


def endpoint(services: Services, make: Make) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of requests that `make` makes exchanges of."""

    async def handle(request: Request) -> Response:
        async def serve(_scope: Scope, receive: Receive, send: Send) -> None:
            services.refresh()
            limit = services.settings.limits.request_bytes
            length = request.headers.get("content-length", "").strip()
            body = ClientBody(receive, limit, length=int(length) if length.isdecimal() else None)
            query: bytes = request.scope["query_string"]
            client = Client(
                [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.scope["headers"]],
                query.decode("latin-1"),
                send,
                str(uuid.uuid4()),
            )
            await unless_left(make(request, client, body).run(), body.left())

        return Streamed(serve)

    return handle


def while_there(handler: Callable[[Request], Awaitable[Response]]) -> Callable[..., Any]:
    """Return a handler that ends, with what it asked upstream, when the client has left."""

    async def handle(request: Request) -> Response:
        async def serve(scope: Scope, receive: Any, send: Send) -> None:
            async def answer() -> None:
                await (await handler(request))(scope, receive, send)

            await unless_left(answer(), disconnected(receive))

        return Streamed(serve)

    return handle


async def unless_left(
    running: Coroutine[Any, Any, None], leaving: Coroutine[Any, Any, None]
) -> bool:
    """Run until the end, or until the client has left: that ends what goes on upstream.

    Returns:
        Whether it came to its end.
    """
    serving, left = asyncio.create_task(running), asyncio.create_task(leaving)
    try:
        await asyncio.wait((serving, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        serving.cancel()
        await asyncio.wait((serving, left))
    if serving.cancelled():
        return False
    serving.result()
    return True
