"""What must hold for everything that the upstream received, whatever the client was."""

from __future__ import annotations

import re

from codexlb_cli.mock_upstream.server import MockUpstream
from tests.clients.running import KEYS

BETA = "responses_websockets=2026-02-06"

# What only an HTTP request has: none of it may stand on the upgrade.
_HTTP_ONLY = re.compile(
    r"accept(-.*)?|content-.*|te|trailer|transfer-encoding|expect|cookie|origin|referer"
    r"|x-stainless-.*|idempotency-key|cache-control|pragma|proxy-.*|keep-alive"
)


def check_upstream(mock: MockUpstream, *, secret: str) -> None:
    """Require clean handshakes and frames, and nothing of a client's secret anywhere."""
    assert mock.handshakes
    for handshake in mock.handshakes:
        assert not handshake.violations
        names = [name.lower() for name, _ in handshake.headers]
        assert not [name for name in names if _HTTP_ONLY.fullmatch(name)]
        lines = [(name.lower(), value) for name, value in handshake.headers]
        assert handshake.account is not None
        key = KEYS[handshake.account]
        assert [v for n, v in lines if n == "authorization"] == [f"Bearer {key}"]
        assert [v for n, v in lines if n == "openai-beta"] == [BETA]
        assert [v for n, v in lines if n == "connection"] == ["Upgrade"]
        assert names.count("x-client-request-id") == 1
        assert secret not in repr(handshake.headers)
    for frame in mock.frames:
        assert frame.json["type"] in {"response.create", "response.interrupt"}
        assert not {"stream", "background", "stream_id"} & frame.json.keys()
        assert secret not in frame.text
    assert mock.overlaps == 0


def turns(mock: MockUpstream) -> list[tuple[str, str | None]]:
    """Return the account and the outcome of every turn, in order."""
    return [(turn.account, turn.outcome) for turn in mock.turns]
