"""The HTTP client of an issuer: codes into tokens, device codes, revocation.

No proxy of the environment is used and no redirect is followed: both would carry tokens elsewhere.
Answers are bounded in size and time. What an issuer says in words is never passed on.

    SignInRequired           exit 4
    `-- SignInRefused        the person or the issuer said no, or the sign-in is over
        `-- NoDeviceFlow     the issuer offers no sign-in by code
    UpstreamError            exit 5
    `-- IssuerUnavailable    unreachable, silent, in trouble, or it answers what makes no sense
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.signin import (
    ISSUER_MUST_BE,
    Poll,
    error_code,
    interval_seconds,
    is_issuer,
    poll_meaning,
    read_object,
)
from codexlb_cli.errors import SignInRequired, UpstreamError, UsageError
from codexlb_cli.store.credentials import key_fault
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret

REQUEST_SECONDS = 30.0
_ANSWER_BYTES = 1024 * 1024


class SignInRefused(SignInRequired):
    """The person or the issuer said no, or the sign-in took too long.

    Attributes:
        reason: the issuer's code, such as `access_denied`; `timeout` if nobody answered.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoDeviceFlow(SignInRefused):
    """The issuer offers no sign-in by code."""


class IssuerUnavailable(UpstreamError):
    """The issuer cannot be reached, is in trouble, or answers what makes no sense.

    Attributes:
        answered: whether there was an answer; else asking again may help.
    """

    def __init__(self, message: str, *, answered: bool = True) -> None:
        super().__init__(message)
        self.answered = answered


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A sign-in by device code that waits for its person.

    Attributes:
        user_code: what the person types in.
        page: where.
        interval_seconds: how long to wait between two polls.
    """

    device_auth_id: str = field(repr=False)
    user_code: str
    page: str
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to a poll: what it means and, if approved, the code and its verifier."""

    meaning: Poll
    code: str = field(default="", repr=False)
    verifier: str = field(default="", repr=False)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    document: Mapping[str, Any] | None = field(repr=False)

    @property
    def code(self) -> str | None:
        return error_code(self.document)


def issuer_http(transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """Return the HTTP client for `IssuerClient`, to be closed by the caller.

    Args:
        transport: how requests travel; None for sockets.
    """
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        timeout=REQUEST_SECONDS,
        headers={"user-agent": OWN_USER_AGENT, "accept": "application/json"},
    )


