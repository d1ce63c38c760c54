"""What one account is sent for a turn: the handshake and the frame, from `core`'s functions."""

from __future__ import annotations

from dataclasses import dataclass

from codexlb_cli.config.policies import OWN_USER_AGENT, header_options
from codexlb_cli.core import frames
from codexlb_cli.core.accounts import Transport
from codexlb_cli.core.affinity import unreadable_reasoning
from codexlb_cli.core.http_request import UpstreamHead, build_head
from codexlb_cli.core.requests import handshake_inputs
from codexlb_cli.gateway.services import Services, TurnRequest


@dataclass(frozen=True, slots=True, repr=False)
class Outbound:
    """A handshake, or the head of a POST, and a frame.

    Attributes:
        handshake: for a socket of the account, or for a connection that serves this turn alone.
        frame: the `response.create`.
        dropped_reasoning: how many items of encrypted reasoning the account could not have read.
        secret: the credential that goes along; None if it is missing.
    """

    handshake: UpstreamHead
    frame: str
    dropped_reasoning: int
    secret: str | None


def prepare(
    services: Services,
    request: TurnRequest,
    name: str,
    home: str | None,
    transport: Transport = "websocket",
) -> Outbound:
    """Build what the account called `name` is sent.

    Args:
        services: the running gateway.
        request: the client's request.
        name: the account that serves.
        home: the account that owned the turn's key when it started; None if none did.
        transport: how the account is spoken to.

    Raises:
        ConfigError: the account is no longer configured.
    """
    account = services.settings.account(name)
    secret = services.accounts.secret(account)
    inputs = handshake_inputs(
        account,
        secret,
        request.headers,
        request.evidence,
        services.keys.owner_of,
        options=header_options(services.settings),
        user_agent=OWN_USER_AGENT,
        account_id=services.accounts.logins.account_id(account),
    )
    handshake = build_head(inputs, transport)
    unreadable = _unreadable(services, request.body, name, home)
    frame = frames.create_frame(request.body, handshake.client_metadata, unreadable=unreadable)
    return Outbound(handshake, frame, len(unreadable), secret)


def _unreadable(services: Services, body: frames.Body, account: str, home: str | None) -> list[str]:
    keys = services.keys
    unreadable = unreadable_reasoning(
        frames.reasoning_digests(body), account, made_by=keys.reasoned_by, home=home
    )
    for digest in unreadable:
        if home is not None and keys.reasoned_by(digest) is None:
            keys.reasoned(digest, home)  # later turns know whose it is, wherever they go
    return unreadable
