"""What is said and what is meant when a person signs in: URLs, callbacks, polls, errors.

RFC 6749 (OAuth 2.0), RFC 7636 (PKCE) and RFC 8628 (device flow), in the dialect of ChatGPT's
issuer. Nothing here waits, and no error text of an issuer is passed on: only its code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

ISSUER = "https://auth.openai.com"
CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
CALLBACK_PORT = 1455
ISSUER_MUST_BE = "an https URL, or one on loopback, without a user, query or fragment"
SCOPE = "openid profile email offline_access"
ORIGINATOR = "codexlb"
CALLBACK_PATH = "/auth/callback"
DEFAULT_INTERVAL_SECONDS = 5.0
SLOWER_SECONDS = 5.0
"""RFC 8628 section 3.5: `slow_down` adds so much to the interval."""

_SHORTEST_INTERVAL_SECONDS = 0.2
_LONGEST_INTERVAL_SECONDS = 60.0
_CODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VISIBLE = re.compile(r"[!-~]{1,4096}")
_BARE_CODE = re.compile(r"[!-.0-~]{12,4096}")
"""A code by itself: what is shorter is a word that somebody typed."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One sign-in in the browser, as it was asked for.

    Attributes:
        state: comes back with the answer; an answer with another one is not to this question.
        verifier: proves that the code is redeemed by who asked (RFC 7636 section 4.1).
        redirect_uri: where the answer goes.
    """

    state: str
    verifier: str
    redirect_uri: str

    def __repr__(self) -> str:
        return f"Asking(redirect_uri={self.redirect_uri!r})"


class Answer(StrEnum):
    """What a text that may be the answer to a sign-in is."""

    CODE = "code"
    DENIED = "denied"
    FOREIGN = "foreign"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Callback:
    """An answer to a sign-in in the browser, read.

    Attributes:
        answer: a code; a refusal; an answer to another sign-in; or no answer at all.
        code: the code; empty without one.
        reason: the issuer's code of a refusal, such as `access_denied`.
    """

    answer: Answer
    code: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        return f"Callback(answer={self.answer!r}, reason={self.reason!r})"


class Poll(StrEnum):
    """What the answer to a poll of the device flow means."""

    APPROVED = "approved"
    PENDING = "pending"
    SLOWER = "slower"
    TROUBLE = "trouble"
    DENIED = "denied"
    EXPIRED = "expired"
    REFUSED = "refused"


def url_text(chance: bytes) -> str:
    """Return bytes of chance as a text that a URL can hold: 32 make 43 characters."""
    return base64.urlsafe_b64encode(chance).rstrip(b"=").decode("ascii")


def challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 section 4.2)."""
    return url_text(hashlib.sha256(verifier.encode("ascii")).digest())


def authorize_url(issuer: str, client_id: str, asking: Asking) -> str:
    """Return the page on which the person signs in."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": asking.redirect_uri,
        "scope": SCOPE,
        "code_challenge": challenge(asking.verifier),
        "code_challenge_method": "S256",
        "state": asking.state,
        "id_token_add_organizations": "true",
        "codex_cli_simplified_flow": "true",
        "originator": ORIGINATOR,
    }
    return f"{issuer}/oauth/authorize?{urlencode(query)}"


def read_callback(query: str, state: str) -> Callback:
    """Read the query of a request to the redirect URI (RFC 6749 section 4.1.2).

    Args:
        query: what follows the question mark.
        state: that of the sign-in that is waiting.
    """
    try:
        fields = parse_qs(query, max_num_fields=50)
    except ValueError:
        return Callback(Answer.NONE)
    code, error = fields.get("code", [""]), fields.get("error", [""])
    if not code[0] and not error[0]:
        return Callback(Answer.NONE)
    if fields.get("state") != [state]:
        return Callback(Answer.FOREIGN)
    if error[0]:
        return Callback(Answer.DENIED, reason=_name(error[0]) or "unknown")
    usable = len(code) == 1 and _VISIBLE.fullmatch(code[0])
    return Callback(Answer.CODE, code=code[0]) if usable else Callback(Answer.NONE)


def read_pasted(text: str, state: str) -> Callback:
    """Read what a person pasted: the whole address of the last page, its query, or the code.

    A bare code carries no `state`; it can be redeemed with the verifier of this sign-in alone.
    """
    text = text.strip()
    query = text.partition("?")[2] if "?" in text else text
    if "?" in text or "=" in text:
        return read_callback(query.partition("#")[0], state)
    if _BARE_CODE.fullmatch(text) is None:
        return Callback(Answer.NONE)
    return Callback(Answer.CODE, code=text)


def poll_meaning(status: int, code: str | None) -> Poll:
    """Say what the answer to a poll means: 403 and 404 are the dialect's `pending`.

    Args:
        status: of the answer.
        code: the error's code, if there is one.
    """
    if status == 200:
        return Poll.APPROVED
    if code == "slow_down" or status == 429:
        return Poll.SLOWER
    if code in ("access_denied", "authorization_denied"):
        return Poll.DENIED
    if code in ("expired_token", "deviceauth_expired"):
        return Poll.EXPIRED
    if code == "authorization_pending" or status in (403, 404):
        return Poll.PENDING
    return Poll.TROUBLE if status >= 500 else Poll.REFUSED


def interval_seconds(value: object) -> float:
    """Read the interval between polls: a number, or a text that holds one, within bounds."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if not seconds >= 0:  # NaN, too
        return DEFAULT_INTERVAL_SECONDS
    return min(max(seconds, _SHORTEST_INTERVAL_SECONDS), _LONGEST_INTERVAL_SECONDS)


def read_object(body: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object of an answer; None if it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def error_code(document: Mapping[str, Any] | None) -> str | None:
    """Return the code of an error, in any of the shapes that issuers give it; None without one."""
    error = (document or {}).get("error")
    if isinstance(error, dict):
        return _name(error.get("code")) or _name(error.get("type"))
    return _name(error) or _name((document or {}).get("code"))


def is_issuer(url: str) -> bool:
    """Whether tokens may be sent to a URL: https, or plain http on loopback, and nothing odd."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    schemes = ("https", "http") if host in ("127.0.0.1", "localhost", "::1") else ("https",)
    odd = _VISIBLE.fullmatch(url) is None or any(mark in url for mark in "@?#\\")
    return bool(host) and not odd and port != 0 and parts.scheme in schemes


def _name(value: object) -> str | None:
    """Return a code that may be shown: no text of somebody else's, which could hold anything."""
    return value if isinstance(value, str) and _CODE_NAME.fullmatch(value) else None
