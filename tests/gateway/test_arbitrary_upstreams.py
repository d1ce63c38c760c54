"""Promises that hold whatever the upstream does, and whatever else happens at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from tests.gateway.test_closes import keyed
from tests.support.client import TERMINAL, Answer
from tests.support.gateway import Stage, play

NAMES = ("work", "home", "spare", "lab", "team", "five")
"""So many that none is dialled more often than it may be at once."""
MORE = """
[timeouts]
first_event = 0.5
idle = 0.5
dial = 2
[reconnect]
backoff_base = 0
[affinity]
wait_up_to = 0
"""
POINTS = st.sampled_from(["before_created", "created", "streaming", "idle"])
CODES = st.sampled_from([1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 3000, 4001])
STATUSES = st.sampled_from([None, 400, 401, 403, 404, 429, 500, 503])
ERROR_CODES = st.sampled_from([None, "odd", "server_is_overloaded", "usage_limit_reached"])
TELEMETRY = ('{"type":"codex.rate_limits"}', '{"type":"response.metadata"}', '{"type":"new"}')

faults = st.one_of(
    st.builds(dict, close=CODES, when=POINTS),
    st.builds(dict, close=CODES, when=POINTS, send=st.just(TELEMETRY)),
    st.builds(
        dict,
        error=st.builds(ErrorSpec, status=STATUSES, code=ERROR_CODES),
        when=st.sampled_from(["before_created", "created", "streaming"]),
        close=st.none() | CODES,
    ),
    st.builds(dict, failed=st.just(FailedSpec())),
    st.builds(dict, incomplete=st.just("max_output_tokens")),
    st.builds(dict, silence=st.just(True), when=POINTS),
    st.builds(dict, binary=st.just(True), when=POINTS),
    st.just({"send": ("no json",)}),
    st.just({}),
)
frequency: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict, every=st.sampled_from([1, 2]), account=st.sampled_from([None, "work"])
)
turn_rules = st.lists(st.tuples(faults, frequency), min_size=12, max_size=12)
handshake_rules = st.lists(
    st.builds(
        HandshakeRule,
        every=st.integers(2, 5),
        account=st.sampled_from([None, "home"]),
        status=st.sampled_from([None, 404, 426, 429, 500, 503]),
    ),
    max_size=2,
)
KINDS = ("session", "cache", "none")


def assert_one_outcome(answer: Answer) -> None:
    """A status with the envelope, or a stream with exactly one terminal event at its end."""
    assert answer.complete
    if answer.status != 200:
        assert answer.status not in (401, 403) or "Scripted" in answer.error["message"]
        assert answer.error["message"]
        return
    kinds = answer.types
    assert [kind for kind in kinds if kind in TERMINAL] == kinds[-1:]
    numbers = [event.data["sequence_number"] for event in answer.events]
    assert numbers == list(range(len(numbers)))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turn_rules, handshake_rules, st.frozensets(st.sampled_from(NAMES)))
def test_whatever_the_upstream_does(
    tmp_path_factory: Any,
    drawn: list[tuple[dict[str, Any], dict[str, Any]]],
    handshakes: list[HandshakeRule],
    over_http: frozenset[str],
) -> None:
    rules = [
        TurnRule(model=f"model-{number}", **fault, **often)
        for number, (fault, often) in enumerate(drawn)
    ]

    async def test(stage: Stage) -> None:
        answers = await asyncio.gather(
            *(
                stage.turn(model=rule.model, **keyed(KINDS[number % 3], f"k{number % 5}"))
                for number, rule in enumerate(rules)
            )
        )
        assert stage.mock.overlaps == 0
        for rule, answer in zip(rules, answers, strict=True):
            assert_one_outcome(answer)
            turns = [turn for turn in stage.mock.turns if turn.model == rule.model]
            assert len(turns) <= 2
            assert answer.header("x-codexlb-attempts") in (None, str(len(turns)))
            begun = [turn for turn in turns if turn.response_id is not None]
            # Once the response has begun, the turn is never sent again.
            assert begun in ([], turns[-1:])
        assert stage.gateway.responses.running == 0
        # Nothing that happened keeps a new conversation from being served.
        stage.clock.advance(10_000)
        async with asyncio.timeout(10):
            fresh = [stage.turn(headers=[("session-id", f"new {n}")]) for n in range(3)]
            for answer in await asyncio.gather(*fresh):
                assert answer.status in (200, 429, 503)
                assert_one_outcome(answer)

    folder: Path = tmp_path_factory.mktemp("upstream")
    accounts = dict.fromkeys(over_http, 'transport = "http"')
    asyncio.run(play(test, folder, *rules, *handshakes, more=MORE, names=NAMES, accounts=accounts))
