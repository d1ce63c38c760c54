"""Plays one cell against a real gateway, and notes what could be seen from outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from codexlb_cli.mock_upstream.recording import Turn
from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import Script
from tests.faults.cells import LATE, Cell
from tests.faults.framing import conversation
from tests.faults.table import Phase
from tests.faults.talking import GIVES_STATE, Conversation, response_id
from tests.support.client import Answer
from tests.support.gateway import Stage
from tests.support.virtual import play_virtually

LIMIT_SECONDS = 3600
"""How long the owner is out where it is limited beforehand."""
ONE_AT_A_TIME = "[lanes]\nmax_turns = 1"
"""In every cell, so that a turn whose place is not given back when it is over blocks the next."""
QUIET_SECONDS = 0.2
"""How long nothing may come on a client's socket while no turn runs."""
NEEDS_A_PERSON = frozenset({"owner_unavailable", "no_accounts", "usage_limit_reached"})
PLACES: dict[Phase, str] = {"sent": "before_created"}
Rule = HandshakeRule | TurnRule


class Rules(tuple[Rule, ...]):
    """Rules that always hold, and those of the fault while it lasts."""

    fault: tuple[Rule, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        yield from super().__iter__()
        yield from self.fault


@dataclass(frozen=True)
class AccountSeen:
    """What `accounts list --json` says of an account.

    Attributes:
        seconds: how long its state still lasts; None if no time is named.
    """

    state: str
    reason: str | None
    seconds: float | None


@dataclass
class Played:
    """What was seen of the turn that met the fault, and of the next one.

    Attributes:
        answer: to the turn.
        seconds: how long it took.
        creates: the `response.create` that were sent for it.
        waits: after how many seconds each of them came.
        accounts: what was known of the accounts after it.
        next: the answer to the conversation's next turn, when the fault is over.
        next_creates: what was sent for it.
        before: what was sent before the turn.
        again: the answer to one more turn on a client's socket; None over HTTP.
        again_creates: what was sent for it.
        foreign_creates: what was sent just before it, for a turn that an HTTP client had of the
            same conversation.
        overlaps: how often a turn was sent on a busy socket.
        warnings: what the person was warned of.
    """

    answer: Answer
    seconds: float
    creates: list[Turn]
    waits: list[float]
    accounts: dict[str, AccountSeen]
    next: Answer
    next_creates: list[Turn]
    before: list[Turn]
    again: Answer | None
    again_creates: list[Turn]
    foreign_creates: list[Turn]
    overlaps: int
    warnings: list[str] = field(default_factory=list)

    @property
    def sent(self) -> list[str]:
        return [turn.account for turn in self.creates]


async def play_cell(cell: Cell, folder: Path, port: int) -> Played:
    """Play a cell on the running virtual loop.

    Args:
        cell: what to play.
        folder: an empty folder of its own.
        port: a port that refuses connections.
    """
    limits = {"status": 429, "code": "usage_limit_reached", "resets_in_seconds": LIMIT_SECONDS}
    rules = Rules((TurnRule.model_validate({"model": "limited", "error": limits}), GIVES_STATE))
    seen: list[Played] = []

    async def test(stage: Stage) -> None:
        async with conversation(stage, cell.affinity, cell.client) as talk:
            seen.append(await _Play(cell, stage, talk, rules, port).play())

    options: dict[str, Any] = {"names": cell.names, "accounts": _tables(cell)}
    script = Script(rules)
    await play_virtually(test, folder, script=script, draws=1.0, more=ONE_AT_A_TIME, **options)
    return seen[0]


def _tables(cell: Cell) -> dict[str, str]:
    """Return what each account's table says beside its address and key."""
    spoken = "" if cell.transport == "auto" else f'transport = "{cell.transport}"'
    return dict.fromkeys(cell.names, spoken)


def fault_rules(cell: Cell, now: float) -> tuple[Rule, ...]:
    """Return the mock's rules that bring about the fault of a cell.

    Args:
        cell: the cell.
        now: seconds since the epoch; what the upstream names as `resets_at` follows from it.
    """
    fault = cell.fault
    times = 1 if cell.reach == "once" else 0
    if not fault.turn and not fault.dial:
        return ()
    rule = {**(fault.turn or fault.dial), "times": times}
    if fault.resets_at and fault.named is not None:
        rule["error"] = {**rule["error"], "resets_at": now + fault.named}
    if cell.phase == "dial":
        return (HandshakeRule.model_validate(rule),)
    return (TurnRule.model_validate({**rule, "when": PLACES.get(cell.phase, cell.phase)}),)


class _Play:
    def __init__(
        self, cell: Cell, stage: Stage, talk: Conversation, rules: Rules, port: int
    ) -> None:
        self._cell = cell
        self._stage = stage
        self._rules = rules
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._talk = talk

    async def play(self) -> Played:
        cell, stage, mock = self._cell, self._stage, self._stage.mock
        if cell.strength != "none" or cell.owner_out:
            await self._talk.settle()
        await self._take_owner_out()
        self._begin()
        if cell.phase == "idle":
            # The turn is over before the fault: the next one is what meets a closed socket.
            first = await self._talk.turn()
            assert first.status == 200
            if cell.affinity == "anchored":
                self._talk.members["previous_response_id"] = response_id(first)
            await asyncio.sleep(1)
        creates = len(mock.turns)
        began = self._loop.time()
        answer = await self._talk.turn()
        seconds = self._loop.time() - began
        await asyncio.sleep(0.01)  # what was queued for the disk is on it
        accounts = await self._accounts()
        sent = mock.turns[creates:]
        await self._talk.quiet(QUIET_SECONDS)
        self._end()
        await self._wait_as_told(answer)
        before_next = len(mock.turns)
        following = await self._next(answer)
        before_foreign = len(mock.turns)
        await self._foreign()
        before_again = len(mock.turns)
        again = await self._again(following)
        return Played(
            answer=answer,
            seconds=seconds,
            creates=sent,
            waits=[turn.at - began for turn in sent],
            accounts=accounts,
            next=following,
            next_creates=mock.turns[before_next:before_foreign],
            before=mock.turns[:creates],
            again=again,
            again_creates=mock.turns[before_again:],
            foreign_creates=mock.turns[before_foreign:before_again],
            overlaps=mock.overlaps,
            warnings=stage.warnings,
        )

    # Before

    async def _take_owner_out(self) -> None:
        if self._cell.accounts == "limited":
            refused = await self._stage.turn(
                previous_response_id=self._talk.stored, model="limited"
            )
            assert refused.status == 429
        elif self._cell.accounts == "disabled":
            self._command("disable", "work")

    def _begin(self) -> None:
        self._rules.fault = fault_rules(self._cell, self._stage.clock())
        if self._cell.phase == "dial":
            self._talk.needs_new_socket()
        if self._cell.fault.closed_port:
            owner = self._cell.first
            closed = f"http://127.0.0.1:{self._port}/v1"
            every = self._cell.reach == "always"
            urls = {name: closed for name in self._cell.names if every or name == owner}
            self._configure({**self._stage.urls, **urls})

    # After

    def _end(self) -> None:
        self._rules.fault = ()
        if self._cell.fault.closed_port:
            self._configure(self._stage.urls)

    async def _wait_as_told(self, answer: Answer) -> None:
        """Wait as the client is told to, or mend what a person is told to mend."""
        retry_after = answer.header("retry-after")
        if retry_after is not None:
            await asyncio.sleep(float(retry_after))
        code = _code(answer)
        late = self._cell.phase in LATE
        if code == "usage_limit_reached" and not self._cell.owner_out and not late:
            until = answer.error.get("resets_at", self._stage.clock())
            await asyncio.sleep(until - self._stage.clock())
        elif late and self._cell.fault.meaning == "limit":
            await asyncio.sleep(self._cell.fault.named or 0.0)
        elif code in NEEDS_A_PERSON or (late and self._cell.fault.meaning == "login"):
            for name in self._cell.names:
                self._command("reset", name)
                self._command("enable", name)

    async def _next(self, answer: Answer) -> Answer:
        lost = self._cell.resends_stored and _code(answer) == "previous_response_not_found"
        if self._cell.affinity == "anchored" or lost:
            # What clients do when the chain is lost, and may do at any time: send all again.
            del self._talk.members["previous_response_id"]
        return await self._talk.turn()

    async def _foreign(self) -> None:
        """Have a turn of an HTTP client's that names the conversation of a client's socket."""
        if self._cell.client == "socket" and self._cell.affinity in {"session", "cache"}:
            answer = await self._stage.turn(headers=self._talk.headers, **self._talk.members)
            assert answer.status == 200

    async def _again(self, following: Answer) -> Answer | None:
        """Have one more turn on a client's socket, which goes on with a chain where there is one.

        Nothing comes unasked, before it or after it: no second end, and no close.
        """
        cell = self._cell
        if cell.client != "socket":
            return None
        await self._talk.quiet(QUIET_SECONDS)
        if cell.resends and not cell.chainless and following.status == 200:
            self._talk.members["previous_response_id"] = response_id(following)
        again = await self._talk.turn()
        await self._talk.quiet(QUIET_SECONDS)
        return again

    # Both

    async def _accounts(self) -> dict[str, AccountSeen]:
        known = (await self._stage.get("/readyz")).json["accounts"]
        if set(known.values()) == {"ready"}:  # then the program has no more to say
            return dict.fromkeys(known, AccountSeen("ready", None, None))
        listed = json.loads(self._command("list", "--json"))["accounts"]
        return {account["name"]: self._seen(account) for account in listed}

    def _seen(self, account: dict[str, Any]) -> AccountSeen:
        if account["until"] is None:
            return AccountSeen(account["state"], account["reason"], None)
        seconds = datetime.fromisoformat(account["until"]).timestamp() - self._stage.clock()
        # The program runs by the wall clock, which the virtual one has left behind.
        if seconds < 1:  # and it rounds up
            return AccountSeen("ready", None, None)
        return AccountSeen(account["state"], account["reason"], seconds)

    def _command(self, *args: str) -> str:
        ran = self._stage.cli.run("accounts", *args, stdin=b"", **self._stage.environ)
        assert ran.code == 0, ran
        return ran.out

    def _configure(self, urls: Any) -> None:
        stage, own = self._stage, self._stage.urls
        tables = _tables(self._cell)
        if self._cell.accounts == "disabled":
            tables["work"] += "\nenabled = false"
        stage.urls = urls
        stage.configure(ONE_AT_A_TIME, tables)
        stage.urls = own


def _code(answer: Answer) -> object:
    """The code of an error that came as a plain status."""
    return answer.error["code"] if answer.status != 200 else None
