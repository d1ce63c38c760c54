"""The sign-ins of the mock's issuer and the tokens of each: unsigned, in memory, bounded."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from codexlb_cli.core.tokens import AUTH_CLAIM, PROFILE_CLAIM

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MOST_KEPT = 10_000
ACCESS_SECONDS = 10 * 24 * 3600.0
"""The life of an access token, unless a rule says otherwise."""
_ID_SECONDS = 3600.0

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Person:
    """Who signs in.

    Attributes:
        name: the account, as the mock's records call it.
        plan: such as `plus`.
    """

    name: str
    plan: str = "plus"

    @property
    def email(self) -> str:
        """The address that the tokens name."""
        return f"{self.name}@example.com"

    @property
    def account_id(self) -> str:
        """The value of `chatgpt-account-id`."""
        return f"acct-{self.name}"


@dataclass(slots=True)
class Grant:
    """One sign-in: all tokens that follow from it end together."""

    person: Person
    client_id: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a sign-in or a refresh gives; an empty text where a rule left it out."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    id_token: str = field(repr=False)
    person: Person

    def document(self) -> dict[str, object]:
        """Return the answer of the token endpoint."""
        named = {
            "id_token": self.id_token,
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
        }
        return {name: token for name, token in named.items() if token}


class GrantStore:
    """The tokens that one issuer gave.

    Args:
        run: what tells its tokens from those of another issuer.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._numbers = count(1)
        self._access: OrderedDict[str, tuple[Grant, float]] = OrderedDict()
        self._refresh: OrderedDict[str, Grant] = OrderedDict()
        self._used: OrderedDict[str, Grant] = OrderedDict()
        self._grants: OrderedDict[int, Grant] = OrderedDict()

    def grant(self, person: Person, client_id: str) -> Grant:
        """Begin a sign-in."""
        grant = Grant(person, client_id)
        _keep(self._grants, next(self._numbers), grant)
        return grant

    def issue(
        self,
        grant: Grant,
        *,
        issuer: str,
        now: float,
        expires_in: float = ACCESS_SECONDS,
        malformed: bool = False,
        without: Collection[str] = (),
    ) -> Tokens:
        """Make new tokens; the refresh token is good for one use."""
        person, number = grant.person, next(self._numbers)
        own = {"iss": issuer, "iat": int(now), "jti": f"{self._run}-{number}"}
        auth = {
            "chatgpt_account_id": person.account_id,
            "chatgpt_plan_type": person.plan,
            "chatgpt_user_id": f"user-{person.name}",
        }
        expiry = {} if "exp" in without else {"exp": int(now + expires_in)}
        access = unsigned_jwt(
            {**own, **expiry, AUTH_CLAIM: auth, PROFILE_CLAIM: {"email": person.email}}
        )
        if malformed:
            access = f"malformed-{self._run}-{number}"
        identity = {"aud": grant.client_id, "exp": int(now + _ID_SECONDS), "email": person.email}
        refresh = f"rt-{self._run}-{number}"
        if "access_token" not in without:
            _keep(self._access, access, (grant, now + expires_in))
        if "refresh_token" not in without:
            _keep(self._refresh, refresh, grant)
        return Tokens(
            access_token="" if "access_token" in without else access,
            refresh_token="" if "refresh_token" in without else refresh,
            id_token=""
            if "id_token" in without
            else unsigned_jwt(own | identity | {AUTH_CLAIM: auth}),
            person=person,
        )

    def holder(self, refresh_token: str) -> Grant | None:
        """Return the sign-in that a refresh token, used or not, follows from."""
        return self._refresh.get(refresh_token) or self._used.get(refresh_token)

    def use(self, refresh_token: str) -> str | None:
        """Spend a refresh token; return the error code if it cannot be spent."""
        grant = self._refresh.get(refresh_token)
        if grant is not None and not grant.revoked:
            _keep(self._used, refresh_token, self._refresh.pop(refresh_token))
            return None
        return (
            "refresh_token_reused" if refresh_token in self._used else "refresh_token_invalidated"
        )

    def knows(self, access_token: str) -> bool:
        """Whether it is an access token of this issuer, good or not."""
        return access_token in self._access

    def account(self, access_token: str, now: float) -> str | None:
        """Return whose access token it is; None if it is nobody's, over or revoked."""
        grant, expires_at = self._access.get(access_token, (None, 0.0))
        return grant.person.name if grant and not grant.revoked and now < expires_at else None

    def revoke(self, token: str) -> Grant | None:
        """End the sign-in that a token of any kind follows from; None if there is none."""
        grant = self.holder(token) or self._access.get(token, (None, 0.0))[0]
        if grant is not None:
            grant.revoked = True
        return grant

    def revoke_all(self, name: str) -> None:
        """End every sign-in of an account."""
        for grant in self._grants.values():
            if grant.person.name == name:
                grant.revoked = True


def unsigned_jwt(claims: Mapping[str, object]) -> str:
    """Return a JWT without a signature (RFC 7519 section 6)."""
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
    return ".".join(part.rstrip(b"=").decode() for part in encoded) + "."


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)