class IssuerClient:
    """What this program asks of one issuer.

    Args:
        http: as `issuer_http` makes it.
        issuer: its URL; https, or loopback.
        client_id: the client that people sign in to.
        now: seconds since the epoch.

    Raises:
        UsageError: the URL is no issuer's.
    """

    def __init__(
        self, http: httpx2.AsyncClient, issuer: str, client_id: str, now: Callable[[], float]
    ) -> None:
        if not is_issuer(issuer):
            raise UsageError(f"an issuer must be {ISSUER_MUST_BE}")
        self.url = issuer.rstrip("/")
        self.client_id = client_id
        self.clock_offset_seconds = 0.0
        self._http = http
        self._now = now

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> Login:
        """Turn an authorization code into a login.

        Raises:
            SignInRefused: the code is wrong, used or over.
            IssuerUnavailable: it cannot be asked, or its answer makes no sense.
        """
        form = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        answer = await self._post("/oauth/token", form=form)
        if answer.status == 200:
            return self._login(answer.document)
        if 400 <= answer.status < 500 and answer.status != 429:
            reason = answer.code or f"status {answer.status}"
            message = f"{self._name} did not accept the sign-in: {reason}"
            raise SignInRefused(message, reason=answer.code or "refused")
        raise self._trouble(answer)

    async def begin_device(self) -> DeviceCode:
        """Ask for a code that a person types in on another device.

        Raises:
            SignInRefused: the issuer does not offer it.
            IssuerUnavailable: it cannot be asked, or its answer makes no sense.
        """
        asked = {"client_id": self.client_id}
        answer = await self._post("/api/accounts/deviceauth/usercode", json=asked)
        if answer.status in (400, 401, 403, 404):
            message = f"{self._name} offers no sign-in by code"
            raise NoDeviceFlow(message, reason=answer.code or "no_device_flow")
        if answer.status != 200 or answer.document is None:
            raise self._trouble(answer)
        found = answer.document
        return DeviceCode(
            device_auth_id=self._text(found, "device_auth_id"),
            user_code=self._text(found, "user_code" if "user_code" in found else "usercode"),
            page=f"{self.url}/codex/device",
            interval_seconds=interval_seconds(found.get("interval")),
        )

    async def poll_device(self, device: DeviceCode) -> Polled:
        """Ask whether the person has approved.

        Raises:
            IssuerUnavailable: it cannot be asked, or its answer makes no sense.
        """
        asked = {"device_auth_id": device.device_auth_id, "user_code": device.user_code}
        answer = await self._post("/api/accounts/deviceauth/token", json=asked)
        meaning = poll_meaning(answer.status, answer.code)
        if meaning is not Poll.APPROVED:
            return Polled(meaning, reason=answer.code or f"status {answer.status}")
        if answer.document is None:
            raise self._trouble(answer)
        code = self._text(answer.document, "authorization_code")
        return Polled(meaning, code, self._text(answer.document, "code_verifier"))

    async def redeem_device(self, polled: Polled) -> Login:
        """Turn the code of an approved sign-in by device into a login; raises as `redeem`."""
        return await self.redeem(polled.code, polled.verifier, f"{self.url}/deviceauth/callback")

    async def revoke(self, login: Login) -> None:
        """End a login, so that its tokens open nothing any more (RFC 7009).

        Raises:
            IssuerUnavailable: the issuer cannot be asked, or refuses.
        """
        token, kind = login.refresh_token, "refresh_token"
        if token is None:
            token, kind = login.access_token, "access_token"
        asked = {"token": token.reveal(), "token_type_hint": kind, "client_id": login.client_id}
        answer = await self._post("/oauth/revoke", json=asked)
        if answer.status != 200:
            raise self._trouble(answer)

    @property
    def _name(self) -> str:
        return f"`{self.url}`"

    async def _post(
        self,
        path: str,
        *,
        form: dict[str, str] | None = None,
        json: dict[str, str] | None = None,
    ) -> _Answer:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = self._http.stream("POST", self.url + path, data=form, json=json)
                async with request as response:
                    body = bytearray()
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > _ANSWER_BYTES:
                            raise IssuerUnavailable(f"{self._name} answers more than 1 MiB")
        except (TimeoutError, httpx2.TimeoutException):
            raise IssuerUnavailable(
                f"{self._name} did not answer within {REQUEST_SECONDS:g} s",
                answered=False,
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            raise IssuerUnavailable(
                f"{self._name} cannot be reached: {_network_fault(exc)}",
                answered=False,
            ) from None
        self._compare_clocks(response.headers.get("date"))
        return _Answer(response.status_code, read_object(bytes(body)))

    def _compare_clocks(self, date: str | None) -> None:
        try:
            told = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        self.clock_offset_seconds = self._now() - told

    def _login(self, document: Mapping[str, Any] | None) -> Login:
        """Return the login that a token answer holds.

        Raises:
            IssuerUnavailable: it holds no usable access token, or names no account.
        """
        found = document or {}
        access = self._token(found, "access_token")
        if access is None:
            raise IssuerUnavailable(f"{self._name} gave no access token")
        login = Login(
            access_token=access,
            refresh_token=self._token(found, "refresh_token"),
            id_token=self._token(found, "id_token"),
            refreshed_at=self._now(),
            issuer=self.url,
            client_id=self.client_id,
        )
        account_id = login.claims.account_id
        if account_id is None or key_fault(account_id) is not None:
            raise IssuerUnavailable(f"{self._name} gave tokens that name no account")
        return replace(login, account_id=account_id)

    def _token(self, found: Mapping[str, Any], name: str) -> Secret | None:
        value = found.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str) or key_fault(value) is not None:
            raise IssuerUnavailable(f"{self._name} gave a malformed {name.replace('_', ' ')}")
        return Secret(value)

    def _text(self, found: Mapping[str, Any], name: str) -> str:
        value = found.get(name)
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 4096:
            raise IssuerUnavailable(f"{self._name} gave no usable `{name}`")
        return value

    def _trouble(self, answer: _Answer) -> IssuerUnavailable:
        if answer.status == 200:
            return IssuerUnavailable(f"{self._name} did not answer with a JSON object")
        code = f" {answer.code}" if answer.code else ""
        return IssuerUnavailable(f"{self._name} answers {answer.status}{code}")


def _network_fault(exc: Exception) -> str:
    """Say what kind of fault it was; an exception's own text could hold a URL with a code."""
    match exc:
        case httpx2.ConnectError():
            return "no connection"
        case httpx2.RemoteProtocolError() | httpx2.ReadError():
            return "the connection broke off"
    return type(exc).__name__
