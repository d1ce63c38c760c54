"""Rate limits as clients read them: HTTP clients in headers, WebSocket clients in events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codexlb_cli.core.handshake import header_text
from codexlb_cli.core.headers import Header
from codexlb_cli.core.readings import is_codex_limit

_WINDOW_FIELDS = (
    ("used-percent", "used_percent"),
    ("window-minutes", "window_minutes"),
    ("reset-at", "reset_at"),
)
_CREDIT_FIELDS = ("has_credits", "unlimited", "balance")
_LIMIT_PREFIXES = ("x-codex-", "x-ratelimit-")


def limits_among(headers: Iterable[Header]) -> list[Header]:
    """Return those of the headers that a client may see which speak of an account's limits."""
    return [(name, value) for name, value in headers if name.startswith(_LIMIT_PREFIXES)]


def rate_limit_headers(event: Mapping[str, object]) -> list[Header]:
    """Return a `codex.rate_limits` event as the `x-codex-*` headers that Codex reads over HTTP.

    An event that names a limit other than "codex" says nothing about these windows.
    """
    if not is_codex_limit(event):
        return []
    limits = event.get("rate_limits")
    found: list[tuple[str, object]] = []
    if isinstance(limits, Mapping):
        for window in ("primary", "secondary"):
            values = limits.get(window)
            if isinstance(values, Mapping):
                found += [(f"x-codex-{window}-{h}", values.get(f)) for h, f in _WINDOW_FIELDS]
    credit = event.get("credits")
    if isinstance(credit, Mapping):
        found += [(f"x-codex-credits-{f.replace('_', '-')}", credit.get(f)) for f in _CREDIT_FIELDS]
    texts = ((name, header_text(value)) for name, value in found)
    return [(name, text) for name, text in texts if text is not None]
