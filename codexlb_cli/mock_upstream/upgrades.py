"""The answer to a WebSocket upgrade, whichever way it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream.recording import Handshake
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.state import INVALID_API_KEY
from codexlb_cli.mock_upstream.strict import violations
from codexlb_cli.mock_upstream.wire import to_json

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.rules import HandshakeRule
    from codexlb_cli.mock_upstream.state import UpstreamState
    from codexlb_cli.mock_upstream.wire import Head


@dataclass(frozen=True, slots=True)
class Reply:
    """What happens to an upgrade: first the delay, then silence, a cut, a refusal or the 101.

    Attributes:
        delay: seconds before the answer.
        silence: never answer.
        cut: end the connection without an answer.
        status: refuse with this status; None accepts.
        headers: of the refusal or of the 101.
        body: of the refusal.
    """

    delay: float = 0.0
    silence: bool = False
    cut: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def record_upgrade(state: UpstreamState, head: Head, account: str | None, socket: int) -> Handshake:
    """Record an upgrade by `account`, or by nobody, whatever will be answered."""
    handshake = Handshake(socket, account, head.line, head.headers, state.clock())
    if state.strict:
        handshake.violations = violations(handshake.headers)
    state.recording.handshake(handshake)
    return handshake


def reply_to(state: UpstreamState, handshake: Handshake) -> Reply:
    """Decide what happens to a recorded upgrade, and count it."""
    if handshake.account is None:
        return Reply(status=401, body=to_json({"error": INVALID_API_KEY.body}))
    rule = state.handshake_rule(handshake.account)
    headers, body = rule.headers, b""
    if rule.status is not None:
        error = rule.error or ErrorSpec(message="Scripted refusal.")
        headers = error.headers | headers
        body = _refusal(rule, rule.status, error)
    return Reply(
        delay=rule.delay,
        silence=rule.silence,
        cut=rule.cut,
        status=rule.status,
        headers={name: str(value) for name, value in headers.items()},
        body=body,
    )


def _refusal(rule: HandshakeRule, status: int, error: ErrorSpec) -> bytes:
    if rule.body is not None:
        return rule.body.encode()
    return to_json({"error": error.model_copy(update={"status": status}).body})
