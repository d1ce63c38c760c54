"""What trying an account found out: what the upstream said, in words and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from codexlb_cli.core.accounts import Transport
from codexlb_cli.core.failures import Failure, Fault
from codexlb_cli.core.handshake import MASKED, client_headers
from codexlb_cli.core.headers import Header
from codexlb_cli.core.limits import limits_among
from codexlb_cli.core.windows import Limits
from codexlb_cli.errors import ExitStatus

LONGEST_MESSAGE = 300
"""An upstream's message is cut here."""


class Result(StrEnum):
    """What became of the try, the worst last."""

    OK = "ok"
    NEEDS_LOGIN = "needs_login"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"

    @property
    def exit_status(self) -> ExitStatus:
        """The exit code of the command."""
        return _EXITS[self]


_EXITS = {
    Result.OK: ExitStatus.DONE,
    Result.NEEDS_LOGIN: ExitStatus.SIGN_IN,
    Result.REFUSED: ExitStatus.UPSTREAM,
    Result.UNREACHABLE: ExitStatus.UPSTREAM,
}


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each step took, in milliseconds; None where it did not happen or cannot be told.

    Attributes:
        dns: to find the host's addresses.
        tcp: to connect to one of them.
        tls: to secure the connection.
        answer: from the request to the upstream's answer. Over HTTP the first three are part of it.
        total: all of it; a refused upgrade before it included.
    """

    dns: int | None = None
    tcp: int | None = None
    tls: int | None = None
    answer: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What one try found out.

    Attributes:
        account: the account's name.
        result: the result.
        reason: a code: why it is no `ok`; None if it is.
        transport: how the upstream answered; None if it did not.
        status: the HTTP status of the answer.
        code: the upstream's own error code.
        message: the upstream's own words, or ours; bounded, secrets masked, not escaped.
        timings: how long it took.
        limits: the headers of the answer that speak of limits.
    """

    account: str
    result: Result
    reason: str | None = None
    transport: Transport | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None
    timings: Timings = Timings()
    limits: tuple[Header, ...] = ()


def accepted(
    account: str, transport: Transport, status: int, headers: Iterable[Header], timings: Timings
) -> Tried:
    """Return what is told of an account whose upstream took it."""
    return Tried(
        account,
        Result.OK,
        transport=transport,
        status=status,
        timings=timings,
        limits=limits_of(headers, None),
    )


def refused(
    account: str, transport: Transport, failure: Failure, secret: str | None, timings: Timings
) -> Tried:
    """Return what is told of an account whose upstream refused it.

    Args:
        account: its name.
        transport: how the upstream was asked.
        failure: its refusal.
        secret: the credential, which the upstream may have repeated.
        timings: how long it took.
    """
    rejected = failure.row.fault is Fault.CREDENTIAL
    message = failure.error.get("message")
    headers = [(n, v) for n, v in failure.headers.items() if isinstance(v, str)]
    return Tried(
        account,
        Result.NEEDS_LOGIN if rejected else Result.REFUSED,
        reason=failure.row.reason,
        transport=transport,
        status=failure.status,
        code=_shown(failure.code, secret),
        message=_shown(message if isinstance(message, str) else None, secret),
        timings=timings,
        limits=limits_of(headers, secret),
    )


def unreachable(account: str, reason: str, timings: Timings) -> Tried:
    """Return what is told of an account whose upstream did not answer; `reason` of `REASONS`."""
    return Tried(
        account, Result.UNREACHABLE, reason=reason, message=REASONS[reason], timings=timings
    )


def without_credential(account: str, problem: str) -> Tried:
    """Return what is told of an account that has no usable credential: nothing was sent."""
    return Tried(account, Result.NEEDS_LOGIN, reason="credential_missing", message=problem)


REASONS: Mapping[str, str] = {
    "dns": "the host has no address",
    "connection_refused": "nothing listens there",
    "timeout": "no answer in time",
    "tls": "the connection cannot be secured",
    "network": "the connection broke",
    "no_answer": "what came back is no answer to the request",
}
"""Why an upstream is unreachable, and the words for it."""


def exit_status(tried: Iterable[Tried]) -> ExitStatus:
    """Return the exit code: that of the worst result, which is the highest."""
    return max((one.result.exit_status for one in tried), default=ExitStatus.DONE)


def limits_of(headers: Iterable[Header], secret: str | None) -> tuple[Header, ...]:
    """Return the headers that speak of limits, with short values."""
    seen = limits_among(client_headers(headers))
    return tuple((name, _shown(value, secret) or "") for name, value in seen)


def limit_words(limits: Iterable[Header]) -> list[str]:
    """Return what is worth telling of limits: `5 h window 12 % used`, `tokens 900 of 1000 left`."""
    said = dict(limits)
    words = []
    for window in ("primary", "secondary"):
        used = said.get(f"x-codex-{window}-used-percent")
        if used is not None:
            length = _length(said.get(f"x-codex-{window}-window-minutes", ""))
            words.append(f"{length or window} window {used} % used")
    for what in ("requests", "tokens"):
        left = said.get(f"x-ratelimit-remaining-{what}")
        if left is not None:
            of = said.get(f"x-ratelimit-limit-{what}")
            words.append(f"{what} {left}{f' of {of}' if of else ''} left")
    return words


def window_words(limits: Limits) -> list[str]:
    """Return what is used of an account's windows: `5 h window 12 % used`."""
    words = []
    for place, window in limits.windows:
        minutes = "" if window.minutes is None else str(round(window.minutes))
        words.append(f"{_length(minutes) or place} window {window.used_percent:.0f} % used")
    return words


def _length(minutes: str) -> str | None:
    if not minutes.isascii() or not minutes.isdigit() or int(minutes) == 0:
        return None
    hours, rest = divmod(int(minutes), 60)
    if rest:
        return f"{minutes} min"
    return f"{hours} h" if hours % 24 else f"{hours // 24} day"


def _shown(text: str | None, secret: str | None) -> str | None:
    if text is None:
        return None
    masked = text.replace(secret, MASKED) if secret else text
    return masked if len(masked) <= LONGEST_MESSAGE else f"{masked[: LONGEST_MESSAGE - 3]}..."
