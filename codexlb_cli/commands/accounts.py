"""`codexlb accounts`: the accounts, what is known of them, and changes to them."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.console import duration, iso_utc, table
from codexlb_cli.core.accounts import FRESH, Account, AccountState, Standing, standing
from codexlb_cli.store.credentials import CredentialSource

app = typer.Typer(help="List and change the accounts.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the account.")]


@app.command("list")
def list_accounts(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the accounts and whether each may be used now."""
    context = CommandContext.of(ctx)
    accounts = context.settings.accounts
    now = time.time()
    standings = _standings(context, accounts, now)
    if as_json:
        documents = [
            account_document(account, standings[account.name], context.credentials)
            for account in accounts
        ]
        context.console.json({"schema": "codexlb.accounts.list/1", "accounts": documents})
        return
    if not accounts:
        context.console.note("no accounts yet")
        context.console.hint("codexlb accounts add work --api-key-env OPENAI_API_KEY")
        return
    rows = [_row(account, standings[account.name], now) for account in accounts]
    headers = ("NAME", "KIND", "STATE", "DETAIL", "CREDENTIAL", "UPSTREAM")
    context.console.answer(table(headers, rows))
    _warn_of_missing_keys(context, accounts)


def account_document(
    account: Account, state: Standing, credentials: CredentialSource
) -> dict[str, Any]:
    """Return an account as `accounts list --json` shows it."""
    return {
        "name": account.name,
        "kind": account.kind,
        "enabled": account.enabled,
        "state": str(state.state),
        "reason": state.reason,
        "until": None if state.until is None else iso_utc(state.until),
        "base_url": account.base_url,
        "credential": {
            "source": account.credential.source,
            "name": account.credential.name,
            "present": credentials.present(account),
        },
    }


def _standings(
    context: CommandContext, accounts: tuple[Account, ...], now: float
) -> dict[str, Standing]:
    from codexlb_cli.store.cooldowns import read_states

    states: dict[str, AccountState] = read_states(context.places.state_folder)
    return {
        account.name: standing(
            account,
            states.get(account.name, FRESH),
            now,
            credential_present=context.credentials.present(account),
        )
        for account in accounts
    }


def _row(account: Account, state: Standing, now: float) -> tuple[str, ...]:
    return (
        account.name,
        account.kind,
        str(state.state),
        _detail(state, now),
        _credential(account),
        _upstream(account),
    )


def _detail(state: Standing, now: float) -> str:
    if state.reason is None or state.reason == str(state.state):
        return "-"
    if state.until is None:
        return state.reason
    return f"{state.reason}, {duration(state.until - now)} left"


def _credential(account: Account) -> str:
    match account.credential.source:
        case "env":
            return f"env {account.credential.name}"
        case "file":
            return "stored key"
        case source:
            return source


def _upstream(account: Account) -> str:
    parts = urlsplit(account.base_url)
    return parts.netloc + parts.path.rstrip("/")


def _warn_of_missing_keys(context: CommandContext, accounts: tuple[Account, ...]) -> None:
    first: tuple[Account, str] | None = None
    for account in accounts:
        problem = context.credentials.problem(account) if account.enabled else None
        if problem is not None:
            context.console.warning(f"{problem}, so `{account.name}` counts as not usable here")
            first = first or (account, problem)
    if first is not None:
        account, _ = first
        other = f"codexlb accounts disable {account.name}"
        if account.credential.source == "env":
            context.console.hint(f"set `{account.credential.name}`, or: {other}")
        else:
            context.console.hint(other)
