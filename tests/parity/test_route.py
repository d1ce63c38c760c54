"""What `inspect route` says of a request is what a running gateway then does with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.affinity import Key, turn_state_key
from codexlb_cli.core.frames import parse_body, reasoning_digests, split_members
from codexlb_cli.core.windows import Limits, Window
from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.store.cooldowns import write_state
from codexlb_cli.store.database import Write, database_path, open_for_writing
from codexlb_cli.store.owners import write_owner, write_reasoning
from tests.parity.sameness import assert_lines, sendable
from tests.support.client import Answer, Header, request, request_head
from tests.support.gateway import RESPONSES, Stage, play, run, run_each, session, turn_body

HOUR = 3600.0
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "by-work"}
CODEX: list[Header] = [
    ("x-codex-window-id", "w"),
    ("x-codex-turn-metadata", '{"a":1}'),
    ("x-codex-turn-state", "given"),
    ("session-id", "s"),
    ("thread-id", "t"),
    ("Authorization", "Bearer sk-client"),
    ("originator", "codex_exec"),
    ("x-unknown", "dropped"),
]


@dataclass(frozen=True)
class Case:
    """A request, what is known before it, and the account or error that it gets."""

    gets: str
    headers: Sequence[Header] = ()
    members: Mapping[str, object] = field(default_factory=dict)
    owners: Mapping[Key, str] = field(default_factory=dict)
    limited: Mapping[str, float] = field(default_factory=dict)
    cooling: Sequence[str] = ()
    used: Mapping[str, float] = field(default_factory=dict)
    more: str = ""
    accounts: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    attempts: int = 1
    moved_from: str | None = None

    @property
    def content(self) -> bytes:
        return turn_body(self.members) if self.body is None else self.body


S, CONVERSATION, FILE = Key("session", "s"), Key("conversation", "conv_1"), Key("file", "file-1")
WITH_FILE = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]
OFF = "enabled = false"
CLOSES = {"model": "mock-close-1011"}
CASES = {
    "unkeyed": Case("work"),
    "a first turn": Case("work", session("s")),
    "a session": Case("home", session("s"), owners={S: "home"}),
    "a session of another thread": Case("work", CODEX, owners={S: "home"}),
    "a thread": Case("spare", CODEX, owners={Key("session", "s\nt"): "spare"}),
    "a turn state of the account": Case(
        "home", CODEX, owners={turn_state_key("given"): "home", Key("session", "s\nt"): "home"}
    ),
    "a session whose account is gone": Case(
        "work", session("s"), owners={S: "gone"}, moved_from="gone"
    ),
    "a session whose account is disabled": Case(
        "work", session("s"), owners={S: "home"}, accounts={"home": OFF}, moved_from="home"
    ),
    "most is left of another account": Case("spare", used={"work": 60, "home": 30, "spare": 20}),
    "drain the first": Case("work", used={"work": 60}, more='[selection]\npolicy = "first"\n'),
    "a window that is used up": Case(
        "home", session("s"), owners={S: "work"}, used={"work": 100}, moved_from="work"
    ),
    "everything is used up": Case(
        "usage_limit_reached", used={"work": 100, "home": 100, "spare": 100}
    ),
    "a priority": Case("home", accounts={"work": "priority = 1", "spare": "weight = 0"}),
    "a model for one account": Case(
        "spare",
        members={"model": "big-1"},
        accounts={"work": 'models = ["small-*"]', "home": 'not_models = ["big-*"]'},
    ),
    "a model for no account": Case(
        "model_unavailable", accounts=dict.fromkeys(("work", "home", "spare"), 'models = ["x"]')
    ),
    "a session whose account does not take its model": Case(
        "work", session("s"), owners={S: "work"}, accounts={"work": 'models = ["x"]'}
    ),
    "a session that may not move": Case(
        "owner_unavailable",
        session("s"),
        owners={S: "home"},
        accounts={"home": OFF},
        more='[affinity]\nsession_on_account_failure = "fail"\n',
    ),
    "a session that is not portable": Case(
        "owner_unavailable",
        session("s"),
        {"input": [{"type": "item_reference", "id": "rs_1"}]},
        owners={S: "home"},
        accounts={"home": OFF},
    ),
    "a session whose account is limited": Case(
        "home", session("s"), owners={S: "work"}, limited={"work": HOUR}, moved_from="work"
    ),
    "reasoning of an account that is left": Case(
        "home",
        session("s"),
        {"input": [REASONING, {"role": "user", "content": "x"}]},
        owners={S: "work"},
        limited={"work": HOUR},
        moved_from="work",
    ),
    "a conversation of a limited account": Case(
        "usage_limit_reached",
        members={"conversation": "conv_1"},
        owners={CONVERSATION: "home"},
        limited={"home": HOUR},
    ),
    "a conversation of an account that is limited for a moment": Case(
        "rate_limit_exceeded",
        members={"conversation": "conv_1"},
        owners={CONVERSATION: "home"},
        limited={"home": 55},
    ),
    "everybody is limited": Case(
        "usage_limit_reached", limited={"work": HOUR, "home": HOUR, "spare": HOUR}
    ),
    "everybody cools": Case("work", cooling=["work", "home", "spare"]),
    "the first cools": Case("home", cooling=["work"]),
    "an owner that cools": Case("work", session("s"), owners={S: "work"}, cooling=["work"]),
    "a cache key": Case(
        "spare", members={"prompt_cache_key": "k"}, owners={Key("prompt_cache", "k"): "spare"}
    ),
    "a cache key whose owner is limited": Case(
        "work",
        members={"prompt_cache_key": "k"},
        owners={Key("prompt_cache", "k"): "spare"},
        limited={"spare": HOUR},
    ),
    "a file and a session": Case(
        "home", session("s"), {"input": WITH_FILE}, owners={FILE: "home", S: "work"}
    ),
    "anchors that conflict": Case(
        "continuity_owner_conflict",
        members={"input": WITH_FILE, "conversation": "conv_1"},
        owners={FILE: "home", CONVERSATION: "work"},
    ),
    "a response that nobody has": Case(
        "previous_response_not_found",
        members={"previous_response_id": "resp_x", "store": False},
    ),
    "hosted tools, closed": Case(
        "upstream_unavailable", session("s"), {**CLOSES, "tools": [{"type": "mcp"}]}
    ),
    "hosted tools that may be replayed, closed": Case(
        "work",
        session("s"),
        {**CLOSES, "tools": [{"type": "mcp"}]},
        more="[reconnect]\nreplay_hosted_tools = true\n",
        attempts=2,
    ),
    "closed": Case("work", session("s"), CLOSES, attempts=2),
    "closed, never replayed": Case(
        "upstream_unavailable", session("s"), CLOSES, more="[reconnect]\nreplays = 0\n"
    ),
    "http only members": Case(
        "work",
        members={"type": "x", "background": False, "stream_id": "x", "client_metadata": {"a": "b"}},
    ),
    "answered as a whole": Case("work", CODEX, {"stream": False, "client_metadata": {"a": "b"}}),
    "nobody is enabled": Case("no_accounts", accounts={"work": OFF, "home": OFF, "spare": OFF}),
    "background": Case("work", CODEX, {"background": True, "stream": False, "a": 1.0}),
    "background, a session": Case("home", session("s"), {"background": True}, owners={S: "home"}),
    "background, reasoning of a limited account": Case(
        "rate_limit_exceeded",
        session("s"),
        {"background": True, "input": [REASONING]},
        owners={S: "home"},
        limited={"home": 30},
    ),
    "background, a session that moves": Case(
        "work",
        session("s"),
        {"background": True},
        owners={S: "home"},
        limited={"home": 30},
        moved_from="home",
    ),
    "background, an unknown response": Case(
        "previous_response_not_found",
        members={"background": True, "previous_response_id": "resp_x", "store": False},
    ),
    "a wrong type": Case("invalid_request", members={"model": 7}),
    "no JSON": Case("invalid_request", body=b'{"model":'),
    "a large body": Case(
        "request_too_large",
        members={"input": "x" * 3000},
        more="[limits]\nrequest_bytes = 2000\nframe_bytes = 2000\n",
    ),
    "a large frame": Case(
        "request_too_large", members={"input": "x" * 3000}, more="[limits]\nframe_bytes = 2000\n"
    ),
}
REFUSED_BY_THE_UPSTREAM = {"upstream_unavailable"}


def known_before(case: Case, stage: Stage) -> list[Write]:
    now = stage.clock.at
    (digest,) = reasoning_digests(parse_body(json.dumps({"input": [REASONING]}).encode()))
    return [
        *(write_owner(key, account, now) for key, account in case.owners.items()),
        *(
            write_state(name, AccountState(limited_until=now + s, limited_reason="x"))
            for name, s in case.limited.items()
        ),
        *(
            write_state(name, AccountState(cooling_until=now + HOUR, cooling_reason="x"))
            for name in case.cooling
        ),
        *(
            write_state(name, AccountState(limits=Limits(primary=window)))
            for name, used in case.used.items()
            for window in [Window(used, now, 300, now + 2.5 * HOUR)]
        ),
        write_reasoning(digest, "work", now),
    ]


def seed(stage: Stage, case: Case) -> None:
    with closing(open_for_writing(database_path(stage.state_folder))) as connection, connection:
        for write in known_before(case, stage):
            write(connection)


def inspected(stage: Stage, headers: Sequence[Header], body: bytes) -> tuple[int, dict[str, Any]]:
    """What the program says of a raw request; its exit code, and the document."""
    file = stage.folder / "request.http"
    file.write_bytes(request_head("POST", RESPONSES, sendable(headers, body)) + body)
    ran = stage.cli.run("inspect", "route", str(file), "--json", stdin=b"", **stage.environ)
    assert ran.err == ""
    found: dict[str, Any] = json.loads(ran.out)
    return ran.code, found


async def sent(stage: Stage, headers: Sequence[Header], body: bytes) -> Answer:
    return await request(stage.port, "POST", RESPONSES, sendable(headers, body), body)


def unnumbered(text: str) -> str:
    return re.sub(r"\d+ s\b", "N s", text)


def assert_on_the_wire(stage: Stage, said: dict[str, Any]) -> None:
    """The last frame, and the upgrade of the socket that carried it, are as was said."""
    if stage.mock.api_requests:
        [posted] = stage.mock.api_requests
        assert_lines(said["headers"], posted)
        assert said["url"] == f"{stage.mock.base_url}/responses"
        assert (said["transport"], said["frame"]["bytes"]) == ("http", posted.received)
        assert said["frame"]["dropped"] == []
        return
    frame = stage.mock.frames[-1]
    assert frame.account == said["plan"]["account"]
    members = split_members(frame.text)
    assert [(m["name"], m["bytes"]) for m in said["frame"]["members"]] == [
        (name, len(member.raw.encode())) for name, member in members.items()
    ]
    assert said["frame"]["bytes"] == len(frame.text.encode())
    (upgrade,) = [h for h in stage.mock.handshakes if h.socket == frame.socket]
    assert_lines(said["headers"], upgrade)
    assert set(said["client_metadata"]) <= set(frame.json.get("client_metadata", {}))


def test_requests_and_pools(tmp_path: Path) -> None:
    async def one(case: Case, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            seed(stage, case)
            code, said = inspected(stage, case.headers, case.content)
            if said["plan"]["account"] is not None:
                stage.mock.keep_file(said["plan"]["account"], "file-1")
            async with stage.serving():
                answer = await sent(stage, case.headers, case.content)
            plan, error = said["plan"], said["plan"]["error"]
            assert plan["moved_from"] == case.moved_from
            if error is not None:
                assert (code, error["code"]) == (1, case.gets)
                told = {k: v for k, v in without_status(error).items() if k != "message"}
                assert answer.error == {**answer.error, **told}
                # What is left of a limit may have become less by a second.
                assert unnumbered(answer.error["message"]) == unnumbered(error["message"])
                assert answer.status == error["status"]
                assert stage.dialled == []
                return
            assert code == 0
            assert_on_the_wire(stage, said)
            if case.gets in REFUSED_BY_THE_UPSTREAM:
                assert answer.error["code"] == case.gets
                assert said["replayable"] is False
            else:
                assert answer.status == 200
                assert answer.header("x-codexlb-account") == plan["account"] == case.gets
                assert said["replayable"] or case.attempts == 1
            assert answer.header("x-codexlb-attempts") == str(case.attempts)

        await play(test, folder, more=case.more, accounts=case.accounts, serve=False)

    run_each(CASES, one, tmp_path)


def without_status(error: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in error.items() if name != "status"}


def test_what_was_learned_counts_for_the_next_turn(tmp_path: Path) -> None:
    """A session, a stored response and its reasoning, with the gateway running all the time."""

    async def turn(
        stage: Stage, account: str, headers: Sequence[Header] = (), **members: object
    ) -> dict[str, Any]:
        body = turn_body({"stream": False, **members})
        code, said = inspected(stage, headers, body)
        answer = await sent(stage, headers, body)
        assert (code, answer.status) == (0, 200), answer.body
        assert answer.header("x-codexlb-account") == said["plan"]["account"] == account
        assert_on_the_wire(stage, said)
        response: dict[str, Any] = answer.json
        return {"said": said, **response}

    async def test(stage: Stage) -> None:
        first = await turn(stage, "work", session("s"), model="reasons")
        assert first["said"]["plan"]["reason"] == "first_turn"
        encrypted = [item for item in first["output"] if item["type"] == "reasoning"]
        assert len(encrypted) == 1

        again = await turn(stage, "work", session("s"), model="reasons", input=encrypted)
        assert again["said"]["plan"]["reason"] == "owner"
        assert again["said"]["affinity"]["owner"] == "work"
        assert again["said"]["frame"]["dropped_reasoning"] == 0

        chained = await turn(stage, "work", previous_response_id=again["id"])
        assert chained["said"]["affinity"]["source"] == "previous_response"
        assert chained["said"]["portable"] is False

        assert (await stage.command("accounts", "disable", "work")).returncode == 0
        moved = await turn(stage, "home", session("s"), input=encrypted)
        assert moved["said"]["plan"]["moved_from"] == "work"
        assert moved["said"]["frame"]["dropped_reasoning"] == 1
        assert stage.frames[-1]["input"] == []

        body = turn_body({"previous_response_id": again["id"]})
        code, said = inspected(stage, (), body)
        answer = await sent(stage, (), body)
        assert (code, said["plan"]["error"]["code"]) == (1, "owner_unavailable")
        assert (answer.status, answer.error["code"]) == (503, "owner_unavailable")

    run(test, tmp_path, TurnRule(model="reasons", reasoning=True), names=["work", "home"])
