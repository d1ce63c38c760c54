"""What holds for every turn, whatever the upstream does: arbitrary possible events, to the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Availability
from codexlb_cli.core.closes import CloseOverride, HardMove, ReconnectPolicy, SoftMove
from codexlb_cli.core.failures import Fault
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.turn import State, Turn
from codexlb_cli.core.turn_events import (
    Action,
    Answer,
    Blame,
    BoundElsewhere,
    Closed,
    Dial,
    DialFailed,
    Event,
    PassOn,
    QueueFull,
    Refresh,
    RoomFree,
    Send,
    Silent,
    TurnFacts,
)
from tests.core.playing import (
    BEGIN,
    FINISHED,
    LOGIN_ENDED,
    NO_PONG,
    NOT_REFRESHED,
    OPENED,
    OUT_OF_TIME,
    REFRESHED,
    RESPONDED,
    SILENT,
    UNREACHABLE,
    Player,
    answered,
    closed,
    dial_refused,
    refused,
)
from tests.core.pools import pools

NAMES = ("work", "home", "spare", "team", "gone")
LONGEST_SCRIPT = 40

codes = st.sampled_from(
    [None, "rate_limit_exceeded", "usage_limit_reached", "invalid_api_key", "server_error",
     "model_not_found", "websocket_connection_limit_reached", "previous_response_not_found"]
)  # fmt: skip
waits = st.sampled_from([None, None, 0.5, 5.0, 30.0, 7200.0])
statuses = st.sampled_from([400, 401, 403, 404, 500, 503])
limit_codes = st.sampled_from([None, "rate_limit_exceeded", "usage_limit_reached"])
dial_failures = st.one_of(
    st.just(UNREACHABLE),
    st.builds(dial_refused, statuses, codes),
    st.builds(dial_refused, st.just(429), limit_codes, waits),
)
frames = st.builds(refused, statuses | st.none(), codes) | st.builds(answered, statuses, codes)
frames |= st.builds(refused, st.just(429), limit_codes, waits)
opened: st.SearchStrategy[Event] = st.just(OPENED)
ends: st.SearchStrategy[Event] = st.just(FINISHED)
others: st.SearchStrategy[Event] = st.sampled_from([SILENT, RESPONDED, FINISHED, OUT_OF_TIME])
refreshes: st.SearchStrategy[Event] = st.sampled_from([REFRESHED, NOT_REFRESHED, LOGIN_ENDED])
in_line: st.SearchStrategy[Event] = st.sampled_from([RoomFree(), QueueFull(8), OUT_OF_TIME])
closes = st.one_of(
    st.sampled_from([1000, 1006, 1008, 1009, 1011, 1012, 1013, 3000, 3003, 4000]).map(closed),
    st.integers(1000, 4999).map(closed),
    st.just(NO_PONG),
)
policies = st.builds(
    ReconnectPolicy,
    replays=st.integers(0, 1),
    on_account_failure=st.sampled_from(["move", "fail"]),
    wait_up_to=st.sampled_from([0.0, 10.0]),
    closes=st.dictionaries(
        st.sampled_from([1006, 1011, 1013]),
        st.builds(CloseOverride, soft=st.sampled_from(SoftMove), hard=st.sampled_from(HardMove)),
    ),
)


@st.composite
def turn_facts(draw: st.DrawFn) -> TurnFacts:
    strength = draw(st.sampled_from(Strength))
    owner = None if strength is Strength.NONE else draw(st.sampled_from([None, *NAMES]))
    hard = strength is Strength.HARD
    bound = hard and owner is not None and draw(st.booleans())
    anchored = bound and draw(st.integers(0, 3)) == 0
    asks = hard and owner is None and draw(st.booleans())
    return TurnFacts(
        strength=strength,
        owner=owner,
        bound=bound,
        portable=not anchored and not asks and draw(st.booleans()),
        replayable=draw(st.booleans()),
        anchored=anchored,
        failures=draw(st.integers(0, 6)),
        asks=asks,
        hint=draw(st.sampled_from([None, *NAMES])) if asks else None,
    )


@dataclass
class Watched:
    """A turn under test, and all that it did."""

    player: Player
    facts: TurnFacts
    sends: int = 0
    phase_dials: list[str] = field(default_factory=list)
    over_http: list[str] = field(default_factory=list)
    dials: list[str] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    ends: int = 0
    responded: bool = False
    bound_to: str | None = None

    def feed(self, event: Event, draw: float) -> None:
        turn = self.player.turn
        before, pool = turn.account, self.player.pool
        actions = self.player.receive(event, draw=draw)
        decisive = [a for a in actions if not isinstance(a, Blame)]
        assert len(decisive) <= 1
        assert actions[-1:] == decisive[-1:], "blame is told before what follows"
        if event is RESPONDED:
            self.responded = True
        for action in decisive:
            self._check(action, event, before)
        if isinstance(event, Closed | Silent) and self.facts.strength is Strength.HARD:
            named = [a.account for a in decisive if isinstance(a, Dial | Refresh)]
            assert named in ([], [before])
        for action in decisive:
            if isinstance(action, Dial) and not isinstance(event, BoundElsewhere):
                known = pool.standing_of(action.account)
                assert known is not None
                assert known.state not in (Availability.DISABLED, Availability.NEEDS_LOGIN)

    def _check(self, action: Action, event: Event, before: str | None) -> None:
        match action:
            case Send(attempt):
                self.sends += 1
                assert attempt == self.sends == self.player.turn.attempts
                assert not self.responded
                self.phase_dials = []
                self.bound_to = self.player.turn.account
            case Dial(account, after):
                assert account == self.player.turn.account
                assert 0 <= after <= 10.0
                self.dials.append(account)
                if self._falls_back(event, account, before):
                    self.over_http.append(account)
                else:
                    self.phase_dials.append(account)
            case Refresh(account):
                known = self.player.pool.account(account)
                assert known is not None
                assert known.refreshable
                assert account == self.player.turn.account
                self.refreshed.append(account)
            case Answer() | PassOn():
                self.ends += 1

    def _falls_back(self, event: Event, account: str, before: str | None) -> bool:
        """Whether an account without a WebSocket is dialled over HTTP: once in a turn."""
        if account != before or not isinstance(event, DialFailed):
            return False
        known = self.player.pool.account(account)
        may = known is not None and known.transport == "auto" and account not in self.over_http
        return may and event.failure.row.fault is Fault.NO_WEBSOCKET


@given(st.data())
@settings(max_examples=1500, deadline=None)
def test_every_turn_ends_once_and_does_nothing_twice_in_silence(data: st.DataObject) -> None:
    facts, policy = data.draw(turn_facts()), data.draw(policies)
    turn = Turn(facts, policy)
    watched = Watched(Player(turn, data.draw(pools())), facts)
    parallel = facts.strength is Strength.HARD and not facts.bound and not facts.asks
    watched.feed(BEGIN, 1.0)
    for _ in range(LONGEST_SCRIPT):
        match turn.state:
            case State.DIALLING:
                kind = data.draw(st.integers(0, 24))
                pool = watched.player.pool
                able = [a.name for a in pool.accounts if pool.usable(a.name)]
                if kind == 0 and parallel and able:
                    parallel = False
                    watched.bound_to = data.draw(st.sampled_from(able))
                    event: Event = BoundElsewhere(watched.bound_to)
                    watched.phase_dials = []
                elif kind == 1:
                    event = OUT_OF_TIME
                else:
                    event = OPENED if kind < 8 else data.draw(dial_failures)
            case State.QUEUED:
                event = data.draw(in_line)
            case State.REFRESHING:
                event = data.draw(refreshes)
            case State.SENT:
                parallel = False
                event = data.draw(closes | frames | others)
            case State.RESPONDING:
                event = data.draw(closes | ends)
            case _:
                break
        watched.feed(event, data.draw(st.floats(0, 1)))
        _check_dials(watched, facts)
    assert turn.state is State.DONE, "the turn does not end"
    note(f"sends {watched.sends}")

    finished = turn.error is None
    assert watched.ends == (0 if finished else 1)
    assert len(set(watched.refreshed)) == len(watched.refreshed), "once in a turn and account"
    asked = len(watched.player.pool.accounts) - 1 if facts.asks else 0
    assert watched.sends == turn.attempts <= 1 + policy.replays + asked
    if (facts.anchored or not facts.replayable) and not facts.asks:
        assert watched.sends <= 1
    if facts.bound and not facts.portable:
        assert set(watched.dials) <= {facts.owner}
    if turn.moved_from is not None:
        assert facts.portable
        assert policy.on_account_failure == "move"


def _check_dials(watched: Watched, facts: TurnFacts) -> None:
    """Each candidate is dialled once; an owner twice, and once more after a brief limit."""
    owners = {facts.owner, watched.bound_to}
    for name in set(watched.phase_dials):
        most = (3 if name in owners else 1) + watched.refreshed.count(name)
        assert watched.phase_dials.count(name) <= most, watched.phase_dials


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_same_events_lead_to_the_same_actions(data: st.DataObject) -> None:
    facts, policy = data.draw(turn_facts()), data.draw(policies)
    accounts = data.draw(pools())
    script: list[Event] = [
        BEGIN, data.draw(opened | dial_failures), data.draw(closes | frames),
    ]  # fmt: skip
    seen = []
    for _ in range(2):
        turn, actions = Turn(facts, policy), []
        for event in script:
            try:
                actions.append(turn.receive(event, accounts, draw=0.5))
            except AssertionError:
                break
        seen.append((actions, replace(turn)))
    assert seen[0] == seen[1]
