"""What the offline commands start from: the accounts as this shell sees them, and one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from codexlb_cli.commands.context import CommandContext
from codexlb_cli.errors import ConfigError

if TYPE_CHECKING:
    from codexlb_cli.core.accounts import AccountState
    from codexlb_cli.inspect.pool import OfflinePool


def offline_choice(context: CommandContext, name: str | None) -> tuple[OfflinePool, str | None]:
    """Return the accounts, and the one that was named or that an unkeyed request would get.

    The name is None if no account is configured.

    Raises:
        ConfigError: no account has that name, or the configuration is broken.
    """
    from codexlb_cli.core.selection import unkeyed_account
    from codexlb_cli.inspect.pool import offline_pool

    settings = context.settings
    if name is not None:
        settings.account(name)
    states = known_states(context)
    offline = offline_pool(settings.accounts, states, context.credentials, time.time())
    return offline, name or unkeyed_account(offline.pool)


def known_states(context: CommandContext) -> dict[str, AccountState]:
    """Return what the gateway learned of the accounts, but for refusals of earlier credentials.

    Raises:
        ConfigError: the configuration is broken.
    """
    from codexlb_cli.core.accounts import forgiven
    from codexlb_cli.store.cooldowns import read_states
    from codexlb_cli.store.credentials import fingerprint

    states = read_states(context.places.state_folder, context.console.warning)
    for account in context.settings.accounts:
        state = states.get(account.name)
        if state is not None and state.login_reason is not None:
            states[account.name] = forgiven(state, fingerprint(account, context.credentials))
    return states


def session_owner(context: CommandContext, session: str) -> str:
    """Return the account that owns a session, as the gateway remembers it.

    Raises:
        ConfigError: nobody owns it, several accounts own its threads, its owner is gone, or the
            database cannot be read.
    """
    from codexlb_cli.core.affinity import keys_meant
    from codexlb_cli.store.owner_rows import Selection, read_rows

    selection = Selection(keys=keys_meant(session, ("session",)))
    rows = read_rows(context.places.state_folder, selection, time.time())
    exact = {row.account for row in rows if row.key in (selection.keys or ())}
    owners = sorted(exact or {row.account for row in rows})
    if not owners:
        raise ConfigError(f"no account owns the session `{session}`", hint="codexlb owners list")
    if len(owners) > 1:
        names = " and ".join(f"`{name}`" for name in owners)
        raise ConfigError(
            f"the threads of the session `{session}` belong to {names}",
            hint="name one as SESSION\\nTHREAD, as it stands in: codexlb owners list",
        )
    if owners[0] not in [account.name for account in context.settings.accounts]:
        raise ConfigError(
            f"the session `{session}` belongs to `{owners[0]}`, which is no longer configured",
            hint="codexlb owners list",
        )
    return owners[0]
