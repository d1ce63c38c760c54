"""The client headers that `inspect handshake` starts from: an example, and recorded real clients.

Ports, keys and identifiers of the recordings are placeholders; names, order, case and everything
else are as the client sent them in its first request for a response.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from codexlb_cli.core.headers import Header
from codexlb_cli.errors import UsageError

EXAMPLE: tuple[Header, ...] = (
    ("Host", "127.0.0.1:2455"),
    ("Accept", "text/event-stream"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Connection", "keep-alive"),
    ("Content-Type", "application/json"),
    ("Content-Length", "57"),
    ("Authorization", "Bearer sk-example"),
    ("Cookie", "theme=dark"),
    ("OpenAI-Beta", "responses=experimental"),
    ("User-Agent", "example-client/1.0"),
    ("Session-Id", "example-session"),
)
"""An HTTP client whose headers meet the common rules."""

NAMES = (
    "codex", "codex-chatgpt", "codex-lite", "codex-ws", "curl", "httpx", "openai-node",
    "openai-node-ws", "openai-python", "openai-python-async", "openai-python-ws", "websockets",
)  # fmt: skip
"""The names of the recorded clients; they are stable."""


@dataclass(frozen=True, slots=True)
class RecordedClient:
    """What a real client sent.

    Attributes:
        description: program, version, transport and sign-in.
        headers: the lines in wire order.
    """

    description: str
    headers: tuple[Header, ...] = field(repr=False)


def recorded(name: str) -> RecordedClient:
    """Return a recorded client.

    Raises:
        UsageError: there is none of that name; the hint lists the names.
    """
    if name not in NAMES:
        raise UsageError(
            f"no recorded client is called `{name}`", hint=f"one of {', '.join(NAMES)}"
        )
    entry = recordings()[name]
    return RecordedClient(entry["description"], tuple((n, v) for n, v in entry["headers"]))


def recordings() -> dict[str, Any]:
    """Return the packaged recordings by name."""
    text = resources.files(__package__).joinpath("clients.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
