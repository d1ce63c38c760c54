"""What a client is told when a turn cannot be served: one code, one status, one envelope.

The codes are a contract; see docs/http.md. Retry-After is an integer and 60 at most: Codex
honours any value without a cap, the OpenAI SDKs stop retrying above 120.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from codexlb_cli.core.accounts import Availability
from codexlb_cli.core.selection import Pool

LONGEST_RETRY_AFTER_SECONDS = 60
RATE_LIMIT_COOLDOWN_SECONDS = 10.0
"""How long an account is avoided after a 429 that named no time; also what the client is told."""

STATUSES: dict[str, int] = {
    "no_accounts": 503,
    "owner_unavailable": 503,
    "upstream_unavailable": 503,
    "upstream_closed": 502,
    "upstream_silent": 504,
    "upstream_protocol_error": 502,
    "rate_limit_exceeded": 429,
    "usage_limit_reached": 429,
    "request_too_large": 400,
    "previous_response_not_found": 400,
    "continuity_owner_conflict": 400,
    "model_unavailable": 400,
    "invalid_request": 400,
    "invalid_header": 400,
    "invalid_stream_id": 400,
    "websocket_stream_limit_reached": 400,
    "response_not_found": 400,
    "queue_full": 429,
    "forbidden_host": 403,
    "forbidden_origin": 403,
    "not_supported": 501,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "head_too_large": 431,
    "upgrade_required": 426,
    "internal_error": 500,
}
"""The status of each of our codes before the first event."""


NOT_RETRIED = frozenset(
    {"not_supported", "no_accounts", "owner_unavailable", "usage_limit_reached", "upstream_closed"}
)
"""Codes that trying again at once cannot mend: the OpenAI SDKs obey `x-should-retry: false`."""

UPSTREAM_FAILURES = frozenset(
    {"upstream_unavailable", "upstream_closed", "upstream_silent", "upstream_protocol_error"}
)
"""The codes of turns that the upstream failed: they count against the owner of a session."""


def error_type(code: str, status: int) -> str:
    """Return the envelope's `type` for one of our codes."""
    if code == "usage_limit_reached":
        return code
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 and status != 501 else "invalid_request_error"


@dataclass(frozen=True, slots=True)
class ClientError:
    """An error as a client sees it, before or after the first event.

    Attributes:
        code: one of `STATUSES`.
        message: one sentence for a person, without secrets.
        param: the field of the request that is at fault; None if none is.
        retry_after: whole seconds; None if retrying is pointless or the client's own affair.
        resets_at: when a usage limit ends, seconds since the epoch.
    """

    code: str
    message: str
    param: str | None = None
    retry_after: int | None = None
    resets_at: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status before the first event."""
        return STATUSES[self.code]

    def envelope(self) -> dict[str, object]:
        """Return the body: `{"error": {"message", "type", "code", "param"}}`, always."""
        error: dict[str, object] = {
            "message": self.message,
            "type": error_type(self.code, self.status),
            "code": self.code,
            "param": self.param,
        }
        if self.resets_at is not None:
            error["resets_at"] = self.resets_at
        return {"error": error}

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that belong to the error."""
        lines = []
        if self.retry_after is not None:
            lines.append(("retry-after", str(self.retry_after)))
        if self.code in NOT_RETRIED:
            lines.append(("x-should-retry", "false"))
        return lines


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why no account can serve a turn: what rule 4a of the error table is decided from.

    Attributes:
        candidates: the accounts that might have served: the owner of a hard turn, else all.
        owner: the hard owner; None for soft and unkeyed turns.
        refused_until: times that this turn learned, by account, for refusals that named none.
    """

    candidates: Sequence[str]
    owner: str | None = None
    refused_until: dict[str, float] = field(default_factory=dict)


def nobody_can_serve(shortage: Shortage, pool: Pool) -> ClientError:
    """Say to the client that no account can serve, and until when."""
    times = [t for name in shortage.candidates if (t := _free_again(name, shortage, pool))]
    if times:
        return _limited(min(times), pool.now)
    if shortage.owner is not None:
        return owner_unavailable(shortage.owner, pool)
    return _model_not_taken(pool) or no_accounts(pool)


def _model_not_taken(pool: Pool) -> ClientError | None:
    """Say that the configuration keeps the model from every enabled account, if it does."""
    enabled = [account.name for account in pool.accounts if account.enabled]
    if not enabled or not pool.not_taking.issuperset(enabled):
        return None
    message = "`models` and `not_models` of the accounts leave none that takes this model"
    return ClientError("model_unavailable", message, param="model")


def owner_unavailable(owner: str, pool: Pool, *, what: str = "this conversation") -> ClientError:
    """Say that the account that owns a conversation needs a login, is disabled or is gone.

    Args:
        owner: the account.
        pool: the accounts.
        what: what it owns.
    """
    known = pool.standing_of(owner)
    if known is None:
        why = "is no longer configured"
    elif known.state is Availability.DISABLED:
        why = f"is disabled; enable it with: codexlb accounts enable {owner}"
    elif known.reason == "credential_missing":
        why = f"has no credential here; see: codexlb accounts show {owner}"
    else:
        why = f"must sign in again; see: codexlb accounts show {owner}"
    message = f"{what} belongs to account `{owner}`, which {why}"
    return ClientError("owner_unavailable", message)


def no_accounts(pool: Pool) -> ClientError:
    """Say that no account is configured, enabled or signed in, and what to do."""
    command = "codexlb accounts add work --api-key-env OPENAI_API_KEY"
    if not pool.accounts:
        return ClientError("no_accounts", f"no account is configured; add one with: {command}")
    if not any(account.enabled for account in pool.accounts):
        name = pool.accounts[0].name
        return ClientError(
            "no_accounts", f"no account is enabled; enable one with: codexlb accounts enable {name}"
        )
    return ClientError("no_accounts", "no account can be used; see: codexlb accounts list")


def previous_response_not_found() -> ClientError:
    """Say that nobody holds the previous response any more: the client sends its full input."""
    return ClientError(
        "previous_response_not_found",
        "no open socket holds the previous response; send the full input",
        param="previous_response_id",
    )


def queue_full(waiting: int, what: str) -> ClientError:
    """Say that too many turns wait already.

    Args:
        waiting: how many wait.
        what: for what.
    """
    return ClientError("queue_full", f"{waiting} turns wait for {what} already", retry_after=1)


def upstream_unavailable(message: str, failures: int = 0) -> ClientError:
    """Say that the transport gave up.

    Args:
        message: what happened.
        failures: how many turns of the same key failed before in a row; each doubles Retry-After.
    """
    return ClientError("upstream_unavailable", message, retry_after=min(2 ** min(failures, 5), 30))


def _free_again(name: str, shortage: Shortage, pool: Pool) -> float | None:
    if name in pool.not_taking:
        return None
    known = pool.standing_of(name)
    if known is not None and known.state is Availability.LIMITED:
        return known.until
    if known is not None and known.usable:
        return shortage.refused_until.get(name)
    return None


def _limited(until: float, now: float) -> ClientError:
    seconds = max(1, math.ceil(until - now))
    if seconds <= LONGEST_RETRY_AFTER_SECONDS:
        return ClientError(
            "rate_limit_exceeded",
            f"every account that may serve this is rate limited; try again in {seconds} s",
            retry_after=seconds,
        )
    return ClientError(
        "usage_limit_reached",
        "every account that may serve this has reached its usage limit",
        resets_at=math.ceil(until),
    )
