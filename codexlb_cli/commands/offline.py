"""What the offline commands start from: the accounts as this shell sees them, and one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from codexlb_cli.commands.context import CommandContext

if TYPE_CHECKING:
    from codexlb_cli.inspect.pool import OfflinePool


def offline_choice(context: CommandContext, name: str | None) -> tuple[OfflinePool, str | None]:
    """Return the accounts, and the one that was named or that an unkeyed request would get.

    The name is None if no account is configured.

    Raises:
        ConfigError: no account has that name, or the configuration is broken.
    """
    from codexlb_cli.core.selection import unkeyed_account
    from codexlb_cli.inspect.pool import offline_pool
    from codexlb_cli.store.cooldowns import read_states

    settings = context.settings
    if name is not None:
        settings.account(name)
    states = read_states(context.places.state_folder, context.console.warning)
    offline = offline_pool(settings.accounts, states, context.credentials, time.time())
    return offline, name or unkeyed_account(offline.pool)
