"""A conversation over a client's WebSocket, whose answers read like those over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.cells import Affinity
from tests.faults.cells import Client as Kind
from tests.faults.talking import Conversation
from tests.support.client import Answer, Header
from tests.support.gateway import Stage
from tests.support.sockets import Client, to

TURN_SECONDS = 1500.0
"""Longer than any turn may take: what has not ended by then hangs."""
ERROR_FRAME = frozenset({"type", "status", "error", "headers"})
METADATA = "response.metadata"


class SocketConversation(Conversation):
    """The turns of one client on its one WebSocket."""

    def __init__(self, stage: Stage, affinity: Affinity) -> None:
        super().__init__(stage, affinity, "socket")
        self.client: Client | None = None

    async def turn(self, **members: object) -> Answer:
        """Have a turn, and read its frames up to the first that ends it."""
        async with asyncio.timeout(TURN_SECONDS):
            return answer_of(await self._socket.turn(**{**self.members, **members}))

    async def quiet(self, seconds: float) -> None:
        """Require that nothing comes for so long: no second end, and no close."""
        await self._socket.quiet(seconds)

    def needs_new_socket(self) -> None:
        """Go on with another model; the upgrade has said once and for all who the client is."""
        self.members["model"] = "another"

    def _echo(self, state: Header) -> None:
        self.members["client_metadata"] = dict([state])

    async def _whole(self, **members: object) -> Answer:
        answer = await self.turn(**members)
        assert (answer.status, self._stage.sent[-1]) == (200, "work")
        return answer

    @property
    def _socket(self) -> Client:
        assert self.client is not None, "it is not connected"
        return self.client


@asynccontextmanager
async def conversation(
    stage: Stage, affinity: Affinity, client: Kind
) -> AsyncIterator[Conversation]:
    """Begin a conversation of this kind of client; its socket is open until the end."""
    if client != "socket":
        yield Conversation(stage, affinity, client)
        return
    talk = SocketConversation(stage, affinity)
    # Without a name, like the HTTP clients here: upstream sockets could be used by both.
    async with to(stage, talk.headers, user_agent_header=None) as talk.client:
        yield talk


def answer_of(events: Sequence[Any]) -> Answer:
    """Return the frames of a turn as the answer that they would be over HTTP.

    An error frame that nothing came before is an answer with its status; everything else a stream.
    What frames tell in `headers` are its headers.

    Args:
        events: the frames up to the terminal one.
    """
    last = events[-1]
    told = [e["headers"] for e in events if e["type"] == METADATA]
    if last["type"] == "error":
        assert set(last) == ERROR_FRAME, last
        told.append(last["headers"])
    headers = {name: value for one in told for name, value in one.items()}
    if len(events) == 1 and last["type"] == "error":
        headers["content-type"] = "application/json"
        body = json.dumps({"error": last["error"]})
        return Answer(last["status"], list(headers.items()), body.encode())
    headers["content-type"] = "text/event-stream"
    blocks = (f"data: {json.dumps(event)}\n\n" for event in events)
    return Answer(200, list(headers.items()), "".join(blocks).encode())
