"""`GET /v1/models`: asked of an account over HTTP; no header of the client's goes along."""

from __future__ import annotations

import uuid

import httpx2
from fastapi import Request
from starlette.responses import JSONResponse, Response

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.client_errors import Shortage, nobody_can_serve, upstream_unavailable
from codexlb_cli.core.selection import first_choice
from codexlb_cli.core.turn_events import Refreshed
from codexlb_cli.gateway.services import Services

_KEPT = ("content-type", "etag", "x-models-etag")
_PASSED = frozenset({400, 404})


class Models:
    """The model list of the first account that gives one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: Request) -> Response:
        """Answer with the upstream's own body, unchanged; a refusal leads to the next account."""
        services = self._services
        services.refresh()
        pool = services.accounts.pool()
        candidates = first_choice(pool)
        suffix = request.url.path.partition("/models")[2]
        target = f"/models{suffix}" + (f"?{request.url.query}" if request.url.query else "")
        for name in candidates:
            account = services.settings.account(name)
            answer = await self._ask(account, target)
            if answer is not None:
                headers = {k: v for k in _KEPT if (v := answer.headers.get(k))}
                return Response(answer.content, answer.status_code, {**headers, **_own(name)})
        error = nobody_can_serve(Shortage([a.name for a in pool.accounts]), pool)
        if candidates:
            error = upstream_unavailable("no account gave its models")
        own = {**dict(error.headers()), "x-request-id": str(uuid.uuid4())}
        return JSONResponse(error.envelope(), error.status, own)

    async def _ask(self, account: Account, target: str) -> httpx2.Response | None:
        """Return what an account answers, after one refresh if its token is refused."""
        logins, token = self._services.accounts.logins, self._services.accounts.secret(account)
        answer = await self._asked(account, target)
        if answer is not None and answer.status_code == 401 and account.refreshable:
            if await logins.refresh(account, token) != Refreshed():
                return None
            answer = await self._asked(account, target)
        passes = answer is not None and (answer.status_code < 300 or answer.status_code in _PASSED)
        return answer if passes else None

    async def _asked(self, account: Account, target: str) -> httpx2.Response | None:
        secret = self._services.accounts.secret(account)
        if secret is None:
            return None
        headers = {"authorization": f"Bearer {secret}", "user-agent": OWN_USER_AGENT}
        if account_id := self._services.accounts.logins.account_id(account):
            headers["chatgpt-account-id"] = account_id
        if account.organization:
            headers["openai-organization"] = account.organization
        if account.project:
            headers["openai-project"] = account.project
        timeout = self._services.settings.timeouts.dial
        try:
            async with httpx2.AsyncClient(timeout=timeout, trust_env=False) as client:
                return await client.get(f"{account.http_url}{target}", headers=headers)
        except httpx2.HTTPError:
            return None


def _own(account: str) -> dict[str, str]:
    return {"x-request-id": str(uuid.uuid4()), "x-codexlb-account": account}
