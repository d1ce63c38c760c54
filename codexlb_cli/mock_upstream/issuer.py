"""The mock's issuer: sign-in in the browser and by device code, refresh, revoke, usage.

It decides and remembers; `issuer_http` reads and writes, and performs the faults of the rules.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from codexlb_cli.mock_upstream.grants import ACCESS_SECONDS, Grant, GrantStore, Person, Tokens
from codexlb_cli.mock_upstream.issuer_pages import approval_page, device_page, message_page
from codexlb_cli.mock_upstream.issuer_requests import Asked
from codexlb_cli.mock_upstream.issuer_rules import NORMAL_ISSUER, IssuerEndpoint, IssuerRule
from codexlb_cli.mock_upstream.rules import RateLimits, RateWindow
from codexlb_cli.mock_upstream.wire import to_json

if TYPE_CHECKING:
    from collections.abc import Callable


CLIENT_ID = "mock-client"
DEFAULT_PERSON = "ada"
_MOST_PENDING = 1000
_CODE_SECONDS = 600.0
_DEVICE_SECONDS = 900.0
_USAGE = RateLimits(
    primary=RateWindow(used_percent=12.0, window_minutes=300),
    secondary=RateWindow(used_percent=3.0, window_minutes=10_080),
)


@dataclass(slots=True)
class IssuerReply:
    """An answer of the issuer."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Authorization:
    """A sign-in in the browser that waits for its person, or the code that came of it."""

    person: Person
    client_id: str
    redirect_uri: str
    challenge: str
    state: str
    expires_at: float
    deny: bool = False


@dataclass(slots=True)
class _Device:
    """A sign-in by device code."""

    person: Person
    client_id: str
    user_code: str
    interval: str
    expires_at: float
    polls: int | None
    approved: bool = False


