"""The Codex CLI: `exec` and its app server, over HTTP and WebSocket, with a key and with a login."""

from __future__ import annotations

from functools import partial

from tests.clients.conformance import upstreams as up
from tests.clients.conformance.scenario import Scenario, Transport
from tests.clients.conformance.upstreams import SAID, TOLD

codex = partial(Scenario, "codex")
HELLO = {"prompts": ["hello you"]}


def both_ways(transport: Transport) -> list[Scenario]:
    """Return what is played over either transport."""
    played = partial(codex, transport)
    return [
        played("a turn", "exec_turns", {"turns.0.texts": [SAID], "turns.0.exit": 0}, HELLO),
        played(
            "a tool, then resume",
            "exec_turns",
            {"turns.0.texts": [TOLD], "turns.0.commands": ["hello-from-tool\n"], "turns.1.texts": ["You said: again"]},
            {"model": "mock-tool", "prompts": ["Run the tool once.", "again"]},
        ),
        played("a turn, ChatGPT login", "exec_turns", {"turns.0.texts": [SAID]}, HELLO, login=True),
        played("a tool, then resume, ChatGPT login", "exec_turns", {"turns.0.texts": [TOLD]}, {"model": "mock-tool", "prompts": ["Run the tool once.", "again"]}, login=True),
        played("a turn, ChatGPT login, provider named OpenAI", "exec_turns", {"turns.0.texts": [SAID]}, HELLO | {"provider": "OpenAI"}, login=True),
        played("two turns in one process", "conversation", {"turns.1.texts": ["You said: two"]}, {"steps": [{"prompt": "one"}, {"prompt": "two"}]}),
        played("compaction", "conversation", {"turns.1.compactions": 1, "turns.2.texts": ["You said: two"]}, {"provider": "OpenAI", "steps": [{"prompt": "one"}, {"compact": True}, {"prompt": "two"}]}),
        played("a local compaction", "conversation", {"turns.1.compactions": 1, "turns.2.texts": ["You said: two"]}, {"steps": [{"prompt": "one"}, {"compact": True}, {"prompt": "two"}]}),
        played("interrupt, then another turn", "conversation", {"turns.0.status": "interrupted", "turns.1.texts": ["You said: two"]}, {"steps": [{"prompt": "one", "interrupt": True}, {"prompt": "two"}]}, rules=(up.SLOW,)),
        played("steering of a lite model", "conversation", {"turns.0.status": "completed"}, {"model": "gpt-5.6-sol", "steps": [{"prompt": "one", "steer": "rather this"}, {"prompt": "two"}]}, rules=(up.SLOW,)),
        played("usage limit reached", "exec_turns", {"turns.0.exit": 1}, HELLO, rules=(up.USAGE_LIMIT,)),
        played("usage limit reached while another account is free", "exec_turns", {"turns.0.exit": 1}, HELLO, rules=(up.WORK_USED_UP,), accounts=("work", "home")),
        played("1011 before the first event", "exec_turns", {"turns.0.texts": [SAID]}, HELLO, rules=(up.CUT_BEFORE,)),
        played("1011 after the first event", "exec_turns", {"turns.0.texts": [SAID]}, HELLO, rules=(up.CUT_WITHIN,)),
        played("a rotated upstream between turns", "conversation", {"turns.1.texts": ["You said: two"]}, {"steps": [{"prompt": "one"}, {"prompt": "two"}]}, rules=(up.ROTATED,)),
        played("error 400", "exec_turns", {"turns.0.exit": 1}, HELLO, rules=(up.TOO_LONG,)),
        played("error 401", "exec_turns", {"turns.0.exit": 1}, HELLO, rules=(up.KEY_REFUSED,)),
        played("error 429, then an answer", "exec_turns", {"turns.0.texts": [SAID]}, HELLO, rules=(up.LIMITED_ONCE,)),
        played("error 500, then an answer", "exec_turns", {"turns.0.texts": [SAID]}, HELLO, rules=(up.BROKEN_ONCE,)),
    ]


SCENARIOS = [*both_ways("HTTP"), *both_ways("WebSocket"),
        codex("WebSocket", "websocket_connection_limit_reached", "conversation", {"turns.1.texts": ["You said: two"]}, {"steps": [{"prompt": "one"}, {"prompt": "two"}]}, rules=(up.TOO_OLD_LATER,)),
]
