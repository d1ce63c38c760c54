"""Stored responses, conversations and background responses: over HTTP, at the account they lie in.

A call's body is held, so that it can be sent again to an account that can take it; answers are
relayed as they come.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from codexlb_cli.config.policies import reconnect_policy
from codexlb_cli.core.calls import Call, CallRoute, connection_broke
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.file_headers import answer_headers
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import Header, check_header
from codexlb_cli.core.http_request import MEDIA_TYPES, build_call, is_event_stream
from codexlb_cli.core.ownership import UNOWNED, Seated, plan_error
from codexlb_cli.core.requests import acts_twice, body_too_large, model_of
from codexlb_cli.core.stored import (
    BACKGROUND,
    RESPONSE,
    Named,
    StoredCall,
    is_portable,
    no_such,
    pins,
    read_named,
    response_within,
)
from codexlb_cli.gateway.bodies import BodyError, decode_body
from codexlb_cli.gateway.calls import LONGEST_ANSWER_BYTES, Attempt, Calls, NotServed
from codexlb_cli.gateway.exchanges import Client, ClientExchange, Exchange
from codexlb_cli.gateway.services import Services, TurnRequest
from codexlb_cli.gateway.sse import SseDecoder
from codexlb_cli.gateway.transfers import (
    HeldBody,
    Incoming,
    TransferError,
    Transfers,
    decoded,
)


class Placement:
    """A call and the accounts that it may go to, by what it names.

    Attributes:
        ownership: who owns it, and which key says so.

    Args:
        services: the running gateway.
        calls: what asks the accounts.
        call: the call.
        named: what it names.
    """

    def __init__(self, services: Services, calls: Calls, call: StoredCall, named: Named) -> None:
        self.ownership = UNOWNED
        self._services = services
        self._calls = calls
        self._call = call
        self._named = named

    async def perform(self, attempt: Attempt[StoredCall], *, replays: int | None = None) -> None:
        """Have the call served by the first account that can; arguments as for `Calls.first`.

        Raises:
            NotServed: none can.
        """
        keys, call = self._services.keys, self._call
        await keys.recall(self._named.evidence.keys)
        # No await from here to the first claim: parallel calls of a new session share an account.
        self.ownership = keys.enter(self._named.evidence)

        async def claiming(call: StoredCall, name: str) -> Failure | None:
            if call.key is None:
                keys.claim(self.ownership.key, name)
            if call.row.binds:
                self._services.accounts.chosen(name)  # as for a first turn: the next goes on
            return await attempt(call, name)

        try:
            await self._calls.first(call, await self._route(), claiming, replays=replays)
        finally:
            keys.leave(self.ownership.key)

    async def _route(self) -> CallRoute:
        call, evidence = self._call, self._named.evidence
        previous = evidence.previous_response or ""
        seated = Seated(made=self._services.lanes.made_on_socket(previous))
        error = plan_error(self.ownership, evidence, seated)
        if error is not None:
            raise NotServed(error)
        if call.key is None:
            return self._calls.route_new(self.ownership, portable=self._named.portable)
        if call.locates:
            owner = await self._calls.locate(call.key, call.what, call.looks)
            return self._calls.route_to(owner, call.what)
        return await self._calls.route(call.key, call.what)


class StoredExchange(ClientExchange):
    """One call about a stored object; None where what stands in its path is no id."""

    def __init__(self, call: StoredCall | None, *args: Any) -> None:
        super().__init__(*args)
        self._call = call

    async def _serve(self) -> None:
        for name, value in self._inbound:
            check_header(name, value)
        call = self._call
        if call is None:
            raise NotServed(ClientError("not_found", "this is no id of a stored object"))
        data = await self._read(call)
        if call.row.source == RESPONSE and self._services.lanes.made_on_socket(call.id or ""):
            raise NotServed(no_such(call))  # made with `store: false`: no account has it
        named = read_named(call, self._inbound, data)
        calls = self._to_accounts(HeldBody(data), _head, named.evidence, model=model_of(named.body))

        async def attempt(call: StoredCall, name: str) -> Failure | None:
            async with calls.open(call, name, self._query) as answer:
                if answer.status >= 300:
                    return await calls.refused(answer, name)
                await self._answered(calls, call, named, name, answer)
                return None

        await Placement(self._services, calls, call, named).perform(attempt)

    async def _answered(
        self, calls: Calls, call: StoredCall, named: Named, name: str, answer: Incoming
    ) -> None:
        """Remember what lies in the account now, then give the client its answer."""
        if call.row.makes is not None:
            body = await answer.read(LONGEST_ANSWER_BYTES)
            await calls.remember(pins(call, named.evidence, decoded(body)), name)
            await self._whole(answer, body)
            return
        await calls.remember(pins(call, named.evidence, None), name)
        if call.row.forgets and call.key is not None:
            self._services.keys.drop(call.key)
        await self._relay(answer)

    async def _read(self, call: StoredCall) -> bytes:
        if not call.takes_body:
            await self._body.skip()
            return b""
        limit, length = self._services.settings.limits.request_bytes, self._body.length
        if length is not None and length > limit:
            raise BodyError(body_too_large(limit))
        data = await self._body.read()
        encodings = [v for n, v in self._inbound if n.lower() == "content-encoding"]
        if encodings:
            # Beside the event loop: a large body takes its time.
            data = await asyncio.to_thread(decode_body, data, encodings, limit)
        return data


class BackgroundExchange(Exchange):
    """A background response: posted as it came, and remembered before the client knows its id.

    Args:
        request: the client's request.
        services: the running gateway.
        transfers: the way to the accounts.
        client: who asks.

    Attributes:
        placement: which accounts it may go to.
    """

    def __init__(
        self, request: TurnRequest, services: Services, transfers: Transfers, client: Client
    ) -> None:
        super().__init__(services, transfers, client)
        self._request = request
        self._posted = HeldBody(request.posted)
        self._accounts = self._to_accounts(
            self._posted, _head, request.evidence, model=request.model
        )
        portable = is_portable(request.evidence, request.body)
        named = Named(request.body, request.evidence, portable)
        self._call = StoredCall(BACKGROUND)
        self.placement = Placement(services, self._accounts, self._call, named)

    @property
    def outcome(self) -> str:
        """What became of it, for the request log."""
        match self.error:
            case None:
                told = "background response"
            case ClientError(code=code):
                told = f"background response: {code}"
            case Failure(status=status, code=code):
                told = f"background response: error {status} {code or ''}".rstrip()
        times = self._posted.times
        return told if times < 2 else f"{told}, {times} attempts"

    async def _serve(self) -> None:
        policy = reconnect_policy(self._services.settings)
        replays = 0 if acts_twice(self._request.body, policy) else policy.replays
        await self.placement.perform(self._attempt, replays=replays)

    async def _attempt(self, call: StoredCall, name: str) -> Failure | None:
        async with self._accounts.open(call, name, self._query) as answer:
            if answer.status >= 300:
                return await self._accounts.refused(answer, name)
            if is_event_stream(_lower(answer.headers)):
                await self._stream(answer, name)
                return None
            body = await answer.read(LONGEST_ANSWER_BYTES)
        await self._made(decoded(body), name)
        await self._whole(answer, body)
        return None

    async def _stream(self, answer: Incoming, name: str) -> None:
        """Relay events as they come, from the one on that tells the response's id."""
        most = self._services.settings.limits.frame_bytes
        events, held = SseDecoder(most), list[bytes]()
        started = False
        try:
            async for piece in answer.pieces():
                held.append(piece)
                if not started:
                    told = [response_within(event) for event in events.feed(piece)]
                    response = next((r for r in told if r is not None), None)
                    unread = events.fault is not None or sum(map(len, held)) > most
                    if response is None and not unread:
                        continue
                    await self._made(response, name)
                    started = True
                    await self._begin(answer)
                await self._pass(held)
        except TransferError:
            if not started:
                raise NotServed(connection_broke(name)) from None
            return  # the client's connection breaks off as this one did
        if not started:
            await self._begin(answer)
        await self._pass(held)
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, answer: Incoming) -> None:
        await self._start(answer.status, answer_headers(answer.headers, content=True))

    async def _pass(self, held: list[bytes]) -> None:
        for piece in held:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        held.clear()

    async def _made(self, response: object, name: str) -> None:
        made = pins(self._call, self._request.evidence, response)
        await self._accounts.remember(made, name)

    def _own_headers(self) -> list[Header]:
        lines = super()._own_headers()
        if self.account is not None:
            lines.append(("x-codexlb-attempts", str(self._posted.times)))
        return lines


def _head(inputs: HandshakeInputs, call: Call, url: str, length: int | None) -> list[Header]:
    kept = MEDIA_TYPES if call.takes_body else ("accept",)
    head = build_call(inputs, url, kept=kept, sized=length is not None)
    return head.headers(str(uuid.uuid4()), length)


def _lower(headers: list[Header]) -> list[Header]:
    return [(name.lower(), value) for name, value in headers]
