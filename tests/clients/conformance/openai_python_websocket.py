"""openai-python over its WebSocket: several turns on one connection, and how they end."""

from __future__ import annotations

from functools import partial
from typing import Any

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import ABSENT, Scenario
from tests.clients.conformance.upstreams import DONE, SAID, TOLD, asked, error

websocket = partial(Scenario, "openai-python", "WebSocket")

Asked = dict[str, Any]
HELLO: Asked = {"model": "mock", "input": "hello you"}
CHAINED: Asked = {"create": HELLO, "chained": True}
UNSTORED: Asked = {"create": HELLO | {"store": False}}


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
            {"create": up.TOOL_TURN | {"input": "Weather?"}},
            {"create": up.TOOL_TURN | {"input": [up.TOOL_OUTPUT]}, "chained": True},
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


def hidden_fault(name: str, rule: TurnRule, sees: Asked, outcome: str) -> Scenario:
    """Return a turn whose fault the gateway hides."""
    return websocket(
        name,
        "websocket",
        sees,
        turns({}),
        rules=(rule,),
        hidden=(),
        differs={"upstream": [outcome, DONE], "frames": [asked("hello you")] * 2},
        why=up.UNSEEN,
    )


HIDDEN_FAULTS = [
    hidden_fault(
        "1011 before the first event",
        up.CUT_BEFORE,
        {"turns.0.error.close_code": 1011},
        "close 1011",
    ),
    hidden_fault(
        "websocket_connection_limit_reached",
        up.TOO_OLD,
        {f"{TURN}.error.code": "websocket_connection_limit_reached"},
        "error 400 websocket_connection_limit_reached",
    ),
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
    message = up.gave_up(code, "owner")
    return {
        TURN: up.frame(503, "upstream_unavailable", message, headers={"retry_after": 1}),
        "upstream": [f"error {status} {code}"] * 2,
        "frames": [asked("hello you")] * 2,
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
                resets_at=up.RESETS_AT,
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


SCENARIOS = [*CONNECTIONS, *HIDDEN_FAULTS, *LOST, *FRAME_ERRORS, *UPGRADES]
