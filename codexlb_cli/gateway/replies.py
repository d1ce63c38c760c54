"""Answers that are no turn: a JSON document with an `x-request-id`, or an error's envelope."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from starlette.responses import JSONResponse

from codexlb_cli.core.client_errors import ClientError


def json_reply(
    status: int, document: object, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Answer with a document."""
    own = {"x-request-id": str(uuid.uuid4()), **(headers or {})}
    return JSONResponse(document, status_code=status, headers=own)


def error_reply(error: ClientError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with an error and the headers that belong to it."""
    own = {**dict(error.headers()), **(headers or {})}
    return json_reply(error.status, error.envelope(), own)
