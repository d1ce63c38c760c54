"""What one turn was refused, and what its client is told when the turn gives up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codexlb_cli.core.client_errors import (
    ClientError,
    Shortage,
    nobody_can_serve,
    owner_unavailable,
    previous_response_not_found,
    queue_full,
    upstream_unavailable,
)
from codexlb_cli.core.closes import CloseRow
from codexlb_cli.core.failures import Failure, Fault
from codexlb_cli.core.reconnect import Outcome, Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn_events import OutOfTime, QueueFull


@dataclass(slots=True)
class Refusals:
    """The refusals of one turn so far.

    Attributes:
        accounts: who refused it; they are not tried again in this turn.
        named: when each account that named a time takes turns again.
        until: the same, with our guess for those that named none.
        not_here: the last word of an account that does not take this very turn.
        transport_failed: whether something failed that another try may find mended.
        failures: how many turns of the same key failed before.
    """

    failures: int = 0
    accounts: set[str] = field(default_factory=set)
    named: dict[str, float] = field(default_factory=dict)
    until: dict[str, float] = field(default_factory=dict)
    not_here: Failure | None = None
    transport_failed: bool = False

    def note(self, account: str, failure: Failure, now: float) -> None:
        """Take a refusal."""
        row = failure.row
        if row.fault is Fault.LIMIT:
            if failure.retry_at is not None:
                self.named[account] = failure.retry_at
            self.until[account] = failure.retry_at or now + row.unnamed_seconds
        elif row.fault is Fault.TURN:
            self.not_here = failure
        elif row.fault is not Fault.CREDENTIAL:
            self.transport_failed = True
        self.accounts.add(account)

    def last_word(
        self, owner: str | None, pool: Pool, steps: Sequence[str]
    ) -> ClientError | Failure:
        """Return what the client is told when nobody is left to try.

        Args:
            owner: the owner of a hard turn, also one that it left; None if none.
            pool: the accounts.
            steps: what happened, for the message.
        """
        if self.transport_failed:
            return self.unavailable(steps)
        if self.not_here is not None:
            return self.not_here
        return self.shortage([account.name for account in pool.accounts], owner, pool)

    def shortage(self, names: Sequence[str], owner: str | None, pool: Pool) -> ClientError:
        """Return what is said when none of `names` can serve (rule 4a)."""
        return nobody_can_serve(Shortage(names, owner, self.until), pool)

    def unavailable(self, steps: Sequence[str]) -> ClientError:
        """Return what is said when the transport gave up."""
        return upstream_unavailable(told("no upstream could serve this", steps), self.failures)

    def after_close(
        self, outcome: Outcome, row: CloseRow, closed: str, pool: Pool, steps: Sequence[str]
    ) -> ClientError:
        """Return what is said when a turn gives up because its socket closed.

        Args:
            outcome: the decision to give up.
            row: the row of the close table.
            closed: the account whose socket closed.
            pool: the accounts.
            steps: what happened, for the message.
        """
        match outcome.client_sees:
            case "upstream_closed":
                message = told(f"account `{closed}` ended the response early", steps)
                return ClientError("upstream_closed", message)
            case "upstream_protocol_error":
                message = told(f"account `{closed}` broke the protocol", steps)
                return ClientError("upstream_protocol_error", message, retry_after=1)
            case "request_too_large":
                return ClientError("request_too_large", f"the upstream says: {row.meaning}")
            case "upstream_unavailable":
                return self.unavailable(steps)
            case "owner_unavailable":
                return owner_unavailable(outcome.owner or closed, pool)
            case _:
                hard = outcome.affinity is Strength.HARD
                names = [closed] if hard else [a.name for a in pool.accounts]
                return self.shortage(names, closed if hard else None, pool)


def told(message: str, steps: Sequence[str]) -> str:
    """Return a message with what happened before."""
    return f"{message}: {', '.join(steps)}" if steps else message


def no_room(event: QueueFull | OutOfTime) -> ClientError:
    """Say that no account took another turn, or that too many wait for that already."""
    if isinstance(event, QueueFull):
        return queue_full(event.waiting, "an account that takes no more of them")
    return ClientError("queue_full", "no account took another turn in time", retry_after=1)


def anchor_silent() -> ClientError:
    """Say that the socket that holds the previous response gave no sign in time."""
    message = "the upstream sent no event in time on the socket that holds this response"
    return ClientError("upstream_silent", message)


_GONE = frozenset({"owner_unavailable"})
_ELSEWHERE = _GONE | {"rate_limit_exceeded", "usage_limit_reached"}


def chain_lost(
    error: ClientError | Failure, account: str | None, pool: Pool, *, stored: bool
) -> ClientError | None:
    """Return what a client that resends is told instead of an error; None if the error stands.

    Its chain lives on one socket, or in one account, so the turn cannot move. Told that its
    previous response is gone the client sends its full input, and that turn can: a conversation
    never stays dead. What an account stores outlasts a limit of it, so that is waited for.

    Args:
        error: what the turn ended with.
        account: who holds the chain.
        pool: the accounts.
        stored: whether the account stores it; else it lives on a socket.
    """
    if not isinstance(error, ClientError):
        return None
    others = [a.name for a in pool.accounts if a.name != account]
    moves = error.code in (_GONE if stored else _ELSEWHERE) and any(
        pool.usable(name) for name in others
    )
    return previous_response_not_found() if moves or error.code == "upstream_silent" else None


def stopped(*, responding: bool) -> ClientError:
    """Return what the client of a turn is told when the gateway stops.

    Args:
        responding: whether its response had begun.
    """
    message = "the gateway is stopping"
    if responding:
        return ClientError("upstream_closed", message)
    return ClientError("upstream_unavailable", message, retry_after=1)
