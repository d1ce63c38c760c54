from __future__ import annotations

import pytest

from codexlb_cli.mock_upstream.strict import violations

CLEAN = [
    ("Host", "127.0.0.1:2456"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("authorization", "Bearer sk-test-LEAK"),
    ("openai-beta", "responses_websockets=2026-02-06"),
    ("user-agent", "example/1.0"),
]


def test_a_clean_upgrade_has_no_violation() -> None:
    assert violations(CLEAN) == ()


@pytest.mark.parametrize(
    "name",
    [
        *["Accept", "accept-encoding", "Content-Type", "content-length", "Cookie", "TE", "expect"],
        *["If-Match", "Keep-Alive", "Proxy-Authorization", "Trailer", "transfer-encoding", "range"],
    ],
)
def test_a_header_of_an_http_request_is_named_without_its_value(name: str) -> None:
    assert violations([*CLEAN, (name, "sk-test-LEAK")]) == (f"`{name}` belongs to an HTTP request",)


@pytest.mark.parametrize("value", ["keep-alive", "keep-alive, Upgrade", "Upgrade, x-foo"])
def test_connection_must_be_upgrade_alone(value: str) -> None:
    headers = [pair for pair in CLEAN if pair[0] != "Connection"]
    assert len(violations([*headers, ("Connection", value)])) == 1
    assert len(violations([*CLEAN, ("connection", value)])) == 1


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], 1),
        (["responses=experimental"], 2),
        (["responses=experimental, responses_websockets=2026-02-06"], 1),
        (["responses_websockets=a", "responses_websockets=b"], 1),
        (["assistants=v2, responses_websockets=2026-02-06"], 0),
    ],
)
def test_the_beta_header(lines: list[str], count: int) -> None:
    headers = [pair for pair in CLEAN if pair[0] != "openai-beta"]
    found = violations(headers + [("OpenAI-Beta", line) for line in lines])
    assert len(found) == count
