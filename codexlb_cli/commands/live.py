"""What a running gateway knows of its accounts and no file does; asked over loopback, briefly."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codexlb_cli.store.presence import Presence, announced

ASK_SECONDS = 0.5
_PATH = "/_codexlb/accounts"
_SCHEMA = "codexlb.gateway.accounts/1"
_LARGEST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Live:
    """An account in a running gateway.

    Attributes:
        in_flight: how many turns it has now.
        last_error: the reason code of what went wrong there last, and when, seconds since the
            epoch; None if nothing did since the gateway was started.
    """

    in_flight: int
    last_error: tuple[str, float] | None


def live_accounts(state_folder: Path) -> Mapping[str, Live]:
    """Return the accounts of the gateway that runs on this state folder; {} if none does."""
    found = _found(state_folder)
    if found is None:
        return {}
    _, document = found
    try:
        return {name: _live(account) for name, account in document["accounts"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def running_gateway(state_folder: Path) -> Presence | None:
    """Return where the gateway that runs on this state folder listens; None if none does."""
    found = _found(state_folder)
    return None if found is None else found[0]


def _found(state_folder: Path) -> tuple[Presence, dict[str, Any]] | None:
    presence = announced(state_folder)
    document = None if presence is None else _asked(presence)
    return None if presence is None or document is None else (presence, document)


def _asked(presence: Presence) -> dict[str, Any] | None:
    """Return the gateway's answer; None if what listens there now is not that gateway."""
    connection = http.client.HTTPConnection(presence.host, presence.port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", _PATH)
        document = json.loads(connection.getresponse().read(_LARGEST_BYTES))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        return None
    return document if document.get("instance") == presence.instance else None


def _live(account: Mapping[str, Any]) -> Live:
    error = account["last_error"]
    return Live(
        in_flight=int(account["in_flight"]),
        last_error=None if error is None else (str(error["reason"]), float(error["at"])),
    )
