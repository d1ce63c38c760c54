"""Signing in and out, for `accounts add`, `accounts login` and `accounts remove`."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from codexlb_cli.commands.context import CommandContext, Name
from codexlb_cli.console import duration
from codexlb_cli.errors import CodexlbError, ConfigError, SignInRequired, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codexlb_cli.config.schema import SigninTable
    from codexlb_cli.core.accounts import Account
    from codexlb_cli.signin.issuer import IssuerClient
    from codexlb_cli.signin.terminal import ReadLine, Terminal
    from codexlb_cli.store.logins import Login

Way = Literal["browser", "device"]

_CLOCK_SECONDS = 120.0
_END_SECONDS = 10.0
_USAGE_SECONDS = 5.0


def login(
    ctx: typer.Context,
    name: Name,
    *,
    device: Annotated[
        bool, typer.Option("--device", help="With a code that is entered on another device.")
    ] = False,
) -> None:
    """Sign an account in again, in the browser."""
    context = CommandContext.of(ctx)
    account = context.settings.account(name)
    if account.credential.source != "login":
        raise ConfigError(
            f"`{name}` has an API key and does not sign in",
            hint=f"codexlb accounts show {name}",
        )
    credentials = context.stored_credentials
    credentials.check()  # before a person has signed in for nothing
    earlier = credentials.login(name)
    new = sign_in(context, name, "device" if device else "browser", again="login")
    credentials.store_login(name, new)
    say_signed_in(context, name, new)
    _warn_of_another_person(context, name, earlier, new)


def sign_in(
    context: CommandContext, name: str, way: Way, *, again: Literal["add", "login"]
) -> Login:
    """Let a person sign in, and say on stderr what to do; nothing is stored yet.

    Args:
        context: the command's.
        name: of the account.
        way: how.
        again: the command that hints name.

    Raises:
        SignInRequired: the person or the issuer said no, or nobody answered in time.
        UpstreamError: the issuer cannot be reached, or answers what makes no sense.
        ConfigError: there is no port for the browser's answer.
    """
    import asyncio

    from codexlb_cli.signin.callback import NoPort
    from codexlb_cli.signin.issuer import NoDeviceFlow

    settings = context.settings.signin  # a broken configuration is told before anything else
    try:
        return asyncio.run(_signed_in(context, settings, way))
    except NoPort as exc:
        exc.hint = _command(name, "device", again)
        raise
    except NoDeviceFlow as exc:
        exc.hint = _command(name, "browser", again)
        raise
    except (SignInRequired, UpstreamError) as exc:
        exc.hint = _command(name, way, again)
        raise


async def _signed_in(context: CommandContext, settings: SigninTable, way: Way) -> Login:
    import asyncio
    import secrets

    from codexlb_cli.signin.browser import BrowserSignIn
    from codexlb_cli.signin.device import sign_in_by_device
    from codexlb_cli.signin.issuer import IssuerClient, issuer_http

    terminal = _terminal(context)
    async with issuer_http() as http:
        issuer = IssuerClient(http, settings.issuer, settings.client_id, time.time)
        if way == "device":
            found = await sign_in_by_device(
                issuer, terminal, clock=time.monotonic, sleep=asyncio.sleep
            )
        else:
            found = await BrowserSignIn(
                issuer, terminal, draw=secrets.token_bytes, port=settings.callback_port
            ).run()
        _warn_of_oddities(context, issuer, found)
        return found


def end_login(context: CommandContext, name: str, ended: Login) -> None:
    """End a login at its issuer as well as that can be done, and say what came of it."""
    import asyncio

    if ended.shared:
        context.console.note(f"the login of `{name}` goes on: it is that of the Codex CLI, too")
        return
    try:
        asyncio.run(_revoke(ended))
    except (CodexlbError, TimeoutError) as exc:
        why = str(exc) or f"`{ended.issuer}` did not answer"
        context.console.warning(f"the login of `{name}` could not be ended, it runs out: {why}")
        return
    context.console.note(f"ended the login of `{name}` at {ended.issuer}")


async def _revoke(ended: Login) -> None:
    import asyncio

    from codexlb_cli.signin.issuer import IssuerClient, issuer_http

    async with asyncio.timeout(_END_SECONDS), issuer_http() as http:
        await IssuerClient(http, ended.issuer, ended.client_id, time.time).revoke(ended)


def say_signed_in(context: CommandContext, name: str, found: Login) -> None:
    """Say who an account is signed in as, and how much of its windows is used if it tells."""
    import asyncio

    claims = found.claims
    said = [f"{name}: signed in as {claims.email or found.account_id or 'somebody'}"]
    if claims.plan:
        said.append(f"plan {claims.plan}")
    if context.settings.limits.usage_poll > 0:
        said += asyncio.run(_windows(context.load().account(name), found))
    context.console.note(", ".join(said))


async def _windows(account: Account, found: Login) -> list[str]:
    """Return what the account says of its windows: `5 h window 12 % used`; empty if it does not."""
    from codexlb_cli.core.trials import window_words
    from codexlb_cli.gateway.usage_poll import ask_usage

    secret, account_id = found.access_token.reveal(), found.sent_account_id
    told = await ask_usage(account, secret, account_id, _USAGE_SECONDS, now=time.time)
    return [] if told is None else window_words(told)


def _terminal(context: CommandContext) -> Terminal:
    from codexlb_cli.signin.terminal import Terminal, may_open_browser, open_in_browser

    opens = may_open_browser(context.environ, sys.platform)
    return Terminal(
        say=context.console.ask,
        warn=context.console.warning,
        open_url=open_in_browser if opens else lambda _url: None,
        read_line=_typed_lines(),
    )


def _typed_lines() -> ReadLine:
    from codexlb_cli.signin.terminal import TypedLines, no_lines

    try:
        return no_lines if sys.stdin is None else TypedLines(sys.stdin.fileno())
    except (io.UnsupportedOperation, ValueError):  # not a stream of the system, or closed
        return no_lines


def _command(name: str, way: Way, again: Literal["add", "login"]) -> str:
    if again == "login":
        return f"codexlb accounts login {name}{' --device' if way == 'device' else ''}"
    return f"codexlb accounts add {name} {'--device' if way == 'device' else '--login'}"


def _warn_of_oddities(context: CommandContext, issuer: IssuerClient, found: Login) -> None:
    warn, now = context.console.warning, time.time()
    off = issuer.clock_offset_seconds
    expires_at = found.claims.expires_at
    if abs(off) > _CLOCK_SECONDS:
        side = "ahead of" if off > 0 else "behind"
        warn(f"this computer's clock is {duration(abs(off))} {side} that of {issuer.url}; set it")
    elif expires_at is not None and expires_at <= now:
        warn(f"{issuer.url} gave an access token that is over already")
    if found.refresh_token is None:
        left = "" if expires_at is None else f", in {duration(max(expires_at - now, 0))}"
        warn(f"{issuer.url} gave no refresh token: sign in again when the login is over{left}")


def _warn_of_another_person(
    context: CommandContext, name: str, earlier: Login | None, new: Login
) -> None:
    if earlier is None or earlier.sent_account_id == new.sent_account_id:
        return
    was = earlier.claims.email or earlier.sent_account_id or "somebody else"
    context.console.warning(
        f"`{name}` was signed in as {was} before; conversations that began there cannot go on"
    )


def codex_auth_file(environ: Mapping[str, str]) -> Path:
    """Return where the Codex CLI keeps its login."""
    folder = environ.get("CODEX_HOME")
    return (Path(folder) if folder else Path.home() / ".codex") / "auth.json"
