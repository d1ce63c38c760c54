"""`codexlb owners`: which account owns which conversation, and how to forget it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.console import WIDTH, duration, escape, iso_utc, table
from codexlb_cli.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from codexlb_cli.store.owner_rows import OwnerRow, Selection

app = typer.Typer(help="List, explain and forget which account owns which conversation.")


class Source(StrEnum):
    """What a key is taken from; see docs/continuity.md."""

    PREVIOUS_RESPONSE = "previous_response"
    CONVERSATION = "conversation"
    FILE = "file"
    TURN_STATE = "turn_state"
    SESSION = "session"
    PROMPT_CACHE = "prompt_cache"


_MOBILITY = {
    "never": "no: what it names lies in the account, or `[affinity]` keeps sessions there",
    "account_failure": "only if the account itself fails, never because a socket closed",
    "owner_cannot_serve": "while the owner cannot serve; the next turn goes home",
}
_SHORTEST_KEY = 20

SourceOption = Annotated[
    Source | None, typer.Option("--source", help="Only keys that are taken from this.")
]
AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Only what this account owns.")
]


@app.command("list")
def list_owners(
    ctx: typer.Context,
    *,
    source: SourceOption = None,
    account: AccountOption = None,
    limit: Annotated[
        int, typer.Option(metavar="N", help="How many at most; 0 for all of them.")
    ] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List which account owns which key, the last used first."""
    from codexlb_cli.store.owner_rows import read_rows

    if limit < 0:
        raise UsageError(f"`--limit` must be 0 or more, not {limit}")
    context = CommandContext.of(ctx)
    accounts = _configured(context)
    now = time.time()
    selection = _selection(None, source, account)
    most = limit + 1 if limit else None
    rows = read_rows(context.places.state_folder, selection, now, most)
    shown = rows[:limit] if limit else rows
    if as_json:
        documents = [_document(row, accounts) for row in shown]
        context.console.json({"schema": "codexlb.owners.list/1", "owners": documents})
    elif shown:
        context.console.answer(_table(shown, accounts, now))
    else:
        filtered = source is not None or account is not None
        context.console.note("no owner fits" if filtered else "no account owns anything yet")
    if len(rows) > len(shown):
        context.console.note(f"only the last {limit} are listed; `--limit 0` lists them all")


@app.command()
def show(
    ctx: typer.Context,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="What the client sent: a session id, a file id.")
    ],
    *,
    source: SourceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which account owns a key, until when, and whether it may move; exit 1 if none does."""
    from codexlb_cli.store.owner_rows import read_rows

    context = CommandContext.of(ctx)
    accounts = _configured(context)
    now = time.time()
    rows = read_rows(context.places.state_folder, _selection(key, source, None), now)
    if as_json:
        documents = [{**_document(row, accounts), "moves": _mobility(context, row)} for row in rows]
        context.console.json({"schema": "codexlb.owners.show/1", "key": key, "owners": documents})
    elif rows:
        parts = [_facts(row, accounts, now, _mobility(context, row)) for row in rows]
        context.console.answer("\n\n".join(parts))
    if not rows:
        context.console.note(f"no account owns `{key}`")
        context.console.hint("codexlb owners list")
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


@app.command()
def forget(
    ctx: typer.Context,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="What the client sent; its threads too.")
    ] = None,
    *,
    source: SourceOption = None,
    account: AccountOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Forget every owner of every key.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let the next turn of a key choose its account anew; exit 1 if nobody owned it."""
    from codexlb_cli.store.owner_rows import forget_rows

    filtered = key is not None or source is not None or account is not None
    if filtered is everything:
        problem = "`--all` takes neither a key nor a filter" if everything else "nothing is named"
        raise UsageError(problem, hint="give a KEY, `--source`, `--account`, or `--all` alone")
    context = CommandContext.of(ctx)
    selection = _selection(key, source, account)
    forgotten = forget_rows(context.places.state_folder, selection, time.time())
    if as_json:
        context.console.json({"schema": "codexlb.owners.forget/1", "forgotten": forgotten})
    else:
        context.console.note(f"forgot {forgotten} owner{'' if forgotten == 1 else 's'}")
    if not forgotten:
        context.console.hint("codexlb owners list")
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _selection(key: str | None, source: Source | None, account: str | None) -> Selection:
    from codexlb_cli.core.affinity import keys_meant
    from codexlb_cli.store.owner_rows import Selection

    sources = tuple(map(str, Source if source is None else (source,)))
    keys = None if key is None else keys_meant(key, sources)
    return Selection(sources=sources, account=account, keys=keys)


def _configured(context: CommandContext) -> frozenset[str]:
    return frozenset(account.name for account in context.settings.accounts)


def _mobility(context: CommandContext, row: OwnerRow) -> str:
    from codexlb_cli.config.policies import reconnect_policy
    from codexlb_cli.core.ownership import mobility

    return mobility(row.key, reconnect_policy(context.settings)).value


def _document(row: OwnerRow, accounts: frozenset[str]) -> dict[str, Any]:
    from codexlb_cli.inspect.inputs import shown_key

    return {
        "source": row.key.source,
        "key": shown_key(row.key),
        "account": row.account,
        "configured": row.account in accounts,
        "strength": row.key.strength.value,
        "used": iso_utc(row.used),
        "expires": iso_utc(row.expires),
    }


def _table(rows: Sequence[OwnerRow], accounts: frozenset[str], now: float) -> str:
    from codexlb_cli.inspect.inputs import shown_key
    from codexlb_cli.inspect.layout import shortened

    cells = [
        (
            row.key.source,
            escape(shown_key(row.key)),
            _owner(row, accounts),
            row.key.strength.value,
            f"{duration(now - row.used)} ago",
            f"in {duration(row.expires - now)}",
        )
        for row in rows
    ]
    headers = ("SOURCE", "KEY", "ACCOUNT", "AFFINITY", "LAST USED", "EXPIRES")
    widths = [max(map(len, column)) + 2 for column in zip(headers, *cells, strict=True)]
    room = max(_SHORTEST_KEY, WIDTH - sum(widths) + widths[1])
    rows_shown = [(first, shortened(key, room - 2), *rest) for first, key, *rest in cells]
    return table(headers, rows_shown)


def _facts(row: OwnerRow, accounts: frozenset[str], now: float, moves: str) -> str:
    from codexlb_cli.inspect.inputs import shown_key

    return table(
        ("FACT", "VALUE"),
        (
            ("source", row.key.source),
            ("key", shown_key(row.key)),
            ("account", _owner(row, accounts)),
            ("affinity", row.key.strength.value),
            (
                "last used",
                f"{iso_utc(row.used)}, or up to a day later",
            ),
            ("expires", f"{iso_utc(row.expires)}, in {duration(row.expires - now)}"),
            ("may move", _MOBILITY[moves]),
        ),
    )


def _owner(row: OwnerRow, accounts: frozenset[str]) -> str:
    return row.account if row.account in accounts else f"{row.account} (gone)"
