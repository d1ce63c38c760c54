"""Refreshes the login of `plan` over and over, as a program that is killed while it does.

Usage: python -m tests.signin.refreshing FOLDER

A line on stdout tells the number of each access token that was handed out.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.core.turn_events import Refreshed
from codexlb_cli.signin.refresher import Refresher
from codexlb_cli.store.credentials import Credentials

PLAN = Account("plan", kind="chatgpt", credential=CredentialRef("login", "plan"))


async def main(folder: Path) -> None:
    credentials = Credentials(folder, {})
    refresher = Refresher(credentials, folder)
    while True:
        login = credentials.login("plan")
        assert login is not None
        outcome = await refresher.refresh(PLAN, login.access_token)
        handed_out = credentials.login("plan")
        assert handed_out is not None
        ended = "" if outcome == Refreshed() else " ended"
        assert handed_out.refresh_token is not None
        sys.stdout.write(f"{handed_out.refresh_token.reveal()}{ended}\n")
        sys.stdout.flush()
        if ended:
            return


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
