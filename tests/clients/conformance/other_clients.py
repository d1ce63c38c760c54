"""openai-node, openai-agents, langchain-openai, the AI SDK and litellm."""

from __future__ import annotations

import json
from functools import partial

from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import ABSENT, Scenario, Transport
from tests.clients.conformance.upstreams import DONE, SAID, TOLD, asked

AGAIN = "You said: again"
RESENT = {"upstream": ["close 1011", DONE]}
RESENT_OF_TWO = {"upstream": ["close 1011", DONE, DONE]}


NODE_CUT_STREAM = {
    **{name: up.CUT_STREAM[name] for name in ("class", "code", "message", "param", "status")},
    **{name: up.CUT_STREAM[name] for name in ("type", "retry_after", "cause")},
    "retryable": None,
}

node = partial(Scenario, "openai-node")
HELLO = {"model": "mock", "input": "hello you"}
CHAINED = {"create": HELLO, "chained": True}
ONE_TURN = {"turns": [{"create": HELLO}]}
TWO_TURNS = {"turns": [{"create": HELLO}, {"create": HELLO}]}
BROKEN_OFF = "turns.0.events.-1.code"
OPENAI_NODE = [
    node("HTTP", "an answer in one piece", "create", {"text": SAID}),
    node("HTTP", "a streamed answer", "stream", {"events.-1.type": DONE}),
    node("HTTP", "the stream helper", "streamHelper", {"text": SAID}),
    node("HTTP", "a tool, with previous_response_id", "tool", {"text": TOLD}),
    node("HTTP", "error 400", "create", {"error.class": "BadRequestError"}, rules=(up.TOO_LONG,)),
    node(
        "HTTP",
        "1011 before the first event",
        "stream",
        {"error.class": "APIConnectionError"},
        {"client": {"maxRetries": 0}},
        rules=(up.CUT_BEFORE,),
        hidden=(),
        differs=RESENT,
        why=up.UNSEEN,
    ),
    node(
        "HTTP",
        "1011 after the first event",
        "stream",
        {"error.message": "terminated"},
        {"client": {"maxRetries": 0}},
        rules=(up.CUT_WITHIN,),
        differs={"error": NODE_CUT_STREAM},
        why=up.ONE_ENDING,
    ),
    node(
        "HTTP",
        "error 500, then an answer",
        "create",
        {"text": SAID, "requests": 2},
        rules=(up.BROKEN_ONCE,),
        differs={"requests": 1},
        why=up.UNSEEN,
    ),
    node("HTTP", "error 429, then an answer", "create", {"text": SAID}, rules=(up.LIMITED_ONCE,)),
    node(
        "WebSocket",
        "a tool",
        "websocket",
        {"turns.1.text": TOLD},
        {
            "turns": [
                {"create": up.TOOL_TURN | {"input": "Weather?"}},
                {"create": up.TOOL_TURN | {"input": [up.TOOL_OUTPUT]}, "chained": True},
            ]
        },
    ),
    node(
        "WebSocket",
        "a chain of turns",
        "websocket",
        {"turns.1.text": SAID},
        {"turns": [{"create": HELLO}, CHAINED]},
    ),
    node(
        "WebSocket",
        "error 400",
        "websocket",
        {"turns.0.events.-1.type": "error"},
        ONE_TURN,
        rules=(up.TOO_LONG,),
    ),
    node(
        "WebSocket",
        "1011 before the first event",
        "websocket",
        {BROKEN_OFF: 1011},
        ONE_TURN,
        rules=(up.CUT_BEFORE,),
        hidden=(),
        differs=RESENT | {"frames": [asked("hello you")] * 2},
        why=up.UNSEEN,
    ),
    node(
        "WebSocket",
        "1011 after the first event",
        "websocket",
        {BROKEN_OFF: 1011},
        ONE_TURN,
        rules=(up.CUT_WITHIN,),
        differs={"turns.0.events.-1": up.CUT_FRAME},
        why=up.ONE_ENDING,
    ),
    node(
        "WebSocket",
        "a rotated upstream between turns",
        "websocket",
        {"turns.0.text": SAID},
        TWO_TURNS,
        rules=(up.ROTATED,),
        hidden=(),
        why=up.REPLACED,
    ),
]

agents = partial(Scenario, "openai-agents")
PROMPTS = {"prompts": ["hello you", "again"]}
WEATHER = {"prompts": ["Weather in Oslo?"], "tool": True}


def runs(transport: Transport) -> list[Scenario]:
    """Return what openai-agents does over either transport."""
    over = partial(agents, transport)
    sockets = transport == "WebSocket"
    again = [asked(*["message"] * count) for count in (1, 1, 3)]
    return [
        over("runs with history", "turns", {"runs.0.text": SAID, "runs.1.text": AGAIN}, PROMPTS),
        over("runs with previous_response_id", "chained", {"texts": [SAID, AGAIN]}, PROMPTS),
        over("a streamed run", "streamed", {"text": SAID}),
        over("a tool", "turns", {"runs.0.text": TOLD}, WEATHER),
        over("a tool, without store", "turns", {"runs.0.text": TOLD}, WEATHER | {"store": False}),
        over(
            "error 400",
            "turns",
            {"runs.0.error.code": "context_length_exceeded"},
            PROMPTS,
            rules=(up.TOO_LONG,),
        ),
        over(
            "1011 before the first event",
            "turns",
            {"runs.0.error.class": "RuntimeError" if sockets else "APIConnectionError"},
            PROMPTS,
            rules=(up.CUT_BEFORE,),
            hidden=(),
            differs=RESENT_OF_TWO | ({"frames": again} if sockets else {}),
            why=up.UNSEEN,
        ),
        over(
            "1011 after the first event",
            "streamed",
            {"error.class": "ConnectionClosedError" if sockets else "APIConnectionError"},
            PROMPTS,
            rules=(up.CUT_WITHIN,),
            differs=AGENTS_CUT_FRAME if sockets else {"error": up.CUT_STREAM},
            why=up.ONE_ENDING,
        ),
        over(
            "a rotated upstream between runs",
            "turns",
            {"runs.1.text": AGAIN},
            PROMPTS,
            rules=(up.ROTATED,),
        ),
    ]


