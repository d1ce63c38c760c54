"""What a running gateway tells the commands beside it: what no restart keeps."""

from __future__ import annotations

from typing import Any

from codexlb_cli.gateway.services import Services

LIVE_PATH = "/_codexlb/accounts"
LIVE_SCHEMA = "codexlb.gateway.accounts/1"


def live_document(services: Services) -> dict[str, Any]:
    """Return turns in flight and the last error of each account; times are since the epoch."""
    accounts = services.accounts
    return {
        "schema": LIVE_SCHEMA,
        "instance": services.instance,
        "accounts": {
            account.name: {
                "in_flight": accounts.turns_at(account.name),
                "last_error": _last_error(accounts.last_trouble(account.name)),
            }
            for account in services.settings.accounts
        },
    }


def _last_error(trouble: tuple[str, float] | None) -> dict[str, Any] | None:
    return None if trouble is None else {"reason": trouble[0], "at": trouble[1]}