class Issuer:
    """The issuer of one mock.

    Args:
        run: what tells its codes and tokens from those of another mock.
        now: seconds since the epoch.
    """

    def __init__(self, run: str, now: Callable[[], float]) -> None:
        self.grants = GrantStore(run)
        self._run = run
        self._now = now
        self._numbers = count(1)
        self._waiting: OrderedDict[str, _Authorization] = OrderedDict()
        self._codes: OrderedDict[str, _Authorization] = OrderedDict()
        self._devices: OrderedDict[str, _Device] = OrderedDict()

    def sign_in(
        self,
        name: str,
        *,
        plan: str = "plus",
        expires_in: float = ACCESS_SECONDS,
        client_id: str = CLIENT_ID,
    ) -> Tokens:
        """Give the account `name` tokens without any flow, for tests that begin signed in."""
        grant = self.grants.grant(Person(name, plan), client_id)
        return self.grants.issue(grant, issuer="mock", now=self._now(), expires_in=expires_in)

    def revoke(self, name: str) -> None:
        """End every sign-in of the account `name`."""
        self.grants.revoke_all(name)

    def date(self) -> str:
        """Return the `Date` header of an answer (RFC 9110 section 6.6.1)."""
        return formatdate(self._now(), usegmt=True)

    def account(self, asked: Asked) -> str:
        """Return whose tokens a request is about; empty if nobody's."""
        if asked.on == "usage":
            return asked.bearer or ""
        token = asked.fields.get("refresh_token") or asked.fields.get("token") or ""
        grant = self.grants.holder(token)
        if grant is not None:
            return grant.person.name
        waiting = self._codes.get(asked.fields.get("code", ""))
        return waiting.person.name if waiting else ""

    def answer(self, asked: Asked, rule: IssuerRule, issuer: str) -> IssuerReply:
        """Do what a request asks; `issuer` is the URL by which it was reached."""
        match asked.on, asked.method:
            case None, _:
                return self._device_page(asked)
            case "authorize", "GET":
                return self._authorize(asked.fields, rule)
            case "authorize", "POST":
                return self._approve(asked.fields.get("request", ""))
            case "token", "POST":
                return self._redeem(asked, rule, issuer)
            case "refresh", "POST":
                return self._refresh(asked.fields, rule, issuer)
            case "usercode", "POST":
                return self._begin_device(asked.fields, rule)
            case "device", "POST":
                return self._poll(asked.fields, rule, issuer)
            case "revoke", "POST":
                # RFC 7009 section 2.2: 200 for an unknown token, too.
                self.grants.revoke(asked.fields.get("token", ""))
                return IssuerReply(200, b"{}")
            case "usage", "GET":
                return self._usage(asked.bearer, rule)
        return _error(405, "method_not_allowed")

    def _authorize(self, fields: dict[str, str], rule: IssuerRule) -> IssuerReply:
        if fault := _authorize_fault(fields):
            return _page(400, message_page("The sign-in cannot begin", fault))
        waiting = _Authorization(
            person=_person(rule),
            client_id=fields["client_id"],
            redirect_uri=fields["redirect_uri"],
            challenge=fields["code_challenge"],
            state=fields["state"],
            expires_at=self._now() + _CODE_SECONDS,
            deny=rule.deny,
        )
        request = f"ask-{self._run}-{next(self._numbers)}"
        _put(self._waiting, request, waiting)
        if fields.get("auto") == "1":
            return self._approve(request)
        return _page(200, approval_page(waiting.person.name, request))

    def _approve(self, request: str) -> IssuerReply:
        waiting = self._waiting.pop(request, None)
        if waiting is None or waiting.expires_at < self._now():
            return _page(400, message_page("Too late", "This sign-in has ended."))
        answer = {"error": "access_denied", "error_description": "The person said no."}
        if not waiting.deny:
            answer = {"code": self._code(waiting)}
        query = urlencode(answer | {"state": waiting.state})
        return IssuerReply(302, b"", headers={"location": f"{waiting.redirect_uri}?{query}"})

    def _code(self, waiting: _Authorization) -> str:
        code = f"ac-{self._run}-{next(self._numbers)}"
        _put(self._codes, code, waiting)
        return code

    def _redeem(self, asked: Asked, rule: IssuerRule, issuer: str) -> IssuerReply:
        fields = asked.fields
        if fields.get("grant_type") != "authorization_code" or not asked.form:
            return _error(400, "unsupported_grant_type")
        waiting = self._codes.pop(fields.get("code", ""), None)
        wrong = waiting is None or (
            waiting.expires_at < self._now()
            or fields.get("client_id") != waiting.client_id
            or fields.get("redirect_uri") != waiting.redirect_uri
            or _challenge(fields.get("code_verifier", "")) != waiting.challenge
        )
        if waiting is None or wrong:
            return _error(400, "invalid_grant")
        grant = self.grants.grant(waiting.person, waiting.client_id)
        return _json(self._issue(grant, rule, issuer))

    def _refresh(self, fields: dict[str, str], rule: IssuerRule, issuer: str) -> IssuerReply:
        token = fields.get("refresh_token", "")
        grant = self.grants.holder(token)
        if grant is not None and fields.get("client_id") != grant.client_id:
            return _error(401, "invalid_grant")
        if (code := self.grants.use(token)) is not None or grant is None:
            return _error(401, code or "refresh_token_invalidated")
        return _json(self._issue(grant, rule, issuer))

    def _issue(self, grant: Grant, rule: IssuerRule, issuer: str) -> dict[str, object]:
        return self.grants.issue(
            grant,
            issuer=issuer,
            now=self._now(),
            expires_in=ACCESS_SECONDS if rule.expires_in is None else rule.expires_in,
            malformed=rule.malformed,
            without=rule.without,
        ).document()

    def _begin_device(self, fields: dict[str, str], rule: IssuerRule) -> IssuerReply:
        number = next(self._numbers)
        device = _Device(
            person=_person(rule),
            client_id=fields.get("client_id", ""),
            user_code=f"MOCK-{number:04}",
            interval="5" if rule.interval is None else rule.interval,
            expires_at=self._now() + _DEVICE_SECONDS,
            polls=rule.polls,
        )
        name = f"device-{self._run}-{number}"
        _put(self._devices, name, device)
        return _json(
            {"device_auth_id": name, "user_code": device.user_code, "interval": device.interval}
        )

    def _device_page(self, asked: Asked) -> IssuerReply:
        code = asked.fields.get("user_code", "")
        if asked.method == "GET":
            return _page(200, device_page(code))
        found = [device for device in self._devices.values() if device.user_code == code.strip()]
        if not found or found[0].expires_at < self._now():
            return _page(400, message_page("Unknown code", "No device waits with this code."))
        found[0].approved = True
        return _page(200, message_page("Signed in", "You can close this page."))

    def _poll(self, fields: dict[str, str], rule: IssuerRule, issuer: str) -> IssuerReply:
        name, now = fields.get("device_auth_id", ""), self._now()
        device = self._devices.get(name)
        if device is None or device.user_code != fields.get("user_code"):
            return _error(404, "deviceauth_unknown")
        if rule.deny:
            return _error(403, "access_denied")
        if device.expires_at < now:
            return _error(400, "expired_token")
        if device.polls is not None:
            device.approved = device.approved or device.polls <= 0
            device.polls -= 1
        if not device.approved:
            return _error(403, "deviceauth_authorization_pending")
        del self._devices[name]
        verifier = f"verifier-{self._run}-{next(self._numbers)}".ljust(43, "0")
        waiting = _Authorization(
            person=device.person,
            client_id=device.client_id,
            redirect_uri=f"{issuer}/deviceauth/callback",
            challenge=_challenge(verifier),
            state="",
            expires_at=now + _CODE_SECONDS,
        )
        return _json(
            {
                "authorization_code": self._code(waiting),
                "code_challenge": waiting.challenge,
                "code_verifier": verifier,
            }
        )

    def _usage(self, account: str | None, rule: IssuerRule) -> IssuerReply:
        if account is None:
            return _error(401, "invalid_token")
        limits = rule.rate_limits or _USAGE
        return _json(
            {
                "plan_type": limits.plan_type,
                "rate_limit": {
                    "allowed": limits.allowed,
                    "limit_reached": limits.limit_reached,
                    "primary_window": self._window(limits.primary),
                    "secondary_window": self._window(limits.secondary),
                },
                "credits": None,
            }
        )

    def _window(self, window: RateWindow | None) -> dict[str, object] | None:
        if window is None:
            return None
        seconds = (window.window_minutes or 300) * 60
        now = int(self._now())
        reset_at = now + seconds if window.reset_at is None else window.reset_at
        return {
            "used_percent": window.used_percent,
            "limit_window_seconds": seconds,
            "reset_after_seconds": max(reset_at - now, 0),
            "reset_at": reset_at,
        }


