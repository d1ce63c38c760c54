"""The upstream handshake: one pure function, for the first connect and every reconnect alike.

Also the other direction: which headers of an upstream's answer a client may see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.headers import (
    LITE_HEADER,
    LITE_METADATA,
    SECRET_NAMES,
    SESSION_NAMES,
    TURN_STATE_HEADER,
    Action,
    Header,
    HeaderDecision,
    HeaderOptions,
    beta_tokens,
    decide,
    is_header_name,
)

VARIES = "(new for every socket)"
MASKED = "***"


@dataclass(frozen=True, slots=True)
class HandshakeLine:
    """One header line of the upgrade request.

    Attributes:
        name: as it goes on the wire.
        value: as it goes on the wire; `VARIES` where it differs per socket.
        origin: `gateway`, `account` or `client`.
        rule: the code of the rule that put it there.
        varies: whether the value is made anew for every socket.
    """

    name: str
    value: str
    origin: str
    rule: str
    varies: bool = False

    @property
    def shown(self) -> str:
        """The value as it may be printed: secrets are masked by name, whatever the rule."""
        if self.rule == "account_credential" and self.name == "authorization":
            return f"Bearer {MASKED}"
        return shown_value(self.name, self.value)

    def __repr__(self) -> str:
        """Show the line as it may be logged."""
        return f"HandshakeLine({self.name!r}, {self.shown!r}, {self.rule!r})"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What one upstream request carries before its body, and why.

    Attributes:
        account: the account's name.
        url: where it goes.
        lines: every line after the request line, in wire order.
        decisions: one per inbound header line, in order.
        client_metadata: what moves from headers into the turn's `client_metadata`.
    """

    account: str
    url: str
    lines: tuple[HandshakeLine, ...]
    decisions: tuple[HeaderDecision, ...]
    client_metadata: dict[str, str] = field(repr=False)  # holds x-codex-turn-metadata

    @property
    def target(self) -> str:
        """The request target (RFC 9112 section 3.2.1)."""
        parts = urlsplit(self.url)
        return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


@dataclass(frozen=True, slots=True)
class Handshake(RequestHead):
    """The head of an upgrade request; its `url` is that of the WebSocket."""

    @property
    def additional(self) -> tuple[HandshakeLine, ...]:
        """The lines that the WebSocket library does not write by itself."""
        return tuple(line for line in self.lines if line.rule != "websocket_handshake")

    @property
    def forwarded_set(self) -> tuple[Header, ...]:
        """What sockets must have in common to serve the same lane: all but the per-socket lines."""
        return tuple((line.name, line.value) for line in self.lines if not line.varies)

    @property
    def request_line(self) -> str:
        """The request line of the upgrade (RFC 6455 section 4.1)."""
        return f"GET {self.target} HTTP/1.1"


@dataclass(frozen=True, slots=True, repr=False)
class HandshakeInputs:
    """Everything a handshake is built from.

    Attributes:
        account: the account that serves.
        secret: its credential; None if it is missing (then no authorization line is made).
        inbound: the client's header lines.
        options: the `[headers]` table.
        user_agent: our own, sent if the client sent none.
        conversation_key: `prompt_cache_key`, else the body's `conversation`; None if neither.
        turn_state_is_ours: whether this account gave the turn state that came in.
        account_id: whom the credential signs in; None if that is not told.
    """

    account: Account
    secret: str | None
    inbound: Sequence[Header]
    options: HeaderOptions
    user_agent: str
    conversation_key: str | None = None
    turn_state_is_ours: bool = False
    account_id: str | None = None


def build(inputs: HandshakeInputs) -> Handshake:
    """Build the upstream handshake: filter first, generate after.

    Raises:
        InvalidHeader: the client sent a header that cannot be forwarded or dropped safely.
    """
    decisions = decide(inputs.inbound, inputs.options, turn_state_is_ours=inputs.turn_state_is_ours)
    replaced = [(d.name, d.value) for d in decisions if d.rule == "beta_tokens"]
    lines = [
        *_websocket_lines(inputs.account.websocket_url),
        *account_lines(inputs),
        HandshakeLine(
            "openai-beta", beta_tokens(replaced, inputs.options.beta), "gateway", "beta_tokens"
        ),
    ]
    lines += client_lines(inputs, decisions)
    lines.append(
        HandshakeLine("x-client-request-id", VARIES, "gateway", "request_identity", varies=True)
    )
    return Handshake(
        account=inputs.account.name,
        url=inputs.account.websocket_url,
        lines=tuple(lines),
        decisions=decisions,
        client_metadata=moved_metadata(decisions),
    )


