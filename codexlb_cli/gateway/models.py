"""`GET /v1/models`: asked of the accounts over HTTP; no header of the client's goes along.

Nothing is decided here: `core.models` says who is asked, and makes one list of the answers.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from urllib.parse import quote

import httpx2
from fastapi import Request
from starlette.responses import Response

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.handshake import HandshakeInputs, account_lines, header_text
from codexlb_cli.core.headers import HeaderOptions
from codexlb_cli.core.models import (
    CATALOGUE,
    LIST,
    Answered,
    ModelList,
    asked_for_models,
    first_that_has,
    merge,
    nobody_tells,
)
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import Refreshed
from codexlb_cli.gateway.replies import error_reply
from codexlb_cli.gateway.services import Services

LARGEST_LIST_BYTES = 16 * 1024 * 1024
"""The most that is read of one account's list; a catalogue of 12 models takes about 0.3 MB."""


class Models:
    """The models of all accounts.

    Args:
        services: the running gateway.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: Request) -> Response:
        """Answer with the models of all accounts: each as the first account that has it says."""
        pool = self._pool(None)
        asked = asked_for_models(pool)
        query = f"?{request.url.query}" if request.url.query else ""
        answers = [a for a in await self._answers(asked, f"/models{query}") if a is not None]
        catalogue = "client_version" in request.query_params
        outcome = merge(answers, CATALOGUE if catalogue else LIST)
        if outcome is not None and catalogue:
            accounts = self._services.accounts
            accounts.catalogue_etags = accounts.catalogue_etags.after(answers, outcome)
        return _answer(outcome, pool, "no account gave its models")

    async def one(self, request: Request) -> Response:
        """Answer with one model, of the first account that has it."""
        name = request.path_params["name"]
        if not name or not {".", ".."}.isdisjoint(name.split("/")):
            return error_reply(ClientError("not_found", "there is no such endpoint"))
        pool = self._pool(name)
        asked = [account for account in asked_for_models(pool) if account.takes(name)]
        outcome = first_that_has(await self._answers(asked, f"/models/{quote(name, safe='/:')}"))
        return _answer(outcome, pool, "not every account could tell whether it has the model")

    def _pool(self, model: str | None) -> Pool:
        self._services.refresh()
        return self._services.accounts.pool(model)

    async def _answers(self, asked: Sequence[Account], target: str) -> Sequence[Answered | None]:
        return await asyncio.gather(*(self._ask(account, target) for account in asked))

    async def _ask(self, account: Account, target: str) -> Answered | None:
        """Return what an account answers within `[timeouts] dial`; None if that is nothing."""
        try:
            async with (
                asyncio.timeout(self._services.settings.timeouts.dial),
                httpx2.AsyncClient(timeout=None, trust_env=False) as client,
            ):
                return await self._answered(client, account, f"{account.http_url}{target}")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
            return None

    async def _answered(
        self, client: httpx2.AsyncClient, account: Account, url: str
    ) -> Answered | None:
        """Ask, and once more after a refresh if the account's token is refused."""
        logins, token = self._services.accounts.logins, self._services.accounts.secret(account)
        answer = await self._asked(client, account, url)
        if answer is not None and answer.status == 401 and account.refreshable:
            if await logins.refresh(account, token) != Refreshed():
                return None
            answer = await self._asked(client, account, url)
        return answer

    async def _asked(
        self, client: httpx2.AsyncClient, account: Account, url: str
    ) -> Answered | None:
        secret = self._services.accounts.secret(account)
        if secret is None:
            return None
        account_id = self._services.accounts.logins.account_id(account)
        options, agent = HeaderOptions(), OWN_USER_AGENT
        inputs = HandshakeInputs(account, secret, (), options, agent, account_id=account_id)
        headers = [(line.name, line.value) for line in account_lines(inputs)]
        body = bytearray()
        async with client.stream("GET", url, headers=[*headers, ("user-agent", agent)]) as answer:
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST_LIST_BYTES:
                    return None
        etag, kind = (header_text(answer.headers.get(n)) for n in ("etag", "content-type"))
        return Answered(account, answer.status_code, bytes(body), etag, kind)


def _answer(outcome: ModelList | None, pool: Pool, failed: str) -> Response:
    if outcome is None:
        return error_reply(nobody_tells(pool, failed))
    told = {"content-type": outcome.content_type, "etag": outcome.etag}
    headers = {name: value for name, value in told.items() if value is not None}
    own = {"x-request-id": str(uuid.uuid4()), "x-codexlb-account": ", ".join(outcome.accounts)}
    return Response(outcome.body, outcome.status, {**headers, **own})
