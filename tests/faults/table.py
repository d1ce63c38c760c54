"""What can go wrong upstream, and what it means: the tables of the rules, typed a second time.

The product has its own copy in `core`. Nothing here is taken from there, on purpose: a row that is
changed in one place only shows as a failed cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Phase = Literal["dial", "sent", "created", "streaming", "idle"]
AFTER_DIAL: tuple[Phase, ...] = ("sent", "created", "streaming", "idle")
BUSY: tuple[Phase, ...] = ("sent", "created", "streaming")

Transport = Literal["auto", "websocket", "http"]
"""How the accounts are configured to be spoken to. `auto`, the default, means a WebSocket but where
an upgrade is refused because there is none."""
Kind = Literal["close", "dial", "post", "frame"]
"""What brings a fault about: the connection itself, or the refusal of an upgrade, the answer to a
POST, an error frame or event."""


class Close(NamedTuple):
    """A row of the close table.

    Attributes:
        account: what the account is blamed for.
        seconds: how long a cooled account is avoided.
        soft: where a soft turn goes: the same account, another one, or nowhere.
        hard: whether a hard turn is sent to its owner once more.
        wait: the upper bound of the back-off before the same account, in seconds.
        alone: the same, for a soft turn that would go elsewhere and cannot.
        status: the status when it gives up by itself.
        code: the error code with it.
    """

    account: Literal["neutral", "counted", "cooled"]
    seconds: float
    soft: Literal["same", "other", "give_up"]
    hard: bool
    wait: float
    alone: float
    status: int = 503
    code: str = "upstream_unavailable"


POLITE = Close("neutral", 0, "same", True, 0, 0)
LOST = Close("counted", 0, "same", True, 0, 0)
BROKEN = Close("neutral", 0, "give_up", False, 0, 0, 502, "upstream_protocol_error")
REFUSED = Close("cooled", 30, "other", True, 0.25, 0.25)
TOO_BIG = Close("neutral", 0, "give_up", False, 0, 0, 400, "request_too_large")
FAILED = Close("counted", 0, "other", True, 0.25, 0.25)
RESTART = Close("neutral", 0, "same", True, 1, 1)
GATEWAY = Close("neutral", 0, "same", True, 0.25, 0.25)
OVERLOADED = Close("cooled", 5, "other", True, 1, 1)
LIVENESS = Close("neutral", 0, "same", True, 0, 0)

CLOSES: dict[int, Close] = {
    1000: POLITE,
    1001: POLITE,
    1002: BROKEN,
    1003: BROKEN,
    1004: BROKEN,
    1005: POLITE,
    1006: LOST,
    1007: BROKEN,
    1008: REFUSED,
    1009: TOO_BIG,
    1010: BROKEN,
    1011: FAILED,
    1012: RESTART,
    1013: OVERLOADED,
    1014: GATEWAY,
    1015: BROKEN,
    1016: BROKEN,
    2999: BROKEN,
    3000: REFUSED,
    3001: REFUSED,
    3003: REFUSED,
    3008: GATEWAY,
    3999: REFUSED,
    4000: REFUSED,
    4999: REFUSED,
}

Meaning = Literal[
    "close",
    "login",
    "forbidden",
    "limit",
    "upstream",
    "network",
    "no_websocket",
    "expired",
    "not_found",
    "model",
    "request",
]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: for people.
        meaning: the row of the error table; `close` for the close table.
        phases: where it can happen.
        kind: what brings it about.
        transports: with which of them it can happen.
        alike: whether another fault stands for it, of the same row of the close table: then it is
            not played in every circumstance.
        turn: the members of the mock's rule for a turn.
        dial: the members of the mock's rule for an upgrade.
        close: the row of the close table.
        named: the time that the upstream names, in seconds from now; None if it names none.
        resets_at: whether it names it as `resets_at`.
        status: under which status it is passed on.
        code: its code.
        lasts: how long it takes until it is noticed, in seconds.
        closed_port: whether the account's port is closed instead.
    """

    name: str
    meaning: Meaning
    phases: tuple[Phase, ...]
    kind: Kind = "close"
    transports: tuple[Transport, ...] = ("auto", "http")
    alike: bool = False
    turn: dict[str, Any] = field(default_factory=dict)
    dial: dict[str, Any] = field(default_factory=dict)
    close: Close | None = None
    named: float | None = None
    resets_at: bool = False
    status: int = 0
    code: str | None = None
    lasts: float = 0.0
    closed_port: bool = False

    @property
    def of_account(self) -> bool:
        """Whether it is evidence against the account, so that portable sessions move."""
        forbidden = self.meaning == "forbidden" and self.kind != "frame"
        return self.meaning in {"login", "limit", "model"} or forbidden


