"""What happens to a turn and what it does: the words between `turn` and its performer."""

from __future__ import annotations

from dataclasses import dataclass

from codexlb_cli.core.accounts import Evidence
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import CloseRow
from codexlb_cli.core.failures import Failure, Fault
from codexlb_cli.core.reconnect import Strength


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What is known of a turn before it starts.

    Attributes:
        strength: of the key that decides.
        owner: the account that owns the key, or that a parallel first turn claimed; None if none.
        bound: whether a hard key was sent to its owner before. Until then it moves freely.
        portable: whether a hard turn may move when its account fails.
        replayable: False for side effects of hosted tools, and for keys that just gave up.
        anchored: whether the turn lives on one socket only (`store: false`).
        owner_failed: whether the owner counts as failed for this key.
        failures: how many turns of the key failed in a row.
        asks: whether the accounts are asked, one by one, for a response that nobody is known to
            store: a not-found has no side effect.
        hint: the account to ask first; None if nothing points to one.
        resends: whether the turn continues a response, and its client sends its full input when
            told that this is gone. WebSocket clients do so: Codex, the Agents SDK.
        deadline: when the first event is due at the latest, seconds since the epoch.
    """

    strength: Strength = Strength.NONE
    owner: str | None = None
    bound: bool = False
    portable: bool = True
    replayable: bool = True
    anchored: bool = False
    owner_failed: bool = False
    failures: int = 0
    asks: bool = False
    hint: str | None = None
    resends: bool = False
    deadline: float = float("inf")

    @property
    def repeatable(self) -> bool:
        """Whether the frame may be sent again at all; a response on a socket dies with it."""
        return self.replayable and not self.anchored

    @property
    def is_hard(self) -> bool:
        """Whether the turn may go to its owner alone. A key that is not bound yet moves freely."""
        return self.strength is Strength.HARD and self.bound


@dataclass(frozen=True, slots=True)
class Begin:
    """The turn starts."""


@dataclass(frozen=True, slots=True)
class RoomFree:
    """An account that was full takes another turn."""


@dataclass(frozen=True, slots=True)
class QueueFull:
    """Too many turns wait for the same account already: `waiting` of them."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A socket to the account that was dialled is ready for the frame."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """The account that was dialled could not be reached, or refused the upgrade."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Refused:
    """An error frame came before any response event."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Closed:
    """The socket is gone: by `row`, shown to people as `label`.

    `sent` is False if that was noticed before the frame could be sent.
    """

    row: CloseRow
    label: str
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Silent:
    """No response event came in time; the socket was retired. `row` is that of a lost transport."""

    row: CloseRow


@dataclass(frozen=True, slots=True)
class Responded:
    """The first response event came: from here on the frame is never sent again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal event came."""


@dataclass(frozen=True, slots=True)
class BoundElsewhere:
    """While this turn was dialling, a parallel first turn bound the key to `owner`."""

    owner: str


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """The time for the first event is used up, over all attempts, waiting and queueing."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The account's login was refreshed: it has another token than the one that was refused."""


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """The account's login was not refreshed.

    Attributes:
        refusal: why the account must sign in again, a code; None if the issuer could not tell:
            that blames nobody.
    """

    refusal: str | None = None


RefreshOutcome = Refreshed | RefreshFailed

Event = (
    Begin
    | RoomFree
    | QueueFull
    | Opened
    | DialFailed
    | Refused
    | Closed
    | Silent
    | Responded
    | Finished
    | BoundElsewhere
    | OutOfTime
    | Refreshed
    | RefreshFailed
)


_NO_TROUBLE = frozenset({Fault.REQUEST, Fault.CLIENT_STATE, Fault.NO_WEBSOCKET})


def trouble(event: Event) -> str | None:
    """Return the reason code of what went wrong at an account; None if that was not its trouble."""
    match event:
        case DialFailed(failure) | Refused(failure):
            return None if failure.row.fault in _NO_TROUBLE else failure.evidence.reason
        case Closed(row) | Silent(row):
            return row.reason
    return None


@dataclass(frozen=True, slots=True)
class Dial:
    """Wait, then get a socket to `account`: an idle one of the lane, or a new one."""

    account: str
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Queue:
    """Wait until one of these accounts takes another turn."""

    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Get a new token for the login of `account`."""

    account: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send the turn's frame on the socket that was opened."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Blame:
    """Tell what was learned about an account."""

    account: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Answer:
    """End the turn with an error of ours."""

    error: ClientError


@dataclass(frozen=True, slots=True)
class PassOn:
    """End the turn with the upstream's own error, unchanged."""

    failure: Failure


Action = Queue | Dial | Refresh | Send | Blame | Answer | PassOn
