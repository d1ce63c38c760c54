"""What the tokens of a ChatGPT login say about themselves. Claims are read, never verified.

Whoever could forge a token for this program could also use it; the upstream verifies it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTH_CLAIM = "https://api.openai.com/auth"
PROFILE_CLAIM = "https://api.openai.com/profile"
REFRESH_BEFORE_SECONDS = 300.0
"""A token is refreshed when it expires within this time."""
NEEDED_BEFORE_SECONDS = 30.0
"""A token that expires within this time is refreshed before a socket is opened with it."""
OLDEST_SECONDS = 8 * 24 * 3600.0
"""A token whose expiry cannot be read is refreshed at this age."""
YOUNGEST_SECONDS = 60.0
"""A token is not refreshed before this age, however soon it seems to expire."""
PERMANENT_REFUSALS = frozenset(
    {
        "refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated",
        "invalid_grant", "token_revoked", "invalid_refresh_token",
    }
)  # fmt: skip
"""What an issuer says of a login that no refresh can mend: its person must sign in again."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says; None where it says nothing that can be read.

    Attributes:
        expires_at: seconds since the epoch.
        email: of the person who signed in.
        account_id: the value of the `chatgpt-account-id` header.
        plan: such as `plus`.
        issued_at: seconds since the epoch, by the issuer's clock.
    """

    expires_at: float | None = None
    email: str | None = None
    account_id: str | None = None
    plan: str | None = None
    issued_at: float | None = None

    def or_else(self, other: Claims) -> Claims:
        """Return these claims, with those of `other` where they say nothing."""
        return Claims(
            expires_at=self.expires_at if self.expires_at is not None else other.expires_at,
            email=self.email or other.email,
            account_id=self.account_id or other.account_id,
            plan=self.plan or other.plan,
            issued_at=self.issued_at if self.issued_at is not None else other.issued_at,
        )


def read_claims(token: str) -> Claims:
    """Read the payload of a JWT (RFC 7519); a text that is none says nothing."""
    payload = _payload(token)
    auth, profile = _mapping(payload.get(AUTH_CLAIM)), _mapping(payload.get(PROFILE_CLAIM))
    return Claims(
        expires_at=_seconds(payload.get("exp")),
        email=_text(payload.get("email")) or _text(profile.get("email")),
        account_id=_text(auth.get("chatgpt_account_id")),
        plan=_text(auth.get("chatgpt_plan_type")),
        issued_at=_seconds(payload.get("iat")),
    )


def refresh_due(
    expires_at: float | None,
    refreshed_at: float,
    now: float,
    *,
    issued_at: float | None = None,
    before_seconds: float = REFRESH_BEFORE_SECONDS,
) -> bool:
    """Whether an access token should be refreshed at `now`, before it is refused.

    A new token is left alone for half of its life, so that neither a clock of ours that is fast
    nor a short life leads to one refresh after the other.

    Args:
        expires_at: its `exp`; None if that cannot be read.
        refreshed_at: when it was got, seconds since the epoch.
        now: seconds since the epoch.
        issued_at: its `iat`; None if that cannot be read.
        before_seconds: how long before its end.
    """
    age = now - refreshed_at
    if expires_at is None:
        return age >= OLDEST_SECONDS
    life = 0.0 if issued_at is None else expires_at - issued_at
    if 0 <= age < max(YOUNGEST_SECONDS, life / 2):
        return False
    return expires_at - now <= before_seconds


def _payload(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        decoded = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _mapping(json.loads(decoded))
    except (binascii.Error, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < 1e12 else None
