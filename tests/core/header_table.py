"""The header policy's table, typed a second time on purpose: names that arrive, and what follows.

Prefix rows (`cf-*`) stand here as examples and in `PREFIXES`.
"""

from __future__ import annotations

DROPPED: dict[str, tuple[str, ...]] = {
    "hop_by_hop": (
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization",
        "proxy-authentication-info",
    ),
    "websocket_handshake": (
        "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
        "sec-websocket-extensions", "sec-websocket-accept", "sec-websocket-new",
    ),
    "http_framing": (
        "host", "content-type", "content-length", "content-encoding", "content-language",
        "content-new", "expect", "date", "digest", "want-digest", "repr-digest", "trailers",
    ),
    "http_negotiation": (
        "accept", "accept-encoding", "accept-language", "accept-new", "range", "if-none-match",
        "if-modified-since", "if-range", "cache-control", "pragma", "priority", "max-forwards",
        "save-data",
    ),
    "client_credential": (
        "authorization", "cookie", "set-cookie", "api-key", "x-api-key", "x-auth-token",
        "x-goog-api-key", "chatgpt-account-id", "openai-organization", "openai-project",
    ),
    "network_identity": (
        "forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "x-client-ip",
        "true-client-ip", "cf-ray", "cf-connecting-ip", "cdn-loop", "fly-client-ip",
        "fastly-client-ip", "x-envoy-external-address", "x-original-url",
    ),
    "browser_metadata": (
        "origin", "referer", "sec-fetch-mode", "sec-fetch-site", "sec-ch-ua", "sec-gpc", "dnt",
        "upgrade-insecure-requests", "access-control-request-method",
    ),
    "tracing": (
        "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-datadog-trace-id",
        "sentry-trace", "x-amzn-trace-id", "x-cloud-trace-context",
    ),
    "request_identity": ("x-client-request-id", "x-request-id", "idempotency-key"),
    "not_allowed": (
        "x-stainless-lang", "x-session-affinity", "x-opencode-session", "x-codex-new", "x-foo",
        "server", "from", "sec-purpose", "x-b3", "cf", "content", "if", "x-openai-internal-new",
        "user-agent-2", "my-user-agent", "openai-beta-2", "x-codex-turn-state-2",
    ),
}  # fmt: skip

MOVED = {
    "x-openai-internal-codex-responses-lite": (
        "ws_request_header_x_openai_internal_codex_responses_lite"
    ),
    "x-codex-turn-metadata": "x-codex-turn-metadata",
    "x-codex-window-id": "x-codex-window-id",
    "x-codex-parent-thread-id": "x-codex-parent-thread-id",
    "x-openai-subagent": "x-openai-subagent",
}
"""Rule `per_turn_metadata`: by name, the key in `client_metadata`."""

FORWARDED = (
    "user-agent", "originator", "version", "session-id", "session_id", "thread-id",
    "conversation_id", "x-codex-session-id", "x-codex-conversation-id", "x-codex-beta-features",
    "x-codex-routing-hint", "x-responsesapi-include-timing-metrics", "openai-safety-identifier",
)  # fmt: skip

SESSION_ROW = (
    "session-id", "session_id", "x-codex-session-id", "x-codex-conversation-id",
    "conversation_id", "x-session-affinity", "x-opencode-session",
)  # fmt: skip

MASKED = (
    *DROPPED["client_credential"],
    "proxy-authorization", "sec-websocket-protocol", "x-codex-turn-metadata",
)  # fmt: skip

PREFIXES = (
    "sec-websocket-", "content-", "accept-", "if-", "x-forwarded-", "cf-", "fly-", "fastly-",
    "x-envoy-", "x-original-", "sec-fetch-", "sec-ch-", "access-control-", "x-b3-", "x-datadog-",
)  # fmt: skip

EXPECTED: dict[str, tuple[str, str]] = {
    **{name: ("drop", rule) for rule, names in DROPPED.items() for name in names},
    **dict.fromkeys(MOVED, ("move", "per_turn_metadata")),
    **dict.fromkeys(FORWARDED, ("forward", "allowed")),
    "openai-beta": ("replace", "beta_tokens"),
    "x-codex-turn-state": ("drop", "turn_state"),
}
"""Every name: what happens to it, and by which rule; turn states not being ours."""
