"""Rate limits as clients read them: HTTP clients in headers, WebSocket clients in events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codexlb_cli.core.amounts import number
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


def rate_limits_event(headers: Mapping[str, str]) -> dict[str, object] | None:
    """Return `x-codex-*` headers as the `codex.rate_limits` event that Codex reads on a socket.

    Args:
        headers: by lower-case name.

    Returns:
        The event; None if the headers tell of no window.
    """
    windows: dict[str, object] = {}
    for window in ("primary", "secondary"):
        told = {f: headers.get(f"x-codex-{window}-{h}") for h, f in _WINDOW_FIELDS}
        numbers = {f: n for f, text in told.items() if (n := number(text)) is not None}
        # Codex reads whole numbers where its own upstream sends them.
        values = {f: int(n) if n.is_integer() else n for f, n in numbers.items()}
        if "used_percent" in values:
            windows[window] = values
    if not windows:
        return None
    event: dict[str, object] = {"type": "codex.rate_limits", "rate_limits": windows}
    credit = {f: headers.get(f"x-codex-credits-{f.replace('_', '-')}") for f in _CREDIT_FIELDS}
    if credit["has_credits"] and credit["unlimited"]:
        flags = {f: credit[f] in ("true", "1") for f in ("has_credits", "unlimited")}
        event["credits"] = {**flags, "balance": credit["balance"]}
    return event
