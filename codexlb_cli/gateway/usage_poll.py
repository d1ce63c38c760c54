"""Asks ChatGPT accounts for their usage, sparingly: only where nothing told of it for a while.

Turns tell of the account that serves them; this fills the gaps of the others. It happens only while
the gateway is in use or its accounts are looked at, spread out, and blames nobody: an answer that
is no usage document is as good as none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence

import httpx2

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.accounts import Account, Availability
from codexlb_cli.core.handshake import HandshakeInputs, account_lines
from codexlb_cli.core.headers import Header, HeaderOptions
from codexlb_cli.core.readings import from_usage
from codexlb_cli.core.windows import Limits
from codexlb_cli.gateway.accounts import Accounts

SHORTEST_POLL_SECONDS = 60.0
"""However the configuration is set, one account is not asked more often."""
SPREAD_SECONDS = 10.0
"""Accounts that are due together are asked within this time, not at once."""
SPREAD_PART = 0.2
"""The time between two questions is longer by up to this part, so that they drift apart."""
LONGEST_WAIT_SECONDS = 3.0
"""How long a person who looks at the status waits for accounts that do not tell."""
_LARGEST_BYTES = 256 * 1024

Fetch = Callable[[str, Sequence[Header], float], Awaitable[object]]
"""Returns the JSON document at a URL, given headers and a time limit; None if there is none."""


async def fetch_json(url: str, headers: Sequence[Header], timeout_seconds: float) -> object:
    """Get a JSON document; None for everything else that may come. Redirects are not followed."""
    content = bytearray()
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            httpx2.AsyncClient(timeout=timeout_seconds, trust_env=False) as client,
            client.stream("GET", url, headers=list(headers)) as answer,
        ):
            if answer.status_code != 200:
                return None
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > _LARGEST_BYTES:
                    return None
        return json.loads(content)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError, RecursionError):
        return None


async def ask_usage(
    account: Account,
    secret: str,
    account_id: str | None,
    timeout_seconds: float,
    *,
    now: Callable[[], float],
    fetch: Fetch = fetch_json,
) -> Limits | None:
    """Ask a ChatGPT account for its usage, once; None if it does not tell.

    Args:
        account: whom to ask.
        secret: its access token.
        account_id: the value of its `chatgpt-account-id`; None if it has none.
        timeout_seconds: for all of it.
        now: seconds since the epoch.
        fetch: gets a document.
    """
    options, agent = HeaderOptions(), OWN_USER_AGENT
    inputs = HandshakeInputs(account, secret, (), options, agent, account_id=account_id)
    headers = [(line.name, line.value) for line in account_lines(inputs)]
    headers += [("accept", "application/json"), ("user-agent", OWN_USER_AGENT)]
    return from_usage(await fetch(account.usage_url, headers, timeout_seconds), now())


class UsagePoll:
    """The questions to the accounts of a running gateway.

    Args:
        accounts: whom to ask, and who learns the answer.
        now: seconds since the epoch.
        draw: a random number from 0 to 1.
        fetch: gets a document.
    """

    def __init__(
        self,
        accounts: Accounts,
        now: Callable[[], float],
        draw: Callable[[], float],
        fetch: Fetch = fetch_json,
    ) -> None:
        self._accounts = accounts
        self._now = now
        self._draw = draw
        self._fetch = fetch
        self._not_before: dict[str, float] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()

    def wanted(self) -> None:
        """Note that the limits matter now: whoever is due is asked, beside the event at hand."""
        configured = self._accounts.settings.limits.usage_poll
        if configured <= 0:
            return
        now = self._now()
        for account in self._accounts.settings.accounts:
            if self._is_due(account, now):
                pause = max(configured, SHORTEST_POLL_SECONDS)
                self._not_before[account.name] = now + pause * (1 + SPREAD_PART * self._draw())
                after = SPREAD_SECONDS * self._draw()
                task = asyncio.create_task(self._ask(account, after, self._hurry))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def at_once(self) -> None:
        """Ask whoever is due now, not spread out: a person waits. Return when they have told.

        Waits `LONGEST_WAIT_SECONDS` at most; who has not told by then is listened to further.
        """
        self.wanted()
        self._hurry.set()
        self._hurry = asyncio.Event()
        if self._asking:
            await asyncio.wait(tuple(self._asking), timeout=LONGEST_WAIT_SECONDS)

    async def close(self) -> None:
        """Ask nothing any more."""
        tasks = list(self._asking)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _is_due(self, account: Account, now: float) -> bool:
        if account.kind != "chatgpt" or not account.enabled:
            return False
        if now < self._not_before.get(account.name, 0.0):
            return False
        if not self._accounts.limits(account.name).stale(now):
            return False
        known = self._accounts.pool().standing(account)
        return known.state is not Availability.NEEDS_LOGIN

    async def _ask(self, account: Account, after_seconds: float, hurry: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_seconds):
                await hurry.wait()
        secret = self._accounts.secret(account)
        if secret is None:
            return
        timeout = self._accounts.settings.timeouts.dial
        account_id = self._accounts.logins.account_id(account)
        told = await ask_usage(
            account, secret, account_id, timeout, now=self._now, fetch=self._fetch
        )
        if told is not None:
            self._accounts.learn(account.name, told)
