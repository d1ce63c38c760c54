"""The header policy: what a client sent, and what of it may go upstream.

An allow-list: what no row of `RULES` allows is dropped. `decide` filters; `handshake.build` then
generates, so that no client header can remove or double a generated one. The documentation and
`codexlb inspect rules` print `RULES` itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from codexlb_cli.errors import InvalidHeader

Header = tuple[str, str]
"""Name and value as they came, values decoded as ISO-8859-1 so that every byte survives."""

DEFAULT_BETA = "responses_websockets=2026-02-06"
BETA_TOKEN = "responses_websockets"  # noqa: S105 - the name of a feature, not a secret
HTTP_ONLY_BETA_TOKEN = "responses"  # noqa: S105

LITE_HEADER = "x-openai-internal-codex-responses-lite"
LITE_METADATA = "ws_request_header_x_openai_internal_codex_responses_lite"
TURN_STATE_HEADER = "x-codex-turn-state"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Action(StrEnum):
    """What happens to a header that a client sent."""

    FORWARD = "forward"
    DROP = "drop"
    REPLACE = "replace"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One row of the policy.

    Attributes:
        rule: the stable code.
        names: lower-case names; a trailing `*` matches any ending.
        action: what happens.
        reason: why, for a person.
        source: the standard or the client's behaviour behind the row; None if it is our own rule.
    """

    rule: str
    names: tuple[str, ...]
    action: Action
    reason: str
    source: str | None = None

    def matches(self, name: str) -> bool:
        """Whether the row speaks of `name`, a lower-case header name."""
        return any(
            name.startswith(entry[:-1]) if entry.endswith("*") else name == entry
            for entry in self.names
        )


CREDENTIAL_NAMES = (
    "authorization", "cookie", "set-cookie", "api-key", "x-api-key", "x-auth-token",
    "x-goog-api-key", "chatgpt-account-id", "openai-organization", "openai-project",
)  # fmt: skip

SECRET_NAMES = frozenset(
    {*CREDENTIAL_NAMES, "proxy-authorization", "sec-websocket-protocol", "x-codex-turn-metadata"}
)
"""Values of these names are never printed, whatever becomes of the header."""

SESSION_NAMES = (
    "session-id", "session_id", "x-codex-session-id", "x-codex-conversation-id",
    "conversation_id", "x-session-affinity", "x-opencode-session",
)  # fmt: skip
"""The headers that name a session, in order of precedence."""

NOMINATED = HeaderRule(
    "connection_nominated",
    ("(any name that a Connection line names)",),
    Action.DROP,
    "named by the client's Connection header, so it ends at this gateway",
    "RFC 9110 §7.6.1",
)
TRACING = HeaderRule(
    "tracing",
    (
        "traceparent", "tracestate", "baggage", "b3", "x-b3-*", "x-datadog-*", "sentry-trace",
        "x-amzn-trace-id", "x-cloud-trace-context",
    ),
    Action.DROP,
    "one upstream socket serves many traces; traceparent may be allowed",
    "W3C Trace Context §4.3",
)  # fmt: skip
TURN_STATE = HeaderRule(
    "turn_state",
    (TURN_STATE_HEADER,),
    Action.MOVE,
    "goes into the frame of the account that gave it, else nowhere",
    "Codex CLI: in-band over WebSocket",
)
ALLOWED = HeaderRule(
    "allowed",
    (
        "user-agent", "originator", "version", "session-id", "session_id", "thread-id",
        "conversation_id", "x-codex-session-id", "x-codex-conversation-id",
        "x-codex-beta-features", "x-codex-routing-hint",
        "x-responsesapi-include-timing-metrics", "openai-safety-identifier",
    ),
    Action.FORWARD,
    "on the allow-list",
)  # fmt: skip
NOT_ALLOWED = HeaderRule(
    "not_allowed", ("*",), Action.DROP, "not on the allow-list; see [headers] allow"
)

