"""`codexlb simulate`: run the gateway's own decisions against the configured accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.commands.offline import offline_choice, session_owner
from codexlb_cli.core.closes import FIRST_CLOSE_CODE, LAST_CLOSE_CODE
from codexlb_cli.core.reconnect import Phase, Strength
from codexlb_cli.errors import ConfigError, ExitStatus, UsageError

app = typer.Typer(help="Show what the gateway would decide; nothing is sent or changed.")


@app.callback()
def simulate() -> None:
    """Show what the gateway would decide; nothing is sent or changed."""


@app.command()
def scenario(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The scenario, a TOML file; - reads stdin.")
    ],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Play a scripted upstream on a virtual clock; exit 1 if an `expect` is not met."""
    from codexlb_cli.commands.rehearsal import rehearse
    from codexlb_cli.config.scenario_toml import read_scenario
    from codexlb_cli.inspect import scenario as report
    from codexlb_cli.inspect.scenario_file import parse_scenario_file
    from codexlb_cli.mock_upstream.scenario import parse_scenario

    context = CommandContext.of(ctx)
    text, name = read_scenario(file)
    played = rehearse(parse_scenario_file(text, name), parse_scenario(text, name))
    if as_json:
        context.console.json(report.document(played))
    else:
        context.console.answer(report.text(played))
    if not played.met:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


@app.command()
def close(
    ctx: typer.Context,
    code: Annotated[
        int,
        typer.Argument(
            metavar="CODE",
            help="The close code, 1000 to 4999; 1006: the socket ended without a close frame.",
        ),
    ],
    *,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The account whose socket closed, the owner of hard and soft turns;"
            " default: that of an unkeyed request.",
        ),
    ] = None,
    affinity: Annotated[
        Strength | None, typer.Option(help="Only this affinity; default: all three.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="A session that the gateway knows, with its owner."),
    ] = None,
    phase: Annotated[
        Phase, typer.Option(help="How far the turn had come on the socket.")
    ] = Phase.SENT,
    replays: Annotated[
        int, typer.Option(metavar="N", help="How often the turn was sent again already.")
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show which accounts a reconnect would pick after a close code; exit 1 if a turn is lost."""
    from codexlb_cli.config.policies import reconnect_policy
    from codexlb_cli.inspect import close as report

    if not FIRST_CLOSE_CODE <= code <= LAST_CLOSE_CODE:
        raise UsageError(
            f"a close code is {FIRST_CLOSE_CODE} to {LAST_CLOSE_CODE}, not {code}",
            hint="1006 stands for a socket that ended without a close frame",
        )
    if replays < 0:
        raise UsageError(f"`--replays` must be 0 or more, not {replays}")
    context = CommandContext.of(ctx)
    if session is not None:
        given = {"--owner": owner, "--affinity": affinity}
        if named := [f"`{name}`" for name, value in given.items() if value is not None]:
            raise UsageError(f"`--session` says what {' and '.join(named)} would say")
        owner, affinity = session_owner(context, session), Strength.HARD
    offline, closed = offline_choice(context, owner)
    if closed is None:
        raise ConfigError(
            "no accounts yet, so there is nothing to simulate with",
            hint="codexlb accounts add work --api-key-env OPENAI_API_KEY\n"
            f"or, with the accounts of the demo: codexlb --demo simulate close {code}",
        )
    simulation = report.simulate(
        report.Question(
            code=code,
            closed=closed,
            phase=phase,
            affinities=tuple(Strength) if affinity is None else (affinity,),
            replays=replays,
            session=session,
        ),
        offline,
        reconnect_policy(context.settings),
    )
    if as_json:
        context.console.json(report.document(simulation))
    else:
        context.console.answer(report.text(simulation))
    if simulation.gives_up:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)
