"""What the configuration means to `core`: tables of config.toml -> the values that decisions take.

The gateway and the offline commands use the same functions, so that both decide alike.
"""

from __future__ import annotations

from typing import Literal

from codexlb_cli import __version__
from codexlb_cli.config.load import Settings
from codexlb_cli.config.schema import CloseTable
from codexlb_cli.core.accounts import Effect
from codexlb_cli.core.backoff import Backoff
from codexlb_cli.core.closes import CloseOverride, HardMove, ReconnectPolicy, SoftMove
from codexlb_cli.core.headers import HeaderOptions
from codexlb_cli.core.prices import Price

OWN_USER_AGENT = f"codexlb/{__version__}"
"""The user agent of a handshake whose client sent none."""

_EFFECTS: dict[str, Literal[Effect.NEUTRAL, Effect.COUNTED, Effect.COOLED]] = {
    "neutral": Effect.NEUTRAL,
    "counted": Effect.COUNTED,
    "cooled": Effect.COOLED,
}


def header_options(settings: Settings) -> HeaderOptions:
    """Return the `[headers]` table as the header policy takes it."""
    table = settings.headers
    return HeaderOptions(
        allow=frozenset(table.allow), traceparent=table.traceparent, beta=table.beta
    )


def reconnect_policy(settings: Settings) -> ReconnectPolicy:
    """Return the `[reconnect]` and `[affinity]` tables as the reconnect policy takes them."""
    reconnect, affinity = settings.reconnect, settings.affinity
    return ReconnectPolicy(
        replays=reconnect.replays,
        backoff=Backoff(reconnect.backoff_base, reconnect.backoff_max),
        replay_hosted_tools=reconnect.replay_hosted_tools,
        closes={code: _override(table) for code, table in reconnect.close.items()},
        on_account_failure=affinity.session_on_account_failure,
        wait_up_to=affinity.wait_up_to,
    )


def prices_of(settings: Settings) -> dict[str, Price]:
    """Return the `[prices]` tables: cached tokens without a price of their own cost as input."""
    return {
        model: Price(
            table.input, table.input if table.cached is None else table.cached, table.output
        )
        for model, table in settings.prices.items()
    }


def _override(table: CloseTable) -> CloseOverride:
    return CloseOverride(
        account=_EFFECTS[table.account] if table.account else None,
        soft=SoftMove(table.soft) if table.soft else None,
        hard=HardMove(table.hard) if table.hard else None,
    )