RULES: tuple[HeaderRule, ...] = (
    NOMINATED,
    HeaderRule(
        "hop_by_hop",
        (
            "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
            "upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization",
            "proxy-authentication-info",
        ),
        Action.DROP,
        "ends at this gateway",
        "RFC 9110 §7.6.1",
    ),
    HeaderRule(
        "websocket_handshake",
        ("sec-websocket-*",),
        Action.DROP,
        "negotiated afresh for every socket",
        "RFC 6455 §4.1",
    ),
    HeaderRule(
        "http_framing",
        (
            "host", "content-*", "expect", "date", "digest", "want-digest", "repr-digest",
            "trailers",
        ),
        Action.DROP,
        "describes the client's HTTP message; the upgrade has no body",
        "RFC 9110 §8",
    ),
    HeaderRule(
        "http_negotiation",
        (
            "accept", "accept-*", "range", "if-*", "cache-control", "pragma", "priority",
            "max-forwards", "save-data",
        ),
        Action.DROP,
        "describes the client's HTTP hop",
        "RFC 9110 §12.5",
    ),
    HeaderRule(
        "client_credential",
        CREDENTIAL_NAMES,
        Action.DROP,
        "the account's own is set",
        "RFC 9110 §11.6.2",
    ),
    HeaderRule(
        "network_identity",
        (
            "forwarded", "via", "x-forwarded-*", "x-real-ip", "x-client-ip", "true-client-ip",
            "cf-*", "cdn-loop", "fly-*", "fastly-*", "x-envoy-*", "x-original-*",
        ),
        Action.DROP,
        "tells where the client is; HTTP ends here, so no Via is added either",
        "RFC 7239 §8",
    ),
    HeaderRule(
        "browser_metadata",
        (
            "origin", "referer", "sec-fetch-*", "sec-ch-*", "sec-gpc", "dnt",
            "upgrade-insecure-requests", "access-control-*",
        ),
        Action.DROP,
        "tells what a browser was doing",
        "RFC 9110 §17.9",
    ),
    TRACING,
    HeaderRule(
        "beta_tokens",
        ("openai-beta",),
        Action.REPLACE,
        "one line with the WebSocket token and without responses=...",
        "Codex CLI: one beta token on the handshake",
    ),
    TURN_STATE,
    HeaderRule(
        "per_turn_metadata",
        (
            LITE_HEADER, "x-codex-turn-metadata", "x-codex-window-id",
            "x-codex-parent-thread-id", "x-openai-subagent",
        ),
        Action.MOVE,
        "belongs to one turn; one handshake serves many",
        "Codex CLI: client_metadata over WebSocket",
    ),
    HeaderRule(
        "request_identity",
        ("x-client-request-id", "x-request-id", "idempotency-key"),
        Action.DROP,
        "names the client's request; a fresh one is made for every socket",
    ),
    ALLOWED,
    NOT_ALLOWED,
)  # fmt: skip

_TRACEPARENT_ALLOWED = "allowed by [headers] traceparent"
_NAME_ALLOWED = "allowed by [headers] allow"

# What a person wants to know about one name rather than about its row.
_REASONS = {
    "host": "names the client's hop; the upstream's own is set",
    "content-type": "describes a body; the upgrade has none",
    "content-length": "describes a body; the upgrade has none",
    "content-encoding": "describes a body; the upgrade has none",
    "cookie": "belongs between client and gateway",
}
_SOURCES = {"accept": "RFC 9110 §12.5.1", "accept-encoding": "RFC 9110 §12.5.3"}


@dataclass(frozen=True, slots=True)
class HeaderOptions:
    """The `[headers]` table of the configuration.

    Attributes:
        allow: further lower-case names that the `allowed` row forwards.
        traceparent: whether `traceparent` is forwarded.
        beta: the WebSocket beta token that is sent if the client sends none.
    """

    allow: frozenset[str] = frozenset()
    traceparent: bool = False
    beta: str = DEFAULT_BETA


@dataclass(frozen=True, slots=True)
class HeaderDecision:
    """What happens to one inbound header line, and why."""

    name: str
    value: str
    action: Action
    rule: str
    reason: str
    source: str | None

    def __repr__(self) -> str:
        """Show the decision without the value, so that it may be logged."""
        return f"HeaderDecision({self.name!r}, {self.action}, {self.rule!r})"


def is_header_name(name: str) -> bool:
    """Whether `name` is an RFC 9110 section 5.1 field name."""
    return _TOKEN.fullmatch(name) is not None


def check_header(name: str, value: str) -> None:
    """Refuse a header that cannot be sent.

    Raises:
        InvalidHeader: the name is not an RFC 9110 token, or the value holds a control character
            other than HTAB (RFC 9110 section 5.5) or a character that is not ISO-8859-1.
    """
    if not is_header_name(name):
        raise InvalidHeader(f"`{_shown(name)}` is not a header name")
    if _CONTROL.search(value):
        raise InvalidHeader(f"the value of header `{name}` holds a control character")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidHeader(f"the value of header `{name}` cannot be sent") from None


