"""`inspect route`: options, exit codes, documents, and what is never shown."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.accounts import AccountState
from codexlb_cli.core.affinity import Key
from codexlb_cli.core.frames import parse_body, reasoning_digests
from codexlb_cli.core.windows import Limits, Window
from codexlb_cli.store.cooldowns import write_state
from codexlb_cli.store.database import Write, database_path, open_for_writing
from codexlb_cli.store.owners import write_owner, write_reasoning
from tests.support.cli import Cli, Ran

DATA = Path(__file__).parent.parent / "data"
TWO = '[accounts.work]\napi_key_env = "WORK_KEY"\n[accounts.home]\napi_key_env = "HOME_KEY"\n'
KEYS = {"WORK_KEY": "sk-work-LEAK", "HOME_KEY": "sk-home-LEAK"}
SECRET = "the-secret-prompt"
REASONING = {"type": "reasoning", "summary": [], "encrypted_content": f"{SECRET}-encrypted"}
TOLD = {
    "model": "m",
    "instructions": SECRET,
    "input": [{"role": "user", "content": SECRET}, REASONING],
    "tools": [{"type": "function", "name": SECRET, "description": SECRET}],
    "metadata": {SECRET: SECRET},
    "client_metadata": {"a": SECRET},
    "user": SECRET,
    "stream": True,
    "background": False,
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    cli.configure(TWO)
    return cli


def know(cli: Cli, *writes: Write) -> None:
    with closing(open_for_writing(database_path(cli.state_folder))) as connection, connection:
        for write in writes:
            write(connection)


def route(cli: Cli, body: Mapping[str, object] | bytes, *args: str) -> Ran:
    stdin = body if isinstance(body, bytes) else json.dumps(body).encode()
    return cli.run("inspect", "route", "-", *args, stdin=stdin, **KEYS)


def document(
    cli: Cli, body: Mapping[str, object] | bytes, *args: str, code: int = 0
) -> dict[str, Any]:
    ran = route(cli, body, *args, "--json")
    assert (ran.code, ran.err) == (code, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_the_document(cli: Cli) -> None:
    now = time.time()
    know(cli, write_owner(Key("session", "s"), "home", now))
    found = document(
        cli,
        {"model": "m", "input": "hi", "stream": True, "store": False, "prompt_cache_key": "k"},
        *("-H", "session-id: s", "-H", "x-codex-window-id: w", "-H", "x-codex-turn-metadata: x"),
    )
    headers = found.pop("headers")
    assert found == {
        "schema": "codexlb.inspect.route/1",
        "request": {"model": "m", "stream": True, "store": False},
        "affinity": {
            "source": "session",
            "key": "s",
            "strength": "hard",
            "owner": "home",
            "bound": True,
        },
        "evidence": [
            {"source": "session", "key": "s", "owner": "home", "role": "decides"},
            {"source": "prompt_cache", "key": "k", "owner": None, "role": "unknown"},
        ],
        "portable": True,
        "replayable": True,
        "plan": {
            "reason": "owner",
            "account": "home",
            "wait_seconds": 0.0,
            "moved_from": None,
            "error": None,
        },
        "verdicts": [
            {
                "account": "home",
                "verdict": "picked",
                "reason": "owner",
                "until": None,
                "credential_present": True,
            },
            {
                "account": "work",
                "verdict": "excluded",
                "reason": "not_owner",
                "until": None,
                "credential_present": True,
            },
        ],
        "transport": "websocket",
        "url": "wss://api.openai.com/v1/responses",
        "client_metadata": {"x-codex-window-id": "w", "x-codex-turn-metadata": "***"},
        "frame": {
            "bytes": 160,
            "members": [
                {"name": "type", "type": "string", "bytes": 17},
                {"name": "model", "type": "string", "bytes": 3},
                {"name": "input", "type": "string", "bytes": 4},
                {"name": "store", "type": "boolean", "bytes": 5},
                {"name": "prompt_cache_key", "type": "string", "bytes": 3},
                {"name": "client_metadata", "type": "object", "bytes": 53},
            ],
            "dropped": ["stream"],
            "dropped_reasoning": 0,
        },
    }
    assert {"session-id", "authorization"} <= {line["name"] for line in headers}
    assert all(set(line) == {"name", "value", "origin", "rule", "varies"} for line in headers)


def test_the_text(cli: Cli) -> None:
    know(cli, write_owner(Key("session", "s"), "home", time.time()))
    ran = route(cli, TOLD, "-H", "session-id: s")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.isascii()
    assert max(map(len, ran.out.splitlines())) < 100
    for expected in (
        "Dry run, nothing was sent. Request: standard input; model m, streamed, stored upstream.\n",
        "\n  SOURCE   KEY  OWNER  ROLE\n  session  s    home   decides\n",
        "\nAFFINITY  hard, by its session, owned by home\n",
        "\nPLAN  home, at once (owner): the owner of its conversation.\n",
        "\n  1  home     picked    owner\n  -  work     excluded  not_owner\n",
        "\n  authorization          Bearer ***",
        "\nClient headers: 1 forwarded, 0 replaced, 0 dropped, 0 moved into the frame.",
        "\n  instructions     string  19\n",
        "\nLeft out, since it is for HTTP alone: stream, background.\n",
        "\nREPLAY  once at most, and only before response.created\n",
        "MOVE    portable: nothing that it names lies in one account\n",
    ):
        assert expected in ran.out, expected


def test_a_background_response(cli: Cli) -> None:
    know(cli, write_owner(Key("session", "s"), "home", time.time()))
    reasoning = {"type": "reasoning", "encrypted_content": SECRET}
    body = {**TOLD, "background": True, "input": [reasoning]}
    ran = route(cli, body, "-H", "session-id: s")
    assert (ran.code, ran.err) == (0, "")
    assert SECRET not in ran.out
    for expected in (
        "\nPLAN  home, at once (owner): the owner of its conversation.\n",
        "\nUPSTREAM REQUEST  background responses take HTTP: POST http",
        f"\nBODY  as it came, {len(json.dumps(body))} bytes\n",
        "\n  background       boolean  4\n",
        "\nREPLAY  once at most, where an account refused it with a 5xx\n",
        "MOVE    not portable: what it names lies in one account\n",
    ):
        assert expected in ran.out, (expected, ran.out)
    found = document(cli, body, "-H", "session-id: s")
    assert (found["transport"], found["portable"]) == ("http", False)
    assert found["url"].endswith("/responses")
    assert found["client_metadata"] == {}
    assert found["frame"]["dropped"] == []


def test_a_prompt_is_never_shown(cli: Cli) -> None:
    bodies: list[bytes] = [
        json.dumps(body).encode()
        for body in (
            TOLD,
            {**TOLD, "model": [SECRET]},
            {**TOLD, "conversation": {"name": SECRET}, "store": SECRET},
            {**TOLD, "background": True},
            {"request": {"method": "POST", "target": "/v1/responses", "headers": [], "body": TOLD}},
            {"request": {"method": "POST", "target": "/x", "headers": [], "body": TOLD}},
        )
    ]
    bodies += [json.dumps(TOLD).encode()[:-9], b'{"input": "' + SECRET.encode() + b'\xff"}']
    bodies += [b"POST /v1/responses HTTP/1.1\r\n\r\n" + body for body in bodies]
    bodies.append(SECRET.encode())
    codes = set()
    for body in bodies:
        for args in ((), ("--json",), ("-H", "x-codex-turn-metadata: " + SECRET)):
            ran = route(cli, body, *args)
            assert SECRET not in ran.out + ran.err
            assert "LEAK" not in ran.out + ran.err
            codes.add(ran.code)
    assert codes == {0, 1, 2}


def test_reasoning_of_an_account_that_is_left(cli: Cli) -> None:
    (digest,) = reasoning_digests(parse_body(json.dumps(TOLD).encode()))
    limited = AccountState(limited_until=time.time() + 3600, limited_reason="rate_limit_exceeded")
    know(
        cli,
        write_owner(Key("session", "s"), "home", time.time()),
        write_reasoning(digest, "home", time.time()),
        write_state("home", limited),
    )
    found = document(cli, TOLD, "-H", "session-id: s")
    assert found["plan"]["reason"] == "account_failed"
    assert (found["plan"]["account"], found["plan"]["moved_from"]) == ("work", "home")
    assert found["frame"]["dropped_reasoning"] == 1
    out = route(cli, TOLD, "-H", "session-id: s").out
    assert "It leaves home." in out
    assert "1 reasoning item of another account" in out.replace("\n", " ")
    assert "limited, 60 min left" in out


def test_the_text_says_what_a_choice_went_by(cli: Cli) -> None:
    now = time.time()
    half = Window(42, now, 300, now + 3600)
    know(
        cli,
        write_state("work", AccountState(limits=Limits(primary=replace(half, used_percent=100)))),
        write_state("home", AccountState(limits=Limits(primary=half, secondary=Window(9, now)))),
    )
    text = route(cli, TOLD).out
    assert "policy (most_remaining, 58 % of its 5h left, 91 % of its secondary left)\n" in text
    assert "limited, 60 min left (primary_window_used_up)\n" in text
    verdicts = document(cli, TOLD)["verdicts"]
    assert [v["reason"] for v in verdicts] == ["policy", "limited"]


def test_a_turn_that_waits(cli: Cli) -> None:
    limited = AccountState(limited_until=time.time() + 9, limited_reason="rate_limit_exceeded")
    know(cli, write_owner(Key("conversation", "c"), "home", time.time()))
    know(cli, write_state("home", limited))
    plan = document(cli, {"conversation": "c"})["plan"]
    assert (plan["reason"], plan["account"]) == ("owner_is_waited_for", "home")
    assert 0 < plan["wait_seconds"] <= 9
    assert "PLAN  home, after " in route(cli, {"conversation": "c"}).out


@pytest.mark.parametrize(
    ("body", "error", "status", "param"),
    [
        ({"model": 7}, "invalid_request", 400, "model"),
        ({"background": 1}, "invalid_request", 400, "background"),
        (
            {"previous_response_id": "r", "store": False},
            "previous_response_not_found",
            400,
            "previous_response_id",
        ),
        (b"POST /v1/responses HTTP/1.1\r\n\r\n{", "invalid_request", 400, None),
        (b"POST /v1/responses HTTP/1.1\r\n\r\n", "invalid_request", 400, None),
    ],
)
def test_what_the_gateway_would_refuse(
    cli: Cli, body: Mapping[str, object] | bytes, error: str, status: int, param: str | None
) -> None:
    plan = document(cli, body, code=1)["plan"]
    assert (plan["error"]["code"], plan["error"]["status"]) == (error, status)
    assert plan["error"]["param"] == param
    ran = route(cli, body)
    assert (ran.code, ran.err) == (1, "")
    assert f"\nREFUSED  {status} {error}: " in ran.out


def test_what_is_too_large(cli: Cli) -> None:
    cli.configure("[limits]\nrequest_bytes = 1000\nframe_bytes = 500\n" + TWO)
    for size in (600, 1100, 1100 + (1 << 20)):
        found = document(cli, {"input": "x" * size}, code=1)
        assert found["plan"]["error"]["code"] == "request_too_large"
        assert (found["frame"] is not None) is (size == 600)


def test_no_accounts(tmp_path: Path) -> None:
    found = document(Cli(tmp_path), {"input": "x"}, code=1)
    assert found["plan"]["error"]["code"] == "no_accounts"
    assert (found["headers"], found["frame"], found["verdicts"]) == ([], None, [])


def test_a_missing_key_is_only_a_warning(cli: Cli) -> None:
    ran = cli.run("inspect", "route", "-", "--json", stdin=b'{"input": "x"}')
    assert ran.code == 0
    assert json.loads(ran.out)["verdicts"][0]["credential_present"] is False
    assert ran.err.startswith("warning: `WORK_KEY` is not set in this shell, so `work` could")
    assert len(ran.err.splitlines()) == 1


def test_a_database_that_cannot_be_read_is_only_a_warning(cli: Cli) -> None:
    cli.state_folder.mkdir(parents=True)
    database_path(cli.state_folder).write_bytes(b"no database, but long enough for one" * 100)
    ran = route(cli, {"input": "x"}, "--json", "-H", "session-id: s")
    assert ran.code == 0
    assert "so owners are unknown" in ran.err


@pytest.mark.parametrize("body", [b"hello", b'{"a":', b"GET /v1/models HTTP/1.1\r\n\r\n"])
def test_what_is_no_request(cli: Cli, body: bytes) -> None:
    ran = route(cli, body, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "\nhint: " in ran.err


@pytest.mark.parametrize("args", [[], ["-", "x"], ["nowhere.json"], ["-", "-H", "no colon"]])
def test_a_command_line_that_makes_no_sense(cli: Cli, args: list[str]) -> None:
    ran = cli.run("inspect", "route", *args, stdin=b"{}")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("name", ["codex_http_second_turn", "openai_python_store_false"])
def test_recordings(cli: Cli, name: str) -> None:
    ran = cli.run("inspect", "route", str(DATA / f"{name}.json"), "--json", stdin=b"", **KEYS)
    found = json.loads(ran.out)
    assert ran.err == ""
    if name == "codex_http_second_turn":
        assert ran.code == 0
        assert [e["source"] for e in found["evidence"]] == ["turn_state", "session", "prompt_cache"]
        assert set(found["client_metadata"]) == {"x-codex-window-id", "x-codex-turn-metadata"}
    else:
        assert (ran.code, found["plan"]["error"]["code"]) == (1, "previous_response_not_found")


def test_the_demo(tmp_path: Path) -> None:
    ran = Cli(tmp_path).run("--demo", "inspect", "route", "-", stdin=b'{"model": "mock"}')
    assert (ran.code, ran.err) == (0, "")
    assert not (Cli(tmp_path).state_folder).exists()


def test_an_account_without_a_websocket_gets_a_post(cli: Cli) -> None:
    cli.configure(TWO.replace("[accounts.work]", '[accounts.work]\ntransport = "http"', 1))
    found = document(
        cli, {"model": "m", "input": "hi"}, "-H", "OpenAI-Beta: responses=experimental"
    )
    assert found["plan"]["account"] == "work"
    assert (found["transport"], found["url"][:4]) == ("http", "http")
    lines = {line["name"]: line["value"] for line in found["headers"]}
    assert lines["accept"] == "text/event-stream"
    assert lines["authorization"] == "Bearer ***"
    assert "openai-beta" not in lines
    assert "Sec-WebSocket-Key" not in lines
    told = route(cli, {"model": "m", "input": "hi"}).out
    assert "UPSTREAM REQUEST  the account has no WebSocket: POST http" in told


CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": SECRET}],
    "prompt_cache_key": "k",
    "max_tokens": 5,
    "seed": 7,
    "stream": True,
}


@pytest.mark.parametrize("form", ["body", "http"])
def test_a_chat_completion_is_shown_as_the_response_that_it_becomes(cli: Cli, form: str) -> None:
    know(cli, write_owner(Key("prompt_cache", "k"), "home", time.time()))
    body = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n\r\n"
    content = body if form == "body" else head + body
    found = document(cli, content)
    assert found["affinity"]["owner"] == found["plan"]["account"] == "home"
    assert found["request"] == {"model": "m", "stream": True, "store": False}
    names = [member["name"] for member in found["frame"]["members"]]
    assert names == ["type", "model", "input", "prompt_cache_key", "max_output_tokens", "store"]
    assert found["frame"]["dropped"] == ["seed", "stream"]
    ran = route(cli, content)
    assert "Left out, since responses have no such thing: seed." in ran.out
    assert SECRET not in ran.out


def test_a_chat_completion_that_would_be_refused(cli: Cli) -> None:
    found = document(cli, {**CHAT, "n": 2}, code=1)
    assert (found["plan"]["error"]["code"], found["plan"]["error"]["param"]) == (
        "invalid_request",
        "n",
    )
