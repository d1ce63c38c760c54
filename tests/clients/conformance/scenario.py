"""What a person does with a client, what the upstream does, and what the client should see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from codexlb_cli.mock_upstream.script import AnyRule

Transport = Literal["HTTP", "WebSocket"]


@dataclass(frozen=True)
class Scenario:
    """One row of the table: played against the upstream itself, and through the gateway.

    Attributes:
        client: whose environment and driver; a key of `CLIENTS`.
        transport: how the client is to speak.
        name: what happens, in the words of the table.
        action: what the driver does; one of its functions.
        options: arguments of the action.
        rules: how the upstream behaves.
        sees: what the client must see of the upstream itself, by dotted path; so that a scenario
            that does not come about is noticed.
        hidden: the gateway hides what the upstream does: the client is to see what it would see of
            an upstream that behaves by these rules instead.
        differs: what it sees through the gateway instead, by dotted path; all else is the same.
        why: the reason for `hidden` or `differs`, in the words of the table.
        accounts: the gateway's accounts.
        away: whether nobody listens at the upstream's address.
        login: whether the client signs in with a ChatGPT login instead of a key.
        config: further TOML for the gateway.
    """

    client: str
    transport: Transport
    name: str
    action: str
    sees: Mapping[str, object]
    options: Mapping[str, object] = field(default_factory=dict)
    rules: tuple[AnyRule, ...] = ()
    hidden: tuple[AnyRule, ...] | None = None
    differs: Mapping[str, object] = field(default_factory=dict)
    why: str = ""
    accounts: tuple[str, ...] = ("work",)
    away: bool = False
    login: bool = False
    config: str = ""

    def __post_init__(self) -> None:
        if (bool(self.differs) or self.hidden is not None) != bool(self.why):
            raise ValueError(f"{self.id}: a difference needs a reason, and a reason a difference")

    @property
    def id(self) -> str:
        """Its name among the tests."""
        return f"{self.client} / {self.transport} / {self.name}"


def at(document: Any, path: str) -> Any:
    """Return what stands at a dotted path, such as `events.-1.type`.

    Raises:
        LookupError: nothing does.
    """
    for step in path.split("."):
        document = document[int(step) if isinstance(document, list) else step]
    return document


ABSENT = "(absent)"
"""As a value of `differs`: nothing stands there."""


def replace_at(document: Any, path: str, value: object) -> None:
    """Put a value where a dotted path leads; with `+` as last step, items at the end of a list.

    Raises:
        LookupError: the path ends earlier.
    """
    parent, _, last = path.rpartition(".")
    inner = at(document, parent) if parent else document
    if last == "+":
        inner.extend(value)
    elif value == ABSENT:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