def decide(
    inbound: Sequence[Header], options: HeaderOptions, *, turn_state_is_ours: bool = False
) -> tuple[HeaderDecision, ...]:
    """Decide each inbound header line, in order.

    Args:
        inbound: the client's header lines as received.
        options: the `[headers]` table.
        turn_state_is_ours: whether the account that serves gave the turn state that came in.

    Raises:
        InvalidHeader: a header cannot be sent; see `check_header`.
    """
    for name, value in inbound:
        check_header(name, value)
    nominated = connection_nominated(inbound)
    return tuple(
        _decide(name, value, nominated, options, turn_state_is_ours) for name, value in inbound
    )


def rules_in_force(options: HeaderOptions) -> tuple[HeaderRule, ...]:
    """Return the table with the user's changes: `decide` goes by its first row that matches."""
    added = tuple(name for name in sorted(options.allow) if _row(name, options) is ALLOWED)
    table: list[HeaderRule] = []
    for row in RULES:
        if row is TRACING and options.traceparent:
            names, reason = ("traceparent",), _TRACEPARENT_ALLOWED
            table.append(replace(row, names=names, action=Action.FORWARD, reason=reason))
        if row is ALLOWED and added:
            table.append(replace(row, names=added, reason=_NAME_ALLOWED))
        table.append(row)
    return tuple(table)


def connection_nominated(inbound: Iterable[Header]) -> frozenset[str]:
    """Return the lower-case names that the Connection lines nominate (RFC 9110 section 7.6.1)."""
    return frozenset(
        token
        for name, value in inbound
        if name.lower() == "connection"
        for token in (part.strip(" \t").lower() for part in value.split(","))
        if token
    )


def beta_tokens(inbound: Iterable[Header], configured: str) -> str:
    """Return the value of the one OpenAI-Beta line that goes upstream.

    The union of the client's tokens without `responses=...` and duplicates. A client's own
    WebSocket token wins, the first of several; if it sent none, `configured` is added.

    Args:
        inbound: the header lines that were decided `beta_tokens`.
        configured: `[headers] beta`.
    """
    kept: list[str] = []
    websocket_token = False
    for name, value in inbound:
        if name.lower() != "openai-beta":
            continue
        for token in (part.strip(" \t") for part in value.split(",")):
            key, _, version = (part.strip(" \t") for part in token.partition("="))
            if not token or token in kept or _http_only(token):
                continue
            if key.lower() == BETA_TOKEN:
                if websocket_token or not version:
                    continue
                websocket_token = True
            kept.append(token)
    if not websocket_token:
        kept.append(configured)
    return ", ".join(kept)


def _http_only(token: str) -> bool:
    key, equals, _ = token.partition("=")
    return bool(equals) and key.strip(" \t").lower() == HTTP_ONLY_BETA_TOKEN


def _decide(
    name: str,
    value: str,
    nominated: frozenset[str],
    options: HeaderOptions,
    turn_state_is_ours: bool,
) -> HeaderDecision:
    lower = name.lower()
    row = NOMINATED if lower in nominated else _row(lower, options)
    action, reason = row.action, _REASONS.get(lower, row.reason)
    if row is NOMINATED:
        reason = row.reason
    elif row is TRACING and lower == "traceparent" and options.traceparent:
        action, reason = Action.FORWARD, _TRACEPARENT_ALLOWED
    elif row is TURN_STATE and not turn_state_is_ours:
        action, reason = Action.DROP, "not known to come from the account that serves"
    elif row.rule == "beta_tokens" and any(_http_only(t.strip(" \t")) for t in value.split(",")):
        reason = "responses=experimental is for HTTP only"
    elif row is ALLOWED and lower in options.allow:
        reason = _NAME_ALLOWED
    return HeaderDecision(name, value, action, row.rule, reason, _SOURCES.get(lower, row.source))


def _row(lower: str, options: HeaderOptions) -> HeaderRule:
    row = next(rule for rule in RULES[1:] if rule.matches(lower))
    return ALLOWED if row is NOT_ALLOWED and lower in options.allow else row


def _shown(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()[:64]