def _closes() -> Iterator[Fault]:
    rows: list[Close] = []
    for code, row in CLOSES.items():
        cut = code == 1006  # HTTP knows no codes, but it can be cut off as well
        yield Fault(
            f"close {code}",
            "close",
            AFTER_DIAL,
            transports=("auto", "http") if cut else ("auto",),
            alike=row in rows and not cut,
            turn={"close": code},
            close=row,
        )
        rows.append(row)


def _silences() -> Iterator[Fault]:
    # `[timeouts] first_event`; a ping every 20 s, and 20 s for its pong.
    yield Fault("silence", "close", ("sent",), turn={"silence": True}, close=LOST, lasts=100)
    late: tuple[Phase, ...] = ("created", "streaming")
    yield Fault("silence", "close", late, turn={"silence": True}, close=LOST, lasts=900)
    mute = {"silence": True, "pong": False}
    pings: tuple[Transport, ...] = ("auto",)
    yield Fault(
        "silence without pongs", "close", BUSY, "close", pings, turn=mute, close=LIVENESS, lasts=40
    )


def _no_events() -> Iterator[Fault]:
    strays: dict[str, dict[str, Any]] = {
        "binary frame": {"binary": True},
        "no JSON": {"send": ("no json",)},
        "JSON array": {"send": ("[1]",)},
        "cut JSON": {"send": ('{"type":"response.created"',)},
    }
    for number, (name, rule) in enumerate(strays.items()):
        yield Fault(name, "close", AFTER_DIAL, alike=number > 0, turn=rule, close=BROKEN)


class Error(NamedTuple):
    """An error of the error table."""

    status: int
    code: str | None
    meaning: Meaning
    named: float | None = None
    how: Literal["header", "resets_at"] = "header"


DIAL_ERRORS = (
    Error(401, None, "login"),
    Error(401, "token_expired", "login"),
    Error(401, "invalid_api_key", "login"),
    Error(403, None, "forbidden"),
    Error(403, "unsupported_country", "forbidden"),
    Error(403, "usage_not_included", "limit"),
    Error(429, None, "limit"),
    Error(429, "rate_limit_exceeded", "limit"),
    Error(429, "rate_limit_exceeded", "limit", 7),
    Error(429, None, "limit", 40),
    Error(429, "rate_limit_exceeded", "limit", 40, "resets_at"),
    Error(429, "usage_limit_reached", "limit", 90, "resets_at"),
    Error(429, "insufficient_quota", "limit"),
    Error(500, None, "upstream"),
    Error(502, None, "upstream"),
    Error(503, "server_is_overloaded", "upstream"),
    Error(503, None, "upstream", 7),
    Error(504, None, "upstream"),
    Error(529, "overloaded", "upstream"),
    Error(301, None, "upstream"),
    Error(404, None, "no_websocket"),
    Error(426, None, "no_websocket"),
    Error(400, "invalid_request_error", "request"),
    Error(422, None, "request"),
)

