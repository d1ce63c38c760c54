"""`/v1/files` and `/v1/uploads`: streamed to the account that has the file, or gets it."""

from __future__ import annotations

import uuid
from typing import Any

from codexlb_cli.core.affinity import read_evidence
from codexlb_cli.core.calls import Call, CallRoute, conclude, listed_accounts
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import DIAL_FAILURE, Failure
from codexlb_cli.core.file_headers import body_error, request_headers
from codexlb_cli.core.file_list import Ask, FileList, read_query
from codexlb_cli.core.files import THIS_FILE, FileCall, Verb, file_key, pins, route_list
from codexlb_cli.core.frames import Body
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import Header
from codexlb_cli.core.ownership import UNOWNED, Ownership
from codexlb_cli.gateway.calls import LONGEST_ANSWER_BYTES, NotServed
from codexlb_cli.gateway.exchanges import ClientExchange
from codexlb_cli.gateway.sinks import send_json
from codexlb_cli.gateway.transfers import TransferError, decoded


class FileExchange(ClientExchange):
    """One call for a file or an upload; None where what stands in its path is no id."""

    def __init__(self, call: FileCall | None, *args: Any) -> None:
        super().__init__(*args)
        self._call = call
        self._accounts = self._to_accounts(self._body, _head)

    async def _serve(self) -> None:
        call, limit = self._call, self._services.settings.limits.request_bytes
        if call is None:
            raise NotServed(ClientError("not_found", "this is no id of a file or an upload"))
        if not call.takes_body:
            await self._body.skip()
        elif error := body_error(self._inbound, limit):
            raise NotServed(error)
        if call.id is None:
            await (self._create(call) if call.creates else self._list())
        elif call.verb is Verb.DELETE:
            owner = await self._locate(call.id)
            await self._try(call, self._accounts.route_to(owner, THIS_FILE))
        else:
            await self._try(call, await self._accounts.route(file_key(call.id), THIS_FILE))

    async def _locate(self, name: str) -> str:
        looks = FileCall(Verb.RETRIEVE, name)
        return await self._accounts.locate(file_key(name), THIS_FILE, looks)

    async def _create(self, call: FileCall) -> None:
        keys = self._services.keys
        evidence = read_evidence(self._inbound, Body({}))
        await keys.recall(evidence.keys)
        # No await from here to the first claim: parallel first uploads share an account.
        ownership = keys.enter(evidence)
        try:
            await self._try(call, self._accounts.route_new(ownership), ownership)
        finally:
            keys.leave(ownership.key)

    async def _try(self, call: FileCall, route: CallRoute, session: Ownership = UNOWNED) -> None:
        """Relay the call to the first account of the route that serves it."""

        async def attempt(call: FileCall, name: str) -> Failure | None:
            self._services.keys.claim(session.key, name)
            return await self._served(call, name, session)

        await self._accounts.first(call, route, attempt)

    async def _served(self, call: FileCall, name: str, session: Ownership) -> Failure | None:
        """Send a call to an account; its answer, unless it is a refusal, is the client's."""
        async with self._accounts.open(call, name) as answer:
            if answer.status >= 300:
                return await self._accounts.refused(answer, name)
            if call.verb is Verb.CONTENT:
                await self._accounts.remember(pins(call, None), name)
                await self._relay(answer)
                return None
            body = await answer.read(LONGEST_ANSWER_BYTES)
        keys = self._services.keys
        made = pins(call, decoded(body))
        if session.key.source == "session" and not keys.record(session.key).bound:
            made = (*made, session.key)  # its turns go to where its files are
        await self._accounts.remember(made, name)
        if call.verb is Verb.DELETE and call.id is not None:
            keys.drop(file_key(call.id))
        await self._whole(answer, body)
        return None

    # The list

    async def _list(self) -> None:
        query = read_query(self._query)
        if isinstance(query, ClientError):
            raise NotServed(query)
        owner = None if query.after is None else await self._locate(query.after)
        pool = self._accounts.pool()
        route = route_list(owner, pool)
        if route.plan.error is not None:
            raise NotServed(route.plan.error)
        page = FileList(query, listed_accounts(pool), owner)
        while page.ask is not None:
            document = await self._page(page.ask, page.ask.query(query.others))
            await self._accounts.recall([file_key(name) for name in page.ids(document)])
            asked = page.ask.account
            mine = page.take(document, lambda name: self._services.keys.owner("file", name))
            await self._accounts.remember([file_key(name) for name in mine], asked)
        own = [("x-request-id", self._request_id)]
        if page.sources:
            own.append(("x-codexlb-account", ", ".join(page.sources)))
        await send_json(self._send, 200, own, page.document())

    async def _page(self, ask: Ask, query: str) -> object:
        """Return an account's page; one without any files endpoint has no files."""
        try:
            async with self._accounts.open(FileCall(Verb.LIST), ask.account, query) as answer:
                if answer.status < 300:
                    return decoded(await answer.read(LONGEST_ANSWER_BYTES))
                failure = await self._accounts.refused(answer, ask.account)
        except TransferError:
            failure = DIAL_FAILURE
        if failure.status == 404:
            return None
        pool = self._accounts.pool()
        raise NotServed(conclude(route_list(ask.account, pool), {ask.account: failure}, pool))


def _head(inputs: HandshakeInputs, call: Call, _url: str, length: int | None) -> list[Header]:
    lines = request_headers(inputs, str(uuid.uuid4()), with_body=call.takes_body)
    return lines if length is None else [*lines, ("content-length", str(length))]
