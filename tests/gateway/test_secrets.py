"""Nothing secret is written anywhere but on the wire to the upstream it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from tests.support.client import Answer, Header, connection, request, request_head
from tests.support.gateway import RESPONSES, Stage, run
from tests.support.serving import Program, serving

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


async def turn(program: Program, members: dict[str, Any]) -> Answer:
    body = {"input": PROMPT, "instructions": PROMPT, "metadata": {"a": PROMPT}, **members}
    return await post(program, json.dumps(body).encode(), SECRETS)


async def post(program: Program, body: bytes, headers: list[Header]) -> Answer:
    lines = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    return await request(program.port, "POST", RESPONSES, lines, body)


def test_secrets_stay_where_they_belong(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, "-v", **stage.environ) as program:
            answers = await drive(program)
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
