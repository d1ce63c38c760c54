"""A ChatGPT login as it is kept: tokens that do not show themselves, and what they say."""

from __future__ import annotations

from dataclasses import dataclass

from codexlb_cli.core import signin
from codexlb_cli.core.tokens import Claims, read_claims, refresh_due
from codexlb_cli.store.secrets import Secret

ISSUER = signin.ISSUER
CLIENT_ID = signin.CLIENT_ID


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
    """

    access_token: Secret
    refresh_token: Secret | None
    id_token: Secret | None = None
    account_id: str | None = None
    refreshed_at: float = 0.0
    issuer: str = ISSUER
    client_id: str = CLIENT_ID
    shared: bool = False

    @property
    def claims(self) -> Claims:
        """What the tokens say: the access token about its expiry, both about the person."""
        access = read_claims(self.access_token.reveal())
        told = read_claims(self.id_token.reveal()) if self.id_token is not None else Claims()
        # An id token expires early and is of no use to the upstream: its `exp` says nothing here.
        return access.or_else(Claims(None, told.email, told.account_id, told.plan))

    def refresh_due(self, now: float) -> bool:
        """Whether the access token should be refreshed at `now`, before it is refused."""
        return refresh_due(self.claims.expires_at, self.refreshed_at, now)
