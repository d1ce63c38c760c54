"""openai-python: both clients, over HTTP and WebSocket, and every class of error."""

from __future__ import annotations

from functools import partial
from typing import Any

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import ABSENT, Scenario
from tests.clients.conformance.upstreams import DONE, SAID, TOLD, error, raised

http = partial(Scenario, "openai-python", "HTTP")
websocket = partial(Scenario, "openai-python", "WebSocket")

LAST = "events.-1.type"
ONCE = {"client": {"max_retries": 0}}
HURRIED = {"client": {"max_retries": 0, "timeout": 1.0}}
INTERNAL = "InternalServerError"


USED_UP = raised(429, "usage_limit_reached", up.USED_UP, resets_at=up.USAGE_LIMIT.error.resets_at)

ANSWERS = [
    http(
        "an answer in one piece", "create", {"text": SAID, "content_type": "application/json"}
    ),
    http("an answer in one piece, async", "async_create", {"text": SAID}),
    http("a streamed answer", "stream", {LAST: DONE}),
    http("a streamed answer, async", "async_stream", {LAST: DONE}),
    http("the stream helper", "stream_helper", {"text": SAID}),
    http("the stream helper, async", "async_stream_helper", {"text": SAID}),
    http("a parsed answer", "parse", {"parsed.city": "Oslo"}, rules=(up.WEATHER,)),
    http("a parsed answer, async", "async_parse", {"parsed.degrees": 4}, rules=(up.WEATHER,)),
    http("a tool, with the full history", "tool", {"text": TOLD, "calls.0.name": "weather"}),
    http("a tool, with previous_response_id", "tool", {"text": TOLD}, {"chained": True}),
    http("a response that failed", "create", {"response.status": "failed"}, rules=(up.FAILED,)),
    http(
        "a response that failed, streamed",
        "stream",
        {LAST: "response.failed"},
        rules=(up.FAILED,),
    ),
    http(
        "a response that is incomplete",
        "stream",
        {LAST: "response.incomplete"},
        rules=(up.INCOMPLETE,),
    ),
    http("a stream that is left early", "leave", {"text": "You said: again"}, rules=(up.SLOW,)),
]


def way(action: str) -> str:
    """Return how a row names the way in which the turn is asked for."""
    streamed = ", streamed" if action.endswith("stream") else ""
    return streamed + (", async" if action.startswith("async") else "")


PASSED_ON = [
    http(
        f"error {status}{way(action)}",
        action,
        {"error.class": name, "error.status": status, "error.param": "input", "requests": 1},
        ONCE,
        rules=(error(status, code, param="input"),),
    )
    for status, code, name in (
        (400, "context_length_exceeded", "BadRequestError"),
        (403, "unsupported_region", "PermissionDeniedError"),
        (404, "model_gone", "NotFoundError"),
        (409, "conflict", "ConflictError"),
        (422, "unprocessable", "UnprocessableEntityError"),
    )
    for action in ("create", "stream", "async_create")
]


