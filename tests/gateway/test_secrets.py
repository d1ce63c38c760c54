"""Nothing secret is written anywhere but on the wire to the upstream it belongs to."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.secrets import Secret
from tests.support.client import TERMINAL, Answer, Header, connection, request, request_head
from tests.support.gateway import RESPONSES, Stage, run
from tests.support.issuer import issuing
from tests.support.serving import Program, serving
from tests.support.sockets import client

LEAK = "LEAK-7f3a"
KEY = f"sk-{LEAK}-of-work"

SECRETS: list[Header] = [
    ("Authorization", f"Bearer {LEAK}-authorization"),
    ("Cookie", f"session={LEAK}-cookie"),
    ("X-Api-Key", f"{LEAK}-api-key"),
    ("Proxy-Authorization", f"Basic {LEAK}-proxy"),
    ("X-Codex-Turn-Metadata", json.dumps({"workspace": f"{LEAK}-metadata"})),
    ("X-Unknown", f"{LEAK}-unknown"),
]
PROMPT = f"the prompt {LEAK}-prompt"


def rules() -> list[HandshakeRule | TurnRule]:
    quoting = f"Incorrect API key provided: {KEY}."
    invalid = ErrorSpec(status=401, code="invalid_api_key", message=quoting)
    limited = ErrorSpec(status=429, code="rate_limit_exceeded", message=quoting)
    failed = ErrorSpec(status=500, code="server_error", message=quoting)
    return [
        HandshakeRule(skip=1, times=1, status=500, error=ErrorSpec(message=quoting)),
        HandshakeRule(skip=3, times=1, status=403, body=f"<html>{KEY}</html>"),
        TurnRule(model="401", error=invalid, times=1),
        TurnRule(model="429", error=limited, times=1),
        TurnRule(model="500", error=failed),
        TurnRule(model="1011", close=1011, reason=KEY),
        TurnRule(model="broken", send=(f'{{"type": "{KEY}',)),
        TurnRule(model="created", close=1011, when="created", reason=KEY),
    ]


async def drive(program: Program) -> list[Answer]:
    """Send everything that ends in some other way; return the answers of our own making."""
    models = ("mock", "401", "429", "500", "1011", "broken", "created")
    answers = [
        await turn(program, {"model": model, "stream": stream})
        for model in models
        for stream in (True, False)
    ]
    malformed = (
        f'{{"input": "{PROMPT}"',
        f'{{"{PROMPT}": NaN}}',
        json.dumps({"model": [PROMPT]}),
        json.dumps({"model": "mock", "previous_response_id": PROMPT, "store": False}),
        json.dumps({"model": "mock", "background": True, "input": PROMPT}),
    )
    answers += [await post(program, body.encode(), SECRETS) for body in malformed]
    broken = [*SECRETS, ("Content-Encoding", "gzip")]
    answers.append(await post(program, PROMPT.encode(), broken))
    answers.append(await post(program, b"{}", [*SECRETS, ("X-Control", f"{LEAK}\x01")]))
    answers.append(await post(program, b"{}", [*SECRETS, ("Origin", f"https://{LEAK}.example")]))
    answers.append(await post(program, b"{}", [*SECRETS, ("Host", f"{LEAK}.example")]))
    answers.append(await post(program, b"{}", [*SECRETS, (f"{LEAK} name", "x")]))
    close = [*SECRETS, ("Connection", "close")]
    unknown = f"/v1/x?key={LEAK}"
    answers += [await request(program.port, method, unknown, close) for method in ("GET", "POST")]
    async with connection(program.port) as exchange:
        lines = [("Host", "127.0.0.1"), *SECRETS, ("Content-Length", "1000")]
        await exchange.send(request_head("POST", RESPONSES, lines) + PROMPT.encode())
        exchange.leave()
    await request(program.port, "GET", "/v1/models", close)
    return answers


async def drive_socket(program: Program) -> list[str]:
    """Do the same over a WebSocket; return the error frames and the close reasons."""
    errors: list[str] = []
    frames = [
        json.dumps({"type": "response.create", "model": model, "input": PROMPT})
        for model in ("mock", "401", "429", "500", "1011", "broken", "created")
    ]
    frames += [
        f'{{"input": "{PROMPT}"',
        json.dumps({"type": PROMPT}),
        json.dumps({"type": "response.create", "model": [PROMPT]}),
        json.dumps({"type": "response.create", "stream_id": PROMPT}),
        json.dumps({"type": f"response.{PROMPT}", "response_id": PROMPT}),
        json.dumps(
            {"type": "response.create", "client_metadata": {"x-codex-turn-state": f"{LEAK}\n"}}
        ),
        json.dumps({"type": "response.create", "previous_response_id": PROMPT, "store": False}),
    ]
    async with client(program.port, headers=SECRETS) as ws:
        for frame in frames:
            await ws.connection.send(frame)
            last = (await ws.until(*TERMINAL))[-1]
            if last["type"] == "error":
                errors.append(str(last))
        await ws.connection.send(PROMPT.encode())
        assert await ws.closed() == 1003
        errors.append(str(ws.connection.close_reason))
    return errors


async def turn(program: Program, members: dict[str, Any]) -> Answer:
    body = {"input": PROMPT, "instructions": PROMPT, "metadata": {"a": PROMPT}, **members}
    return await post(program, json.dumps(body).encode(), SECRETS)


async def post(program: Program, body: bytes, headers: list[Header]) -> Answer:
    lines = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    return await request(program.port, "POST", RESPONSES, lines, body)


def test_tokens_stay_where_they_belong(tmp_path: Path) -> None:
    """A login is refreshed, then its issuer fails and quotes it, then it has ended."""
    began = time.time()
    with issuing(lambda: began) as issuer:
        first = issuer.login(refreshed_at=began - 86_400)
        second = f"{LEAK}-second"
        quoting = {"error": {"code": "server_error", "message": f"{second} {LEAK}-refresh-2"}}
        ended = {"error": {"code": "refresh_token_reused", "message": f"{LEAK}-refresh-2"}}
        given = {"access_token": second, "refresh_token": f"{LEAK}-refresh-2", "id_token": LEAK}

        def answers(status: int, body: object) -> None:
            issuer.answer = status, "application/json", json.dumps(body).encode()

        async def test(stage: Stage) -> None:
            stage.cli.configure(
                f'[accounts.plan]\nkind = "chatgpt"\nbase_url = "{stage.mock.base_url}"\n'
            )
            credentials = Credentials(stage.state_folder, {})
            credentials.store_login(
                "plan",
                replace(
                    first,
                    access_token=Secret(f"{LEAK}-first"),
                    refresh_token=Secret(f"{LEAK}-refresh-1"),
                    account_id=f"{LEAK}-account",
                ),
            )
            answers(200, given)
            async with serving(stage.cli, "-v", **stage.environ) as program:
                answers_of = await drive(program)
                assert answers_of[0].status == 200
                answers(500, quoting)
                answers_of.append(await turn(program, {"model": "ends", "stream": True}))
                answers(401, ended)
                program.terminate()
                assert await program.exit_code() == 0
            async with serving(stage.cli, "-v", **stage.environ) as again:
                answers_of.append(await turn(again, {"model": "ends", "stream": True}))
                again.terminate()
                assert await again.exit_code() == 0
            outputs = [*program.out, *program.err, *again.out, *again.err]
            for command in (["accounts", "list"], ["accounts", "list", "--json"],
                            ["inspect", "handshake"], ["config", "show"]):  # fmt: skip
                ran = await stage.command(*command)
                assert ran.returncode == 0
                outputs += [ran.stdout.decode(), ran.stderr.decode()]
            assert "refresh_token_reused" in "".join(outputs)
            assert LEAK not in "\n".join(outputs)
            assert not any("Traceback" in line for line in outputs)
            for answer in answers_of:
                if answer.status != 200:
                    assert LEAK not in answer.body.decode(), answer.body
                assert LEAK not in str(answer.headers)
            sent = str([handshake.headers for handshake in stage.mock.handshakes])
            assert second in sent
            assert f"{LEAK}-account" in sent
            assert "refresh-1" not in sent
            stored = credentials.login("plan")
            assert stored is not None
            assert stored.refresh_token == Secret(f"{LEAK}-refresh-2")
            files = [path for path in stage.state_folder.rglob("*") if path.is_file()]
            holders = {path.name for path in files if LEAK.encode() in path.read_bytes()}
            assert holders == {"credentials.toml"}

        expired = ErrorSpec(status=401, code="token_expired", message=second)
        ends = TurnRule(model="ends", error=expired)
        run(test, tmp_path, ends, *rules(), names=("plan",), keys={"plan": second}, serve=False)
        assert len(issuer.asked) >= 3


def test_secrets_stay_where_they_belong(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, "-v", **stage.environ) as program:
            answers = await drive(program)
            errors = await drive_socket(program)
            assert len(errors) > 8
            assert [error for error in errors if LEAK in error] == []
            arguments = Path(f"/proc/{program.process.pid}/cmdline")
            if arguments.exists():
                assert LEAK.encode() not in arguments.read_bytes()
            program.terminate()
            assert await program.exit_code() == 0
        assert KEY in str([handshake.headers for handshake in stage.mock.handshakes])
        assert LEAK not in "\n".join([*program.out, *program.err])
        assert not any("Traceback" in line for line in program.err)
        for answer in answers:
            if answer.status != 200:  # an answer of the upstream's may echo the prompt
                assert LEAK not in answer.body.decode(), answer.body
            assert LEAK not in str(answer.headers)
        files = [path for path in stage.state_folder.rglob("*") if path.is_file()]
        assert any(path.name == "state.sqlite3" for path in files)
        for path in files:
            assert LEAK.encode() not in path.read_bytes(), path

    run(test, tmp_path, *rules(), keys={"work": KEY}, serve=False)
