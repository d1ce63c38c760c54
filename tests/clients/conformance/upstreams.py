"""How the upstream behaves for several clients, and why and how the gateway answers otherwise."""

from __future__ import annotations

import time
from typing import Any

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule

DONE = "response.completed"
SAID = "You said: hello you"
TOLD = "The tool has answered, so this turn is done."


def error(
    status: int, code: str | None, *, times: int = 0, account: str | None = None, **more: Any
) -> TurnRule:
    """Return a rule by which turns are refused."""
    spec = {"status": status, "code": code, "message": f"Refused with {status}."}
    return TurnRule(times=times, account=account, error=ErrorSpec.model_validate(spec | more))


RESETS_AT = int(time.time()) + 7200
USAGE_LIMIT = error(
    429,
    "usage_limit_reached",
    type="usage_limit_reached",
    message="The usage limit has been reached.",
    plan_type="plus",
    resets_at=RESETS_AT,
)
WORK_USED_UP = USAGE_LIMIT.model_copy(update={"account": "work"})
LIMITED = error(429, "rate_limit_exceeded")
LIMITED_FOR_A_TIME = error(429, "rate_limit_exceeded", headers={"retry-after": "30"})
WORK_LIMITED = error(429, "rate_limit_exceeded", account="work")
OVERLOADED = error(503, "server_is_overloaded")
BROKEN = error(500, "server_error")
BROKEN_ONCE = error(500, "server_error", times=1)
LIMITED_ONCE = error(429, "rate_limit_exceeded", times=1, headers={"retry-after": "1"})
KEY_REFUSED = error(401, "invalid_api_key")
TOO_LONG = error(400, "context_length_exceeded", param="input")

CUT_BEFORE = TurnRule(close=1011, times=1)
CUT_WITHIN = TurnRule(close=1011, when="streaming", after=1, times=1)
ROTATED = TurnRule(close=1001, when="idle", times=1)
TOO_OLD = TurnRule(error=ErrorSpec(status=400, code="websocket_connection_limit_reached"), times=1)
TOO_OLD_LATER = TOO_OLD.model_copy(update={"skip": 1})

FAILED = TurnRule(failed=FailedSpec())
INCOMPLETE = TurnRule(incomplete="max_output_tokens", when="streaming")
CALLS = TurnRule(tool=True)
SILENT = TurnRule(silence=True)
SLOW = TurnRule(delta_delay=0.05, deltas=200, times=1)
WEATHER = TurnRule(text='{"city": "Oslo", "degrees": 4}')


def refused_upgrade(status: int) -> HandshakeRule:
    """Return a rule by which upgrades are refused."""
    return HandshakeRule(status=status, error=ErrorSpec(code=f"refused_{status}"))


WEATHER_TOOL = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {}},
}
TOOL_TURN: dict[str, Any] = {"model": "mock-tool", "tools": [WEATHER_TOOL]}
TOOL_OUTPUT = {"type": "function_call_output", "call_id": "call_c0ffee000000000001", "output": "4"}
"""A turn of a WebSocket client that is answered with a call, and the call's output."""


def asked(*kinds: str, continues: str | None = None, warm_up: bool = False) -> dict[str, object]:
    """Return how a frame of the client's is summed up: by the kinds of its input, or its text."""
    return {
        "type": "response.create",
        "continues": continues,
        "input": [*kinds],
        "warm_up": warm_up,
    }


# Why a client sees something else through the gateway.

OUR_ACCOUNT = (
    "a 401 is about the gateway's account: it must not make a person sign in with the client's key"
)
REPLAYED = "the upstream's fault is tried once more, then clients are asked to wait and try again"
ALL_ACCOUNTS = "the gateway answers for all of its accounts, and says when one is free again"
UNSEEN = "before the response began the turn is sent once more, and the client does not notice"
REPLACED = "between turns a lost upstream is replaced, and the client keeps its own socket"
SERVED_ELSEWHERE = "another account serves it"
ONE_ENDING = "the end says why, instead of a connection that breaks off"
DIALLED_LATER = "the upgrade is accepted at once; the upstream is dialled for the first turn"
NOT_REACHED = "the gateway is there, and says that it reaches no upstream"

# What the gateway says then.

NO_ACCOUNTS = "no account can be used; see: codexlb accounts list"
SIGN_IN = (
    "this conversation belongs to account `work`, which must sign in again; see: codexlb accounts "
    "show work"
)
WAIT_10 = "every account that may serve this is rate limited; try again in 10 s"
WAIT_30 = "every account that may serve this is rate limited; try again in 30 s"
USED_UP = "every account that may serve this has reached its usage limit"
CUT_OFF = "account `work` ended the response early: 1011"
AWAY = "no upstream could serve this: work not reached"


def gave_up(code: str, why: str = "only_usable_account") -> str:
    """Return what the gateway says when a replay did not help."""
    return f"no upstream could serve this: {code}, replayed on work ({why}), {code}"


def kind_of(status: int, code: str) -> str:
    """Return the type of one of our errors."""
    if code == "usage_limit_reached":
        return code
    return "rate_limit_error" if status == 429 else "server_error"


def frame(status: int, code: str, message: str, **more: Any) -> dict[str, Any]:
    """Return an error frame of the gateway's."""
    fields = {"code": code, "message": message, "param": None, "type": kind_of(status, code)}
    headers = {
        name.replace("_", "-"): str(value) for name, value in more.pop("headers", {}).items()
    }
    event: dict[str, Any] = {"type": "error", "status": status, "error": fields | more}
    return event | ({"headers": headers} if headers else {})


FINAL = {"x_should_retry": "false"}
CUT_FRAME = frame(502, "upstream_closed", CUT_OFF, headers=FINAL)
"""How the gateway ends a stream that broke off, over a WebSocket."""


def raised(status: int, code: str, message: str, *, wait: int | None = None, **body: Any) -> Any:
    """Return the exception of openai-python for an answer of the gateway's."""
    fields = {"code": code, "param": None, "type": kind_of(status, code)}
    return {
        "class": {429: "RateLimitError"}.get(status, "InternalServerError"),
        "status": status,
        "message": f"Error code: {status} - {message}",
        "body": fields | {"message": message} | body,
        "retry_after": None if wait is None else str(wait),
        "cause": None,
        **fields,
    }


CUT_STREAM = raised(502, "upstream_closed", CUT_OFF) | {
    "class": "APIError",
    "status": None,
    "message": CUT_OFF,
}
"""The same for an event within a stream, whose head has gone out."""


def refused_with(status: int) -> tuple[str, str]:
    """Return code and message for an upgrade that the only account was refused."""
    return "upstream_unavailable", f"no upstream could serve this: work refused with {status}"