AGENTS_CUT_FRAME = {
    "error.class": "ResponsesWebSocketError",
    "error.code": "upstream_closed",
    "error.message": f"Responses websocket error: {json.dumps(up.CUT_FRAME, sort_keys=True)}",
}

langchain = partial(Scenario, "langchain-openai", "HTTP")
ANSWER = "message.content.0.text"
LANGCHAIN = [
    langchain("invoke", "invoke", {ANSWER: SAID}),
    langchain("invoke, async", "ainvoke", {ANSWER: SAID}),
    langchain("stream", "stream", {"text": SAID}),
    langchain("stream, async", "astream", {"error": None, "upstream": [DONE]}),
    langchain("structured output", "structured", {"parsed.city": "Oslo"}, rules=(up.WEATHER,)),
    langchain("a tool", "calls", {"answered.content.0.text": TOLD}),
    langchain("previous_response_id", "continued", {ANSWER: AGAIN}),
    langchain("error 400", "invoke", {"error.status": 400}, rules=(up.TOO_LONG,)),
    langchain(
        "error 429 while another account is free",
        "invoke",
        {"error.status": 429},
        rules=(up.WORK_LIMITED,),
        hidden=(),
        differs={"upstream": ["error 429 rate_limit_exceeded", DONE]},
        why=up.SERVED_ELSEWHERE,
        accounts=("work", "home"),
    ),
    langchain(
        "1011 before the first event",
        "stream",
        {"error.class": "OpenAIConnectionError"},
        rules=(up.CUT_BEFORE,),
        hidden=(),
        differs=RESENT,
        why=up.UNSEEN,
    ),
    langchain(
        "1011 after the first event",
        "stream",
        {"error.class": "OpenAIConnectionError"},
        rules=(up.CUT_WITHIN,),
        differs={"error": up.CUT_STREAM},
        why=up.ONE_ENDING,
    ),
]

ai_sdk = partial(Scenario, "ai-sdk", "HTTP")
AI_SDK = [
    ai_sdk("generateText", "generate", {"text": SAID}),
    ai_sdk("streamText", "stream", {"parts.-1.0": "finish"}),
    ai_sdk("structured output", "object", {"parsed.city": "Oslo"}, rules=(up.WEATHER,)),
    ai_sdk("a tool", "calls", {"text": TOLD}),
    ai_sdk("a tool, without store", "calls", {"text": TOLD}, {"store": False}),
    ai_sdk("error 400", "generate", {"error.status": 400}, rules=(up.TOO_LONG,)),
    ai_sdk(
        "error 500, then an answer",
        "generate",
        {"text": SAID},
        {"maxRetries": 2},
        rules=(up.BROKEN_ONCE,),
    ),
    ai_sdk(
        "1011 before the first event",
        "stream",
        {"parts.1.0": "error", "parts.1.1": "Cannot connect to API: other side closed"},
        rules=(up.CUT_BEFORE,),
        hidden=(),
        differs=RESENT,
        why=up.UNSEEN,
    ),
    ai_sdk(
        "1011 after the first event",
        "stream",
        {"error.class": "APICallError"},
        rules=(up.CUT_WITHIN,),
        differs={
            "error": ABSENT,
            "parts.+": [
                ["error", up.CUT_OFF, None, True],
                ["finish-step", None],
                ["finish", None],
            ],
        },
        why=up.ONE_ENDING,
    ),
]

litellm = partial(Scenario, "litellm", "HTTP")
LITELLM = [
    litellm("responses", "responses", {"text": SAID}),
    litellm("responses, async", "aresponses", {"text": SAID}),
    litellm("responses, streamed", "stream", {"events.-1.0": DONE}),
    litellm("a tool", "calls", {"text": TOLD}, rules=(up.CALLS,)),
    litellm("completion, bridged to responses", "bridged", {"text": SAID}),
    litellm("error 400", "responses", {"error.status": 400}, rules=(up.TOO_LONG,)),
    litellm(
        "1011 before the first event",
        "responses",
        {"error.class": "InternalServerError"},
        rules=(up.CUT_BEFORE,),
        hidden=(),
        differs=RESENT,
        why=up.UNSEEN,
    ),
    litellm(
        "1011 after the first event",
        "stream",
        {"error.class": "RemoteProtocolError", "events.-1.0": "response.output_text.delta"},
        rules=(up.CUT_WITHIN,),
        differs={"error": ABSENT, "events.+": [["error", up.CUT_OFF]]},
        why=up.ONE_ENDING,
    ),
]

SCENARIOS: list[Scenario] = [
    *OPENAI_NODE,
    *runs("HTTP"),
    *runs("WebSocket"),
    *LANGCHAIN,
    *AI_SDK,
    *LITELLM,
]