def account_lines(inputs: HandshakeInputs) -> list[HandshakeLine]:
    """Return the lines that say which account it is; the first of every upstream request."""
    values = [
        ("authorization", f"Bearer {inputs.secret}" if inputs.secret else None),
        ("chatgpt-account-id", inputs.account_id),
        ("openai-organization", inputs.account.organization),
        ("openai-project", inputs.account.project),
    ]
    return [
        HandshakeLine(name, value, "account", "account_credential")
        for name, value in values
        if value is not None
    ]


def client_lines(
    inputs: HandshakeInputs, decisions: Sequence[HeaderDecision]
) -> list[HandshakeLine]:
    """Return what is said of the client: who it is, what it may forward, its conversation."""
    forwarded = [d for d in decisions if d.action is Action.FORWARD]
    lines = []
    if not any(d.name.lower() == "user-agent" for d in forwarded):
        lines.append(HandshakeLine("user-agent", inputs.user_agent, "gateway", "own_identity"))
    lines += [HandshakeLine(d.name.lower(), d.value, "client", d.rule) for d in forwarded]
    if inputs.conversation_key and not _names_session(inputs.inbound):
        value = cache_session(inputs.conversation_key)
        lines.append(HandshakeLine("session-id", value, "gateway", "cache_session"))
    return lines


def moved_metadata(decisions: Sequence[HeaderDecision]) -> dict[str, str]:
    """Return what moves from headers into the frame's `client_metadata`."""
    metadata: dict[str, str] = {}
    for decision in decisions:
        if decision.action is Action.MOVE:
            name = decision.name.lower()
            metadata.setdefault(LITE_METADATA if name == LITE_HEADER else name, decision.value)
    return metadata


def cache_session(conversation_key: str) -> str:
    """Return the outbound `session-id` of a conversation: a stable hash, for caching only."""
    digest = hashlib.sha256(b"codexlb cache session\0" + conversation_key.encode())
    return digest.hexdigest()[:32]


def shown_value(name: str, value: str) -> str:
    """Return `value` as it may be printed: secrets are masked by name."""
    return MASKED if name.lower() in SECRET_NAMES else value


def _names_session(inbound: Iterable[Header]) -> bool:
    return any(name.lower() in SESSION_NAMES for name, _ in inbound)


def _websocket_lines(url: str) -> list[HandshakeLine]:
    # The lines and their order are those of the websockets library; the parity tests hold them
    # against the wire.
    def line(name: str, value: str, *, varies: bool = False) -> HandshakeLine:
        return HandshakeLine(name, value, "gateway", "websocket_handshake", varies)

    return [
        line("Host", authority(url)),
        line("Upgrade", "websocket"),
        line("Connection", "Upgrade"),
        line("Sec-WebSocket-Key", VARIES, varies=True),
        line("Sec-WebSocket-Version", "13"),
    ]


def authority(url: str) -> str:
    """Return the value of the Host line for `url` (RFC 9110 section 7.2)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = 443 if parts.scheme in ("wss", "https") else 80
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


_RESPONSE_NAMES = frozenset(
    {
        "openai-model", "openai-version", "openai-processing-ms", "x-should-retry",
        "x-models-etag", "x-reasoning-included",
    }
)  # fmt: skip
_RESPONSE_PREFIXES = ("x-ratelimit-", "x-codex-")


def client_headers(upstream: Iterable[tuple[str, object]]) -> list[Header]:
    """Return the headers of an upstream's answer that a client may see.

    An allow-list like the other direction's. Values of frames may be numbers or booleans; what is
    no legal header, by its name or its value, is left out. The turn state is not among them: it
    lives for one turn, and the gateway hands it out itself.
    """
    kept: list[Header] = []
    for name, value in upstream:
        lower = name.lower()
        if lower == TURN_STATE_HEADER or not (
            lower in _RESPONSE_NAMES or lower.startswith(_RESPONSE_PREFIXES)
        ):
            continue
        text = header_text(value)
        if text is not None and is_header_name(lower):
            kept.append((lower, text))
    return kept


def header_text(value: object) -> str | None:
    """Return a JSON value as a header value; None if it cannot be one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        text = str(value)
        if text.isprintable() and text.isascii():
            return text
    return None