def account_errors(action: str) -> list[Scenario]:
    """Return the errors that are about the account or the upstream, by one way to ask."""
    played = partial(http, action=action, options=ONCE)
    unavailable = "upstream_unavailable"
    overloaded = up.gave_up("server_is_overloaded")
    return [
        played(
            f"error 401{way(action)}",
            sees={"error.class": "AuthenticationError", "requests": 1},
            rules=(up.KEY_REFUSED,),
            differs={"error": raised(503, "no_accounts", up.NO_ACCOUNTS)},
            why=up.OUR_ACCOUNT,
        ),
        played(
            f"error 429{way(action)}",
            sees={"error.class": "RateLimitError", "requests": 1},
            rules=(up.LIMITED,),
            differs={"error": raised(429, "rate_limit_exceeded", up.WAIT_10, wait=10)},
            why=up.ALL_ACCOUNTS,
        ),
        played(
            f"error 429 with Retry-After{way(action)}",
            sees={"error.class": "RateLimitError", "error.retry_after": "30"},
            rules=(up.LIMITED_FOR_A_TIME,),
            differs={"error": raised(429, "rate_limit_exceeded", up.WAIT_30, wait=30)},
            why=up.ALL_ACCOUNTS,
        ),
        played(
            f"usage limit reached{way(action)}",
            sees={"error.class": "RateLimitError", "error.code": "usage_limit_reached"},
            rules=(up.USAGE_LIMIT,),
            differs={"error": USED_UP},
            why=up.ALL_ACCOUNTS,
        ),
        played(
            f"error 500{way(action)}",
            sees={"error.class": INTERNAL, "error.status": 500, "requests": 1},
            rules=(up.BROKEN,),
            differs={
                "error": raised(503, unavailable, up.gave_up("server_error"), wait=1),
                "upstream": ["error 500 server_error"] * 2,
            },
            why=up.REPLAYED,
        ),
        played(
            f"error 503{way(action)}",
            sees={"error.class": INTERNAL, "error.status": 503, "requests": 1},
            rules=(up.OVERLOADED,),
            differs={
                "error": raised(503, unavailable, overloaded, wait=1),
                "upstream": ["error 503 server_is_overloaded"] * 2,
            },
            why=up.REPLAYED,
        ),
    ]


RETRIES = [
    http(
        "error 500, then an answer",
        "create",
        {"text": SAID, "requests": 2},
        rules=(up.BROKEN_ONCE,),
        differs={"requests": 1},
        why=up.UNSEEN,
    ),
    http("error 429, then an answer", "create", {"text": SAID}, rules=(up.LIMITED_ONCE,)),
    http(
        "error 429 while another account is free",
        "create",
        {"error.class": "RateLimitError"},
        ONCE,
        rules=(up.WORK_LIMITED,),
        hidden=(),
        differs={
            "upstream": ["error 429 rate_limit_exceeded", DONE],
            "response.metadata.account": "home",
        },
        why=up.SERVED_ELSEWHERE,
        accounts=("work", "home"),
    ),
]


def connection_errors(action: str) -> list[Scenario]:
    """Return the ways in which a connection ends or does not begin, by one way to ask."""
    cut_off = up.CUT_STREAM if action.endswith("stream") else raised(502, "upstream_closed", up.CUT_OFF)
    away = raised(503, "upstream_unavailable", up.AWAY, wait=1)
    return [
        http(
            f"1011 before the first event{way(action)}",
            action,
            {"error.class": "APIConnectionError", "requests": 1},
            ONCE,
            rules=(up.CUT_BEFORE,),
            hidden=(),
            differs={"upstream": ["close 1011", DONE]},
            why=up.UNSEEN,
        ),
        http(
            f"1011 after the first event{way(action)}",
            action,
            {"requests": 1, "upstream": ["close 1011"]},
            ONCE,
            rules=(up.CUT_WITHIN,),
            differs={"error": cut_off},
            why=up.ONE_ENDING,
        ),
        http(
            f"nobody listens{way(action)}",
            action,
            {"error.class": "APIConnectionError", "requests": 1},
            ONCE,
            away=True,
            differs={"error": away},
            why=up.NOT_REACHED,
        ),
        http(
            f"a timeout of the client{way(action)}",
            action,
            {"error.class": "APITimeoutError", "requests": 1},
            HURRIED,
            rules=(up.SILENT,),
        ),
    ]


Asked = dict[str, Any]
HELLO: Asked = {"model": "mock", "input": "hello you"}
CHAINED: Asked = {"create": HELLO, "chained": True}
UNSTORED: Asked = {"create": HELLO | {"store": False}}
TOOL = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {}},
}
TOOL_TURN: Asked = {"model": "mock-tool", "tools": [TOOL]}
OUTPUT = {"type": "function_call_output", "call_id": "call_c0ffee000000000001", "output": "4"}


