from __future__ import annotations

import pytest

from codexlb_cli.core.headers import check_header
from codexlb_cli.errors import UsageError
from codexlb_cli.inspect.clients import EXAMPLE, NAMES, recorded, recordings


def test_the_names_are_stable() -> None:
    assert NAMES == (
        "codex",
        "codex-chatgpt",
        "codex-lite",
        "codex-ws",
        "curl",
        "httpx",
        "openai-node",
        "openai-node-ws",
        "openai-python",
        "openai-python-async",
        "openai-python-ws",
        "websockets",
    )
    assert tuple(recordings()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_whole_and_holds_placeholders_only(name: str) -> None:
    client = recorded(name)
    assert client.description
    for header, value in client.headers:
        check_header(header, value)
        if header.lower() == "authorization":
            assert value in ("Bearer sk-example", "Bearer example-access-token")
        if header.lower() == "host":
            assert value == "127.0.0.1:2455"
    assert "authorization" in {header.lower() for header, _ in client.headers}


def test_recordings_keep_order_and_case() -> None:
    assert [name for name, _ in recorded("curl").headers] == [
        "Host",
        "User-Agent",
        "Accept",
        "Authorization",
        "Content-Type",
        "Content-Length",
    ]


def test_an_unknown_client_lists_the_names() -> None:
    with pytest.raises(UsageError, match="no recorded client is called `emacs`") as caught:
        recorded("emacs")
    assert caught.value.hint == "one of " + ", ".join(NAMES)


def test_the_example_meets_the_common_rules() -> None:
    assert [name for name, _ in EXAMPLE] == [
        "Host",
        "Accept",
        "Accept-Encoding",
        "Connection",
        "Content-Type",
        "Content-Length",
        "Authorization",
        "Cookie",
        "OpenAI-Beta",
        "User-Agent",
        "Session-Id",
    ]
