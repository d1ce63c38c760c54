"""What every turn is handed: the running gateway, and the client's request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from codexlb_cli.config.load import Settings
from codexlb_cli.core.affinity import Evidence
from codexlb_cli.core.frames import Body
from codexlb_cli.core.headers import Header
from codexlb_cli.gateway.accounts import Accounts
from codexlb_cli.gateway.keys import Keys
from codexlb_cli.gateway.lanes import Lanes


@dataclass(slots=True, repr=False)
class TurnRequest:
    """A client's request for one turn.

    Attributes:
        headers: as received, values decoded as ISO-8859-1.
        body: the parsed body.
        evidence: its affinity evidence.
        request_id: the value of `x-request-id`.
    """

    headers: list[Header]
    body: Body
    evidence: Evidence
    request_id: str

    @property
    def model(self) -> str | None:
        """The model; None if the body names none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None


@dataclass(slots=True)
class Services:
    """What a turn needs of the running gateway; time, chance and storage are passed in."""

    accounts: Accounts
    keys: Keys
    lanes: Lanes
    now: Callable[[], float] = time.time
    draw: Callable[[], float] = field(default=lambda: 1.0)
    warn: Callable[[str], None] = field(default=lambda _: None)

    @property
    def settings(self) -> Settings:
        """The settings that are in force."""
        return self.accounts.settings
