"""Requests to the mock's issuer, read: which endpoint, and the texts that it was given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable

    from codexlb_cli.mock_upstream.issuer_rules import IssuerEndpoint
    from codexlb_cli.mock_upstream.wire import Head

_ENDPOINTS: dict[str, IssuerEndpoint] = {
    "/oauth/authorize": "authorize",
    "/oauth/token": "token",
    "/oauth/revoke": "revoke",
    "/api/accounts/deviceauth/usercode": "usercode",
    "/api/accounts/deviceauth/token": "device",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the issuer, read.

    Attributes:
        on: what it asks for; None for the page of the device flow.
        method: `GET` or `POST`.
        fields: of the query, the form or the JSON body; only texts.
        form: whether the body was a form.
        bearer: the account of the `Authorization` header; None if there is none.
    """

    on: IssuerEndpoint | None
    method: str
    fields: dict[str, str] = field(repr=False)
    form: bool = False
    bearer: str | None = None


def read_asked(head: Head, body: bytes, bearer: Callable[[], str | None]) -> Asked:
    """Read a request to one of the issuer's paths.

    Args:
        head: the request's head.
        body: the request's body.
        bearer: names the account of the `Authorization` header.
    """
    path = head.path
    on = "usage" if path.endswith("/wham/usage") else _ENDPOINTS.get(path)
    kind = head.value("content-type").partition(";")[0].strip().lower()
    form = kind == "application/x-www-form-urlencoded"
    fields = _query(head.target.partition("?")[2])
    fields |= _query(body.decode("latin-1")) if form else _object(body)
    if on == "token" and fields.get("grant_type") == "refresh_token":
        on = "refresh"
    return Asked(on, head.method, fields, form, bearer() if on == "usage" else None)


def is_for_issuer(path: str) -> bool:
    """Whether a path is one of the issuer's."""
    return path in _ENDPOINTS or path == "/codex/device" or path.endswith("/wham/usage")


def _query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}


def _object(body: bytes) -> dict[str, str]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    texts = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in texts if isinstance(text, str)}
