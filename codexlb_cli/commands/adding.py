"""`codexlb accounts add`: one command for every way in which an account gets its credential."""

from __future__ import annotations

import getpass
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from codexlb_cli.commands.context import CommandContext
from codexlb_cli.commands.signin import Way as SignInWay
from codexlb_cli.commands.signin import codex_auth_file, end_login, say_signed_in, sign_in
from codexlb_cli.config.schema import ACCOUNT_NAME, AccountTable, must_at
from codexlb_cli.errors import CodexlbError, SignInRequired, UsageError
from codexlb_cli.store.credentials import key_fault
from codexlb_cli.store.secrets import Secret

if TYPE_CHECKING:
    from codexlb_cli.store.logins import Login

_LONGEST_KEY = 65_536


class Way(StrEnum):
    """Where the credential of a new account comes from: the option that says so."""

    LOGIN = "--login"
    DEVICE = "--device"
    CODEX_AUTH = "--codex-auth"
    API_KEY_ENV = "--api-key-env"
    API_KEY_STDIN = "--api-key-stdin"


_CHOICES = (
    (Way.LOGIN, "a ChatGPT plan: sign in in the browser"),
    (Way.DEVICE, "a ChatGPT plan: sign in with a code, on another device"),
    (Way.CODEX_AUTH, "a ChatGPT plan: take the login of the Codex CLI"),
    (Way.API_KEY_STDIN, "an API key: type it in"),
    (Way.API_KEY_ENV, "an API key: from an environment variable"),
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The account to add.

    Attributes:
        variable: with `API_KEY_ENV`.
        file: with `CODEX_AUTH`.
    """

    name: str
    way: Way
    variable: str | None = None
    file: Path | None = None
    base_url: str | None = None

    @property
    def signs_in(self) -> bool:
        """Whether it is a ChatGPT plan."""
        return self.way in (Way.LOGIN, Way.DEVICE, Way.CODEX_AUTH)


def add(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name of the account.")
    ] = None,
    *,
    login: Annotated[
        bool, typer.Option("--login", help="A ChatGPT plan: sign in in the browser.")
    ] = False,
    device: Annotated[
        bool, typer.Option("--device", help="A ChatGPT plan: sign in with a code elsewhere.")
    ] = False,
    codex_auth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A ChatGPT plan: the auth.json of the Codex CLI."),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="VAR", help="The environment variable that holds the key."),
    ] = None,
    api_key_stdin: Annotated[
        bool, typer.Option("--api-key-stdin", help="Read the key from stdin and store it.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The upstream, if it is not OpenAI's own.")
    ] = None,
) -> None:
    """Add an account to config.toml; in a terminal, what is missing is asked for."""
    context = CommandContext.of(ctx)
    given = {
        Way.LOGIN: login,
        Way.DEVICE: device,
        Way.CODEX_AUTH: codex_auth is not None,
        Way.API_KEY_ENV: api_key_env is not None,
        Way.API_KEY_STDIN: api_key_stdin,
    }
    ways = [way for way, is_given in given.items() if is_given]
    if len(ways) == 1 and name is not None:
        wanted = _Wanted(name, ways[0], api_key_env, codex_auth, base_url)
    elif not ways and in_terminal():
        wanted = _asked(context, name, base_url)
    elif name is None:
        raise UsageError("missing argument `NAME`", hint="codexlb accounts add --help")
    else:
        raise UsageError(
            "give one of `--login`, `--device`, `--codex-auth FILE`, `--api-key-env VAR` and "
            "`--api-key-stdin`"
        )
    table = _new_table(wanted)
    _refuse_taken(context, wanted.name)
    if wanted.signs_in:
        _add_signed_in(context, wanted, table)
    else:
        _add_with_key(context, wanted, table)


def _add_with_key(context: CommandContext, wanted: _Wanted, table: dict[str, str]) -> None:
    from codexlb_cli.config.edit import add_account

    name, file = wanted.name, context.config_file
    credentials = context.stored_credentials
    stores = wanted.way is Way.API_KEY_STDIN
    if stores:
        credentials.store(name, _key_from_stdin(name))
    try:
        add_account(file, context.places.state_folder, name, table)
    except CodexlbError:
        if stores:
            credentials.forget(name)
        raise
    context.console.note(f"added `{name}` to {file}")
    account = context.load().account(name)
    if (problem := credentials.problem(account)) is not None:
        context.console.warning(f"{problem}; the shell that runs `codexlb serve` needs it")


def _add_signed_in(context: CommandContext, wanted: _Wanted, table: dict[str, str]) -> None:
    """Sign in, then add the account: what is given up on the way leaves nothing behind."""
    name = wanted.name
    context.stored_credentials.check()  # before a person has signed in for nothing
    if wanted.way is Way.CODEX_AUTH:
        found = _borrowed(context, wanted)
    else:
        way: SignInWay = "device" if wanted.way is Way.DEVICE else "browser"
        found = sign_in(context, name, way, again="add")
    try:
        _store(context, name, table, found)
    except CodexlbError:
        if not found.shared:
            end_login(context, name, found)
        raise
    context.console.note(f"added `{name}` to {context.config_file}")
    say_signed_in(context, name, found)
    if found.shared:
        context.console.hint(f"codexlb accounts login {name}")


def _store(context: CommandContext, name: str, table: dict[str, str], found: Login) -> None:
    """Add the account and keep its login: both, or neither.

    The account comes first: adding it claims the name, and of two programs that add the same one
    the second must not touch the login of the first.
    """
    from codexlb_cli.config.edit import add_account, remove_account

    file, state_folder = context.config_file, context.places.state_folder
    add_account(file, state_folder, name, table)
    try:
        context.stored_credentials.store_login(name, found)
    except BaseException:
        with suppress(CodexlbError):
            remove_account(file, state_folder, name, with_comments=False)
        raise


def _borrowed(context: CommandContext, wanted: _Wanted) -> Login:
    """Return the login of the Codex CLI, or an own one if the person would rather have that."""
    from codexlb_cli.signin.codex_auth import NoLogin, read_codex_auth

    file = wanted.file or codex_auth_file(context.environ)
    try:
        found = read_codex_auth(file)
    except NoLogin as exc:
        way = Way.API_KEY_STDIN if exc.has_key else Way.LOGIN
        exc.hint = f"codexlb accounts add {wanted.name} {way}"
        raise
    expires_at = found.login.claims.expires_at
    if found.login.refresh_token is None and expires_at is not None and expires_at <= time.time():
        raise SignInRequired(
            f"the login in `{file}` is over, and has no refresh token",
            hint=f"codexlb accounts add {wanted.name} --login",
        )
    warn = context.console.warning
    if found.open_to_others:
        warn(f"`{file}` can be read by others; chmod 600 {file}")
    warn(
        "a refresh token is good for one refresh, and this one is the Codex CLI's, too: the first "
        "to refresh signs the other out"
    )
    if in_terminal() and typer.confirm(
        "Sign in in the browser instead, for a login of its own?", default=True, err=True
    ):
        return sign_in(context, wanted.name, "browser", again="add")
    return found.login


def _refuse_taken(context: CommandContext, name: str) -> None:
    from codexlb_cli.config.edit import refuse_taken

    refuse_taken(name, [account.name for account in context.load().accounts], context.config_file)


def _new_table(wanted: _Wanted) -> dict[str, str]:
    """Return the table of a new account.

    Raises:
        UsageError: the name or an option has a value out of range.
    """
    if fault := _name_fault(wanted.name):
        raise UsageError(fault)
    given = {
        "kind": "chatgpt" if wanted.signs_in else "api_key",
        "api_key_env": wanted.variable,
        "base_url": wanted.base_url,
    }
    new = {key: value for key, value in given.items() if value is not None}
    try:
        AccountTable.model_validate(new)
    except ValidationError as exc:
        key = str(exc.errors(include_url=False, include_context=False)[0]["loc"][0])
        option = "--" + key.replace("_", "-")
        must = must_at(("accounts", wanted.name, key))
        raise UsageError(f"`{option}` must be {must.be}") from None
    return new


def _name_fault(name: str) -> str | None:
    if ACCOUNT_NAME.fullmatch(name) is not None:
        return None
    return f"the name of an account must be {must_at(('accounts', name, '[key]')).be}"


def _key_from_stdin(name: str) -> Secret:
    """Read a key; from a terminal without showing it."""
    if sys.stdin is None:
        text = ""
    elif sys.stdin.isatty():
        text = getpass.getpass(f"Key for {name}: ").strip()
    else:
        content = sys.stdin.buffer.read(_LONGEST_KEY + 1)
        if len(content) > _LONGEST_KEY:
            raise UsageError(f"the key on stdin is longer than {_LONGEST_KEY} bytes")
        text = content.decode("utf-8", "replace").strip()
    if fault := key_fault(text):
        raise UsageError(f"the key on stdin {fault}")
    return Secret(text)


def in_terminal() -> bool:
    """Whether a person can be asked: in a pipe nothing ever is."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _asked(context: CommandContext, name: str | None, base_url: str | None) -> _Wanted:
    """Ask for whatever the command line left open."""
    if name is None:
        name = _asked_name(context)
    elif fault := _name_fault(name):
        raise UsageError(fault)
    _refuse_taken(context, name)
    rows = (f"  {number}  {text}" for number, (_, text) in enumerate(_CHOICES, 1))
    typer.echo("\n".join(("What does it use?", *rows)), err=True)
    wanted = _Wanted(name, _asked_way(context), base_url=base_url)
    match wanted.way:
        case Way.CODEX_AUTH:
            default = str(codex_auth_file(context.environ))
            return replace(
                wanted, file=Path(typer.prompt("File", default=default, err=True)).expanduser()
            )
        case Way.API_KEY_ENV:
            default = "OPENAI_API_KEY"
            return replace(wanted, variable=typer.prompt("Variable", default=default, err=True))
    return wanted


def _asked_name(context: CommandContext) -> str:
    taken = {account.name for account in context.load().accounts}
    default = next((name for name in ("work", "home") if name not in taken), None)
    while True:
        name = str(typer.prompt("Name of the account", default=default, err=True)).strip()
        fault = _name_fault(name)
        if fault is None and name not in taken:
            return name
        context.console.warning(fault or f"an account named `{name}` is there already")


def _asked_way(context: CommandContext) -> Way:
    while True:
        text = str(typer.prompt("Number", default="1", err=True)).strip()
        if text in (str(number) for number in range(1, len(_CHOICES) + 1)):
            return _CHOICES[int(text) - 1][0]
        context.console.warning(f"give a number from 1 to {len(_CHOICES)}")
