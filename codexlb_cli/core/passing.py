"""Endpoints that the gateway passes on as they are: which, to which account, and which it cannot.

The gateway knows nothing of what they do. Successive calls about one thing must meet in the same
account, so the order of the accounts is that of the configuration, whatever their load is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from codexlb_cli.core.calls import CallRoute, listed_accounts, route_in_order
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.headers import Header
from codexlb_cli.core.selection import Pool

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = _SAFE | {"PUT", "DELETE"}
_PASSED_PREFIX = "/v1"
_STRANGE = re.compile(r"[\x00-\x1f\x7f\\]")
_WHOLE_ACCOUNT = frozenset({"usage_limit_reached", "credentials_rejected"})

_UNKNOWN_CALL = "the gateway does not know this call, so it cannot tell which account it is for"
_NOT_PASSED: dict[str, str] = {
    "": "it names no endpoint",
    "realtime": "it takes a WebSocket or WebRTC connection of its own",
    "responses": _UNKNOWN_CALL,
    "conversations": _UNKNOWN_CALL,
    "files": _UNKNOWN_CALL,
    "uploads": _UNKNOWN_CALL,
}
"""First segments of paths that are not passed on, and why."""


@dataclass(frozen=True, slots=True)
class PassedCall:
    """A call that is passed on.

    Attributes:
        method: the method.
        path: the path under the prefix, in the client's own percent-encoding.
        takes_body: whether the request has a body.
    """

    method: str
    path: str
    takes_body: bool = False

    @property
    def works(self) -> bool:
        """What it does is not known, so it may take long."""
        return True

    @property
    def repeatable(self) -> bool:
        """Whether it does no harm if it is done twice (RFC 9110 section 9.2.2)."""
        return self.method in _REPEATABLE

    @property
    def reads(self) -> bool:
        """Whether it only reads one thing, so that each account may be asked for it."""
        return self.method in ("GET", "HEAD") and len(self.path.strip("/").split("/")) > 1


def read_passed(
    method: str, prefix: str, raw_path: str, inbound: Sequence[Header]
) -> PassedCall | ClientError:
    """Return the call of a request that no other endpoint takes, or why it is not passed on.

    Args:
        method: its method.
        prefix: of the path, one of `requests.PREFIXES`.
        raw_path: the whole path as it came, without its query.
        inbound: its header lines.
    """
    shown = f"{method} {unquote(raw_path)[:200]}"
    if prefix != _PASSED_PREFIX:
        text = f"{shown} is not bridged: of this prefix only what Codex asks for is"
        return ClientError("not_supported", text)
    path = raw_path.removeprefix(prefix) or "/"
    segments = [unquote(segment) for segment in path.split("/")[1:]]
    # `/v1%2F..%2Fx` matches as `/v1/../x`, and hides from `segments` what it leads to.
    plain = raw_path.startswith(prefix) and path.startswith("/")
    if not plain or any("/" in s or s in (".", "..") or _STRANGE.search(s) for s in segments):
        return ClientError("invalid_request", "the path cannot be passed on as it is")
    if (why := _NOT_PASSED.get(segments[0])) is not None:
        return ClientError("not_supported", f"{shown} is not bridged: {why}")
    return PassedCall(method, path, takes_body=_has_body(inbound))


def route_passed(call: PassedCall, owner: str | None, pool: Pool) -> CallRoute:
    """Say where a call goes.

    To the account that owns its session, else to the first usable one, as configured. Accounts
    with an API key come before the others: plans serve turns, and little besides.

    Args:
        call: the call.
        owner: the account that owns the session; None if the headers name none that has one.
        pool: the accounts.
    """
    plans = {account.name for account in pool.accounts if account.kind != "api_key"}

    def rank(name: str) -> tuple[bool, bool]:
        return name in plans, name != owner

    names = sorted(listed_accounts(pool), key=rank)
    return route_in_order(names, pool, asks=call.reads)


def blames(failure: Failure) -> bool:
    """Whether a refusal says something of the account as a whole.

    Its limits for embeddings, or what its key may not do, do not concern its turns.
    """
    told = failure.code is not None and failure.code in failure.row.codes
    return told and failure.row.reason in _WHOLE_ACCOUNT


def _has_body(inbound: Sequence[Header]) -> bool:
    """Whether a request has a body (RFC 9112 section 6)."""
    lines = {name.lower(): value.strip() for name, value in inbound}
    return "transfer-encoding" in lines or lines.get("content-length", "0").strip("0") != ""
