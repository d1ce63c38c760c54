"""What accounts are asked for files, and what is learned from their answers.

Nothing is decided here: `core.files` says who is asked, in which order, and what the client is
told.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from codexlb_cli.config.policies import OWN_USER_AGENT, reconnect_policy
from codexlb_cli.core.accounts import Account, Effect
from codexlb_cli.core.affinity import Key
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import DIAL_FAILURE, Failure
from codexlb_cli.core.file_headers import FileHeaders, request_headers
from codexlb_cli.core.files import (
    FileCall,
    FileRoute,
    Verb,
    conclude,
    file_key,
    goes_on,
    pins,
    refusal,
    route_known,
    route_new,
    route_unknown,
)
from codexlb_cli.core.headers import Header
from codexlb_cli.core.ownership import Ownership
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import Refreshed, RefreshFailed
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.transfers import (
    ClientBody,
    Incoming,
    Outgoing,
    TransferError,
    Transfers,
    decoded,
)

LONGEST_ANSWER_BYTES = 32 * 1024 * 1024
"""The most that is read of an answer that is no content: a full list takes about 3 MB."""
_AT_ONCE = 250
"""How many files of a list are looked up and pinned without a pause; a list may hold 10 000."""

Attempt = Callable[[FileCall, str], Awaitable[Failure | None]]
"""Sends a call to the account with this name; returns None if it was served."""


class NotServed(Exception):
    """No account serves the call; `error` is what the client is told."""

    def __init__(self, error: ClientError | Failure) -> None:
        super().__init__()
        self.error = error


class FileCalls:
    """The calls that one request of a client's leads to.

    Attributes:
        asked: the account that was asked last; None if none was.

    Args:
        services: the running gateway.
        transfers: the way to the accounts.
        inbound: the client's header lines.
        body: the client's body.
    """

    def __init__(
        self, services: Services, transfers: Transfers, inbound: list[Header], body: ClientBody
    ) -> None:
        self.asked: str | None = None
        self._services = services
        self._transfers = transfers
        self._inbound = inbound
        self._body = body

    def pool(self) -> Pool:
        """Return the accounts as they are now."""
        return self._services.accounts.pool()

    async def route(self, key: Key) -> FileRoute:
        """Say who is asked for what a key names."""
        await self._services.keys.recall([key])
        owner = self._services.keys.record(key).owner
        return route_unknown(self.pool()) if owner is None else self.route_to(owner)

    def route_to(self, owner: str) -> FileRoute:
        """Say how a call reaches the account that has its file."""
        policy = reconnect_policy(self._services.settings)
        return route_known(owner, self.pool(), policy, self._deadline())

    def route_new(self, ownership: Ownership) -> FileRoute:
        """Say where something new goes."""
        policy = reconnect_policy(self._services.settings)
        return route_new(ownership, self.pool(), policy, self._deadline())

    async def locate(self, name: str) -> str:
        """Return the account that has a file, asking for it if nobody knows.

        Raises:
            NotServed: no account has it.
        """
        route = await self.route(file_key(name))
        if route.owner is not None:
            return route.owner
        return await self.first(FileCall(Verb.RETRIEVE, name), route, self._look)

    async def first(self, call: FileCall, route: FileRoute, attempt: Attempt) -> str:
        """Return the first account of a route that serves the call.

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
            if not goes_on(route, failure, sent=self._body.begun):
                break
        raise NotServed(conclude(route, refusals, self.pool()))

    @asynccontextmanager
    async def open(self, call: FileCall, name: str, query: str = "") -> AsyncIterator[Incoming]:
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
                if outcome == RefreshFailed() or (outcome == Refreshed() and self._body.begun):
                    raise TransferError  # nobody's fault, and what was streamed is gone
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
            raise TransferError from None

    async def refused(self, answer: Incoming, name: str) -> Failure:
        """Read a refusal, and learn what it says of the account."""
        body = decoded(await answer.read(LONGEST_ANSWER_BYTES))
        failure = refusal(answer.status, body, dict(answer.headers), self._services.now())
        if failure.evidence.effect is not Effect.NEUTRAL:
            self._services.accounts.blame(name, failure.evidence)
        return failure

    async def recall(self, keys: Sequence[Key]) -> None:
        """Look up who is known to have these files; the store is patient with a few at a time."""
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

    async def _attempted(self, attempt: Attempt, call: FileCall, name: str) -> Failure | None:
        try:
            return await attempt(call, name)
        except TransferError:
            return DIAL_FAILURE

    async def _look(self, call: FileCall, name: str) -> Failure | None:
        """Ask an account for a file, for ourselves."""
        async with self.open(call, name) as answer:
            if answer.status >= 300:
                return await self.refused(answer, name)
            await self.remember(pins(call, None), name)
            return None

    def _outgoing(self, call: FileCall, account: Account, query: str) -> Outgoing:
        headers = request_headers(
            FileHeaders(
                account=account,
                secret=self._services.accounts.secret(account),
                inbound=self._inbound,
                user_agent=OWN_USER_AGENT,
                request_id=str(uuid.uuid4()),
                with_body=call.takes_body,
                account_id=self._services.accounts.logins.account_id(account),
            )
        )
        lengths = [v.strip() for n, v in self._inbound if n.lower() == "content-length"]
        return Outgoing(
            call.method,
            f"{account.http_url}{call.path}" + (f"?{query}" if query else ""),
            headers,
            self._body if call.takes_body else None,
            lengths[0] if lengths else None,
        )

    def _deadline(self) -> float:
        """Until when an owner that is out of use is waited for, as turns do."""
        return self._services.now() + self._services.settings.timeouts.before_first_event_total
