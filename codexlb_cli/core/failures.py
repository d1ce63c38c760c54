"""The error table: what an upstream's refusal means: of an upgrade, of a POST, in an error frame.

`parse` turns what came over the wire into a `Failure`; `classify` finds its row. A row says whom
to blame; `turn` decides where to go. Only account evidence changes an account's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum

from codexlb_cli.core.accounts import Effect, Evidence
from codexlb_cli.core.amounts import duration, moment, number
from codexlb_cli.core.client_errors import RATE_LIMIT_COOLDOWN_SECONDS
from codexlb_cli.core.tokens import PERMANENT_REFUSALS

_AMOUNT = r"\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|sec|s|minutes?|min|m|hours?|h|days?|d)"
_TRY_AGAIN = re.compile(rf"try again in ((?:{_AMOUNT}\s*)+)(?![a-z0-9])", re.IGNORECASE)


class Fault(StrEnum):
    """Whose fault an error is."""

    CREDENTIAL = "credential"
    FORBIDDEN = "forbidden"
    LIMIT = "limit"
    UPSTREAM = "upstream"
    NETWORK = "network"
    ISSUER = "issuer"
    """Who gave the login could not be asked for a new token."""
    NO_WEBSOCKET = "no_websocket"
    SOCKET = "socket"
    CLIENT_STATE = "client_state"
    TURN = "turn"
    """This account does not take this turn: it lacks the model, or may not run it."""
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the error table; a failure matches by code first, then by status.

    Attributes:
        reason: the stable reason code.
        fault: whose fault it is.
        effect: what it does to the account.
        codes: values of the error's `code` or `type`.
        statuses: HTTP statuses, of an upgrade, of a POST or inside an error frame.
        unnamed_seconds: how long the account is avoided if the upstream named no time.
        action: what happens, for a person.
    """

    reason: str
    fault: Fault
    effect: Effect
    codes: tuple[str, ...]
    statuses: tuple[int, ...]
    action: str
    unnamed_seconds: float = 0.0


ERRORS: tuple[ErrorRow, ...] = (
    ErrorRow(
        "connection_expired",
        Fault.SOCKET,
        Effect.NEUTRAL,
        ("websocket_connection_limit_reached",),
        (),
        "a new socket on the same account, one replay",
    ),
    ErrorRow(
        "previous_response_not_found",
        Fault.CLIENT_STATE,
        Effect.NEUTRAL,
        ("previous_response_not_found",),
        (),
        "passed on under exactly that code",
    ),
    ErrorRow(
        "usage_limit_reached",
        Fault.LIMIT,
        Effect.LIMITED,
        ("usage_limit_reached", "insufficient_quota", "usage_not_included"),
        (),
        "limited until resets_at; soft and portable session turns move on",
        unnamed_seconds=RATE_LIMIT_COOLDOWN_SECONDS,
    ),
    ErrorRow(
        "rate_limit_exceeded",
        Fault.LIMIT,
        Effect.LIMITED,
        ("rate_limit_exceeded",),
        (),
        "limited until Retry-After or resets_at; soft and portable session turns move on",
        unnamed_seconds=RATE_LIMIT_COOLDOWN_SECONDS,
    ),
    ErrorRow(
        "model_unavailable",
        Fault.TURN,
        Effect.NEUTRAL,
        ("model_not_found", "model_not_available", "unsupported_model"),
        (),
        "another account; the upstream's own error if there is none",
    ),
    ErrorRow(
        "credentials_rejected",
        Fault.CREDENTIAL,
        Effect.LOGIN,
        ("token_expired", "invalid_api_key", "token_invalidated", "token_revoked"),
        (401,),
        "a login is refreshed once, a second time the account needs a new one; soft and portable "
        "session turns move on",
    ),
    ErrorRow(
        "upstream_overloaded",
        Fault.UPSTREAM,
        Effect.NEUTRAL,
        ("overloaded", "server_is_overloaded", "slow_down", "server_error"),
        (500, 502, 503, 504),
        "at a dial the next account, hard turns their owner twice; after it one replay",
    ),
    ErrorRow(
        "rate_limit_exceeded",
        Fault.LIMIT,
        Effect.LIMITED,
        (),
        (429,),
        "as rate_limit_exceeded",
        unnamed_seconds=RATE_LIMIT_COOLDOWN_SECONDS,
    ),
    ErrorRow(
        "forbidden",
        Fault.FORBIDDEN,
        Effect.REFUSED,
        (),
        (403,),
        "at a dial or a POST another account, hard turns their owner once more after 3 s; cooled",
    ),
    ErrorRow(
        "forbidden_turn",
        Fault.TURN,
        Effect.NEUTRAL,
        (),
        (403,),
        "in an error frame: another account; the upstream's own error if there is none",
    ),
    ErrorRow(
        "no_websocket",
        Fault.NO_WEBSOCKET,
        Effect.NO_WEBSOCKET,
        (),
        (404, 426),
        'at an upgrade: HTTP for 10 minutes; with transport = "websocket" another account',
    ),
    ErrorRow(
        "request_rejected",
        Fault.REQUEST,
        Effect.NEUTRAL,
        (),
        (),
        "passed on unchanged, never retried, never blamed on the account",
    ),
)
"""First match wins, codes before statuses; the last row takes every other error."""

