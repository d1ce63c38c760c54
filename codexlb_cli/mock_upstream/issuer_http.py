"""One HTTP exchange with the mock's issuer, and the faults that its rules put into it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream import wire
from codexlb_cli.mock_upstream.issuer import IssuerReply
from codexlb_cli.mock_upstream.issuer_requests import Asked, read_asked
from codexlb_cli.mock_upstream.recording import IssuerRequest
from codexlb_cli.mock_upstream.rules import ErrorSpec

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
    from codexlb_cli.mock_upstream.state import UpstreamState

_REFUSAL = ErrorSpec(message="Scripted refusal.")


class IssuerExchange:
    """A request to the issuer and its answer.

    Args:
        state: what all connections share.
        head: the request's head.
        incoming: whether the client is still there.
        writer: the way back.
        socket: the connection's number.
    """

    def __init__(
        self,
        state: UpstreamState,
        head: wire.Head,
        incoming: wire.Incoming,
        writer: wire.Outgoing,
        socket: int,
    ) -> None:
        self._state = state
        self._head = head
        self._incoming = incoming
        self._writer = writer
        self._socket = socket

    async def serve(self, body: bytes) -> bool:
        """Answer; return whether the connection may serve another request."""
        state, head = self._state, self._head
        asked = read_asked(head, body, lambda: state.identify(head))
        record = IssuerRequest(
            self._socket,
            asked.on,
            state.issuer.account(asked),
            head.method,
            head.target,
            head.headers,
            body.decode("latin-1"),
        )
        state.recording.issuer_request(record)
        rule = state.issuer_rule(asked)
        if rule.delay and not await self._incoming.outlasts(state.sleep(rule.delay)):
            return False
        reply = self._reply(asked, rule)
        if rule.silence:
            return await self._incoming.outlasts(asyncio.Event().wait())
        if rule.cut:
            await wire.cut(self._writer)
            return False
        record.status = reply.status
        state.recording.changed()
        keep = head.keeps_alive
        self._writer.write(
            wire.response(
                reply.status,
                reply.body,
                {"date": self._state.issuer.date()} | reply.headers,
                content_type=reply.content_type,
                close=not keep,
            )
        )
        await self._writer.drain()
        return keep

    def _reply(self, asked: Asked, rule: IssuerRule) -> IssuerReply:
        reply = IssuerReply(500, b"")
        if rule.acts or not rule.faulty:
            url = f"http://{self._head.value('host')}"
            reply = self._state.issuer.answer(asked, rule, url)
        return reply if rule.status is None else _scripted(rule, rule.status)


def _scripted(rule: IssuerRule, status: int) -> IssuerReply:
    if rule.body is not None:
        html = rule.body.lstrip().startswith("<")
        return IssuerReply(
            status, rule.body.encode(), content_type="text/html" if html else "application/json"
        )
    error = (rule.error or _REFUSAL).model_copy(update={"status": max(status, 300)})
    headers = {name: str(value) for name, value in error.headers.items()}
    return IssuerReply(status, wire.to_json({"error": error.body}), headers=headers)
