"""openai-node, openai-agents, langchain-openai, the AI SDK and litellm."""

from __future__ import annotations

from functools import partial

from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import Scenario
from tests.clients.conformance.upstreams import DONE, SAID, TOLD

AGAIN = "You said: again"
HELLO = {"model": "mock", "input": "hello you"}
CHAINED = {"create": HELLO, "chained": True}

node = partial(Scenario, "openai-node")
OPENAI_NODE = [
    node("HTTP", "an answer in one piece", "create", {"text": SAID}),
    node("HTTP", "a streamed answer", "stream", {"events.-1.type": DONE}),
    node("HTTP", "the stream helper", "streamHelper", {"text": SAID}),
    node("HTTP", "a tool, with previous_response_id", "tool", {"text": TOLD}),
    node("HTTP", "error 400", "create", {"error.class": "BadRequestError"}, rules=(up.TOO_LONG,)),
    node("WebSocket", "a chain of turns", "websocket", {"turns.1.text": SAID}, {"turns": [{"create": HELLO}, CHAINED]}),
    node("WebSocket", "error 400", "websocket", {"turns.0.events.-1.type": "error"}, {"turns": [{"create": HELLO}]}, rules=(up.TOO_LONG,)),
    node("WebSocket", "1011 before the first event", "websocket", {"turns.0.events.-1.code": 1011}, {"turns": [{"create": HELLO}]}, rules=(up.CUT_BEFORE,)),
    node("WebSocket", "1011 after the first event", "websocket", {"turns.0.events.-1.code": 1011}, {"turns": [{"create": HELLO}]}, rules=(up.CUT_WITHIN,)),
    node("WebSocket", "a rotated upstream between turns", "websocket", {"turns.0.text": SAID}, {"turns": [{"create": HELLO}, {"create": HELLO}]}, rules=(up.ROTATED,)),
]

agents = partial(Scenario, "openai-agents")
PROMPTS = {"prompts": ["hello you", "again"]}


def runs(transport):
    played = partial(agents, transport)
    return [
        played("runs with their history", "turns", {"runs.0.text": SAID, "runs.1.text": AGAIN}, PROMPTS),
        played("runs with previous_response_id", "chained", {"texts": [SAID, AGAIN]}, PROMPTS),
        played("a streamed run", "streamed", {"text": SAID}),
        played("a tool", "turns", {"runs.0.text": TOLD}, {"prompts": ["Weather in Oslo?"], "tool": True}),
        played("a tool, without store", "turns", {"runs.0.text": TOLD}, {"prompts": ["Weather in Oslo?"], "tool": True, "store": False}),
        played("error 400", "turns", {"runs.0.text": None}, PROMPTS, rules=(up.TOO_LONG,)),
        played("1011 before the first event", "turns", {}, PROMPTS, rules=(up.CUT_BEFORE,)),
        played("1011 after the first event", "streamed", {}, PROMPTS, rules=(up.CUT_WITHIN,)),
        played("a rotated upstream between runs", "turns", {"runs.1.text": AGAIN}, PROMPTS, rules=(up.ROTATED,)),
    ]


langchain = partial(Scenario, "langchain-openai", "HTTP")
LANGCHAIN = [
    langchain("invoke", "invoke", {"message.content.0.text": SAID}),
    langchain("invoke, async", "ainvoke", {"message.content.0.text": SAID}),
    langchain("stream", "stream", {"text": SAID}),
    langchain("stream, async", "astream", {"error": None}),
    langchain("structured output", "structured", {"parsed.city": "Oslo"}, rules=(up.WEATHER,)),
    langchain("a tool", "calls", {"answered.content.0.text": TOLD}),
    langchain("previous_response_id", "continued", {"message.content.0.text": AGAIN}),
    langchain("error 400", "invoke", {"error.status": 400}, rules=(up.TOO_LONG,)),
    langchain("1011 before the first event", "stream", {}, rules=(up.CUT_BEFORE,)),
    langchain("1011 after the first event", "stream", {}, rules=(up.CUT_WITHIN,)),
]

ai_sdk = partial(Scenario, "ai-sdk", "HTTP")
AI_SDK = [
    ai_sdk("generateText", "generate", {"text": SAID}),
    ai_sdk("streamText", "stream", {"parts.-1.0": "finish"}),
    ai_sdk("structured output", "object", {"parsed.city": "Oslo"}, rules=(up.WEATHER,)),
    ai_sdk("a tool", "calls", {"text": TOLD}),
    ai_sdk("a tool, without store", "calls", {"text": TOLD}, {"store": False}),
    ai_sdk("error 400", "generate", {"error.status": 400}, rules=(up.TOO_LONG,)),
    ai_sdk("error 500, then an answer", "generate", {"text": SAID}, {"maxRetries": 2}, rules=(up.BROKEN_ONCE,)),
    ai_sdk("1011 before the first event", "stream", {}, rules=(up.CUT_BEFORE,)),
    ai_sdk("1011 after the first event", "stream", {}, rules=(up.CUT_WITHIN,)),
]

litellm = partial(Scenario, "litellm", "HTTP")
LITELLM = [
    litellm("responses", "responses", {"text": SAID}),
    litellm("responses, async", "aresponses", {"text": SAID}),
    litellm("responses, streamed", "stream", {"events.-1.0": DONE}),
    litellm("a tool", "calls", {"text": TOLD}),
    litellm("completion, bridged to responses", "bridged", {"text": SAID}),
    litellm("error 400", "responses", {"error.status": 400}, rules=(up.TOO_LONG,)),
    litellm("1011 before the first event", "responses", {}, rules=(up.CUT_BEFORE,)),
    litellm("1011 after the first event", "stream", {}, rules=(up.CUT_WITHIN,)),
]

SCENARIOS = [*OPENAI_NODE, *runs("HTTP"), *runs("WebSocket"), *LANGCHAIN, *AI_SDK, *LITELLM]
