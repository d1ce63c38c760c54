"""openai-python over HTTP: both clients, and every class of error."""

from __future__ import annotations

from functools import partial

from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import Scenario
from tests.clients.conformance.upstreams import DONE, SAID, TOLD, error, raised

http = partial(Scenario, "openai-python", "HTTP")

LAST = "events.-1.type"
ONCE = {"client": {"max_retries": 0}}
HURRIED = {"client": {"max_retries": 0, "timeout": 1.0}}
INTERNAL = "InternalServerError"


USED_UP = raised(429, "usage_limit_reached", up.USED_UP, resets_at=up.RESETS_AT)

ANSWERS = [
    http("an answer in one piece", "create", {"text": SAID, "content_type": "application/json"}),
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
    cut_off = (
        up.CUT_STREAM if action.endswith("stream") else raised(502, "upstream_closed", up.CUT_OFF)
    )
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


SCENARIOS = [
    *ANSWERS,
    *PASSED_ON,
    *(s for a in ("create", "stream", "async_create", "async_stream") for s in account_errors(a)),
    *RETRIES,
    *(s for a in ("create", "stream") for s in connection_errors(a)),
]
