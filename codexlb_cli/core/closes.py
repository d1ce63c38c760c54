"""The close table: what an upstream close means for the account and for the turn.

Data only; `reconnect.after_close` runs it. `codexlb inspect rules` and `simulate close` print it.
The codes are RFC 6455 section 7.4 and the IANA registry's; 1006 stands for no close frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from codexlb_cli.core.accounts import Effect, Evidence
from codexlb_cli.core.backoff import Backoff


class SoftMove(StrEnum):
    """Where a soft or unkeyed turn goes after a close in phase `sent`."""

    SAME_ACCOUNT = "same_account"
    """The account that closed, then the others if it cannot be dialled."""
    ANOTHER_ACCOUNT = "another_account"
    """The others; the account that closed only if it is alone."""
    GIVE_UP = "give_up"


class HardMove(StrEnum):
    """What a hard turn does after a close in phase `sent`: its owner, or nobody."""

    OWNER = "owner"
    GIVE_UP = "give_up"


Wait = Literal["none", "short", "long"]
"""Which back-off precedes a reconnect to the account that closed."""


@dataclass(frozen=True, slots=True)
class CloseRow:
    """One row of the close table.

    Attributes:
        codes: ranges of close codes, both ends included.
        meaning: for a person.
        account: what the close does to the account: neutral, counted or cooled.
        soft: the move of soft and unkeyed turns.
        hard: the move of hard turns.
        wait: the back-off before the same account is dialled again.
        cooldown_seconds: how long a cooled account is avoided, before doubling.
        reason: the stable reason code.
        client_sees: the error code when this row gives up by itself.
    """

    codes: tuple[tuple[int, int], ...]
    meaning: str
    account: Literal[Effect.NEUTRAL, Effect.COUNTED, Effect.COOLED]
    soft: SoftMove
    hard: HardMove
    wait: Wait
    reason: str
    cooldown_seconds: float = 0.0
    client_sees: str = "upstream_unavailable"

    @property
    def evidence(self) -> Evidence:
        """What the account that closed is blamed for."""
        return Evidence(self.account, self.reason, seconds=self.cooldown_seconds)

    @property
    def refuses_credentials(self) -> bool:
        """Whether a token may have expired: its account is refreshed before it is dialled again."""
        return self.reason == "credentials_refused"

    def covers(self, code: int) -> bool:
        """Whether the row speaks of `code`."""
        return any(low <= code <= high for low, high in self.codes)


def _codes(*codes: int) -> tuple[tuple[int, int], ...]:
    return tuple((code, code) for code in codes)


CLOSES: tuple[CloseRow, ...] = (
    CloseRow(
        _codes(1000, 1001, 1005),
        "upstream left politely",
        Effect.NEUTRAL,
        SoftMove.SAME_ACCOUNT,
        HardMove.OWNER,
        "none",
        "upstream_going_away",
    ),
    CloseRow(
        _codes(1006),
        "transport lost",
        Effect.COUNTED,
        SoftMove.SAME_ACCOUNT,
        HardMove.OWNER,
        "none",
        "transport_lost",
    ),
    CloseRow(
        (*_codes(1002, 1003, 1004, 1007, 1010, 1015), (1016, 2999)),
        "protocol fault",
        Effect.NEUTRAL,
        SoftMove.GIVE_UP,
        HardMove.GIVE_UP,
        "none",
        "protocol_fault",
        client_sees="upstream_protocol_error",
    ),
    CloseRow(
        _codes(1008),
        "refused by policy",
        Effect.COOLED,
        SoftMove.ANOTHER_ACCOUNT,
        HardMove.OWNER,
        "short",
        "policy_violation",
        cooldown_seconds=30.0,
    ),
    CloseRow(
        _codes(3000, 3003),
        "refused credentials; a login is refreshed before the same account",
        Effect.COOLED,
        SoftMove.ANOTHER_ACCOUNT,
        HardMove.OWNER,
        "short",
        "credentials_refused",
        cooldown_seconds=30.0,
    ),
    CloseRow(
        _codes(1009),
        "our frame is too big",
        Effect.NEUTRAL,
        SoftMove.GIVE_UP,
        HardMove.GIVE_UP,
        "none",
        "message_too_big",
        # No account would take it; 413 would make Codex try six times.
        client_sees="request_too_large",
    ),
    CloseRow(
        _codes(1011),
        "internal error",
        Effect.COUNTED,
        SoftMove.ANOTHER_ACCOUNT,
        HardMove.OWNER,
        "short",
        "internal_error",
    ),
    CloseRow(
        _codes(1012),
        "service restart",
        Effect.NEUTRAL,
        SoftMove.SAME_ACCOUNT,
        HardMove.OWNER,
        "long",
        "upstream_restarting",
    ),
    CloseRow(
        _codes(1014, 3008),
        "bad gateway or timeout",
        Effect.NEUTRAL,
        SoftMove.SAME_ACCOUNT,
        HardMove.OWNER,
        "short",
        "upstream_restarting",
    ),
    CloseRow(
        _codes(1013),
        "overloaded, try later",
        Effect.COOLED,
        SoftMove.ANOTHER_ACCOUNT,
        HardMove.OWNER,
        "long",
        "try_again_later",
        cooldown_seconds=5.0,
    ),
    CloseRow(
        ((3000, 4999),),
        "private to the upstream",
        Effect.COOLED,
        SoftMove.ANOTHER_ACCOUNT,
        HardMove.OWNER,
        "short",
        "private_close",
        cooldown_seconds=30.0,
    ),
)
"""First match wins; every code from 1000 to 4999 matches a row."""

LIVENESS_TIMEOUT = CloseRow(
    (),
    "no pong seen, we closed with 1011",
    Effect.NEUTRAL,
    SoftMove.SAME_ACCOUNT,
    HardMove.OWNER,
    "none",
    "liveness_timeout",
)

# An error frame that says the socket or the upstream failed is followed as a close would be.
UPSTREAM_REFUSAL = CloseRow(
    (),
    "error frame: upstream failed",
    Effect.NEUTRAL,
    SoftMove.ANOTHER_ACCOUNT,
    HardMove.OWNER,
    "short",
    "upstream_overloaded",
)
SOCKET_EXPIRED = CloseRow(
    (),
    "error frame: this socket has expired",
    Effect.NEUTRAL,
    SoftMove.SAME_ACCOUNT,
    HardMove.OWNER,
    "none",
    "connection_expired",
)

PROTOCOL_FAULT = next(row for row in CLOSES if row.reason == "protocol_fault")

NO_CLOSE_FRAME = 1006
"""Stands for a socket that ended without a close frame (RFC 6455 section 7.1.5)."""
FIRST_CLOSE_CODE = 1000
LAST_CLOSE_CODE = 4999

# What the cooled column means for a row that was not cooled before `[reconnect.close]` said so.
CONFIGURED_COOLDOWN_SECONDS = 30.0
CONFIGURED_WAIT: Wait = "short"


@dataclass(frozen=True, slots=True)
class CloseOverride:
    """One `[reconnect.close.CODE]` table: the columns that the user changed for one code."""

    account: Literal[Effect.NEUTRAL, Effect.COUNTED, Effect.COOLED] | None = None
    soft: SoftMove | None = None
    hard: HardMove | None = None


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """The `[reconnect]` and `[affinity]` tables, as far as decisions need them.

    Attributes:
        replays: how often a turn's frame may be sent again, 0 or 1.
        backoff: the short back-off, in seconds.
        replay_hosted_tools: whether turns with side effects of hosted tools may be replayed.
        closes: changed rows by close code.
        on_account_failure: what a portable session does when its account fails.
        wait_up_to: how long a keyed turn waits for its limited owner, in seconds.
    """

    replays: int = 1
    backoff: Backoff = Backoff(0.25, 5.0)  # noqa: RUF009 - frozen
    replay_hosted_tools: bool = False
    closes: Mapping[int, CloseOverride] = field(default_factory=dict)
    on_account_failure: Literal["move", "wait", "fail"] = "move"
    wait_up_to: float = 10.0

    LONG_BACKOFF = Backoff(1.0, 5.0)

    def bound(self, wait: Wait, repetitions: int = 0) -> float:
        """Return the upper bound of the wait that a row asks for, in seconds."""
        match wait:
            case "none":
                return 0.0
            case "short":
                return self.backoff.bound(repetitions)
            case "long":
                return self.LONG_BACKOFF.bound(repetitions)


def close_row(code: int, policy: ReconnectPolicy | None = None) -> CloseRow:
    """Return the row for a received close `code`, with the user's changes for that code.

    Raises:
        ValueError: the code is not between 1000 and 4999.
    """
    row = next((row for row in CLOSES if row.covers(code)), None)
    if row is None:
        raise ValueError(f"{code} is not a close code between 1000 and 4999")
    override = policy.closes.get(code) if policy is not None else None
    return row if override is None else _changed(row, code, override)


def close_rows(policy: ReconnectPolicy) -> tuple[CloseRow, ...]:
    """Return the table in force: the user's rows first, then the built-in ones."""
    changed = tuple(close_row(code, policy) for code in sorted(policy.closes))
    return (*changed, *CLOSES, LIVENESS_TIMEOUT)


def _changed(row: CloseRow, code: int, override: CloseOverride) -> CloseRow:
    account = override.account or row.account
    cooldown = row.cooldown_seconds or CONFIGURED_COOLDOWN_SECONDS
    repeats = row.soft is not SoftMove.GIVE_UP or row.hard is not HardMove.GIVE_UP
    return replace(
        row,
        codes=_codes(code),
        account=account,
        soft=override.soft or row.soft,
        hard=override.hard or row.hard,
        wait=row.wait if repeats else CONFIGURED_WAIT,
        cooldown_seconds=cooldown if account is Effect.COOLED else 0.0,
    )
