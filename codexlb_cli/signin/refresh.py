"""Asks an issuer for a new access token.

Refresh tokens are good for one refresh: what comes back has to be kept before anything else is done
with it. `refresher` sees to that; nothing is kept here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx2

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.tokens import PERMANENT_REFUSALS
from codexlb_cli.errors import SignInRequired, UpstreamError
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret, key_fault

TIMEOUT_SECONDS = 15.0
"""How long an issuer may take to connect, and between two pieces of its answer."""
TOTAL_SECONDS = 30.0
_ANSWER_BYTES = 256 * 1024

RefreshReason = Literal["proactive_expiry", "unauthorized_recovery"]


class LoginRefused(SignInRequired):
    """An issuer refused a refresh token for good.

    Attributes:
        code: why, one of `PERMANENT_REFUSALS`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"the login is no longer valid ({code})")
        self.code = code


@dataclass(frozen=True, slots=True, repr=False)
class IssuerAnswer:
    """What an issuer answered.

    Attributes:
        status: the HTTP status.
        body: the decoded JSON; None if it was none.
    """

    status: int
    body: object


Post = Callable[[str, Mapping[str, str]], IssuerAnswer]
"""Posts members as JSON to a URL; raises UpstreamError if no answer came."""


def refresh(
    login: Login, *, reason: RefreshReason, post: Post, now: Callable[[], float] = time.time
) -> Login:
    """Return the login with new tokens; what the issuer does not give anew stays.

    The refresh token of `login` is used up then: the one that is returned must be kept.

    Raises:
        LoginRefused: the account must sign in again.
        UpstreamError: the issuer could not tell; another try may.
    """
    if login.refresh_token is None:
        raise LoginRefused("no_refresh_token")
    asked = {
        "client_id": login.client_id,
        "grant_type": "refresh_token",
        "refresh_token": login.refresh_token.reveal(),
        "refresh_reason": reason,
    }
    answer = post(f"{login.issuer.rstrip('/')}/oauth/token", asked)
    if answer.status != 200:
        code = refusal_code(answer.body)
        if answer.status in (400, 401) and code in PERMANENT_REFUSALS and code is not None:
            raise LoginRefused(code)
        raise UpstreamError(f"the issuer answered {answer.status}")
    given = answer.body if isinstance(answer.body, Mapping) else {}
    access, token, identity = (
        _token(given.get(name)) for name in ("access_token", "refresh_token", "id_token")
    )
    if access is None and token is None:
        raise UpstreamError("the issuer's answer holds no token")
    renewed = replace(
        login,
        refresh_token=token or login.refresh_token,
        id_token=identity or login.id_token,
    )
    if access is None:
        return renewed
    return replace(renewed, access_token=access, refreshed_at=now())


def refusal_code(body: object) -> str | None:
    """Return the code of an issuer's refusal: `error.code`, `error` or `code`; None if it has none.

    OAuth has a string (RFC 6749 section 5.2), other APIs an object.
    """
    if not isinstance(body, Mapping):
        return None
    error = body.get("error")
    nested = error if isinstance(error, Mapping) else {}
    for value in (nested.get("code"), nested.get("type"), error, body.get("code")):
        if isinstance(value, str) and value in PERMANENT_REFUSALS:
            return value
    return None


def post_json(
    url: str,
    members: Mapping[str, str],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> IssuerAnswer:
    """Post to an issuer: no redirect is followed, no proxy or netrc file is used.

    Raises:
        UpstreamError: no answer came in time.
    """
    ends_at = time.monotonic() + total_seconds
    headers = {"user-agent": OWN_USER_AGENT, "accept": "application/json"}
    body = bytearray()
    try:
        with (
            httpx2.Client(timeout=timeout_seconds, trust_env=False) as client,
            client.stream("POST", url, json=members, headers=headers) as response,
        ):
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _ANSWER_BYTES or time.monotonic() > ends_at:
                    raise UpstreamError("the issuer's answer has no end")
            return IssuerAnswer(response.status_code, _decoded(bytes(body)))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as exc:
        raise UpstreamError(f"the issuer cannot be reached ({type(exc).__name__})") from None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _token(value: object) -> Secret | None:
    """Return a token that can be sent and kept; None where there is none."""
    return Secret(value) if isinstance(value, str) and key_fault(value) is None else None