def rule_or_normal(on: IssuerEndpoint | None, rule: object) -> IssuerRule:
    """Return the rule if there is one, else the one by which the issuer behaves well."""
    return rule if isinstance(rule, IssuerRule) else NORMAL_ISSUER[on or "device"]


def _authorize_fault(fields: dict[str, str]) -> str | None:
    """Say what is wrong with a request to sign in, such as a redirect to somewhere else."""
    parts = urlsplit(fields.get("redirect_uri", ""))
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return "`redirect_uri` must be on loopback."
    if fields.get("response_type") != "code" or not fields.get("client_id"):
        return "`response_type` must be `code`, and there must be a `client_id`."
    if fields.get("code_challenge_method") != "S256" or len(fields.get("code_challenge", "")) != 43:
        return "There must be a `code_challenge` by S256."
    return None if fields.get("state") else "There must be a `state`."


def _person(rule: IssuerRule) -> Person:
    return Person(rule.person or DEFAULT_PERSON, rule.plan or "plus")


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _put(kept: OrderedDict[str, Any], key: str, value: object) -> None:
    kept[key] = value
    if len(kept) > _MOST_PENDING:
        kept.popitem(last=False)


def _json(document: dict[str, object]) -> IssuerReply:
    return IssuerReply(200, to_json(document))


def _page(status: int, body: bytes) -> IssuerReply:
    return IssuerReply(status, body, content_type="text/html; charset=utf-8")


def _error(status: int, code: str) -> IssuerReply:
    error = {"message": f"Mock issuer: {code}.", "type": "invalid_request_error", "code": code}
    return IssuerReply(status, to_json({"error": error | {"param": None}}))
