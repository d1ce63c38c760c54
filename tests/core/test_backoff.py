"""Waits: doubling, its cap, and the pace of dials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.backoff import Backoff, DialPace, doubled


@pytest.mark.parametrize(
    ("base", "repetitions", "expected"),
    [(5, 0, 5), (5, 1, 10), (30, 3, 240), (30, 4, 300), (30, 5000, 300), (0, 3, 0), (900, 0, 300)],
)
def test_doubling(base: float, repetitions: int, expected: float) -> None:
    assert doubled(base, repetitions, 300) == expected


@given(st.floats(0.01, 10), st.floats(0.01, 60), st.integers(0, 100))
def test_a_bound_never_shrinks_and_never_exceeds_the_longest(
    base: float, longest: float, repetitions: int
) -> None:
    backoff = Backoff(base, longest)
    assert 0 < backoff.bound(repetitions) <= backoff.bound(repetitions + 1) <= longest
    assert backoff.bound(0) == min(base, longest)


def test_a_burst_of_eight_dials_then_one_a_second() -> None:
    pace, waits = DialPace(), []
    for _ in range(10):
        wait, pace = pace.dial(1000.0)
        waits.append(wait)
    assert waits == [0] * 8 + [1, 1]
    # Whoever was told to wait has taken no place, and may leave.
    assert pace.dial(1001.0)[0] == 0


def test_the_bucket_fills_again() -> None:
    pace = DialPace()
    for _ in range(8):
        _, pace = pace.dial(1000.0)
    assert pace.dial(1001.0)[0] == 0
    assert pace.dial(1000.5)[0] == 0.5
    for _ in range(8):
        wait, pace = pace.dial(2000.0)
        assert wait == 0
    assert pace.dial(2000.0)[0] == 1


@given(st.lists(st.floats(0, 3), max_size=60))
def test_sockets_open_no_faster_than_the_pace(gaps: list[float]) -> None:
    pace, now, opened = DialPace(), 1000.0, []
    for gap in gaps:
        now += gap
        wait, pace = pace.dial(now)
        while wait:
            assert wait > 0
            now += wait
            wait, pace = pace.dial(now)
        opened.append(now)
    for first, ninth in zip(opened, opened[8:], strict=False):
        assert ninth - first >= 1 - 1e-6
