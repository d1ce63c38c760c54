"""Scenarios that nobody wrote are simulated as they happen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.machine.test_random_scenarios import tables, upstreams
from tests.parity.test_scenarios import both, differences

requests: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "session": st.sampled_from(["s1", "s2"]),
        "cache_key": st.just("k1"),
        "at": st.sampled_from([0.0021, 0.1013, 1.0307, 41.0511, 301.0713]),
        "stream": st.booleans(),
        "store": st.booleans(),
        "tools": st.just(["mcp"]),
        "leave": st.sampled_from([0.2017, 53.0919]),
    },
)
"""At times where nothing else happens: what falls in one moment has no order over sockets."""


@st.composite
def scenarios(draw: st.DrawFn) -> str:
    parts = [draw(upstreams())]
    restarts = draw(st.booleans())
    asked: list[dict[str, Any]] = draw(st.lists(requests, min_size=1, max_size=5))
    for number, request in enumerate(asked):
        if restarts:  # it ends several at once, and then those that wait for them begin at once
            request.setdefault("at", 0.0021)
        if "at" in request:
            request["at"] = round(request["at"] + 0.0037 * number, 4)
    parts.append(tables("request", asked))
    if restarts:
        parts.append(tables("restart", [{"at": draw(st.sampled_from([0.0519, 0.5023, 63.1029]))}]))
    return "\n".join(parts) + "\n"


@given(scenarios())
@settings(max_examples=25, deadline=None)
def test_what_is_simulated_happens(text: str) -> None:
    note(text)
    with tempfile.TemporaryDirectory() as folder:
        simulated, played = both(text, "random.toml", Path(folder))
    note("\n".join(map(str, simulated.timeline)))
    assert differences(simulated, played) == []
