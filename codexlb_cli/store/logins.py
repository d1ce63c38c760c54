"""A ChatGPT login as it is kept: tokens that do not show themselves, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codexlb_cli.core import signin
from codexlb_cli.core.tokens import (
    NEEDED_BEFORE_SECONDS,
    REFRESH_BEFORE_SECONDS,
    Claims,
    read_claims,
    refresh_due,
)
from codexlb_cli.store.secrets import Secret, key_fault

ISSUER = signin.ISSUER
CLIENT_ID = signin.CLIENT_ID

_TEXTS = ("access_token", "refresh_token", "id_token", "account_id", "issuer", "client_id")
LOGIN_MEMBERS = frozenset({*_TEXTS, "refreshed_at", "shared"})
"""What a stored login consists of; whatever else stands beside it stays as it is."""


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of one account.

    Attributes:
        access_token: for the upstream; short-lived.
        refresh_token: good for one refresh, which gives a new one; None if there is none.
        id_token: what the issuer said of the person; None if it was not given.
        account_id: the value of `chatgpt-account-id`; None if no token names it.
        refreshed_at: when the access token was got, seconds since the epoch.
        issuer: who gave them and refreshes them.
        client_id: the client that they were given to.
        shared: whether another program holds the same tokens, so that they are not ours to end.
        claims: what the tokens say: the access token about its expiry, both about the person.
    """

    access_token: Secret
    refresh_token: Secret | None
    id_token: Secret | None = None
    account_id: str | None = None
    refreshed_at: float = 0.0
    issuer: str = ISSUER
    client_id: str = CLIENT_ID
    shared: bool = False
    claims: Claims = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the tokens once: every dial asks when they expire."""
        access = read_claims(self.access_token.reveal())
        told = read_claims(self.id_token.reveal()) if self.id_token is not None else Claims()
        # An id token expires early and is of no use to the upstream: its `exp` says nothing here.
        claims = access.or_else(Claims(None, told.email, told.account_id, told.plan))
        object.__setattr__(self, "claims", claims)

    def refresh_due(self, now: float) -> bool:
        """Whether the access token should be refreshed at `now`, before it is refused."""
        return self._due(now, REFRESH_BEFORE_SECONDS)

    def refresh_needed(self, now: float) -> bool:
        """Whether the access token is about to expire at `now`, too soon to open a socket."""
        return self._due(now, NEEDED_BEFORE_SECONDS)

    def _due(self, now: float, before_seconds: float) -> bool:
        if self.refresh_token is None:
            return False
        claims = self.claims
        return refresh_due(
            claims.expires_at,
            self.refreshed_at,
            now,
            issued_at=claims.issued_at,
            before_seconds=before_seconds,
        )

    @property
    def sent_account_id(self) -> str | None:
        """The value of `chatgpt-account-id`: the login's own, else what its tokens name."""
        named = self.account_id or self.claims.account_id
        return named if named is not None and key_fault(named) is None else None


def login_fault(login: Login) -> str | None:
    """Say what keeps a login from being kept and sent; None if nothing does.

    The words follow a subject such as "the login of `work`", and never show a token.
    """
    for what, text in (
        ("access token", login.access_token.reveal()),
        ("refresh token", login.refresh_token.reveal() if login.refresh_token else None),
        ("id token", login.id_token.reveal() if login.id_token else None),
        ("account id", login.account_id),
        ("issuer", login.issuer),
        ("client id", login.client_id),
    ):
        if text is not None and (fault := key_fault(text)):
            return f"cannot be used: its {what} {fault}"
    return None


def login_document(login: Login) -> dict[str, Any]:
    """Return a login as the credentials file holds it."""
    members: dict[str, Any] = {
        "access_token": login.access_token.reveal(),
        "refresh_token": login.refresh_token.reveal() if login.refresh_token else None,
        "id_token": login.id_token.reveal() if login.id_token else None,
        "account_id": login.account_id,
        "refreshed_at": login.refreshed_at,
        "issuer": login.issuer,
        "client_id": login.client_id,
        "shared": login.shared or None,
    }
    return {key: value for key, value in members.items() if value is not None}


def is_login_document(value: object) -> bool:
    """Whether `value` is what `login_document` may have written; other members may stand by."""
    if not isinstance(value, dict) or not value.get("access_token"):
        return False
    at = value.get("refreshed_at", 0.0)
    number = isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at)
    return number and all(isinstance(value.get(key, ""), str) for key in _TEXTS)


def read_login(document: Mapping[str, Any]) -> Login:
    """Return the login of a document for which `is_login_document` holds."""

    def secret(key: str) -> Secret | None:
        return Secret(document[key]) if document.get(key) else None

    return Login(
        access_token=Secret(document["access_token"]),
        refresh_token=secret("refresh_token"),
        id_token=secret("id_token"),
        account_id=document.get("account_id") or None,
        refreshed_at=float(document.get("refreshed_at", 0.0)),
        issuer=document.get("issuer") or ISSUER,
        client_id=document.get("client_id") or CLIENT_ID,
        shared=document.get("shared") is True,
    )