DIAL_FAILED = ErrorRow(
    "dial_failed",
    Fault.NETWORK,
    Effect.NEUTRAL,
    (),
    (),
    "refused, DNS, TLS or timeout: blames nobody, the next account",
)

LOGIN_REFUSED = ErrorRow(
    "login_refused",
    Fault.CREDENTIAL,
    Effect.LOGIN,
    (*sorted(PERMANENT_REFUSALS), "no_refresh_token", "not_signed_in"),
    (),
    "a token could not be refreshed, for good: as credentials_rejected",
)
REFRESH_FAILED = ErrorRow(
    "refresh_failed",
    Fault.ISSUER,
    Effect.NEUTRAL,
    (),
    (),
    "a token could not be refreshed now: blames nobody; soft turns move on, hard ones end",
)
CONNECTION_BROKE = ErrorRow(
    "connection_broke",
    Fault.NETWORK,
    Effect.NEUTRAL,
    (),
    (),
    "after a call over HTTP was sent that is not to be done twice: never sent again, blames nobody",
)
OUR_FINDINGS = (DIAL_FAILED, CONNECTION_BROKE, LOGIN_REFUSED, REFRESH_FAILED)
"""What no upstream says: it could not be asked, or had to be asked with another token."""

_REQUEST_REJECTED = ERRORS[-1]
_UPSTREAM = next(row for row in ERRORS if row.fault is Fault.UPSTREAM)
MODEL_UNAVAILABLE = next(row for row in ERRORS if row.reason == "model_unavailable")
_SOONEST_SECONDS = 1.0
"""What "at once" means for an account that has just refused a turn."""
_UPGRADE_ONLY = frozenset({Fault.NO_WEBSOCKET})
_NOT_IN_A_FRAME = frozenset({Fault.FORBIDDEN, Fault.NO_WEBSOCKET})


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """An upstream's refusal: of an upgrade or a POST, or an error frame before a response event.

    Attributes:
        row: its row of the error table.
        status: the HTTP status; None where there was none.
        code: the upstream's code; None if it gave none.
        retry_at: when the upstream says that it may be tried again; None if it named no time.
        error: the upstream's own error object, for passing on.
        headers: the upstream's headers, names in lower case.
    """

    row: ErrorRow
    status: int | None = None
    code: str | None = None
    retry_at: float | None = None
    error: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, object] = field(default_factory=dict)

    @property
    def spares_socket(self) -> bool:
        """Whether the socket that carried it may serve the next turn: only this one was refused."""
        return self.row.fault in (Fault.REQUEST, Fault.CLIENT_STATE, Fault.TURN)

    @property
    def evidence(self) -> Evidence:
        """What the account is blamed for."""
        reason = self.code if self.code in self.row.codes and self.code else self.row.reason
        if self.row.effect is not Effect.LIMITED:
            return Evidence(self.row.effect, reason)
        if self.retry_at is None:
            return Evidence(Effect.COOLED, reason, seconds=self.row.unnamed_seconds)
        return Evidence(Effect.LIMITED, reason, until=self.retry_at)

    def __repr__(self) -> str:
        """Show what may be logged: an upstream's message may quote the request."""
        return f"Failure({self.row.reason!r}, status={self.status}, code={self.code!r})"


DIAL_FAILURE = Failure(DIAL_FAILED)
BROKEN_CALL = Failure(CONNECTION_BROKE)


def not_refreshed(refusal: str | None) -> Failure:
    """Return why an account has no token that works.

    Args:
        refusal: why it must sign in again, a code; None if its issuer could not tell.
    """
    return Failure(REFRESH_FAILED) if refusal is None else Failure(LOGIN_REFUSED, code=refusal)


def parse(
    status: int | None,
    body: object,
    headers: Mapping[str, object],
    now: float,
    *,
    handshake: bool,
    answer: bool = False,
) -> Failure:
    """Turn an upstream's refusal into a failure.

    Args:
        status: the HTTP status of the upgrade or the POST, or the `status` of an error frame.
        body: the decoded JSON body or frame; anything that is no object counts as empty.
        headers: of the answer, or the frame's `headers`.
        now: seconds since the epoch.
        handshake: whether an upgrade was refused; 403, 404 and 426 mean the request's own fault
            when they come inside an error frame.
        answer: whether it is the answer to a POST instead: there a 403 is about the account, as
            at an upgrade, and a redirect is not followed; 404 and 426 are about the request.
    """
    error = error_within(body)
    within = error.get("headers")
    told = {**(within if isinstance(within, Mapping) else {}), **headers}
    lower = {str(name).lower(): value for name, value in told.items()}
    code, kind = _text(error.get("code")), _text(error.get("type"))
    return Failure(
        row=_row(status, (code, kind), handshake=handshake, answer=answer),
        status=status,
        code=code or kind,
        retry_at=_retry_at(error, lower, now),
        error=error,
        headers=lower,
    )


