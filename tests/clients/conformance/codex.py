"""The Codex CLI: `exec` and its app server, over both transports, with a key and with a login."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import Scenario, Transport
from tests.clients.conformance.upstreams import DONE, SAID, TOLD, asked

Options = dict[str, object]
HELLO: Options = {"prompts": ["hello you"]}
TOOL = {"model": "mock-tool", "prompts": ["Run the tool once.", "again"]}
ANSWERED: Options = {"turns.0.texts": [SAID], "turns.0.exit": 0, "turns.0.complaints": []}
RAN = {"turns.0.texts": [TOLD], "turns.0.commands": ["hello-from-tool\n"], "turns.1.exit": 0}
TWO: Options = {"turns.1.texts": ["You said: two"]}
THREE: Options = {"turns.1.compactions": 1, "turns.2.texts": ["You said: two"]}
FINAL: Options = {"turns.0.exit": 1}
USED_UP = "You\u2019ve hit your usage limit. Try again at TIME."
LIMITED = "error 429 usage_limit_reached"


def steps(*taken: dict[str, object], **more: object) -> dict[str, object]:
    """Return the options of a conversation: a prompt, what happens to it, another prompt."""
    return {"steps": [{"prompt": "one"}, *taken, {"prompt": "two"}]} | more


def both_ways(transport: Transport) -> list[Scenario]:
    """Return what is played over either transport."""
    over = partial(Scenario, "codex", transport)
    named: Options = {"provider": "OpenAI"}
    interrupted: Options = {"steps": [{"prompt": "one", "interrupt": True}, {"prompt": "two"}]}
    steered: Options = {"steps": [{"prompt": "one", "steer": "rather this"}, {"prompt": "two"}]}
    sockets = transport == "WebSocket"
    interrupted_upstream: Options = {"upstream.1": "response.incomplete"} if sockets else {}
    lite: Options = {"model": "gpt-5.6-sol"}
    return [
        over("a turn", "exec_turns", ANSWERED, HELLO),
        over("a tool, then resume", "exec_turns", RAN, TOOL),
        over("a turn, provider named OpenAI", "exec_turns", ANSWERED, HELLO | named),
        over("a turn, ChatGPT login", "exec_turns", ANSWERED, HELLO, login=True),
        over("a tool, then resume, ChatGPT login", "exec_turns", RAN, TOOL, login=True),
        over(
            "a turn, ChatGPT login, provider named OpenAI",
            "exec_turns",
            ANSWERED,
            HELLO | named,
            login=True,
        ),
        over("a lite model", "exec_turns", ANSWERED, HELLO | lite),
        over("two turns in one process", "conversation", TWO, steps()),
        over("remote compaction", "conversation", THREE, steps({"compact": True}, **named)),
        over("local compaction", "conversation", THREE, steps({"compact": True})),
        over(
            "interrupt, then another turn",
            "conversation",
            {"turns.0.status": "interrupted"} | TWO,
            interrupted,
            rules=(up.SLOW,),
        ),
        over(
            "steering, then another turn",
            "conversation",
            {"turns.0.texts": ["You said: rather this"]} | TWO | interrupted_upstream,
            steered | lite,
            rules=(up.SLOW,),
        ),
        over("a rotated upstream between turns", "conversation", TWO, steps(), rules=(up.ROTATED,)),
        over("error 400", "exec_turns", FINAL, HELLO, rules=(up.TOO_LONG,)),
        over("error 500, then an answer", "exec_turns", ANSWERED, HELLO, rules=(up.BROKEN_ONCE,)),
        over(
            "error 429, then an answer",
            "exec_turns",
            {"turns.0.texts": [SAID]},
            HELLO,
            rules=(up.LIMITED_ONCE,),
        ),
    ]


def limits(transport: Transport, frames: list[Any]) -> list[Scenario]:
    """Return what happens when an account has reached its usage limit."""
    over = partial(Scenario, "codex", transport, action="exec_turns", options=HELLO)
    warm = [DONE] if frames else []
    return [
        over(
            "usage limit reached",
            sees=FINAL | {"upstream": [*warm, LIMITED]},
            rules=(up.USAGE_LIMIT,),
            differs={
                "turns.0.complaints": ["You\u2019ve hit your usage limit. Try again at TIME."]
            },
            why=up.ALL_ACCOUNTS,
        ),
        over(
            "usage limit reached while another account is free",
            sees=FINAL,
            rules=(up.WORK_USED_UP,),
            hidden=(),
            differs={"upstream": [*warm, LIMITED, DONE]} | ({"frames": frames} if frames else {}),
            why=up.SERVED_ELSEWHERE,
            accounts=("work", "home"),
        ),
    ]


WARM_ID = "resp_c0ffee000000000001"
FRAMES = [
    asked("message", warm_up=True),
    asked(*["message"] * 3, continues=WARM_ID),
    asked(*["message"] * 4),
]
SIGN_IN = f"unexpected status 503 Service Unavailable: {up.SIGN_IN}, url: http://HOST/v1/responses"

SCENARIOS = [
    *both_ways("HTTP"),
    *limits("HTTP", []),
    Scenario(
        "codex",
        "HTTP",
        "1011 before the first event",
        "exec_turns",
        {"turns.0.texts": [SAID], "upstream": ["close 1011", DONE]},
        HELLO,
        rules=(up.CUT_BEFORE,),
    ),
    Scenario(
        "codex",
        "HTTP",
        "1011 after the first event",
        "exec_turns",
        {"turns.0.texts": [SAID], "upstream": ["close 1011", DONE]},
        HELLO,
        rules=(up.CUT_WITHIN,),
        differs={
            "turns.0.complaints": [
                f"Reconnecting... 1/5 (stream disconnected before completion: {up.CUT_OFF})"
            ]
        },
        why=up.ONE_ENDING,
    ),
    Scenario(
        "codex",
        "HTTP",
        "error 401",
        "exec_turns",
        FINAL | {"upstream": ["error 401 invalid_api_key"] * 6},
        HELLO,
        rules=(up.KEY_REFUSED,),
        differs={
            "turns.0.complaints": [
                *(f"Reconnecting... {count}/5 ({SIGN_IN})" for count in range(1, 6)),
                SIGN_IN,
            ],
            "upstream": ["error 401 invalid_api_key"],
        },
        why=up.OUR_ACCOUNT,
    ),
    *both_ways("WebSocket"),
    *limits("WebSocket", FRAMES),
    Scenario(
        "codex",
        "WebSocket",
        "a tool, then resume, ChatGPT login, built-in provider",
        "exec_turns",
        RAN,
        TOOL | {"provider": "built-in"},
        login=True,
    ),
    Scenario(
        "codex",
        "WebSocket",
        "1011 before the first event",
        "exec_turns",
        {"turns.0.texts": [SAID], "upstream": [DONE, "close 1011", DONE]},
        HELLO,
        rules=(up.CUT_BEFORE,),
    ),
    Scenario(
        "codex",
        "WebSocket",
        "1011 after the first event",
        "exec_turns",
        {"turns.0.texts": [SAID], "upstream": [DONE, "close 1011", DONE]},
        HELLO,
        rules=(up.CUT_WITHIN,),
    ),
    Scenario(
        "codex",
        "WebSocket",
        "websocket_connection_limit_reached",
        "conversation",
        TWO,
        steps(),
        rules=(up.TOO_OLD_LATER,),
    ),
]
