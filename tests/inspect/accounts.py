"""Five accounts as a person may have them: one elsewhere, one limited, one without its key."""

from __future__ import annotations

from dataclasses import dataclass

from codexlb_cli.core.accounts import Account, AccountState, CredentialRef
from codexlb_cli.inspect.pool import OfflinePool, offline_pool
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret

NOW = 1_780_000_000.0

WORK = Account("work", credential=CredentialRef("env", "WORK_OPENAI_KEY"))
HOME = Account("home", credential=CredentialRef("file", "home"))
TEAM = Account(
    "team", base_url="http://127.0.0.1:9000/v1", credential=CredentialRef("env", "TEAM_KEY")
)
SPARE = Account("spare", credential=CredentialRef("env", "SPARE_KEY"))
LAB = Account("lab", credential=CredentialRef("env", "LAB_KEY"))

LIMITED = AccountState(limited_until=NOW + 42, limited_reason="rate_limit_exceeded")


@dataclass(frozen=True)
class Keys:
    """Credentials of all accounts but those named; asking for a secret is a mistake here."""

    missing: frozenset[str] = frozenset()

    def secret(self, account: Account) -> Secret | None:
        raise AssertionError("an offline command needs no key")

    def login(self, name: str) -> Login | None:
        return None

    def problem(self, account: Account) -> str | None:
        if account.name not in self.missing:
            return None
        return f"`{account.credential.name}` is not set in this shell"

    def present(self, account: Account) -> bool:
        return account.name not in self.missing


def five_accounts() -> OfflinePool:
    return pool_of(WORK, HOME, TEAM, SPARE, LAB, states={"spare": LIMITED}, missing=("lab",))


def pool_of(
    *accounts: Account,
    states: dict[str, AccountState] | None = None,
    missing: tuple[str, ...] = (),
) -> OfflinePool:
    return offline_pool(accounts, states or {}, Keys(frozenset(missing)), NOW)
