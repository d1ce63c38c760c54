"""What one turn used, as it is remembered: numbers and names, no prompt, no header, no key.

What the upstream did not say is unknown, which is not zero: None all the way to the person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.frames import TRAILING_EVENT

CLIENT_LEFT = "client_left"
"""The outcome of a turn whose client went away before its end."""
NO_ERRORS = frozenset({"completed", "incomplete", CLIENT_LEFT})
"""Outcomes that nobody failed at: an answer came, or the client chose to end the turn."""

MOST_TOKENS = 10**12
"""A larger number is nonsense, and would make sums overflow."""
LONGEST_SESSION = 256
LONGEST_NAME = 128
"""Names that a client or an upstream made up are cut here."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a turn; None where the upstream did not say.

    Attributes:
        input: of the request, those from the cache included.
        cached: those that the upstream had in its cache.
        output: of the answer, reasoning included.
        reasoning: those that the model thought with.
        total: as the upstream counts.
    """

    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None
    total: int | None = None


UNKNOWN = Tokens()


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn as it is remembered.

    Attributes:
        ended_at: seconds since the epoch.
        account: the one that served or was tried last; None if none was.
        model: the one that the client asked for, else the one that answered; None if unknown.
        lane: what successive turns of one conversation have in common.
        status: what the client was told; None if it left before.
        outcome: `completed`, `incomplete`, `failed`, `client_left`, or an error code.
        attempts: how many `response.create` were sent.
        tokens: what it used.
        first_event_ms: until the first response event; None if there was none.
        total_ms: until the end.
        service_tier: that the upstream says it served with; None if it does not say.
    """

    ended_at: float
    account: str | None
    model: str | None
    lane: Key
    status: int | None
    outcome: str
    attempts: int
    tokens: Tokens = field(default=UNKNOWN)
    first_event_ms: int | None = None
    total_ms: int = 0
    service_tier: str | None = None

    @property
    def session(self) -> str:
        """The lane's value as it is stored: a long one shortened, but still its own."""
        value = self.lane.value
        if len(value) <= LONGEST_SESSION:
            return value
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8)
        return f"{value[: LONGEST_SESSION - 19]}...{digest.hexdigest()}"

    @property
    def is_error(self) -> bool:
        """Whether the turn counts as an error."""
        return self.outcome not in NO_ERRORS


def response_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `response` of a terminal event; an empty one if it has none."""
    response = event.get("response")
    return response if isinstance(response, Mapping) else {}


def tokens_in(response: Mapping[str, Any]) -> Tokens:
    """Read the `usage` of a response; a part larger than its whole says nothing."""
    usage = _mapping(response.get("usage"))
    taken, given = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    cached = _mapping(usage.get("input_tokens_details")).get("cached_tokens")
    reasoning = _mapping(usage.get("output_tokens_details")).get("reasoning_tokens")
    return Tokens(
        input=taken,
        cached=_part(cached, taken),
        output=given,
        reasoning=_part(reasoning, given),
        total=_count(usage.get("total_tokens")),
    )


def named(value: object) -> str | None:
    """Return a name that came from outside as it may be stored; None if it is none."""
    if not isinstance(value, str) or not value:
        return None
    return value.encode("utf-8", "replace").decode()[:LONGEST_NAME]


def outcome_of(ended_with: str | None, error: ClientError | Failure | None) -> str | None:
    """Return the outcome of a turn; None if it came to no end.

    Args:
        ended_with: the type of the terminal event; None if the upstream sent none.
        error: what it ended with otherwise; None if it did not.
    """
    if ended_with is not None:
        # Undocumented, and the same as `response.completed` where an upstream sends it alone.
        kind = "response.completed" if ended_with == TRAILING_EVENT else ended_with
        return "upstream_error" if kind == "error" else kind.removeprefix("response.")
    return None if error is None else named(error.code) or "upstream_error"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _part(value: object, whole: int | None) -> int | None:
    part = _count(value)
    return None if part is not None and whole is not None and part > whole else part
