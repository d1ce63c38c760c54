"""What a turn needs of an upstream socket, whatever it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from codexlb_cli.core.closes import NO_CLOSE_FRAME, CloseRow, ReconnectPolicy, close_row
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.handshake import Handshake
from codexlb_cli.core.http_request import HttpRequest

PING_SECONDS = 20.0
PONG_SECONDS = 20.0
"""A ping every 20 s; no pong for 20 s more, while we are reading, ends a socket."""

REFUSAL_BYTES = 256 * 1024
REFUSAL_SECONDS = 2.0
"""Of an answer over HTTP: a refusal's status is what counts, so its body is not waited for any
longer."""


class DialError(Exception):
    """An account could not be dialled; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(repr(failure))
        self.failure = failure


class SocketGone(Exception):
    """The socket is closed.

    Attributes:
        code: the close code that was received; 1006 without a close frame; None if we ended it.
        row: what ended it, where it is not the received code that decides.
        label: the cause, for people.
    """

    def __init__(self, label: str, *, code: int | None = None, row: CloseRow | None = None) -> None:
        super().__init__(label)
        self.label = label
        self._code = code
        self._row = row

    def close_row(self, policy: ReconnectPolicy) -> CloseRow:
        """Return the row of the close table for this end."""
        if self._row is not None:
            return self._row
        return close_row(NO_CLOSE_FRAME if self._code is None else self._code, policy)


@dataclass(frozen=True, slots=True)
class DialOptions:
    """How to dial.

    Attributes:
        timeout_seconds: for DNS, TCP, TLS and the upgrade together.
        largest_event_bytes: the biggest message that is accepted.
    """

    timeout_seconds: float
    largest_event_bytes: int


class Socket(Protocol):
    """One connection to one account, for one turn at a time: a WebSocket, or one that acts like it.

    Attributes:
        account: the account's name.
        opened_at: loop time of the upgrade.
        response_headers: of the upstream's answer.
        refused: whether that answer is a refusal, told as an error frame.
        serves_one_turn: whether it ends with its turn instead of joining a lane.
    """

    account: str
    opened_at: float
    response_headers: list[tuple[str, str]]
    refused: bool
    serves_one_turn: bool

    @property
    def open(self) -> bool:
        """Whether a frame can be sent."""

    async def send(self, frame: str) -> None:
        """Send a text frame.

        Raises:
            SocketGone: the socket is closed.
        """

    async def receive(self) -> str:
        """Return the next event's text.

        Raises:
            SocketGone: the socket is closed, or a binary frame came (a protocol fault).
        """

    def end(self, label: str, row: CloseRow | None = None) -> None:
        """End the socket at once, without a closing handshake."""

    async def close(self) -> None:
        """Close politely."""


Dialler = Callable[[Handshake, DialOptions, Callable[[], float]], Awaitable[Socket]]
"""Opens a socket with exactly the lines of a handshake; raises `DialError`."""
Connector = Callable[[HttpRequest, DialOptions], Awaitable[Socket]]
"""Opens a connection for one POST; raises `DialError`."""
