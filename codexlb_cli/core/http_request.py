"""The upstream's HTTP side: the heads of requests, and what an answer means as events.

The same allow-list and the same inputs as the handshake's: `headers.decide` filters, what is
generated comes after. What differs is what HTTP itself asks for: no WebSocket lines and no beta
token of theirs, and the turn state as a header.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from codexlb_cli.core.accounts import Transport
from codexlb_cli.core.frames import METADATA_EVENT
from codexlb_cli.core.handshake import (
    VARIES,
    Handshake,
    HandshakeInputs,
    HandshakeLine,
    RequestHead,
    account_lines,
    authority,
    build,
    client_headers,
    client_lines,
    moved_metadata,
)
from codexlb_cli.core.headers import (
    BETA_TOKEN,
    HTTP_ONLY_BETA_TOKEN,
    TURN_STATE,
    TURN_STATE_HEADER,
    Action,
    Header,
    HeaderDecision,
    connection_nominated,
    decide,
)

EVENT_STREAM = "text/event-stream"
_FRAMING = "http_framing"


@dataclass(frozen=True, slots=True)
class HttpRequest(RequestHead):
    """The head of an upstream request over HTTP."""

    def headers(self, request_id: str, body_bytes: int | None = None) -> list[Header]:
        """Return the header lines exactly as they go on the wire.

        Args:
            request_id: a new one.
            body_bytes: the length of the body; None where it does not stand in the head.
        """
        own = {"x-client-request-id": request_id, "content-length": str(body_bytes)}
        return [(n.name, own[n.name] if n.varies else n.value) for n in self.lines]


def build_post(inputs: HandshakeInputs) -> HttpRequest:
    """Build the head of the upstream POST: filter first, generate after.

    Raises:
        InvalidHeader: the client sent a header that cannot be forwarded or dropped safely.
    """
    decided = decide(inputs.inbound, inputs.options, turn_state_is_ours=inputs.turn_state_is_ours)
    decisions = tuple(map(_over_http, decided))
    lines = [
        HandshakeLine("host", authority(inputs.account.responses_url), "gateway", _FRAMING),
        *account_lines(inputs),
    ]
    lines += _beta_lines(decisions)
    lines += client_lines(inputs, decisions)
    lines += [
        HandshakeLine("x-client-request-id", VARIES, "gateway", "request_identity", varies=True),
        HandshakeLine("content-type", "application/json", "gateway", _FRAMING),
        HandshakeLine("accept", EVENT_STREAM, "gateway", "http_negotiation"),
        HandshakeLine("accept-encoding", "identity", "gateway", "http_negotiation"),
        HandshakeLine("content-length", VARIES, "gateway", _FRAMING, varies=True),
    ]
    return HttpRequest(
        account=inputs.account.name,
        url=inputs.account.responses_url,
        lines=tuple(lines),
        decisions=decisions,
        client_metadata=moved_metadata(decisions),
    )


MEDIA_TYPES = ("content-type", "accept")
CODED = (*MEDIA_TYPES, "content-encoding")
"""What describes a body that goes on as it came: with its coding, if it has one."""


def build_call(
    inputs: HandshakeInputs,
    url: str,
    *,
    kept: Collection[str] = MEDIA_TYPES,
    sized: bool = True,
) -> HttpRequest:
    """Build the head of a request that is passed on as it is: filter first, generate after.

    What a turn would move into its `client_metadata` has nowhere to go, and is dropped.

    Args:
        inputs: what heads are built from.
        url: where it goes.
        kept: lower-case names of the client's own lines that describe its body or the answer; the
            first of each goes on. `content-type` and `content-encoding` want a body.
        sized: whether it has a body whose length is known.

    Raises:
        InvalidHeader: the client sent a header that cannot be forwarded or dropped safely.
    """
    decided = decide(inputs.inbound, inputs.options, turn_state_is_ours=inputs.turn_state_is_ours)
    nominated = connection_nominated(inputs.inbound)
    decisions: list[HeaderDecision] = []
    described: dict[str, HandshakeLine] = {}
    for decision in map(_over_http, decided):
        name = decision.name.lower()
        if name in kept and name not in nominated and name not in described:
            described[name] = HandshakeLine(name, decision.value, "client", decision.rule)
            decisions.append(replace(decision, action=Action.FORWARD, reason=_DESCRIBES))
        elif decision.action is Action.MOVE:
            decisions.append(replace(decision, action=Action.DROP, reason=_NOWHERE))
        else:
            decisions.append(decision)
    others = [d for d in decisions if d.name.lower() not in described]
    lines = [
        HandshakeLine("host", authority(url), "gateway", _FRAMING),
        *account_lines(inputs),
        *_beta_lines(decisions),
        *client_lines(inputs, others),
        *described.values(),
        HandshakeLine("accept-encoding", "identity", "gateway", "http_negotiation"),
        HandshakeLine("x-client-request-id", VARIES, "gateway", "request_identity", varies=True),
    ]
    if sized:
        lines.append(HandshakeLine("content-length", VARIES, "gateway", _FRAMING, varies=True))
    return HttpRequest(inputs.account.name, url, tuple(lines), tuple(decisions), {})


_DESCRIBES = "describes the body, or the answer that is asked for"
_NOWHERE = "belongs to a turn, and this is passed on as it is"

UpstreamHead = Handshake | HttpRequest
"""What opens the way upstream, over either transport."""


def build_head(inputs: HandshakeInputs, transport: Transport) -> UpstreamHead:
    """Build what opens the way upstream: the handshake, or the head of the POST.

    Raises:
        InvalidHeader: the client sent a header that cannot be forwarded or dropped safely.
    """
    return build_post(inputs) if transport == "http" else build(inputs)


def is_event_stream(headers: Sequence[Header]) -> bool:
    """Whether the answer with these headers, names in lower case, can be read as events.

    Without a content type the body decides: some upstreams send none.
    """
    encoding = _value(headers, "content-encoding")
    kind = (_value(headers, "content-type") or EVENT_STREAM).partition(";")[0].strip().lower()
    return kind == EVENT_STREAM and (encoding or "identity").strip().lower() == "identity"


def metadata_event(headers: Sequence[Header]) -> str | None:
    """Return what a 200's headers say as the event that says it over a WebSocket.

    The turn state, the model and the limits; None if there is nothing of the kind. Headers that
    say nothing to a client stay out.
    """
    told = dict(client_headers(headers))
    state = _value(headers, TURN_STATE_HEADER)
    if state:
        told[TURN_STATE_HEADER] = state
    return _json({"type": METADATA_EVENT, "headers": told}) if told else None


def refusal_frame(status: int, headers: Sequence[Header], body: bytes) -> str:
    """Return an answer that is no 2xx as the error frame that refuses a turn over a WebSocket.

    Args:
        status: the answer's status.
        headers: its headers, names in lower case; the last of a name counts.
        body: as much of it as came.
    """
    frame: dict[str, object] = {"type": "error", "status": status, "headers": dict(headers)}
    try:
        return _json({**frame, "error": error_in(body)})
    except RecursionError:
        return _json({**frame, "error": {}})


def _over_http(decision: HeaderDecision) -> HeaderDecision:
    """Over HTTP the turn state that goes to its account stays a header (Codex CLI does so)."""
    if decision.rule == TURN_STATE.rule and decision.action is Action.MOVE:
        return replace(decision, action=Action.FORWARD, reason="to the account that gave it")
    return decision


def _beta_lines(decisions: Iterable[HeaderDecision]) -> list[HandshakeLine]:
    tokens = _beta_tokens(d.value for d in decisions if d.rule == "beta_tokens")
    if not tokens:
        return []
    return [HandshakeLine("openai-beta", ", ".join(tokens), "gateway", "beta_tokens")]


def _beta_tokens(values: Iterable[str]) -> list[str]:
    tokens = (token.strip(" \t") for value in values for token in value.split(","))
    return [token for token in dict.fromkeys(tokens) if token and not _of_a_transport(token)]


def _of_a_transport(token: str) -> bool:
    key, equals, _ = token.partition("=")
    key = key.strip(" \t").lower()
    return key == BETA_TOKEN or (bool(equals) and key == HTTP_ONLY_BETA_TOKEN)


def _value(headers: Sequence[Header], name: str) -> str | None:
    return next((value for known, value in headers if known == name), None)


def error_in(body: bytes) -> object:
    """Return the error that the body of a refusal tells, in whichever form; {} if it tells none."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, Mapping):
        return {}
    error = document.get("error")
    if isinstance(error, str | Mapping):
        return error
    if isinstance(document.get("detail"), str):  # what some upstreams send in an error's place
        return {"message": document["detail"]}
    return {k: v for k, v in document.items() if k in ("message", "code", "param", "type")}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
