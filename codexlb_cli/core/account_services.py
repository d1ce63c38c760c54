"""What Codex asks of `chatgpt_base_url`: which of it the gateway answers, and with what.

Codex derives the paths from `chatgpt_base_url`: `/wham/...` below `/backend-api`, else
`/api/codex/...` (`PathStyle` in openai/codex, `backend-client`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.headers import Header

USAGE_PATHS = ("/backend-api/wham/usage", "/api/codex/usage")
ACCOUNT_CHECK_PATHS = ("/backend-api/wham/accounts/check", "/api/codex/accounts/check")
ACCOUNT_SERVICES = ("/backend-api", "/api/codex")
"""Where the services of a ChatGPT account lie, most of which are not the gateway's affair."""

ACCOUNT_ID_HEADER = "chatgpt-account-id"
NO_CONSTRAINT = "NO_CONSTRAINT"
"""The account is bound to no origin and no region: requests go where the client is configured."""


def account_check(headers: Sequence[Header]) -> dict[str, Any] | ClientError:
    """Answer which workspace a client belongs to: its own, whatever account will serve it.

    Codex gives up a turn if the account that it is signed in to is not on this list exactly once
    (`workspace routing discovery`). It must not learn of the pool's accounts here.

    Args:
        headers: the client's header lines; only its account id is read.

    Returns:
        The document, or the error of a request that does not name one account.
    """
    named = [value for name, value in headers if name.lower() == ACCOUNT_ID_HEADER and value]
    if len(named) != 1:
        return ClientError(
            "invalid_request",
            f"the header `{ACCOUNT_ID_HEADER}` must name the account that the client signed in to",
            param=ACCOUNT_ID_HEADER,
        )
    account = {
        "id": named[0],
        "name": None,
        "plan_type": None,
        "structure": "personal",
        "profile_picture_url": None,
        "workspace_backend_origin": NO_CONSTRAINT,
        "account_routing_override": NO_CONSTRAINT,
    }
    return {"accounts": [account], "account_ordering": named, "default_account_id": named[0]}


def not_served(method: str, path: str) -> ClientError:
    """Return the error for a service of an account that the gateway does not pass on."""
    reason = "the gateway serves turns; this is an account service of the client's own login"
    return ClientError("not_supported", f"{method} {path} is not served: {reason}")
