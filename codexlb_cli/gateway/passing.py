"""Every other endpoint: passed on to one account as it is, streamed both ways."""

from __future__ import annotations

import uuid
from typing import Any

from codexlb_cli.core.affinity import read_evidence
from codexlb_cli.core.calls import Call
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.failures import Failure
from codexlb_cli.core.frames import Body
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import Header, check_header
from codexlb_cli.core.http_request import CODED, build_call
from codexlb_cli.core.ownership import resolve
from codexlb_cli.core.passing import PassedCall, blames, route_passed
from codexlb_cli.core.requests import body_too_large
from codexlb_cli.gateway.bodies import BodyError
from codexlb_cli.gateway.calls import NotServed
from codexlb_cli.gateway.exchanges import ClientExchange


class PassedExchange(ClientExchange):
    """One call that is passed on, or the reason why it is not."""

    def __init__(self, call: PassedCall | ClientError, *args: Any) -> None:
        super().__init__(*args)
        self._call = call

    async def _serve(self) -> None:
        for name, value in self._inbound:
            check_header(name, value)
        call = self._call
        if isinstance(call, ClientError):
            raise NotServed(call)
        limit, length = self._services.settings.limits.request_bytes, self._body.length
        if length is not None and length > limit:
            raise BodyError(body_too_large(limit))
        if not call.takes_body:
            await self._body.skip()
        calls = self._to_accounts(self._body, _head, blames=blames)

        async def attempt(call: PassedCall, name: str) -> Failure | None:
            async with calls.open(call, name, self._query) as answer:
                if answer.status >= 300:
                    return await calls.refused(answer, name)
                await self._relay(answer)
                return None

        owner = await self._session_owner()
        await calls.first(call, route_passed(call, owner, calls.pool()), attempt)

    async def _session_owner(self) -> str | None:
        """Return the account that owns the session of the headers; None if there is none."""
        evidence = read_evidence(self._inbound, Body({}))
        keys = self._services.keys
        await keys.recall(evidence.keys)
        record = resolve(evidence, keys.record).record
        return record.owner if record.bound else None


def _head(inputs: HandshakeInputs, call: Call, url: str, length: int | None) -> list[Header]:
    kept = CODED if call.takes_body else ("accept",)
    head = build_call(inputs, url, kept=kept, sized=length is not None)
    return head.headers(str(uuid.uuid4()), length)
