"""What an offline command knows of the credentials: whether they are there, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.core.handshake import MASKED
from codexlb_cli.inspect.pool import offline_pool
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret
from tests.inspect.accounts import NOW, WORK, Keys

PLAN = Account("plan", kind="chatgpt", credential=CredentialRef("login", "plan"))
NAMED = Login(Secret("a"), None, account_id="acc-LEAK")


@dataclass(frozen=True)
class SignedIn(Keys):
    """Credentials with logins."""

    logins: dict[str, Login] = field(default_factory=dict)

    def login(self, name: str) -> Login | None:
        return self.logins.get(name)


def shown(account: Account, credentials: Keys) -> str | None:
    return offline_pool((account,), {}, credentials, NOW).account_id(account)


def test_whom_a_login_signs_in_is_shown_masked_where_it_is_sent() -> None:
    assert shown(WORK, Keys()) is None
    assert shown(PLAN, SignedIn(logins={"plan": NAMED})) == MASKED
    assert shown(PLAN, SignedIn(logins={"plan": replace(NAMED, account_id=None)})) is None


def test_who_is_not_signed_in_yet_will_be_named() -> None:
    assert shown(PLAN, SignedIn(frozenset({"plan"}))) == MASKED
