"""`/v1/files` and `/v1/uploads`: streamed to the account that has the file, or gets it.

`file_calls` asks the accounts; here is the client's side.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.responses import Response

from codexlb_cli.core.affinity import read_evidence
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import passed_on
from codexlb_cli.core.failures import DIAL_FAILURE, Failure
from codexlb_cli.core.file_headers import answer_headers, body_error
from codexlb_cli.core.file_list import Ask, FileList, read_query
from codexlb_cli.core.files import (
    CallRow,
    FileCall,
    FileRoute,
    Verb,
    conclude,
    file_key,
    listed_accounts,
    pins,
    read_call,
    route_list,
)
from codexlb_cli.core.frames import Body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.ownership import UNOWNED, Ownership
from codexlb_cli.errors import InvalidHeader
from codexlb_cli.gateway.bodies import BodyError, ClientGone
from codexlb_cli.gateway.file_calls import LONGEST_ANSWER_BYTES, FileCalls, NotServed
from codexlb_cli.gateway.http import Receive, Scope, inbound_headers
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.sinks import Send, encoded, send_json
from codexlb_cli.gateway.transfers import (
    ClientBody,
    Incoming,
    TransferError,
    Transfers,
    decoded,
)


class Files:
    """The endpoints for files and uploads.

    Args:
        services: the running gateway.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._transfers = Transfers()

    def endpoint(self, row: CallRow) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of one kind of call."""

        async def handle(request: Request) -> Response:
            return _Streamed(self, read_call(row, request.path_params.get("id")))

        return handle

    async def serve(
        self, call: FileCall | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one call; None named no id. The client's leaving ends what goes on upstream."""
        services = self._services
        services.refresh()
        body = ClientBody(receive, services.settings.limits.request_bytes)
        exchange = _Exchange(services, self._transfers, scope, body, send)
        serving = asyncio.create_task(exchange.run(call))
        left = asyncio.create_task(body.left())
        try:
            await asyncio.wait((serving, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            serving.cancel()
            await asyncio.wait((serving, left))
        if not serving.cancelled():
            serving.result()


class _Streamed(Response):
    """A response that writes itself."""

    def __init__(self, files: Files, call: FileCall | None) -> None:
        super().__init__()
        self._files = files
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._files.serve(self._call, scope, receive, send)


class _Exchange:
    """One call of a client's, from its head to the last byte of its answer."""

    def __init__(
        self,
        services: Services,
        transfers: Transfers,
        scope: Scope,
        body: ClientBody,
        send: Send,
    ) -> None:
        self._services = services
        self._inbound = inbound_headers(scope)
        self._query: str = scope["query_string"].decode("latin-1")
        self._body = body
        self._send = send
        self._request_id = str(uuid.uuid4())
        self._calls = FileCalls(services, transfers, self._inbound, body)

    async def run(self, call: FileCall | None) -> None:
        """Serve the call; every error becomes an answer."""
        try:
            await self._serve(call)
        except ClientGone:
            return
        except (NotServed, BodyError) as exc:
            await self._fail(exc.error)
        except InvalidHeader as exc:
            await self._fail(ClientError("invalid_header", str(exc)))

    async def _serve(self, call: FileCall | None) -> None:
        if call is None:
            raise NotServed(ClientError("not_found", "this is no id of a file or an upload"))
        if not call.takes_body:
            await self._body.skip()
        elif error := body_error(self._inbound, self._services.settings.limits.request_bytes):
            raise NotServed(error)
        if call.id is None:
            await (self._create(call) if call.creates else self._list())
        elif call.verb is Verb.DELETE:
            owner = await self._calls.locate(call.id)
            await self._try(call, self._calls.route_to(owner))
        else:
            await self._try(call, await self._calls.route(file_key(call.id)))

    async def _create(self, call: FileCall) -> None:
        keys = self._services.keys
        evidence = read_evidence(self._inbound, Body({}))
        await keys.recall(evidence.keys)
        # No await from here to the first claim: parallel first uploads share an account.
        ownership = keys.enter(evidence)
        try:
            await self._try(call, self._calls.route_new(ownership), ownership)
        finally:
            keys.leave(ownership.key)

    async def _try(self, call: FileCall, route: FileRoute, session: Ownership = UNOWNED) -> None:
        """Relay the call to the first account of the route that serves it."""

        async def attempt(call: FileCall, name: str) -> Failure | None:
            self._services.keys.claim(session.key, name)
            return await self._relay(call, name, session)

        await self._calls.first(call, route, attempt)

    async def _relay(self, call: FileCall, name: str, session: Ownership) -> Failure | None:
        """Send a call to an account; its answer, unless it is a refusal, is the client's."""
        async with self._calls.open(call, name) as answer:
            if answer.status >= 300:
                return await self._calls.refused(answer, name)
            if call.verb is Verb.CONTENT:
                await self._calls.remember(pins(call, None), name)
                await self._content(answer)
                return None
            body = await answer.read(LONGEST_ANSWER_BYTES)
        keys = self._services.keys
        made = pins(call, decoded(body))
        if session.key.source == "session" and not keys.record(session.key).bound:
            made = (*made, session.key)  # its turns go to where its files are
        await self._calls.remember(made, name)
        if call.verb is Verb.DELETE and call.id is not None:
            keys.drop(file_key(call.id))
        headers = [
            *answer_headers(answer.headers, content=False),
            ("content-length", f"{len(body)}"),
        ]
        await self._start(answer.status, headers)
        await self._send({"type": "http.response.body", "body": body})
        return None

    async def _content(self, answer: Incoming) -> None:
        """Relay a file's content; where it breaks off, so does the client's connection."""
        await self._start(answer.status, answer_headers(answer.headers, content=True))
        try:
            async for piece in answer.pieces():
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except TransferError:
            return
        await self._send({"type": "http.response.body", "body": b""})

    # The list

    async def _list(self) -> None:
        query = read_query(self._query)
        if isinstance(query, ClientError):
            raise NotServed(query)
        owner = None if query.after is None else await self._calls.locate(query.after)
        pool = self._calls.pool()
        route = route_list(owner, pool)
        if route.plan.error is not None:
            raise NotServed(route.plan.error)
        page = FileList(query, listed_accounts(pool), owner)
        while page.ask is not None:
            document = await self._page(page.ask, page.ask.query(query.others))
            await self._calls.recall([file_key(name) for name in page.ids(document)])
            asked = page.ask.account
            mine = page.take(document, lambda name: self._services.keys.owner("file", name))
            await self._calls.remember([file_key(name) for name in mine], asked)
        own = [("x-request-id", self._request_id)]
        if page.sources:
            own.append(("x-codexlb-account", ", ".join(page.sources)))
        await send_json(self._send, 200, own, page.document())

    async def _page(self, ask: Ask, query: str) -> object:
        """Return an account's page; one without any files endpoint has no files."""
        try:
            async with self._calls.open(FileCall(Verb.LIST), ask.account, query) as answer:
                if answer.status < 300:
                    return decoded(await answer.read(LONGEST_ANSWER_BYTES))
                failure = await self._calls.refused(answer, ask.account)
        except TransferError:
            failure = DIAL_FAILURE
        if failure.status == 404:
            return None
        pool = self._calls.pool()
        raise NotServed(conclude(route_list(ask.account, pool), {ask.account: failure}, pool))

    # The client's answer

    async def _fail(self, error: ClientError | Failure) -> None:
        if isinstance(error, Failure):
            status, headers, body = passed_on(error)
        else:
            status, headers, body = error.status, error.headers(), error.envelope()
        await send_json(self._send, status, [*headers, *self._own_headers()], body)

    async def _start(self, status: int, headers: list[Header]) -> None:
        lines = encoded([*headers, *self._own_headers()])
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    def _own_headers(self) -> list[Header]:
        lines = [("x-request-id", self._request_id)]
        if self._calls.asked is not None:
            lines.append(("x-codexlb-account", self._calls.asked))
        if not self._body.complete:
            lines.append(("connection", "close"))  # the rest of the body is not read
        return lines
