"""One turn, from its first dial to its last event: events in, actions out.

The gateway performs the actions and reports what happens; nothing outside this file decides where
a turn goes next. Waiting is part of a `Dial`, chance comes in as a draw, time with the pool.

The promises kept here: at most one replay, only before the first response event, only where it is
safe; each candidate is dialled once, a hard owner twice, and once more over HTTP one that has no
WebSocket, or with a new token one whose login was refreshed; that happens once in a turn; a hard
turn is sent to its owner alone, unless its account failed and the conversation is portable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from codexlb_cli.core.accounts import Effect
from codexlb_cli.core.client_errors import (
    UPSTREAM_FAILURES,
    ClientError,
    previous_response_not_found,
)
from codexlb_cli.core.closes import (
    LIVENESS_TIMEOUT,
    SOCKET_EXPIRED,
    UPSTREAM_REFUSAL,
    CloseRow,
    HardMove,
    ReconnectPolicy,
)
from codexlb_cli.core.failures import MODEL_UNAVAILABLE, Failure, Fault, not_refreshed
from codexlb_cli.core.giving_up import Refusals, anchor_silent, chain_lost, no_room
from codexlb_cli.core.plan import Start, new_homes, opening, wait_for_failed, with_models
from codexlb_cli.core.reconnect import (
    Move,
    Outcome,
    Phase,
    Situation,
    Strength,
    after_close,
    owner_wait,
)
from codexlb_cli.core.selection import Pool, in_order_after
from codexlb_cli.core.turn_events import (
    Action,
    Answer,
    Begin,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    DialFailed,
    Event,
    Finished,
    Opened,
    OutOfTime,
    PassOn,
    Queue,
    QueueFull,
    Refresh,
    Refreshed,
    RefreshFailed,
    Refused,
    Responded,
    RoomFree,
    Send,
    Silent,
    TurnFacts,
)

FORBIDDEN_WAIT_SECONDS = 3.0
"""The wait before a hard owner that refused an upgrade with 403 is dialled once more."""


class State(Enum):
    """Where a turn stands."""

    NEW = auto()
    QUEUED = auto()
    DIALLING = auto()
    REFRESHING = auto()
    SENT = auto()
    RESPONDING = auto()
    DONE = auto()


@dataclass(slots=True)
class Turn:
    """The state of one turn.

    Attributes:
        facts: what was known before it started.
        policy: the configured policy.
        account: the account that is dialled or serves; None before the first dial.
        attempts: how many `response.create` were sent.
        moved_from: the owner that a hard turn left because its account failed; None if none.
        steps: what went wrong and what followed, for the request log.
        error: what the turn ended with; None while it runs and after a terminal event.
    """

    facts: TurnFacts
    policy: ReconnectPolicy
    account: str | None = None
    attempts: int = 0
    moved_from: str | None = None
    steps: list[str] = field(default_factory=list)
    error: ClientError | Failure | None = None
    state: State = State.NEW
    _tries: int = 0
    _owner: str | None = None
    _bound: bool = False
    _queue: list[str] = field(default_factory=list)
    _dial_failed: dict[str, int] = field(default_factory=dict)
    _refusals: Refusals = field(default_factory=Refusals)
    _waited: bool = False
    _lacking: frozenset[str] = frozenset()
    _fell_back: set[str] = field(default_factory=set)
    _refreshed: set[str] = field(default_factory=set)
    _refreshed_for: Dial | DialFailed | Refused | Closed | None = None

    def __post_init__(self) -> None:
        """Take over the owner that was known before the turn."""
        self._owner = self.facts.owner
        self._bound = self.facts.bound
        self._refusals.failures = self.facts.failures

    def receive(self, event: Event, pool: Pool, *, draw: float = 1.0) -> list[Action]:
        """Take one event and return what to do, in order.

        Args:
            event: what happened.
            pool: the accounts as they are now, without the evidence of this event.
            draw: a random number from 0 to 1 for the jitter of a back-off.

        Raises:
            AssertionError: the event is not possible in this state; a bug of the caller.
        """
        self._lacking = pool.without_model
        actions = self._follows(event, with_models(pool, is_hard=self._is_hard), draw)
        if self.facts.resends and self.error is not None:
            owner, stored = self.account or self.facts.owner, not self.facts.anchored
            error = chain_lost(self.error, owner, pool, stored=stored)
            return [*actions[:-1], *self._end(error)] if error is not None else actions
        return actions

    def _follows(  # noqa: C901 - a line per event
        self, event: Event, pool: Pool, draw: float
    ) -> list[Action]:
        match self.state, event:
            case (State.NEW, Begin()) | (State.QUEUED, RoomFree()):
                return self._begin(pool)
            case State.QUEUED, QueueFull() | OutOfTime():
                return self._end(no_room(event))
            case State.DIALLING, Opened():
                return self._opened()
            case State.DIALLING, DialFailed(failure):
                return self._failed_dial(failure, pool, draw)
            case ((State.SENT | State.RESPONDING), Closed(row, label, sent)):
                self.attempts -= not sent
                return self._closed(row, label, pool, draw)
            case State.SENT, Silent(row):
                return self._silent(row, pool, draw)
            case State.SENT, Refused(failure):
                return self._refused_frame(failure, pool, draw)
            case State.DIALLING, BoundElsewhere(owner):
                self._owner, self._bound = owner, True
                return self._try([owner], pool)
            case State.REFRESHING, Refreshed():
                return self._with_new_token(pool, draw)
            case State.REFRESHING, RefreshFailed(refusal):
                return self._without_token(not_refreshed(refusal), pool, draw)
            case ((State.DIALLING | State.REFRESHING | State.SENT), OutOfTime()):
                return self._out_of_time()
            case State.SENT, Responded():
                self.state = State.RESPONDING
                return []
            case ((State.SENT | State.RESPONDING), Finished()):
                self.state = State.DONE
                return []
        raise AssertionError(f"{type(event).__name__} is not possible when {self.state.name}")

    @property
    def phase(self) -> Phase:
        """The turn's phase, in the words of the close table."""
        return Phase.SENT if self.state is State.SENT else Phase.STREAMING

    @property
    def gave_up(self) -> bool:
        """Whether the upstream failed this turn: not the request's fault, and not a known limit."""
        return isinstance(self.error, ClientError) and self.error.code in UPSTREAM_FAILURES

    def _begin(self, pool: Pool) -> list[Action]:
        plan = opening(self.facts, pool, self.policy)
        if plan.error is not None:
            return self._end(plan.error)
        if plan.queued_for:
            self.state = State.QUEUED
            return [Queue(plan.queued_for)]
        if plan.moved_from is not None:
            if plan.reason is Start.OWNER_KEEPS_FAILING:
                self.steps.append(f"{plan.moved_from} keeps failing")
            return self._move(plan.moved_from, list(plan.candidates), pool)
        if plan.wait_seconds > self.policy.wait_up_to:
            self._waited = True
        return self._try(list(plan.candidates), pool, plan.wait_seconds)

    @property
    def _is_hard(self) -> bool:
        """Whether the turn may go to its owner alone. A key that is not bound yet moves freely."""
        return self.facts.strength is Strength.HARD and self._bound

    def _try(self, candidates: list[str], pool: Pool, wait: float = 0.0) -> list[Action]:
        if not candidates:
            return self._exhausted(pool)
        self.account, *self._queue = candidates
        dial = Dial(self.account, wait)
        if self.account in pool.login_due and not self.facts.anchored and self._may_refresh(pool):
            return self._refresh(dial)
        self.state = State.DIALLING
        return [dial]

    def _may_refresh(self, pool: Pool) -> bool:
        """Whether the account's token can be refreshed, and was not yet in this turn."""
        account = pool.account(self._current)
        return account is not None and account.refreshable and account.name not in self._refreshed

    def _refresh(self, reason: Dial | DialFailed | Refused | Closed) -> list[Action]:
        self._refreshed.add(self._current)
        self._refreshed_for = reason
        self.state = State.REFRESHING
        return [Refresh(self._current)]

    def _with_new_token(self, pool: Pool, draw: float) -> list[Action]:
        """Go on with the account whose token was refreshed."""
        account = self._current
        self.steps.append(f"token of {account} refreshed")
        match self._refreshed_for:
            case Dial() as dial:
                self.state = State.DIALLING
                return [dial]
            case Closed(row):
                self.state = State.SENT
                return self._follow(row, pool, draw)
            case Refused() if self.facts.asks:
                self._tries -= 1
                return self._try([account, *self._rest(pool)], pool)
            case Refused() if self._may_replay:
                others = [] if self._is_hard else self._untried(pool)
                return self._replay([account, *others], "token refreshed", pool)
            case Refused():
                anchored = self.facts.anchored
                return self._end(previous_response_not_found() if anchored else self._unavailable())
        self.state = State.DIALLING
        return [Dial(account)]

    def _without_token(self, failure: Failure, pool: Pool, draw: float) -> list[Action]:
        """Go on without a new token; only what the issuer said for good is the account's fault."""
        account = self._current
        self.steps.append(f"token of {account} not refreshed")
        blame = self._blame(failure)
        match self._refreshed_for:
            case Dial() as dial if failure.row.fault is Fault.ISSUER:
                self.state = State.DIALLING  # the token at hand may do yet
                return [dial]
            case Dial() | DialFailed():
                self.state = State.DIALLING
                return [*blame, *self._dial_lost(failure, pool, draw)]
        self.state = State.SENT
        self._refusals.note(account, failure, pool.now)
        if self.facts.asks:
            return [*blame, *self._ask_next(failure, pool)]
        return [*blame, *self._account_refused(failure, pool)]

    def _opened(self) -> list[Action]:
        assert self.account is not None
        self.state = State.SENT
        self.attempts += 1
        self._tries += 1
        if self.facts.strength is Strength.HARD and not self.facts.asks:
            self._owner, self._bound = self.account, True
        elif self.facts.strength is Strength.SOFT and self._owner is None:
            self._owner = self.account
        return [Send(self.attempts)]

    def _failed_dial(self, failure: Failure, pool: Pool, draw: float) -> list[Action]:
        account = self._current
        status = f"refused with {failure.status}" if failure.status else "not reached"
        self.steps.append(f"{account} {status}")
        if failure.row.fault is Fault.CREDENTIAL and self._may_refresh(pool):
            return self._refresh(DialFailed(failure))
        blame = self._blame(failure)
        if self._falls_back(failure, pool):
            return [*blame, Dial(account)]  # over HTTP, once the blame is in force
        return [*blame, *self._dial_lost(failure, pool, draw)]

    def _dial_lost(self, failure: Failure, pool: Pool, draw: float) -> list[Action]:
        """Go on after a dial that failed and is not to be mended."""
        account = self._current
        self._dial_failed[account] = self._dial_failed.get(account, 0) + 1
        if failure.row.fault is Fault.REQUEST:
            return self._end(failure)
        self._refusals.note(self._current, failure, pool.now)
        if self._is_hard and account == self._owner:
            return self._owner_dial_failed(failure, pool, draw)
        wait = self._short_wait(failure, pool)
        if wait is not None:
            return [Dial(account, wait)]
        return self._try(self._rest(pool), pool)

    def _rest(self, pool: Pool) -> list[str]:
        """Return the candidates that were not tried yet and may still serve."""
        return [n for n in self._queue if n not in self._dial_failed and pool.usable(n)]

    def _ask_next(self, failure: Failure, pool: Pool) -> list[Action]:
        """Ask the next account for the response that this one does not know, or may not give.

        No replay: nothing began here. Not found is the answer only where every account said so.
        """
        rest = self._rest(pool)
        if rest:
            self._tries -= 1
            return self._try(rest, pool)
        unasked = bool(self._refusals.accounts)
        return self._exhausted(pool) if unasked else self._end(failure)

    def _falls_back(self, failure: Failure, pool: Pool) -> bool:
        """Whether the account that has no WebSocket is spoken to over HTTP instead; once a turn."""
        account = pool.account(self._current)
        if failure.row.fault is not Fault.NO_WEBSOCKET or self._current in self._fell_back:
            return False
        self._fell_back.add(self._current)
        usable = account is not None and pool.usable(account.name)  # it may be disabled by now
        return usable and account is not None and account.transport == "auto"

    def _owner_dial_failed(self, failure: Failure, pool: Pool, draw: float) -> list[Action]:
        owner = self._current
        fault, again = failure.row.fault, self._dial_failed[owner] < 2
        if not pool.usable(owner) and fault not in (Fault.LIMIT, Fault.CREDENTIAL):
            # It was disabled or limited while this turn dialled it.
            return self._account_failed(owner, pool, in_order_after(pool, owner))
        if fault is Fault.FORBIDDEN and again:
            return [Dial(owner, FORBIDDEN_WAIT_SECONDS)]
        if fault in (Fault.NETWORK, Fault.UPSTREAM) and again:
            return [Dial(owner, draw * self.policy.backoff.bound(0))]
        if fault in (Fault.FORBIDDEN, Fault.LIMIT, Fault.CREDENTIAL):
            wait = self._short_wait(failure, pool)
            if wait is not None:
                return [Dial(owner, wait)]
            return self._account_failed(owner, pool, in_order_after(pool, owner))
        return self._end(failure if fault is Fault.TURN else self._unavailable())

    def _account_failed(self, owner: str, pool: Pool, candidates: list[str]) -> list[Action]:
        """A hard turn's account failed: move, wait or fail, as configured.

        Args:
            owner: the account that failed.
            pool: the accounts.
            candidates: where the turn may move, in order.
        """
        if self.policy.on_account_failure == "move" and self.facts.portable:
            others = self._new_homes(owner, candidates)
            return self._move(owner, others, pool) if others else self._exhausted(pool)
        known = pool.standing_of(owner)
        until = self._refusals.named.get(owner) or (known.until if known else None)
        wait = wait_for_failed(until, self.facts, pool, self.policy)
        if wait is not None and not self._waited:
            self._waited = True
            return self._try([owner], pool, wait)
        if self._refusals.transport_failed:
            return self._end(self._unavailable())
        return self._end(self._refusals.shortage([owner], owner, pool))

    def _new_homes(self, owner: str, candidates: list[str]) -> list[str]:
        homes = new_homes(owner, candidates, self.facts, self.policy)
        return [name for name in homes if name not in self._dial_failed]

    def _move(self, owner: str, others: list[str], pool: Pool) -> list[Action]:
        self.moved_from = owner
        self.steps.append(f"moved from {owner}")
        self._owner, self._bound = None, False
        return self._try(others, pool)

    def _closed(self, row: CloseRow, label: str, pool: Pool, draw: float) -> list[Action]:
        blame: list[Action] = [Blame(self._current, row.evidence)]
        if row.evidence.effect is Effect.NEUTRAL:
            blame = []
        self.steps.append(label)
        if self.facts.anchored and self.state is State.SENT and row.hard is not HardMove.GIVE_UP:
            silent = row is LIVENESS_TIMEOUT
            error = anchor_silent() if silent else previous_response_not_found()
            return [*blame, *self._end(error)]
        return [*blame, *self._follow(row, pool, draw)]

    def _follow(self, row: CloseRow, pool: Pool, draw: float) -> list[Action]:
        outcome = after_close(row, self._situation(), pool, self.policy)
        if outcome.move is Move.GIVE_UP:
            return self._end(
                self._refusals.after_close(outcome, row, self._current, pool, self.steps)
            )
        stays = outcome.account == self._current
        if row.refuses_credentials and stays and self._may_refresh(pool):
            return self._refresh(Closed(row, row.reason))
        return self._perform(outcome, pool, draw)

    def _situation(self) -> Situation:
        strength, owner = self.facts.strength, self._owner
        if self.facts.asks:
            owner = self._current  # it was asked and has not answered: nobody else can
        elif strength is Strength.HARD and not self._is_hard:
            strength = Strength.SOFT
        return Situation(
            closed=self._current,
            phase=self.phase,
            strength=strength,
            owner=owner,
            replays=self._tries - 1,
            replayable=self.facts.repeatable,
            dial_failed=frozenset(self._dial_failed) | self._refusals.accounts,
        )

    def _perform(self, outcome: Outcome, pool: Pool, draw: float) -> list[Action]:
        account = outcome.candidates[0]
        picked = outcome.verdicts[0]
        self.steps.append(f"replayed on {account} ({picked.reason})")
        # A limit's end is a fact, a back-off an upper bound.
        limit_wait = owner_wait(pool, account, self.policy) or 0.0
        wait = limit_wait or draw * outcome.delay_seconds
        rest = self._queue if self.facts.asks else []  # who knows the response is still open
        return self._try([*outcome.candidates, *rest], pool, wait)

    def _silent(self, row: CloseRow, pool: Pool, draw: float) -> list[Action]:
        if self.facts.anchored:
            self.steps.append("silent")
            return self._end(anchor_silent())
        return self._closed(row, "silent", pool, draw)

    def _out_of_time(self) -> list[Action]:
        self.steps.append("out of time")
        if self.facts.anchored:
            return self._end(anchor_silent())
        return self._end(self._unavailable())

    def _refused_frame(self, failure: Failure, pool: Pool, draw: float) -> list[Action]:
        if failure.row.fault is Fault.CREDENTIAL and self._may_refresh(pool):
            self.steps.append(failure.code or str(failure.status))
            return self._refresh(Refused(failure))
        blame = self._blame(failure)
        match failure.row.fault:
            case Fault.CLIENT_STATE if self.facts.asks:
                self.steps.append(f"{self._current} does not know the previous response")
                return self._ask_next(failure, pool)
            case Fault.LIMIT | Fault.CREDENTIAL | Fault.TURN if self.facts.asks:
                self.steps.append(failure.code or str(failure.status))
                self._refusals.note(self._current, failure, pool.now)
                return [*blame, *self._ask_next(failure, pool)]
            case Fault.SOCKET | Fault.UPSTREAM:
                self.steps.append(failure.code or str(failure.status))
                if self.facts.anchored:
                    return self._end(previous_response_not_found())
                row = SOCKET_EXPIRED
                if failure.row.fault is Fault.UPSTREAM:
                    row = UPSTREAM_REFUSAL
                return self._follow(row, pool, draw)
            case Fault.FORBIDDEN if self._is_hard and self._may_replay:
                self.steps.append(failure.code or str(failure.status))
                wait = FORBIDDEN_WAIT_SECONDS
                return [*blame, *self._replay([self._current], "owner", pool, wait)]
            case Fault.LIMIT | Fault.CREDENTIAL | Fault.FORBIDDEN:
                self.steps.append(failure.code or str(failure.status))
                self._refusals.note(self._current, failure, pool.now)
                return [*blame, *self._account_refused(failure, pool)]
            case Fault.TURN:
                self.steps.append(failure.row.reason)
                self._refusals.accounts.add(self._current)
                return self._not_taken(failure, pool)
            case _:
                return self._end(failure)

    def _account_refused(self, failure: Failure, pool: Pool) -> list[Action]:
        """The account refused the turn: wait for it, move on, or say until when (rule 4a)."""
        account = self._current
        if self._may_replay:
            wait = self._short_wait(failure, pool)
            if wait is not None:
                return self._replay([account], "owner", pool, wait)
        if self._is_hard:
            if failure.row.fault is Fault.ISSUER:
                return self._end(self._unavailable())
            if not self._may_replay:
                return self._end(self._refused_for_now(failure, pool))
            return self._account_failed(account, pool, in_order_after(pool, account))
        return self._elsewhere(pool) or self._exhausted(pool)

    def _not_taken(self, failure: Failure, pool: Pool) -> list[Action]:
        """The account does not take this turn: another may.

        A missing model is final only where every account lacks it; a session goes where it can
        stay. Whatever else one account forbids, the next one will.
        """
        if failure.row is not MODEL_UNAVAILABLE and (self._is_hard or not self._may_replay):
            return self._end(failure)
        if not self._is_hard:
            return self._elsewhere(pool) or self._end(failure)
        homes = self._new_homes(self._current, in_order_after(pool, self._current))
        homes = [n for n in homes if n not in self._refusals.accounts | self._lacking]
        if not homes or self.facts.anchored:
            return self._end(failure)
        if not self._may_replay:
            return self._end(self._unavailable())
        return self._move(self._current, homes, pool)

    def _refused_for_now(self, failure: Failure, pool: Pool) -> ClientError:
        """Tell a hard turn that has had its replay whether another try may find a home."""
        account = self._current
        back_soon = (failure.retry_at or float("inf")) - pool.now <= self.policy.wait_up_to
        homes = self._new_homes(account, in_order_after(pool, account))
        elsewhere = self._refusals.transport_failed or any(
            name not in self._refusals.accounts for name in homes
        )
        if not back_soon and elsewhere:
            return self._unavailable()
        return self._refusals.shortage([account], account, pool)

    def _elsewhere(self, pool: Pool) -> list[Action]:
        """Replay on another account; empty if there is none."""
        others = self._untried(pool)
        if not others:
            return []
        if not self._may_replay:
            return self._end(self._unavailable())
        return self._replay(others, "policy", pool)

    def _untried(self, pool: Pool) -> list[str]:
        tried = {*self._dial_failed, *self._refusals.accounts, self._current}
        return [name for name in in_order_after(pool, self._current) if name not in tried]

    def _replay(
        self, candidates: list[str], reason: str, pool: Pool, wait: float = 0.0
    ) -> list[Action]:
        self.steps.append(f"replayed on {candidates[0]} ({reason})")
        return self._try(candidates, pool, wait)

    @property
    def _may_replay(self) -> bool:
        return self.facts.repeatable and self._tries - 1 < self.policy.replays

    def _short_wait(self, failure: Failure, pool: Pool) -> float | None:
        """How long a keyed turn waits for its limited owner; None if it should not, once a turn."""
        keyed_owner = self.facts.owner is not None and self._current == self._owner
        settled = self.facts.strength is Strength.SOFT or self._bound
        limited = failure.row.fault is Fault.LIMIT and failure.retry_at is not None
        if not limited or not keyed_owner or not settled or self._waited:
            return None
        assert failure.retry_at is not None
        wait = max(0.0, failure.retry_at - pool.now)
        if wait > self.policy.wait_up_to:
            return None
        self._waited = True
        return wait

    def _exhausted(self, pool: Pool) -> list[Action]:
        owner = self.moved_from or (self._owner if self._is_hard else None)
        return self._end(self._refusals.last_word(owner, pool, self.steps))

    def _unavailable(self) -> ClientError:
        return self._refusals.unavailable(self.steps)

    def _blame(self, failure: Failure) -> list[Action]:
        if failure.evidence.effect is Effect.NEUTRAL:
            return []
        return [Blame(self._current, failure.evidence)]

    def _end(self, error: ClientError | Failure) -> list[Action]:
        self.state = State.DONE
        self.error = error
        return [PassOn(error) if isinstance(error, Failure) else Answer(error)]

    @property
    def _current(self) -> str:
        assert self.account is not None, "no account was dialled yet"
        return self.account
