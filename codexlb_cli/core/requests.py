"""What the gateway asks of a client's request, and what it makes of it for one account.

The gateway and `inspect route` read requests with these functions, so that both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.affinity import Evidence, Key, read_evidence, turn_state_key
from codexlb_cli.core.chat_request import ChatForm, responses_body
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.frames import Body, InvalidBodyError, has_side_effects, parse_body
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import Header, HeaderOptions, check_header
from codexlb_cli.errors import InvalidHeader

PREFIXES = ("/v1", "/backend-api/codex")
RESPONSES_PATHS = frozenset(f"{prefix}/responses" for prefix in PREFIXES)
"""Where turns are asked for in the words of the Responses API: with POST, or over a WebSocket."""
CHAT_PATH = "/v1/chat/completions"
"""Where turns are asked for in the words of the chat API, with POST."""
TURN_PATHS = RESPONSES_PATHS | {CHAT_PATH}
"""Where turns are asked for, with POST."""

HTTP_ONLY_BYTES = 64 * 1024
"""What a body may hold beyond its frame: members for HTTP alone, and white space."""


@dataclass(frozen=True, slots=True, repr=False)
class AskedTurn:
    """What a client asks for.

    Attributes:
        body: the body of the Responses request.
        stream: whether the client wants a stream.
        evidence: its affinity evidence.
        chat: how a chat completion is wanted; None for a response.
        left_out: the members of a chat body that have no counterpart in a Responses body.
        posted: the body's bytes, if it asks for a background response: they go upstream as they
            are; else empty.
    """

    body: Body
    stream: bool
    evidence: Evidence
    chat: ChatForm | None = None
    left_out: tuple[str, ...] = ()
    posted: bytes = b""


def upgrade_error(method: str, path: str, headers: Sequence[Header]) -> ClientError | None:
    """Return why a WebSocket upgrade is refused; None if it may be accepted.

    Args:
        method: of the request.
        path: without the query.
        headers: its header lines.
    """
    if path not in RESPONSES_PATHS:
        if not path.startswith(tuple(f"{prefix}/" for prefix in PREFIXES)):
            return ClientError("not_found", "there is no such endpoint")
        text = f"this gateway speaks the WebSocket of the Responses API alone, not that of {path}"
        return ClientError("not_supported", text)
    if method != "GET":
        return ClientError("method_not_allowed", "a WebSocket is asked for with GET")
    try:
        for name, value in headers:
            check_header(name, value)
    except InvalidHeader as exc:
        return ClientError("invalid_header", str(exc))
    versions = {v.strip() for n, v in headers if n.lower() == "sec-websocket-version"}
    if versions - {"13"}:  # RFC 6455 section 4.2.2
        return ClientError("upgrade_required", "this gateway speaks version 13 of the WebSocket")
    return None


def size_error(size: int, *, request_bytes: int, frame_bytes: int) -> ClientError | None:
    """Return the error for a body of `size` bytes; None if it may be read.

    Args:
        size: of the body, without its content coding.
        request_bytes: the most that a request may have.
        frame_bytes: the most that one upstream frame takes.
    """
    if size > request_bytes:
        return body_too_large(request_bytes)
    return body_too_large(frame_bytes) if size > frame_bytes + HTTP_ONLY_BYTES else None


def body_too_large(limit: int) -> ClientError:
    """Return the error for a body over the limit."""
    return ClientError("request_too_large", f"the request body is larger than {limit} bytes")


def frame_error(frame: str, limit: int) -> ClientError | None:
    """Return the error for a frame over `limit` bytes; None if it may be sent."""
    if len(frame) <= limit and len(frame.encode()) <= limit:
        return None
    text = f"the request is larger than the {limit} bytes that one upstream frame takes"
    return ClientError("request_too_large", text)


def wants_stream(body: Body) -> bool:
    """Check the members that the gateway itself reads; return whether the client wants a stream.

    Raises:
        InvalidBodyError: one of them has the wrong type.
    """
    stream = body.flag("stream")
    body.flag("background")
    for name in ("model", "stream_id"):
        body.text(name)
    body.flag("store")
    return stream


_NO_HTTP = "background responses are for HTTP: the upstream's WebSocket does not take them"
_NO_CHAT = "there are no background responses in the chat API; ask `/v1/responses` for one"


def wants_background(body: Body) -> bool:
    """Whether a checked body asks for a background response: over HTTP only, to one account."""
    return body.flag("background")


def refuse_background(body: Body, why: str = _NO_HTTP) -> None:
    """Refuse a background response where there is none: on a WebSocket, and in the chat API.

    Raises:
        InvalidBodyError: it asks for one.
    """
    if wants_background(body):
        raise InvalidBodyError(why, param="background", code="not_supported")


def read_request(headers: Sequence[Header], data: bytes, *, chat: bool = False) -> AskedTurn:
    """Read a request.

    Args:
        headers: its header lines.
        data: its body.
        chat: whether the body is that of a chat completion.

    Raises:
        InvalidBodyError: the body is no JSON object, a member is not as it must be, or a chat
            completion asks for what a response cannot give.
    """
    body = parse_body(data)
    if not chat:
        posted = data if wants_background(body) else b""
        return AskedTurn(body, wants_stream(body), read_evidence(headers, body), posted=posted)
    body, form, left_out = responses_body(body)
    refuse_background(body, _NO_CHAT)
    return AskedTurn(body, wants_stream(body), read_evidence(headers, body), form, left_out)


def invalid_body(exc: InvalidBodyError) -> ClientError:
    """Return what the client of a body that cannot be read is told."""
    return ClientError(exc.code, str(exc), param=exc.param)


def model_of(body: Body) -> str | None:
    """Return the model; None if the body names none."""
    model = body.get("model")
    return model if isinstance(model, str) else None


def acts_twice(body: Body, policy: ReconnectPolicy) -> bool:
    """Whether a replay might do twice what hosted tools do, and may therefore not be."""
    return has_side_effects(body) and not policy.replay_hosted_tools


def handshake_inputs(
    account: Account,
    secret: str | None,
    headers: Sequence[Header],
    evidence: Evidence,
    owner_of: Callable[[Key], str | None],
    *,
    options: HeaderOptions,
    user_agent: str,
    account_id: str | None = None,
) -> HandshakeInputs:
    """Return what the handshake of a turn is built from.

    Args:
        account: the account that serves.
        secret: its credential; None if it is missing.
        headers: the client's header lines.
        evidence: of the request.
        owner_of: who owns a key; None if that is not known.
        options: the `[headers]` table.
        user_agent: our own.
        account_id: whom the credential signs in; None if that is not told.
    """
    turn_state = evidence.turn_state
    giver = None if turn_state is None else owner_of(turn_state_key(turn_state))
    return HandshakeInputs(
        account=account,
        secret=secret,
        inbound=headers,
        options=options,
        user_agent=user_agent,
        conversation_key=evidence.conversation_key,
        turn_state_is_ours=giver == account.name,
        account_id=account_id,
    )
