"""The upstream closes with 1011 before `response.created`, under a client's HTTP headers.

A gateway that builds the second handshake from the client's HTTP headers, or that excludes the
owner of a session and then requires it, loses the turn.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.gateway import Stage, key_of, run

CLIENT = [
    ("Host", "127.0.0.1"),
    ("Accept", "text/event-stream"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en"),
    ("Content-Type", "application/json"),
    ("Connection", "keep-alive, X-Nominated"),
    ("Keep-Alive", "timeout=5"),
    ("X-Nominated", "ends here"),
    ("TE", "trailers"),
    ("Authorization", "Bearer sk-of-the-client"),
    ("Cookie", "theme=dark; token=of-the-client"),
    ("OpenAI-Organization", "org-of-the-client"),
    ("OpenAI-Project", "proj_of_the_client"),
    ("ChatGPT-Account-Id", "of-the-client"),
    ("OpenAI-Beta", "responses=experimental"),
    ("OpenAI-Beta", "responses=v1, assistants=v2"),
    ("Origin-Trial", "1"),
    ("Referer", "http://127.0.0.1/"),
    ("Via", "1.1 elsewhere"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("X-Stainless-Lang", "python"),
    ("X-Request-Id", "of-the-client"),
    ("Idempotency-Key", "of-the-client"),
    ("Sec-WebSocket-Protocol", "of-the-client"),
    ("User-Agent", "a-client/1.0"),
    ("Originator", "a_client"),
]

CLOSES_1011 = TurnRule(close=1011, times=1)


def expected(stage: Stage, account: str, *more: tuple[str, str | None]) -> list[tuple[str, object]]:
    """The lines of an upgrade in wire order; None stands for what is new on every socket."""
    return [
        ("Host", stage.mock.base_url.split("/")[2]),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", None),
        ("Sec-WebSocket-Version", "13"),
        ("authorization", f"Bearer {key_of(account)}"),
        ("openai-beta", "assistants=v2, responses_websockets=2026-02-06"),
        ("user-agent", "a-client/1.0"),
        ("originator", "a_client"),
        *more,
        ("x-client-request-id", None),
    ]


def received(stage: Stage, number: int) -> list[tuple[str, object]]:
    varying = ("sec-websocket-key", "x-client-request-id")
    return [
        (name, None if name.lower() in varying else value)
        for name, value in stage.mock.handshakes[number].headers
    ]


def assert_fresh_on_every_socket(stage: Stage) -> None:
    for name in ("sec-websocket-key", "x-client-request-id"):
        values = [stage.handshake(number)[name] for number in range(len(stage.mock.handshakes))]
        assert all(len(lines) == 1 for lines in values)
        assert len({lines[0] for lines in values}) == len(values)
    assert "of-the-client" not in str([h.headers for h in stage.mock.handshakes])


@pytest.mark.parametrize("path", ["/v1/responses", "/backend-api/codex/responses"])
def test_a_session_reconnects_to_its_owner_and_completes_there(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=[*CLIENT, ("Session-Id", "s1")], path=path)
        assert answer.status == 200
        assert answer.types[0] == "response.created"
        assert answer.types[-1] == "response.completed"
        assert answer.types.count("response.completed") == 1
        assert answer.text == "You said: hello"
        assert answer.header("x-codexlb-account") == "work"
        assert answer.header("x-codexlb-attempts") == "2"
        assert stage.dialled == ["work", "work"]
        assert stage.sent == ["work", "work"]
        assert [turn.outcome for turn in stage.mock.turns] == ["close 1011", "response.completed"]
        assert stage.frames[0] == stage.frames[1]
        for number in (0, 1):
            lines = expected(stage, "work", ("session-id", "s1"))
            assert received(stage, number) == lines
            assert stage.mock.handshakes[number].violations == ()
        assert_fresh_on_every_socket(stage)

        again = await stage.turn(headers=[*CLIENT, ("Session-Id", "s1")], path=path)
        assert again.header("x-codexlb-account") == "work"
        assert again.header("x-codexlb-attempts") == "1"

    run(test, tmp_path, CLOSES_1011)


def test_a_prompt_cache_key_skips_the_account_that_closed_and_comes_home(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):  # the key's home is `work`
            first = await stage.turn(headers=CLIENT, prompt_cache_key="k1")
            assert first.header("x-codexlb-account") == "work"
        answer = await stage.turn(headers=CLIENT, prompt_cache_key="k1")
        assert (answer.status, answer.types[-1]) == (200, "response.completed")
        assert answer.header("x-codexlb-account") == "home"
        assert answer.header("x-codexlb-attempts") == "2"
        assert stage.sent == ["work", "work", "work", "home"]
        cache_session = stage.handshake(0)["session-id"][0]
        assert "k1" not in cache_session
        for number, account in enumerate(stage.dialled):
            lines = expected(stage, account, ("session-id", cache_session))
            assert received(stage, number) == lines
            assert stage.mock.handshakes[number].violations == ()
        assert_fresh_on_every_socket(stage)

        after = await stage.turn(headers=CLIENT, prompt_cache_key="k1")
        assert after.header("x-codexlb-account") == "work"
        assert after.header("x-codexlb-attempts") == "1"

    run(test, tmp_path, TurnRule(close=1011, skip=2, times=1))


def test_without_a_key_the_account_that_closed_is_skipped_too(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=CLIENT)
        assert (answer.status, answer.types[-1]) == (200, "response.completed")
        assert stage.sent == ["work", "home"]
        for number, account in enumerate(["work", "home"]):
            assert received(stage, number) == expected(stage, account)
        assert_fresh_on_every_socket(stage)

    run(test, tmp_path, CLOSES_1011)


def test_the_only_account_serves_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for key in ({"prompt_cache_key": "k1"}, {}):
            answer = await stage.turn(headers=CLIENT, **key)
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.header("x-codexlb-attempts") == "2"
        assert stage.sent == ["work"] * 4

    run(test, tmp_path, TurnRule(close=1011, every=2), names=["work"])


def test_the_whole_answer_at_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        headers = [*CLIENT, ("Session-Id", "s1")]
        answer = await stage.turn(headers=headers, stream=False)
        assert (answer.status, answer.json["status"]) == (200, "completed")
        assert answer.header("x-codexlb-attempts") == "2"
        assert stage.sent == ["work", "work"]

    run(test, tmp_path, CLOSES_1011)