def turns(*asked: Asked) -> dict[str, object]:
    """Return the options of turns that follow each other on one connection."""
    return {"turns": [{"create": HELLO} | turn for turn in asked]}


CONNECTIONS = [
    websocket("a turn", "websocket", {"turns.0.text": SAID}, turns({})),
    websocket("a turn, async", "async_websocket", {"turns.0.text": SAID}, turns({})),
    websocket(
        "a chain of turns",
        "websocket",
        {"turns.2.text": SAID, "frames.2.continues": "resp_c0ffee000000000002"},
        turns({}, CHAINED, CHAINED),
    ),
    websocket(
        "a chain of turns without store, async",
        "async_websocket",
        {"turns.1.text": SAID},
        turns(UNSTORED, UNSTORED | {"chained": True}),
    ),
    websocket(
        "a warm-up, then its turn",
        "websocket",
        {"turns.1.text": SAID, "frames.0.warm_up": True},
        turns({"create": HELLO | {"generate": False}}, CHAINED),
    ),
    websocket(
        "a tool",
        "websocket",
        {"turns.1.text": TOLD},
        turns(
            {"create": TOOL_TURN | {"input": "Weather?"}},
            {"create": TOOL_TURN | {"input": [OUTPUT]}, "chained": True},
        ),
    ),
    websocket(
        "lanes (stream_id)",
        "websocket",
        {"turns.1.text": SAID, "turns.1.events.0.stream_id": "right"},
        turns(*({"create": HELLO | {"stream_id": lane}} for lane in ("left", "right"))),
    ),
    websocket(
        "response.interrupt, then another turn",
        "websocket",
        {"turns.0.events.2": "response.incomplete", "turns.1.text": SAID},
        turns({"interrupt_at": "response.output_text.delta"}, {}),
        rules=(up.SLOW,),
    ),
    websocket(
        "a response that failed",
        "websocket",
        {"turns.0.events.-1.type": "response.failed"},
        turns({}),
        rules=(up.FAILED,),
    ),
    websocket(
        "previous_response_not_found, then the full input",
        "websocket",
        {
            "turns.0.events.0.error.code": "previous_response_not_found",
            "turns.1.text": SAID,
        },
        turns({"create": HELLO | {"previous_response_id": "resp_gone"}}, {}),
    ),
]

TURN = "turns.0.events.0"
HIDDEN_CLOSES = [
    websocket(
        name,
        "websocket",
        sees,
        turns(*[{}] * count),
        rules=(rule,),
        hidden=(),
        differs={"upstream": upstream, "frames": [ASKED] * len(upstream)},
        why=up.UNSEEN,
    )
    for ASKED in [
        {"type": "response.create", "continues": None, "input": ["message"], "warm_up": False}
    ]
    for name, sees, count, rule, upstream in (
        (
            "1011 before the first event",
            {"turns.0.error.close_code": 1011},
            1,
            up.CUT_BEFORE,
            ["close 1011", DONE],
        ),
        (
            "websocket_connection_limit_reached",
            {f"{TURN}.error.code": "websocket_connection_limit_reached"},
            1,
            up.TOO_OLD,
            ["error 400 websocket_connection_limit_reached", DONE],
        ),
    )
]
LOST = [
    websocket(
        "a rotated upstream between turns",
        "websocket",
        {"turns.0.text": SAID, "turns.1.error.close_code": 1001},
        turns({}, {}),
        rules=(up.ROTATED,),
        hidden=(),
        why=up.REPLACED,
    ),
    websocket(
        "1011 after the first event",
        "websocket",
        {"turns.0.error.close_code": 1011, "turns.0.events.-1.type": "response.output_text.delta"},
        turns({}),
        rules=(up.CUT_WITHIN,),
        why=up.ONE_ENDING,
        differs={
            "turns.0.error": ABSENT,
            "turns.0.events.+": [up.CUT_FRAME],
        },
    ),
]