def refusal(frame: Mapping[str, object], now: float, *, answer: bool = False) -> Failure:
    """Turn an error frame into a failure.

    Args:
        frame: the frame; its `status` may be called `status_code`, as Codex reads it too.
        now: seconds since the epoch.
        answer: whether the frame tells the answer to a POST.
    """
    status = frame.get("status", frame.get("status_code"))
    headers = frame.get("headers")
    return parse(
        status if isinstance(status, int) and not isinstance(status, bool) else None,
        frame,
        headers if isinstance(headers, Mapping) else {},
        now,
        handshake=False,
        answer=answer,
    )


def is_final(frame: Mapping[str, object]) -> bool:
    """Whether an error event is about the request itself, so that trying again cannot mend it."""
    failure = refusal(frame, 0.0)
    return failure.code is not None and failure.row.fault is Fault.REQUEST


def _row(
    status: int | None, names: tuple[str | None, ...], *, handshake: bool, answer: bool
) -> ErrorRow:
    for row in ERRORS:
        if any(name in row.codes for name in names if name):
            # "server_error" as a mere type goes with every 4xx that some upstreams send.
            if row.fault is Fault.UPSTREAM and status is not None and status < 500:
                continue
            return row
    elsewhere = _UPGRADE_ONLY if answer else _NOT_IN_A_FRAME
    for row in ERRORS:
        if status in row.statuses and (handshake or row.fault not in elsewhere):
            return row
    # A redirect is not followed, it would carry the credentials elsewhere.
    if status is not None and (status >= 500 or ((handshake or answer) and status < 400)):
        return _UPSTREAM
    return _REQUEST_REJECTED


def error_within(body: object) -> Mapping[str, object]:
    """Return the error object of a body, a frame or an event; empty if there is none.

    In an HTTP stream the error's members are the event's own, and `type` is the event's type, not
    the error's.
    """
    if not isinstance(body, Mapping):
        return {}
    nested = body.get("error")
    if isinstance(nested, Mapping):
        return nested
    if isinstance(nested, str):
        return {"message": nested}
    flat = {k: v for k, v in body.items() if k in ("message", "code", "param", "type")}
    if flat.get("type") == "error":
        del flat["type"]
    return flat


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _retry_at(
    error: Mapping[str, object], headers: Mapping[str, object], now: float
) -> float | None:
    resets_at = moment(error.get("resets_at"))
    if resets_at is not None and resets_at > now:
        return resets_at
    seconds = number(error.get("resets_in_seconds", error.get("retry_after")))
    milliseconds = number(headers.get("retry-after-ms"))
    if seconds is None and milliseconds is not None:
        seconds = milliseconds / 1000
    if seconds is None:
        seconds = _retry_after(headers.get("retry-after"), now)
    if seconds is None:
        seconds = _try_again_in(_text(error.get("message")) or "")
    if seconds is None:
        seconds = _used_up_for(headers)
    if seconds is None:
        return _window_end(headers, now)
    return None if seconds < 0 else now + (seconds or _SOONEST_SECONDS)


def _window_end(headers: Mapping[str, object], now: float) -> float | None:
    """Read when the used-up usage windows of a ChatGPT plan reset: the last of them."""
    ends = [
        end
        for window in ("primary", "secondary")
        if (number(headers.get(f"x-codex-{window}-used-percent")) or 0) >= 100
        and (end := moment(headers.get(f"x-codex-{window}-reset-at"))) is not None
    ]
    return max((end for end in ends if end > now), default=None)


def _used_up_for(headers: Mapping[str, object]) -> float | None:
    """Read how long an API key's own limits are used up: the longest window with nothing left."""
    waits = [
        duration(str(headers.get(f"x-ratelimit-reset-{what}", "")))
        for what in ("requests", "tokens")
        if number(headers.get(f"x-ratelimit-remaining-{what}")) == 0
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _retry_after(value: object, now: float) -> float | None:
    """Seconds or an HTTP-date (RFC 9110 section 10.2.3)."""
    seconds = number(value)
    if seconds is not None or not isinstance(value, str):
        return seconds
    try:
        date = parsedate_to_datetime(value)
        # The obsolete asctime form names no zone; every HTTP-date is UTC (RFC 9110 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _try_again_in(message: str) -> float | None:
    """Read "try again in 1.2s", "6m0s", "20 ms" out of an error's message."""
    found = _TRY_AGAIN.search(message)
    return None if found is None else duration(found[1])
