"""`codexlb accounts`: the accounts, what is known of them, and changes to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from codexlb_cli.commands import adding, signin
from codexlb_cli.commands.account_limits import (
    limit_facts,
    limits_document,
    limits_table,
    turns_table,
)
from codexlb_cli.commands.context import CommandContext, JsonFlag, Name
from codexlb_cli.commands.live import Live, live_accounts
from codexlb_cli.commands.offline import known_states
from codexlb_cli.console import duration, iso_utc, table
from codexlb_cli.core.accounts import (
    FRESH,
    Account,
    AccountState,
    Standing,
    transport_in_force,
)
from codexlb_cli.core.selection import Pool
from codexlb_cli.store.credentials import CredentialSource

app = typer.Typer(help="List and change the accounts.")


@app.command("list")
def list_accounts(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the accounts, whether each may be used now, and what is left of its limits."""
    context = CommandContext.of(ctx)
    accounts = context.settings.accounts
    now = time.time()
    states = known_states(context)
    live = live_accounts(context.places.state_folder)
    standings = _standings(context, accounts, states, live, now)
    known = [(account.name, states.get(account.name, FRESH)) for account in accounts]
    if as_json:
        documents = [
            {
                **account_document(account, standings[name], context.credentials),
                "transport": transport_document(account, state, now),
                **limits_document(state.limits, live.get(name), now),
            }
            for account, (name, state) in zip(accounts, known, strict=True)
        ]
        context.console.json({"schema": "codexlb.accounts.list/1", "accounts": documents})
        return
    if not accounts:
        context.console.note("no accounts yet")
        context.console.hint("codexlb accounts add work --api-key-env OPENAI_API_KEY")
        return
    rows = [_row(account, standings[account.name], now) for account in accounts]
    headers = ("NAME", "KIND", "STATE", "DETAIL", "CREDENTIAL", "UPSTREAM")
    parts = [table(headers, rows), limits_table(known, now)]
    parts.append(turns_table([name for name, _ in known], live, now))
    context.console.answer("\n\n".join(part for part in parts if part is not None))
    _warn_of_missing_keys(context, accounts)


@app.command()
def show(ctx: typer.Context, name: Name, as_json: JsonFlag = False) -> None:
    """Show one account, and what is left of its limits."""
    context = CommandContext.of(ctx)
    account = context.settings.account(name)
    now = time.time()
    states = known_states(context)
    known = states.get(name, FRESH)
    running = live_accounts(context.places.state_folder)
    state = _standings(context, (account,), states, running, now)[account.name]
    live = running.get(name)
    if as_json:
        document = account_document(account, state, context.credentials)
        document["transport"] = transport_document(account, known, now)
        document |= limits_document(known.limits, live, now)
        context.console.json({"schema": "codexlb.accounts.show/1", "account": document})
        return
    facts = (
        ("name", account.name),
        ("kind", account.kind),
        ("enabled", "yes" if account.enabled else "no"),
        ("state", str(state.state)),
        ("detail", _detail(state, now)),
        ("credential", _credential(account)),
        ("upstream", account.websocket_url),
        ("transport", _transport(account, known, now)),
        ("organization", account.organization or "-"),
        ("project", account.project or "-"),
        *limit_facts(known.limits, live, now),
    )
    context.console.answer(table(("FACT", "VALUE"), facts))
    _warn_of_missing_keys(context, (account,))


app.command()(adding.add)
app.command()(signin.login)


@app.command()
def enable(ctx: typer.Context, name: Name) -> None:
    """Let an account be used again."""
    _set_enabled(CommandContext.of(ctx), name, enabled=True)


@app.command()
def disable(ctx: typer.Context, name: Name) -> None:
    """Keep an account, but do not use it."""
    _set_enabled(CommandContext.of(ctx), name, enabled=False)


@app.command()
def reset(ctx: typer.Context, name: Name) -> None:
    """Forget the cooldowns, limits and refused keys of an account."""
    from codexlb_cli.store.cooldowns import reset_account

    context = CommandContext.of(ctx)
    account = context.settings.account(name)
    reset_account(context.places.state_folder, account.name, time.time())
    context.console.note(f"reset `{name}`: its cooldowns, limits and refusals are forgotten")


@app.command()
def remove(
    ctx: typer.Context,
    name: Name,
    delete: Annotated[
        bool, typer.Option("--delete", help="Also delete the comments in its table.")
    ] = False,
) -> None:
    """Delete an account from config.toml, and its stored key or login."""
    from codexlb_cli.config.edit import remove_account
    from codexlb_cli.store.cooldowns import read_states, reset_account

    context = CommandContext.of(ctx)
    file, state_folder = context.config_file, context.places.state_folder
    context.settings.account(name)
    credentials = context.stored_credentials
    credentials.check()  # before anything is changed
    login = credentials.login(name)
    remove_account(file, state_folder, name, with_comments=delete)
    stored = credentials.forget(name)
    if name in read_states(state_folder):
        reset_account(state_folder, name, time.time())
    what = "login" if login is not None else "key"
    context.console.note(f"removed `{name}` from {file}{f', and its stored {what}' * stored}")
    if login is not None:
        signin.end_login(context, name, login)


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


def transport_document(account: Account, known: AccountState, now: float) -> dict[str, Any]:
    """Return how an account is spoken to, as `accounts list --json` shows it.

    `until` is when a WebSocket is tried again at an account that had none; else it is null.
    """
    until = _http_until(account, known, now)
    return {
        "configured": account.transport,
        "in_force": transport_in_force(account, known, now),
        "until": None if until is None else iso_utc(until),
    }


def _transport(account: Account, known: AccountState, now: float) -> str:
    in_force = transport_in_force(account, known, now)
    until = _http_until(account, known, now)
    return in_force if until is None else f"{in_force}, no WebSocket, {duration(until - now)} left"


def _http_until(account: Account, known: AccountState, now: float) -> float | None:
    fell_back = account.transport == "auto" and transport_in_force(account, known, now) == "http"
    return known.http_until if fell_back else None


def _standings(
    context: CommandContext,
    accounts: tuple[Account, ...],
    states: dict[str, AccountState],
    live: Mapping[str, Live],
    now: float,
) -> dict[str, Standing]:
    present = context.credentials.present
    pool = Pool(
        accounts,
        now,
        states,
        missing_credentials=frozenset(a.name for a in accounts if not present(a)),
        in_flight={name: one.in_flight for name, one in live.items()},
        max_turns=context.settings.lanes.max_turns,
    )
    return {account.name: pool.standing(account) for account in accounts}


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
        if account.credential.source == "login":
            context.console.hint(f"codexlb accounts login {account.name}")
        elif account.credential.source == "env":
            context.console.hint(f"set `{account.credential.name}`, or: {other}")
        else:
            context.console.hint(other)


def _set_enabled(context: CommandContext, name: str, *, enabled: bool) -> None:
    from codexlb_cli.config.edit import set_enabled

    file = context.config_file
    account = context.settings.account(name)
    word = "enabled" if enabled else "disabled"
    if account.enabled is enabled:
        context.console.note(f"`{name}` is {word} already")
        return
    set_enabled(file, context.places.state_folder, name, enabled=enabled)
    context.console.note(f"{word} `{name}`")
