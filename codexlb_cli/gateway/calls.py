"""What accounts are asked over HTTP, and what is learned from their answers.

Nothing is decided here: `core.calls` says who is asked, in which order, and what the client is
told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from codexlb_cli.config.policies import OWN_USER_AGENT, header_options, reconnect_policy
from codexlb_cli.core.accounts import Account, Effect
from codexlb_cli.core.affinity import Evidence, Key
from codexlb_cli.core.calls import (
    Call,
    CallRoute,
    conclude,
    goes_on,
    refusal,
    route_known,
    route_new,
    route_unknown,
)
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import (
    BROKEN_CALL,
    DIAL_FAILURE,
    MODEL_UNAVAILABLE,
    Failure,
    Fault,
)
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import Header
from codexlb_cli.core.http_request import error_in
from codexlb_cli.core.ownership import Ownership
from codexlb_cli.core.requests import handshake_inputs
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import Refreshed, RefreshFailed
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.transfers import (
    Incoming,
    Outgoing,
    RequestBody,
    TransferError,
    Transfers,
)

LONGEST_ANSWER_BYTES = 32 * 1024 * 1024
"""The most that is read of an answer that is no content: a full list takes about 3 MB."""
_AT_ONCE = 250
"""How many files of a list are looked up and pinned without a pause; a list may hold 10 000."""

C = TypeVar("C", bound=Call)
Attempt = Callable[[C, str], Awaitable[Failure | None]]
"""Sends a call to the account with this name; returns None if it was served."""
Head = Callable[[HandshakeInputs, Call, str, int | None], list[Header]]
"""Returns the header lines of a call to this URL with a body of this length, if that is known."""


class NotServed(Exception):
    """No account serves the call; `error` is what the client is told."""

    def __init__(self, error: ClientError | Failure) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What the calls to accounts are made of.

    Attributes:
        inbound: the client's header lines.
        body: what the calls that take one send.
        head: builds the head of a call.
        evidence: the affinity evidence.
        model: that it names; None if it names none.
        blames: whether a refusal says something of the account.
    """

    inbound: list[Header]
    body: RequestBody
    head: Head
    evidence: Evidence
    model: str | None = None
    blames: Callable[[Failure], bool] = lambda _: True


