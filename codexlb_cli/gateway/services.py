"""What every turn is handed: the running gateway, and the client's request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from codexlb_cli.config.load import Settings
from codexlb_cli.core.affinity import Evidence
from codexlb_cli.core.frames import Body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import model_of
from codexlb_cli.core.turn import Turn
from codexlb_cli.core.turn_events import Action, Event
from codexlb_cli.core.usage import TurnRecord
from codexlb_cli.gateway.accounts import Accounts
from codexlb_cli.gateway.keys import Keys
from codexlb_cli.gateway.lanes import Holder, Lanes
from codexlb_cli.gateway.sockets import Connector, Dialler
from codexlb_cli.store.running import Store


@dataclass(slots=True, repr=False)
class TurnRequest:
    """A client's request for one turn.

    Attributes:
        headers: as received, values decoded as ISO-8859-1.
        body: the parsed body.
        evidence: its affinity evidence.
        request_id: the value of `x-request-id`.
        holder: the lane of the client's WebSocket; None for a client that speaks HTTP.
        posted: the body's bytes, if it asks for a background response: they go upstream as they
            are; empty for a turn.
    """

    headers: list[Header]
    body: Body
    evidence: Evidence
    request_id: str
    holder: Holder | None = None
    posted: bytes = b""

    @property
    def model(self) -> str | None:
        """The model; None if the body names none."""
        return model_of(self.body)


def unrecorded(_record: TurnRecord) -> None:
    """Remember nothing."""


def nothing_to_ask() -> None:
    """Ask no account for its usage."""


async def nobody_asked() -> None:
    """Ask no account for its usage, and wait for nothing."""


def unobserved(_turn: Turn, _event: Event, _actions: Sequence[Action]) -> None:
    """Take no notice."""


@dataclass(slots=True)
class Services:
    """What a turn needs of the running gateway; time, chance, sockets and storage are passed in.

    Attributes:
        observe: is told of every decision: the turn, what happened, and what follows.
        record: is told what a turn used, when it is over.
        wants_limits: is told that the accounts' limits matter now: at every request.
        limits_at_once: asks the accounts whose limits are not known well, and waits a moment.
        instance: a text that no other gateway has.
    """

    accounts: Accounts
    keys: Keys
    lanes: Lanes
    store: Store
    dial: Dialler
    connect: Connector
    now: Callable[[], float] = time.time
    draw: Callable[[], float] = field(default=lambda: 1.0)
    observe: Callable[[Turn, Event, Sequence[Action]], None] = field(default=unobserved)
    record: Callable[[TurnRecord], None] = field(default=unrecorded)
    wants_limits: Callable[[], None] = field(default=nothing_to_ask)
    limits_at_once: Callable[[], Awaitable[None]] = field(default=nobody_asked)
    instance: str = ""

    def refresh(self) -> None:
        """Take over what the person changed since the last request."""
        if self.accounts.refresh():
            self.keys.forget()
        self.wants_limits()

    @property
    def settings(self) -> Settings:
        """The settings that are in force."""
        return self.accounts.settings
