"""What Codex asks of `chatgpt_base_url`."""

from __future__ import annotations

import pytest

from codexlb_cli.core.account_services import account_check, not_served
from codexlb_cli.core.client_errors import ClientError


def test_a_client_is_told_of_its_own_account_alone() -> None:
    assert account_check([("Host", "x"), ("ChatGPT-Account-ID", "acct-1")]) == {
        "accounts": [
            {
                "id": "acct-1",
                "name": None,
                "plan_type": None,
                "structure": "personal",
                "profile_picture_url": None,
                "workspace_backend_origin": "NO_CONSTRAINT",
                "account_routing_override": "NO_CONSTRAINT",
            }
        ],
        "account_ordering": ["acct-1"],
        "default_account_id": "acct-1",
    }


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("chatgpt-account-id", "")],
        [("chatgpt-account-id", "a"), ("chatgpt-account-id", "b")],
    ],
)
def test_a_client_that_names_no_account(headers: list[tuple[str, str]]) -> None:
    found = account_check(headers)
    assert isinstance(found, ClientError)
    assert (found.status, found.code, found.param) == (400, "invalid_request", "chatgpt-account-id")


def test_other_services_say_why_not() -> None:
    found = not_served("GET", "/backend-api/wham/settings/user")
    assert (found.status, found.code) == (501, "not_supported")
    assert "/backend-api/wham/settings/user" in found.message
    assert "the client's own login" in found.message
