"""One conversation of a client, tied to an account by any of the sources of affinity."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.faults.cells import Affinity, Client
from tests.support.client import Answer, Exchange, Header
from tests.support.gateway import Stage, session

STATE: Header = ("x-codex-turn-state", "given")
GIVES_STATE = TurnRule.model_validate(
    {"model": "state", "account": "work", "metadata": dict([STATE])}
)
"""The rule that hands out a turn state, for a conversation that is settled by one."""
FILE = "file_of_work"
MEMBERS: dict[Affinity, dict[str, Any]] = {
    "cache": {"prompt_cache_key": "k"},
    "conversation": {"conversation": "conv_1"},
    "file": {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": FILE}]}]},
}
"""What a turn of an affinity has in its body, as far as that is known beforehand."""


class Conversation:
    """The turns of one client.

    Attributes:
        headers: what each turn is sent with.
        members: of each turn's body.
        stored: the id of a response that `work` stores; "" before `settle`.
    """

    def __init__(self, stage: Stage, affinity: Affinity, client: Client = "stream") -> None:
        self.headers: list[Header] = []
        self.members: dict[str, Any] = {"stream": client != "whole", **MEMBERS.get(affinity, {})}
        self.stored = ""
        self._stage = stage
        self._affinity = affinity
        if client == "codex":
            self.headers.append(("user-agent", "codex_exec/0.169.0"))
        if affinity == "session":
            self.headers += session("s")

    async def settle(self) -> None:
        """Have the first turns, which `work` serves; it must be the first account, and unused.

        A turn state needs the rule `GIVES_STATE`.
        """
        self._stage.mock.keep_file("work", FILE)
        first = await self._whole(model="state" if self._affinity == "turn state" else "mock")
        self.stored = response_id(first)
        match self._affinity:
            case "turn state":
                assert first.header(STATE[0]) == STATE[1]
                self._echo(STATE)
            case "stored":
                self.members["previous_response_id"] = self.stored
            case "anchored":
                self.members.update(previous_response_id=self.stored, store=False)
                second = await self._whole()
                self.members["previous_response_id"] = response_id(second)
            case _:
                pass

    async def turn(self, **members: object) -> Answer:
        """Have a turn, and read its whole answer."""
        return await self._stage.turn(headers=self.headers, **{**self.members, **members})

    async def quiet(self, seconds: float) -> None:
        """Require that the client gets nothing for so long; over HTTP it cannot."""

    def needs_new_socket(self) -> None:
        """Have the turns from now on need another upstream socket than those before."""
        self.headers.append(("originator", "another"))

    def streaming(self, **members: object) -> AbstractAsyncContextManager[Exchange]:
        """Have a turn, and read its answer as it comes."""
        every = {**self.members, **members}
        return self._stage.streaming(headers=self.headers, **every)

    def _echo(self, state: Header) -> None:
        self.headers.append(state)

    async def _whole(self, **members: object) -> Answer:
        answer = await self.turn(**{**members, "stream": False})
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")
        return answer


def response_id(answer: Answer) -> str:
    """Return the id of the response that an answer holds."""
    stream = (answer.header("content-type") or "").startswith("text/event-stream")
    response = answer.events[-1].data["response"] if stream else answer.json
    return str(response["id"])
