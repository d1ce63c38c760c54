"""What strict mode holds against a WebSocket upgrade: traces of an HTTP request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HTTP_ONLY = frozenset(
    {"accept", "cookie", "expect", "http2-settings", "keep-alive", "range", "te", "trailer"}
    | {"proxy-connection", "proxy-authorization", "transfer-encoding"}
)
_HTTP_ONLY_PREFIXES = ("accept-", "content-", "if-")


def violations(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return what is wrong with the headers of an upgrade, one sentence each; names, no values.

    HTTP-only headers are wrong, so is a `Connection` that names more than `Upgrade`, and an
    `OpenAI-Beta` with a `responses=…` token or without exactly one `responses_websockets=…`.
    """
    found = []
    connection: list[str] = []
    beta: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower in _HTTP_ONLY or lower.startswith(_HTTP_ONLY_PREFIXES):
            found.append(f"`{name}` belongs to an HTTP request")
        elif lower == "connection":
            connection += _tokens(value)
        elif lower == "openai-beta":
            beta += _tokens(value)
    if [token.lower() for token in connection] != ["upgrade"]:
        found.append("`Connection` must be `Upgrade` and no more")
    if any(token.startswith("responses=") for token in beta):
        found.append("`OpenAI-Beta` has a `responses=` token, which is for HTTP")
    websocket_tokens = sum(token.startswith("responses_websockets=") for token in beta)
    if websocket_tokens != 1:
        found.append(f"`OpenAI-Beta` has {websocket_tokens} `responses_websockets=` tokens, not 1")
    return tuple(found)


def _tokens(value: str) -> list[str]:
    return [token.strip() for token in value.split(",") if token.strip()]
