"""The command line, and the one place where errors become exit codes.

To add a command: write `commands/NAME.py` with a function (one command) or a `typer.Typer` named
`app` (a group), import what is heavy inside the functions, and register it below, one line each.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from codexlb_cli import __version__
from codexlb_cli.commands import (
    accounts,
    config,
    connect,
    init,
    inspect,
    mock_upstream,
    owners,
    run,
    serve,
    simulate,
    trials,
    usage,
)
from codexlb_cli.commands.context import CommandContext
from codexlb_cli.console import OutputClosed
from codexlb_cli.errors import CodexlbError, ExitStatus

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(serve.demo)
app.command()(serve.serve)
app.command()(init.init)
accounts.app.command("test")(trials.try_accounts)
app.add_typer(accounts.app, name="accounts")
app.add_typer(owners.app, name="owners")
app.command()(usage.usage)
app.add_typer(inspect.app, name="inspect")
app.add_typer(simulate.app, name="simulate")
app.command()(connect.connect)
app.command(context_settings={"allow_interspersed_args": False})(run.run)
app.add_typer(config.app, name="config")
app.command()(mock_upstream.mock_upstream)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codexlb {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def codexlb(
    ctx: typer.Context,
    *,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Use this file instead of config.toml."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Use the built-in demo configuration.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No warnings, hints or progress.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more, tracebacks included.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A local gateway for the OpenAI Responses API over several accounts of your own."""
    context = CommandContext.of(ctx)
    context.config, context.demo = config_file, demo
    context.console.quiet, context.console.verbose = quiet, verbose
    if config_file is not None:
        context.console.options = f"--config {shlex.quote(str(config_file))}"
    if ctx.invoked_subcommand is None:
        context.console.answer(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; nothing but a signal ends the process here.

    Args:
        argv: the arguments without the program's name; None means those of the process.
    """
    context = CommandContext()
    try:
        arguments = argv if argv is None else list(argv)
        # What Typer returns is the code of `typer.Exit`, or what a command returns: nothing.
        status = app(arguments, prog_name="codexlb", obj=context, standalone_mode=False)
        return status if isinstance(status, int) else ExitStatus.DONE
    except SystemExit as exc:  # Typer's own end: shell completion, or a closed pipe
        if _is_closed_pipe(exc.__context__):
            return _give_up_stdout(context, None)
        return exc.code if isinstance(exc.code, int) else ExitStatus.DONE
    except typer.TyperException as exc:
        context.console.error(*_usage_error(exc))
        return ExitStatus.USAGE
    except typer.Abort:  # a prompt was left with Ctrl-C or the end of the input
        return ExitStatus.INTERRUPTED
    except OutputClosed as exc:
        return _give_up_stdout(context, exc.reason)
    except CodexlbError as exc:
        context.console.error(str(exc), exc.hint)
        return exc.exit_status
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except Exception as exc:  # noqa: BLE001  (the last resort: ours, so say so)
        _report_bug(context, exc)
        return ExitStatus.INTERNAL


def _usage_error(exc: typer.TyperException) -> tuple[str, str]:
    """Return message and hint for a command line that Typer could not take, in our own words."""
    message = exc.format_message().removesuffix(".").replace("Value error, ", "")
    message = re.sub(r"'([^']*)'", r"`\1`", message[:1].lower() + message[1:])
    context = getattr(exc, "ctx", None)
    return message, f"{context.command_path if context else 'codexlb'} --help"


def _is_closed_pipe(exc: BaseException | None) -> bool:
    return isinstance(exc, OSError) and exc.errno == errno.EPIPE


def _give_up_stdout(context: CommandContext, reason: str | None) -> int:
    """Keep the interpreter from complaining about stdout when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if reason is None:
        return ExitStatus.DONE
    context.console.error(f"cannot write to stdout: {reason.lower()}")
    return ExitStatus.INTERNAL


def _report_bug(context: CommandContext, exc: Exception) -> None:
    """Name the exception and its place; its text could hold a secret, so only `-v` shows it."""
    if context.console.verbose:
        traceback.print_exception(exc, file=sys.stderr)
    places = traceback.extract_tb(exc.__traceback__)
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    context.console.error(
        f"internal error: {type(exc).__name__}{where}",
        "this is a bug; `codexlb -v ...` shows more to report",
    )