class Calls:
    """The calls that one request of a client's leads to.

    Attributes:
        asked: the account that was asked last; None if none was.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
        request: what they are made of.
    """

    def __init__(self, services: Services, transfers: Transfers, request: Request) -> None:
        self.asked: str | None = None
        self._services = services
        self._transfers = transfers
        self._request = request

    def pool(self) -> Pool:
        """Return the accounts as they are now."""
        return self._services.accounts.pool(self._request.model)

    async def route(self, key: Key, what: str) -> CallRoute:
        """Say who is asked for what a key names."""
        await self._services.keys.recall([key])
        owner = self._services.keys.record(key).owner
        return route_unknown(self.pool()) if owner is None else self.route_to(owner, what)

    def route_to(self, owner: str, what: str) -> CallRoute:
        """Say how a call reaches the account that has what it names."""
        policy = reconnect_policy(self._services.settings)
        return route_known(owner, self.pool(), policy, self._deadline(), what=what)

    def route_new(self, ownership: Ownership, *, portable: bool = True) -> CallRoute:
        """Say where something new goes."""
        policy = reconnect_policy(self._services.settings)
        return route_new(ownership, self.pool(), policy, self._deadline(), portable=portable)

    async def locate(self, key: Key, what: str, looks: Call) -> str:
        """Return the account that has what a key names, asking for it if nobody knows.

        Args:
            key: the key.
            what: what it names, for a person.
            looks: the call that asks for it.

        Raises:
            NotServed: no account has it.
        """
        route = await self.route(key, what)
        if route.owner is not None:
            return route.owner

        async def look(call: Call, name: str) -> Failure | None:
            async with self.open(call, name) as answer:
                if answer.status >= 300:
                    return await self.refused(answer, name)
                await self.remember([key], name)
                return None

        return await self.first(looks, route, look)

    async def first(
        self, call: C, route: CallRoute, attempt: Attempt[C], *, replays: int | None = None
    ) -> str:
        """Return the first account of a route that serves the call.

        Args:
            call: the call.
            route: who is asked for it.
            attempt: sends it to an account.
            replays: how often it may be sent again where it may have begun; None if doing it
                twice does no harm.

        Raises:
            NotServed: none does.
        """
        if route.plan.error is not None:
            raise NotServed(route.plan.error)
        if route.plan.wait_seconds > 0:
            await asyncio.sleep(route.plan.wait_seconds)
        refusals: dict[str, Failure] = {}
        for name in route.plan.candidates:
            failure = await self._attempted(attempt, call, name)
            if failure is None:
                return name
            refusals[name] = failure
            if not goes_on(route, failure, sent=self._request.body.gone, replays_left=replays):
                break
            if replays is not None and failure.row.fault is Fault.UPSTREAM:
                replays -= 1
        raise NotServed(conclude(route, refusals, self.pool()))

    @asynccontextmanager
    async def open(self, call: Call, name: str, query: str = "") -> AsyncIterator[Incoming]:
        """Send a call to an account, and have its answer within the context.

        Raises:
            TransferError: it could not be reached, or is no longer configured.
        """
        self.asked = name
        async with AsyncExitStack() as stack:
            account = self._account(name)
            logins = self._services.accounts.logins
            refreshed = bool(logins.needed([account]))
            if refreshed:
                await logins.refresh(account)
            token = self._services.accounts.secret(account)
            outgoing = self._outgoing(call, account, query)
            answer = await stack.enter_async_context(self._sent(outgoing))
            if answer.status == 401 and account.refreshable and not refreshed:
                outcome = await logins.refresh(account, token)
                gone = outcome == Refreshed() and self._request.body.gone
                if gone or outcome == RefreshFailed():  # nobody's fault
                    raise TransferError(reached=False)
                if outcome == Refreshed():
                    await stack.aclose()
                    outgoing = self._outgoing(call, account, query)
                    answer = await stack.enter_async_context(self._sent(outgoing))
            yield answer

    def _sent(self, outgoing: Outgoing) -> AbstractAsyncContextManager[Incoming]:
        return self._transfers.send(outgoing, self._services.settings)

    def _account(self, name: str) -> Account:
        try:
            return self._services.settings.account(name)
        except ConfigError:
            raise TransferError(reached=False) from None

    async def refused(self, answer: Incoming, name: str) -> Failure:
        """Read a refusal, and learn what it says of the account."""
        body = {"error": error_in(await answer.read_refusal())}
        failure = refusal(answer.status, body, dict(answer.headers), self._services.now())
        if failure.evidence.effect is not Effect.NEUTRAL and self._request.blames(failure):
            self._services.accounts.blame(name, failure.evidence)
        if failure.row is MODEL_UNAVAILABLE and self._request.model is not None:
            self._services.accounts.model_missing(name, self._request.model)
        return failure

    async def recall(self, keys: Sequence[Key]) -> None:
        """Look up who is known to have these things; the store is patient with a few at a time."""
        for start in range(0, len(keys), _AT_ONCE):
            await self._services.keys.recall(keys[start : start + _AT_ONCE])

    async def remember(self, keys: Sequence[Key], name: str) -> None:
        """Pin what lies in an account; committed before the client has its answer."""
        written = None
        for number, key in enumerate(keys, start=1):
            written = self._services.keys.pin(key, name) or written
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # turns get their turn
        if written is not None:
            await self._services.store.committed(written)

    async def _attempted(self, attempt: Attempt[C], call: C, name: str) -> Failure | None:
        try:
            return await attempt(call, name)
        except TransferError as exc:
            return BROKEN_CALL if exc.reached and not call.repeatable else DIAL_FAILURE

    def _outgoing(self, call: Call, account: Account, query: str) -> Outgoing:
        services = self._services
        inputs = handshake_inputs(
            account,
            services.accounts.secret(account),
            self._request.inbound,
            self._request.evidence,
            services.keys.owner_of,
            options=header_options(services.settings),
            user_agent=OWN_USER_AGENT,
            account_id=services.accounts.logins.account_id(account),
        )
        url = account.call_url(call.path, query)
        body = self._request.body if call.takes_body else None
        headers = self._request.head(inputs, call, url, body.length if body else None)
        return Outgoing(call.method, url, headers, body, works=call.works)

    def _deadline(self) -> float:
        """Until when an owner that is out of use is waited for, as turns do."""
        return self._services.now() + self._services.settings.timeouts.before_first_event_total
