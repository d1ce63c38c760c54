"""What Codex asks of `chatgpt_base_url`: its status over the pool, and a plain no to the rest.

The client's authorization is not read here.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from codexlb_cli.core.account_services import (
    ACCOUNT_CHECK_PATHS,
    ACCOUNT_SERVICES,
    USAGE_PATHS,
    account_check,
    not_served,
)
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.pool_usage import usage_document
from codexlb_cli.gateway.http import inbound_headers
from codexlb_cli.gateway.replies import error_reply, json_reply
from codexlb_cli.gateway.services import Services

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def add_account_services(app: FastAPI, services: Services) -> None:
    """Add the paths below `chatgpt_base_url`, after those of the endpoint for turns."""

    async def usage() -> Response:
        services.refresh()
        await services.limits_at_once()
        return json_reply(200, usage_document(services.accounts.pool()))

    for path in USAGE_PATHS:
        app.get(path)(usage)
    for path in ACCOUNT_CHECK_PATHS:
        app.get(path)(_account_check)
    for prefix in ACCOUNT_SERVICES:
        app.api_route(f"{prefix}/{{path:path}}", methods=_METHODS)(_not_served)


async def _account_check(request: Request) -> Response:
    answer = account_check(inbound_headers(request.scope))
    if isinstance(answer, ClientError):
        return error_reply(answer)
    return json_reply(200, answer)


async def _not_served(request: Request) -> Response:
    return error_reply(not_served(request.method, request.url.path))