def frame_error(name: str, rule: TurnRule, status: int, **more: Any) -> Scenario:
    """Return a turn that is answered with an error frame."""
    return websocket(
        name, "websocket", {f"{TURN}.status": status}, turns({}), rules=(rule,), **more
    )


def twice(code: str) -> dict[str, object]:
    """Return what a fault looks like after its replay."""
    status = {"server_error": 500, "server_is_overloaded": 503}[code]
    ask = {"type": "response.create", "continues": None, "input": ["message"], "warm_up": False}
    message = up.gave_up(code, "owner")
    return {
        TURN: up.frame(503, "upstream_unavailable", message, headers={"retry_after": 1}),
        "upstream": [f"error {status} {code}"] * 2,
        "frames": [ask] * 2,
    }


FRAME_ERRORS = [
    *(
        frame_error(f"error {status}", error(status, code, param="input"), status)
        for status, code in (
            (400, "context_length_exceeded"),
            (403, "unsupported_region"),
            (404, "model_gone"),
            (422, "unprocessable"),
        )
    ),
    frame_error(
        "error 401",
        up.KEY_REFUSED,
        401,
        differs={TURN: up.frame(503, "owner_unavailable", up.SIGN_IN, headers=up.FINAL)},
        why=up.OUR_ACCOUNT,
    ),
    frame_error(
        "error 429",
        up.LIMITED,
        429,
        differs={
            TURN: up.frame(429, "rate_limit_exceeded", up.WAIT_10, headers={"retry_after": 10})
        },
        why=up.ALL_ACCOUNTS,
    ),
    frame_error(
        "usage limit reached",
        up.USAGE_LIMIT,
        429,
        differs={
            TURN: up.frame(
                429,
                "usage_limit_reached",
                up.USED_UP,
                resets_at=up.USAGE_LIMIT.error.resets_at,
                headers=up.FINAL,
            )
        },
        why=up.ALL_ACCOUNTS,
    ),
    frame_error("error 500", up.BROKEN, 500, differs=twice("server_error"), why=up.REPLAYED),
    frame_error(
        "error 503", up.OVERLOADED, 503, differs=twice("server_is_overloaded"), why=up.REPLAYED
    ),
]


def refused_upgrade(name: str, answer: Asked, **more: Any) -> Scenario:
    """Return an upgrade that the upstream refuses, and what the gateway says to the turn."""
    turn = {"events": [answer], "text": ""}
    differs = {"error": ABSENT, "turns": [turn]}
    return websocket(name, "websocket", options=turns({}), differs=differs, **more)


UPGRADES = [
    *(
        refused_upgrade(
            f"the upgrade is refused with {status}",
            answer,
            sees={"error.class": "InvalidStatus"},
            rules=(up.refused_upgrade(status),),
            why=up.DIALLED_LATER,
        )
        for status, answer in (
            (401, up.frame(503, "no_accounts", up.NO_ACCOUNTS, headers=up.FINAL)),
            (403, up.frame(503, *up.refused_with(403), headers={"retry_after": 1})),
            (429, up.frame(429, "rate_limit_exceeded", up.WAIT_10, headers={"retry_after": 10})),
            (503, up.frame(503, *up.refused_with(503), headers={"retry_after": 1})),
        )
    ),
    refused_upgrade(
        "nobody listens",
        up.frame(503, "upstream_unavailable", up.AWAY, headers={"retry_after": 1}),
        sees={"error.class": "ConnectionRefusedError"},
        away=True,
        why=up.NOT_REACHED,
    ),
]


SCENARIOS = [
    *ANSWERS,
    *PASSED_ON,
    *(s for a in ("create", "stream", "async_create", "async_stream") for s in account_errors(a)),
    *RETRIES,
    *(s for a in ("create", "stream") for s in connection_errors(a)),
    *CONNECTIONS,
    *HIDDEN_CLOSES,
    *LOST,
    *FRAME_ERRORS,
    *UPGRADES,
]