FRAME_ERRORS = (
    Error(401, None, "login"),
    Error(401, "token_expired", "login"),
    Error(401, "invalid_api_key", "login"),
    Error(401, "token_invalidated", "login"),
    Error(401, "token_revoked", "login"),
    Error(403, None, "forbidden"),
    Error(429, None, "limit"),
    Error(429, "rate_limit_exceeded", "limit", 7),
    Error(429, "rate_limit_exceeded", "limit", 7, "resets_at"),
    Error(429, "rate_limit_exceeded", "limit", 40),
    Error(429, "usage_limit_reached", "limit", 90, "resets_at"),
    Error(429, "insufficient_quota", "limit"),
    Error(403, "usage_not_included", "limit"),
    Error(500, None, "upstream"),
    Error(502, None, "upstream"),
    Error(503, None, "upstream", 7),
    Error(503, "overloaded", "upstream"),
    Error(503, "server_is_overloaded", "upstream"),
    Error(504, None, "upstream"),
    Error(429, "websocket_connection_limit_reached", "expired"),
    Error(400, "previous_response_not_found", "not_found"),
    Error(404, "model_not_found", "model"),
    Error(400, "context_length_exceeded", "request"),
    Error(400, "invalid_request_error", "request"),
    Error(404, None, "request"),
    Error(422, None, "request"),
)


def _post_errors() -> Iterator[Error]:
    known = {_named("post", error): error for error in (*DIAL_ERRORS, *FRAME_ERRORS)}
    for error in known.values():
        if error.meaning == "no_websocket":
            yield error._replace(meaning="request")  # where a POST arrives, none is needed
        elif error.meaning != "expired":  # there is no socket
            yield error


TRANSPORTS: dict[Kind, tuple[Transport, ...]] = {
    "dial": ("auto",),
    "post": ("http",),
    "frame": ("auto", "http"),
}


def _fault(kind: Kind, error: Error) -> Fault:
    members: dict[str, Any] = {"code": error.code, "message": "Scripted."}
    headers = {}
    if error.how == "header" and error.named is not None:
        headers["retry-after"] = f"{error.named:g}"
    rule: dict[str, Any] = {"error": {**members, "status": error.status, "headers": headers}}
    if kind == "dial":
        rule = {"status": error.status, "error": members, "headers": headers}
    has_none = error.meaning == "no_websocket"
    phases: dict[Kind, tuple[Phase, ...]] = {"dial": ("dial",), "post": ("sent",)}
    return Fault(
        name=_named(kind, error),
        meaning=error.meaning,
        phases=phases.get(kind, AFTER_DIAL),
        kind=kind,
        transports=("auto", "websocket") if has_none else TRANSPORTS[kind],
        turn={} if kind == "dial" else rule,
        dial=rule if kind == "dial" else {},
        named=error.named,
        resets_at=error.how == "resets_at",
        status=error.status,
        code=error.code,
    )


def _named(kind: str, error: Error) -> str:
    words = [kind, str(error.status), error.code or ""]
    if error.named is not None:
        words.append(f"{error.how} {error.named:g}")
    return " ".join(word for word in words if word)


def _errors() -> Iterator[Fault]:
    yield from (_fault("dial", error) for error in DIAL_ERRORS)
    yield from (_fault("post", error) for error in _post_errors())
    yield from (_fault("frame", error) for error in FRAME_ERRORS)


def _no_network() -> Iterator[Fault]:
    yield Fault("dial refused", "network", ("dial",), "dial", closed_port=True)
    # Upgrades; a connection for a POST is open once TCP is.
    upgrades: tuple[Transport, ...] = ("auto",)
    cut, mute = {"cut": True}, {"silence": True}
    yield Fault("dial cut", "network", ("dial",), "dial", upgrades, dial=cut)
    # `[timeouts] dial`
    yield Fault("dial silent", "network", ("dial",), "dial", upgrades, dial=mute, lasts=15)


def faults() -> list[Fault]:
    """Return everything that can go wrong, in the order of the report."""
    sources = (_closes(), _silences(), _no_events(), _no_network(), _errors())
    return [fault for source in sources for fault in source]
