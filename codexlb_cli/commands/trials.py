"""`codexlb accounts test`: a real handshake with each account, without a turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.console import table
from codexlb_cli.core.accounts import Account
from codexlb_cli.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from codexlb_cli.core.tokens import Claims
    from codexlb_cli.core.trials import Timings, Tried

_AT_ONCE = 8
"""How many accounts are tried at the same time."""
_LONGEST_SECONDS = 3600.0


def try_accounts(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The account; every enabled one if none.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Disabled accounts too.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds for each account; `[timeouts] dial` by default."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Open a connection to accounts as the gateway would, and show what the upstream said.

    No turn is sent, and nothing is learned.

    Exit 4 if a login is needed, 5 if an upstream refuses or cannot be reached; 5 wins.
    """
    import asyncio

    from codexlb_cli.core.trials import exit_status

    if timeout is not None and not 0 < timeout <= _LONGEST_SECONDS:
        raise UsageError(f"`--timeout` must be more than 0 and {_LONGEST_SECONDS:.0f} at most")
    context = CommandContext.of(ctx)
    accounts = _accounts(context, name, everything=everything)
    seconds = timeout if timeout is not None else context.settings.timeouts.dial
    tried = asyncio.run(_try_all(context, accounts, seconds))
    claims = {account.name: _claims(context, account) for account in accounts}
    if as_json:
        documents = [_document(one, claims[one.account]) for one in tried]
        context.console.json({"schema": "codexlb.accounts.test/1", "accounts": documents})
    else:
        context.console.answer(_table(tried, claims))
    if status := exit_status(tried):
        raise typer.Exit(int(status))


def _accounts(context: CommandContext, name: str | None, *, everything: bool) -> list[Account]:
    if name is not None:
        if everything:
            raise UsageError("`--all` takes no account")
        return [context.settings.account(name)]
    configured = context.settings.accounts
    if not configured:
        raise ConfigError(
            "no account is configured",
            hint="codexlb accounts add work --api-key-env OPENAI_API_KEY",
        )
    accounts = [account for account in configured if account.enabled or everything]
    if not accounts:
        raise ConfigError("no account is enabled", hint="codexlb accounts test --all")
    return accounts


async def _try_all(
    context: CommandContext, accounts: Sequence[Account], seconds: float
) -> list[Tried]:
    """Try the accounts side by side, and tell of each as it is done; in the accounts' order."""
    import asyncio

    room = asyncio.Semaphore(_AT_ONCE)
    done = 0

    async def one(account: Account) -> Tried:
        nonlocal done
        async with room:
            tried = await _try(context, account, seconds)
        done += 1
        if len(accounts) > 1:
            context.console.note(f"{done} of {len(accounts)}: {account.name} {tried.result}")
        return tried

    return list(await asyncio.gather(*map(one, accounts)))


async def _try(context: CommandContext, account: Account, seconds: float) -> Tried:
    from codexlb_cli.core.trials import without_credential
    from codexlb_cli.gateway.trials import Trial
    from codexlb_cli.store.credentials import signed_in_as

    problem = context.credentials.problem(account)
    secret = context.credentials.secret(account) if problem is None else None
    if secret is None:
        return without_credential(account.name, problem or "there is no credential")
    account_id = signed_in_as(account, context.credentials)
    trial = Trial(account, secret.reveal(), account_id, context.settings, seconds, time.time)
    return await trial.run()


def _claims(context: CommandContext, account: Account) -> Claims:
    """Return what a login says of its person; nothing for an API key."""
    from codexlb_cli.core.tokens import Claims, read_claims

    if account.kind != "chatgpt" or context.credentials.problem(account) is not None:
        return Claims()
    secret = context.credentials.secret(account)
    return Claims() if secret is None else read_claims(secret.reveal())


def _document(one: Tried, claims: Claims) -> dict[str, Any]:
    timings = one.timings
    return {
        "account": one.account,
        "result": one.result.value,
        "reason": one.reason,
        "transport": one.transport,
        "status": one.status,
        "code": one.code,
        "message": one.message,
        "timings_ms": {
            "dns": timings.dns,
            "tcp": timings.tcp,
            "tls": timings.tls,
            "answer": timings.answer,
            "total": timings.total,
        },
        "limits": dict(one.limits),
        "email": claims.email,
        "plan": claims.plan,
    }


def _table(tried: Sequence[Tried], claims: dict[str, Claims]) -> str:
    rows = [
        (
            one.account,
            one.result.value,
            one.transport or "-",
            "-" if one.timings.total is None else f"{one.timings.total} ms",
            "; ".join(_details(one, claims[one.account])) or "-",
        )
        for one in tried
    ]
    return table(("ACCOUNT", "RESULT", "TRANSPORT", "TIME", "DETAIL"), rows)


def _details(one: Tried, claims: Claims) -> list[str]:
    from codexlb_cli.core.trials import Result, limit_words

    details = []
    if one.result is not Result.OK:
        said = " ".join(str(part) for part in (one.status, one.code or one.reason) if part)
        details.append(f"{said}: {one.message}" if one.message else said)
    details += [", ".join(part for part in (claims.email, claims.plan) if part)]
    details += limit_words(one.limits)
    details.append(_steps(one.timings))
    return [detail for detail in details if detail]


def _steps(timings: Timings) -> str:
    steps = ((name, getattr(timings, name)) for name in ("dns", "tcp", "tls", "answer"))
    return ", ".join(f"{name} {took} ms" for name, took in steps if took is not None)
