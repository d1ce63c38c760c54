"""What `inspect handshake` prints is what goes on the wire, on every socket alike."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.headers import RULES
from codexlb_cli.inspect.clients import EXAMPLE, NAMES, recorded
from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule
from tests.gateway.test_reported_defect import CLIENT
from tests.parity.sameness import HOME, assert_lines, assert_same, sendable
from tests.support.cli import Cli
from tests.support.client import Answer, Header, request, request_head
from tests.support.gateway import Stage, play, run, run_each, staged, turn_body

CODEX_LINES = [
    ("session-id", "s"),
    ("thread-id", "t"),
    ("Thread-Id", "t2"),
    ("x-codex-turn-state", "unknown"),
    ("x-codex-turn-metadata", '{"a":"b"}'),
    ("x-openai-internal-codex-responses-lite", "true"),
    ("x-codex-beta-features", "one,two"),
    ("X-Codex-Beta-Features", "three"),
    ("version", "0.1.0"),
]
ODD_LINES = [
    ("User-Agent", "two  blanks\tand a tab"),
    ("originator", "caf\xc3\xa9"),
    ("Version", "latin \xe9"),
    ("OpenAI-Beta", "responses_websockets=2099-01-01, a ,, b=c"),
    ("openai-beta", "responses=experimental,a,responses_websockets=2"),
    ("Connection", "version, ,close"),
    ("Connection", "User-Agent"),
    ("x-empty", ""),
    ("openai-safety-identifier", ""),
    ("traceparent", "00-1-1-00"),
    ("Forwarded", "for=192.0.2.1"),
]
CLIENTS: dict[str, Sequence[Header]] = {
    **{name: recorded(name).headers for name in NAMES},
    "the example": EXAMPLE,
    "the defect": CLIENT,
    "none": [],
    "codex lines": CODEX_LINES,
    "odd lines": ODD_LINES,
}
LIMITED = ErrorSpec(status=429, code="rate_limit_exceeded")


async def send(stage: Stage, headers: Sequence[Header], model: str) -> Answer:
    body = turn_body({"model": model})
    return await request(stage.port, "POST", "/v1/responses", sendable(headers, body), body)


def test_every_client_on_every_socket(tmp_path: Path) -> None:
    """The first connect, a reconnect after 1011, and a switch to an account that differs."""

    async def one(headers: Sequence[Header], folder: Path) -> None:
        async def test(stage: Stage) -> None:
            for model in ("mock", "closes", "limited"):
                answer = await send(stage, headers, model)
                assert (answer.status, answer.types[-1]) == (200, "response.completed")
                stage.clock.advance(60)
            closes = [t for t in stage.mock.turns if t.model == "closes"]
            assert len(closes) == 2
            assert {"work", "home"} <= set(stage.dialled)
            assert stage.dialled.count("work") >= 2
            for handshake in stage.mock.handshakes:
                assert_same(stage, sendable(headers, turn_body({})), handshake)

        await play(
            test,
            folder,
            TurnRule(model="closes", close=1011, times=1),
            TurnRule(model="limited", account="work", error=LIMITED),
            accounts=HOME,
            names=("work", "home"),
        )

    run_each(CLIENTS, one, tmp_path)


def test_the_configuration_counts_for_both(tmp_path: Path) -> None:
    headers = [*ODD_LINES, ("X-Mine", "1"), ("x-mine", "2"), ("Cookie", "a=b")]
    more = (
        '[headers]\nallow = ["X-Mine", "cookie"]\ntraceparent = true\n'
        'beta = "responses_websockets=2030-01-01"'
    )

    async def test(stage: Stage) -> None:
        for lines in (headers, CODEX_LINES):
            await send(stage, lines, "closes")
            assert stage.dialled[-2:] == ["work", "work"]
            for handshake in stage.mock.handshakes[-2:]:
                assert_same(stage, sendable(lines, b""), handshake)
        assert stage.handshake(0)["x-mine"] == ["1", "2"]
        assert stage.handshake(0)["traceparent"] == ["00-1-1-00"]
        assert "cookie" not in stage.handshake(0)

    run(test, tmp_path, TurnRule(model="closes", close=1011, every=2), more=more, names=["work"])


def test_the_program_prints_the_same(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        headers = sendable(CODEX_LINES, turn_body({}))
        await send(stage, CODEX_LINES, "mock")
        file = tmp_path / "head.txt"
        file.write_bytes(request_head("POST", "/v1/responses", headers))
        arguments = ["inspect", "handshake", "--headers", str(file), "--json"]
        config = ["--config", str(stage.config_file)]
        ran = Cli(tmp_path).spawn(*config, *arguments, stdin=b"", **stage.environ)
        assert (ran.returncode, ran.stderr) == (0, b"")
        document = json.loads(ran.stdout)
        assert document["account"] == "work"
        assert document["url"] == f"{stage.mock.websocket_base_url}/responses"
        assert_lines(document["headers"], stage.mock.handshakes[0])
        moved = {"x-codex-turn-metadata": '{"a":"b"}', LITE: "true"}
        assert stage.frames[0]["client_metadata"] == moved
        assert set(document["client_metadata"]) == set(moved)
        assert document["client_metadata"]["x-codex-turn-metadata"] == "***"

    run(test, tmp_path)


LITE = "ws_request_header_x_openai_internal_codex_responses_lite"

KNOWN = [name.replace("*", "any") for rule in RULES for name in rule.names if name[0].isalpha()]
UNSENDABLE = {
    "host", "content-length", "content-encoding", "transfer-encoding", "upgrade", "origin",
    "sec-fetch-site",
}  # fmt: skip
TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijXYZ", min_size=1, max_size=12)
names = (
    (st.sampled_from(KNOWN) | TOKEN)
    .flatmap(lambda name: st.sampled_from([name, name.title(), name.upper()]))
    .filter(lambda name: name.lower() not in UNSENDABLE)
)
visible = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f")
words = st.text(visible, max_size=12)
values = (
    st.lists(words, max_size=4).map(" ".join).map(lambda value: value.strip(" \t"))
    | st.lists(names, max_size=3).map(", ".join)
    | st.sampled_from(["responses=experimental", "responses_websockets=x, y", "a=b,c"])
)


def test_arbitrary_lines(tmp_path: Path) -> None:
    with staged(
        tmp_path,
        TurnRule(close=1011, every=2),
        accounts=HOME,
        names=("work", "home"),
    ) as (stage, wait):
        models = (f"model-{number}" for number in itertools.count())

        @settings(max_examples=30, deadline=None)
        @given(st.lists(st.tuples(names, values), max_size=12))
        def check(headers: list[Header]) -> None:
            stage.mock.handshakes.clear()
            stage.clock.advance(600)
            answer = wait(send(stage, headers, next(models)))  # never a kept socket
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert len(stage.mock.handshakes) == 2
            for handshake in stage.mock.handshakes:
                assert_same(stage, sendable(headers, turn_body({})), handshake)

        check()
