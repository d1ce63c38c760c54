"""openai-python: both clients, over HTTP and WebSocket, and every class of error."""

from __future__ import annotations

from functools import partial

from codexlb_cli.mock_upstream.rules import FailedSpec, TurnRule
from tests.clients.conformance.scenario import Scenario
from tests.clients.conformance.upstreams import CUT_BEFORE, CUT_WITHIN, DONE, error

over_http = partial(Scenario, "openai-python", "HTTP")
over_websocket = partial(Scenario, "openai-python", "WebSocket")

SAID = "You said: hello you"
LAST = "events.-1.type"
ONCE = {"client": {"max_retries": 0}}

ANSWERS = [
    over_http("an answer in one piece", "create", {"text": SAID, "content_type": "application/json"}),
    over_http("an answer in one piece, async", "async_create", {"text": SAID}),
    over_http("a streamed answer", "stream", {LAST: DONE}),
    over_http("a streamed answer, async", "async_stream", {LAST: DONE}),
    over_http("the stream helper", "stream_helper", {"text": SAID}),
    over_http("the stream helper, async", "async_stream_helper", {"text": SAID}),
]
SCENARIOS = ANSWERS
