"""A state machine that drives `core` with several turns at once, in any interleaving.

What happens upstream is drawn; what the gateway's performer does with an action is done here as
plainly as can be. The invariants are those of docs/continuity.md, kept in a book of the test's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from codexlb_cli.core.accounts import FRESH, Account, AccountState, Availability, apply, completed
from codexlb_cli.core.affinity import ANCHORS, Evidence, Key, read_evidence
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.frames import parse_body
from codexlb_cli.core.ownership import Ownership, Seated, facts_of, plan_error
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.core.turn import State, Turn
from codexlb_cli.core.turn_events import (
    Action,
    Answer,
    Begin,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    Event,
    PassOn,
    Queue,
    Send,
    Silent,
)
from codexlb_cli.gateway.keys import Keys
from codexlb_cli.store.running import MemoryStore
from tests.core.playing import FINISHED, OPENED, RESPONDED, SILENT
from tests.core.pools import NOW
from tests.core.test_turn_properties import closes, dial_failures, ends, frames, in_line

NAMES = ("work", "home", "spare")
MOST_TURNS = 4

openings: st.SearchStrategy[Event] = st.just(OPENED) | dial_failures
middles: st.SearchStrategy[Event] = st.sampled_from([RESPONDED, RESPONDED, SILENT])
requests: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "session": st.sampled_from([None, "s1", "s1", "s2"]),
        "prompt_cache_key": st.sampled_from([None, "k1"]),
        "conversation": st.sampled_from([None, None, None, "c1"]),
        "file": st.sampled_from([None, None, None, "f1", "f2"]),
        "previous": st.sampled_from([None, None, None, "unknown", 0, 1]),
        "acts": st.booleans(),
    }
)


@dataclass
class Running:
    """A turn in flight, and what the test has seen of it."""

    turn: Turn
    evidence: Evidence
    ownership: Ownership
    owned_by: str | None
    replayable: bool
    sends: list[str] = field(default_factory=list)
    responded_on: str | None = None
    ends: int = 0
    failed_accounts: set[str] = field(default_factory=set)


class Machine(RuleBasedStateMachine):
    """Several turns against three accounts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.store = MemoryStore()
        self.keys = Keys(self.store, lambda: self.now)
        self.policy = ReconnectPolicy()
        self.states: dict[str, AccountState] = {}
        self.disabled: set[str] = set()
        self.in_flight: dict[str, int] = {}
        self.running: list[Running] = []
        self.responses: list[str] = []
        self.made = 0

    def teardown(self) -> None:
        self.store.close()

    # What the performer does

    def pool(self, staying: str | None = None) -> Pool:
        in_flight = dict(self.in_flight)
        if staying is not None:
            in_flight[staying] -= 1
        accounts = tuple(Account(name, enabled=name not in self.disabled) for name in NAMES)
        return Pool(accounts, self.now, dict(self.states), in_flight=in_flight, max_turns=2)

    def feed(self, one: Running, event: Event, draw: float = 1.0) -> None:
        before, turn = one.turn.account, one.turn
        staying = before if turn.state in (State.DIALLING, State.SENT, State.RESPONDING) else None
        pool = self.pool(staying)
        actions = turn.receive(event, pool, draw=draw)
        self.check_move(one, event, pool, actions)
        for action in actions:
            self.perform(one, action, staying)
        if turn.state is State.DONE:
            self.leave(one, turn.account if actions == [] else staying)

    def perform(self, one: Running, action: Action, staying: str | None) -> None:
        match action:
            case Blame(name, evidence):
                self.states[name] = apply(self.states.get(name, FRESH), evidence, self.now)
                one.failed_accounts.add(name)
            case Dial(name, after):
                assert after >= 0
                if staying is not None:
                    self.in_flight[staying] -= 1
                self.in_flight[name] = self.in_flight.get(name, 0) + 1
                self.keys.claim(one.ownership.key, name)
            case Send(attempt):
                assert one.turn.account is not None
                self.keys.bind({one.ownership.key, one.evidence.lane}, one.turn.account)
                self.check_send(one, one.turn.account, attempt)
            case Answer() | PassOn():
                one.ends += 1
            case Queue():
                pass

    def leave(self, one: Running, at: str | None) -> None:
        if at is not None:
            self.in_flight[at] -= 1
        self.keys.leave(one.ownership.key)
        if one.turn.gave_up:
            self.keys.failed({one.ownership.key, one.evidence.lane})
        self.running.remove(one)
        self.check_end(one)

    # The invariants

    def check_send(self, one: Running, account: str, attempt: int) -> None:
        one.sends.append(account)
        assert attempt == len(one.sends)
        assert one.responded_on is None, "sent again after the response had begun"
        facts = one.turn.facts
        asked = len(NAMES) - 1 if facts.asks else 0
        assert len(one.sends) <= 1 + self.policy.replays + asked
        if not one.replayable and not facts.asks:
            assert len(one.sends) == 1
        if facts.strength is Strength.HARD and one.owned_by is not None:
            moved = one.turn.moved_from is not None and facts.portable
            assert moved or account == one.owned_by, "a hard turn left its owner"

    def check_move(self, one: Running, event: Event, pool: Pool, actions: list[Action]) -> None:
        decisive = [a for a in actions if not isinstance(a, Blame)]
        assert len(decisive) <= 1
        if isinstance(event, Closed | Silent) and one.turn.facts.is_hard:
            dials = [a.account for a in decisive if isinstance(a, Dial)]
            assert dials in ([], [one.sends[-1]]), "a close took a hard turn from its account"
        for action in decisive:
            if isinstance(action, Dial):
                known = pool.standing_of(action.account)
                assert known is not None
                assert known.state not in (Availability.DISABLED, Availability.NEEDS_LOGIN)

    def check_end(self, one: Running) -> None:
        assert one.ends == (0 if one.turn.error is None else 1)
        assert one.turn.error is not None or one.responded_on is not None

    @invariant()
    def nobody_is_overbooked(self) -> None:
        for name in NAMES:
            assert 0 <= self.in_flight.get(name, 0) <= 2, self.in_flight

    @invariant()
    def anchors_never_move(self) -> None:
        for key in (Key("conversation", "c1"), Key("file", "f1"), Key("file", "f2")):
            record = self.keys.record(key)
            book = self.book.get(key)
            assert book is None or record.owner == book, "what lies in an account has moved"

    @property
    def book(self) -> dict[Key, str]:
        if not hasattr(self, "_book"):
            self._book: dict[Key, str] = {}
        return self._book

    # What happens

    @precondition(lambda self: len(self.running) < MOST_TURNS)
    @rule(request=requests)
    def start(self, request: dict[str, Any]) -> None:
        evidence, acts = self.evidence(request), request["acts"]
        asyncio.run(self.keys.recall(evidence.keys))
        ownership = self.keys.enter(evidence)
        error = plan_error(ownership, evidence, Seated())
        if error is not None:
            owners = {self.keys.record(k).owner for k in evidence.keys if k.source in ANCHORS}
            assert len(owners - {None}) > 1
            self.keys.leave(ownership.key)
            return
        lane = self.keys.record(evidence.lane)
        facts = facts_of(
            ownership, evidence, lane, Seated(), now=self.now, acts=acts, deadline=self.now + 240
        )
        one = Running(
            Turn(facts, self.policy),
            evidence,
            ownership,
            facts.owner if facts.bound else None,
            facts.replayable,
        )
        self.running.append(one)
        self.feed(one, Begin())

    def evidence(self, request: dict[str, Any]) -> Evidence:
        body: dict[str, Any] = {
            name: request[name] for name in ("prompt_cache_key", "conversation") if request[name]
        }
        if request["file"]:
            part = {"type": "input_file", "file_id": request["file"]}
            body["input"] = [{"role": "user", "content": [part]}]
        match request["previous"]:
            case "unknown":
                body["previous_response_id"] = "resp_unknown"
            case int(back) if back < len(self.responses):
                body["previous_response_id"] = self.responses[-1 - back]
        headers = [("session-id", request["session"])] if request["session"] else []
        return read_evidence(headers, parse_body(json.dumps(body).encode()))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        match one.turn.state:
            case State.QUEUED:
                self.feed(one, data.draw(in_line))
            case State.DIALLING:
                event: Event = data.draw(openings)
                self.feed(one, self.opened(one) if event is OPENED else event)
            case State.SENT:
                event = data.draw(middles | closes | frames)
                if event is RESPONDED:
                    self.respond(one)
                self.feed(one, event)
            case _:
                event = data.draw(ends | closes)
                if event is FINISHED:
                    self.complete(one)
                self.feed(one, event)

    def opened(self, one: Running) -> Event:
        """What a socket means to a first turn: a parallel one may have bound the key meanwhile."""
        record = self.keys.record(one.ownership.key)
        free = one.turn.attempts == 0 and not one.ownership.record.bound and record.bound
        hard = one.turn.facts.strength is Strength.HARD
        if free and hard and record.owner is not None and record.owner != one.turn.account:
            one.owned_by = record.owner
            return BoundElsewhere(record.owner)
        return OPENED

    def respond(self, one: Running) -> None:
        account = one.sends[-1]
        one.responded_on = account
        self.made += 1
        self.responses.append(f"resp_{self.made}")
        told = [*one.evidence.stored, Key("previous_response", self.responses[-1])]
        self.keys.responded(told, account)
        for key in told:
            if key.source in ANCHORS:
                self.book.setdefault(key, account)

    def complete(self, one: Running) -> None:
        account = one.sends[-1]
        self.keys.completed(one.evidence.stored, account, self.pool())
        self.states[account] = completed(self.states.get(account, FRESH))
        for key in one.evidence.stored:
            if key.strength is Strength.HARD:
                assert self.keys.record(key).owner == account

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        if one.turn.state is not State.QUEUED and one.turn.account is not None:
            self.in_flight[one.turn.account] -= 1
        self.keys.leave(one.ownership.key)
        self.running.remove(one)

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0, 61.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(NAMES))
    def a_person_toggles(self, name: str) -> None:
        self.disabled ^= {name}

    @rule(name=st.sampled_from(NAMES))
    def a_person_resets(self, name: str) -> None:
        self.states[name] = FRESH

    @rule()
    def a_person_forgets_nothing_but_memory(self) -> None:
        self.keys.forget()
        asyncio.run(self.keys.recall(self._every_key()))

    @rule()
    def the_gateway_is_killed(self) -> None:
        self.running.clear()
        self.in_flight.clear()
        self.keys = Keys(self.store, lambda: self.now)
        asyncio.run(self.keys.recall(self._every_key()))

    def _every_key(self) -> Iterator[Key]:
        yield from (Key("conversation", "c1"), Key("file", "f1"), Key("file", "f2"))


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
