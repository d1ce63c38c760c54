"""Sign-in in the browser: authorization code with PKCE, and an answer on loopback.

Over SSH the browser runs on another computer, and its last page cannot be reached: the person
pastes that page's address. Whichever answer comes first counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from codexlb_cli.core.signin import (
    CALLBACK_PORT,
    Answer,
    Asking,
    Callback,
    authorize_url,
    read_callback,
    read_pasted,
    url_text,
)
from codexlb_cli.errors import CodexlbError
from codexlb_cli.signin.callback import CallbackServer, Page
from codexlb_cli.signin.issuer import IssuerClient, SignInRefused
from codexlb_cli.signin.terminal import Terminal
from codexlb_cli.store.logins import Login

MOST_SECONDS = 300.0

_DONE = Page(200, "Signed in", "You can close this page and go back to the terminal.")
_DENIED = Page(200, "Not signed in", "The sign-in was refused. The terminal says more.")
_FAILED = Page(200, "Not signed in", "The sign-in failed. The terminal says why.")
_FOREIGN = Page(
    400,
    "Not this sign-in",
    "This answer belongs to another sign-in. Use the page that the terminal names.",
)
_NOTHING = Page(400, "No answer", "This address holds no answer of a sign-in.")
_LATE = Page(400, "Too late", "This sign-in has ended already.")


class BrowserSignIn:
    """One sign-in in the browser.

    Args:
        issuer: who signs people in.
        terminal: the person.
        draw: returns so many bytes of chance, good enough for secrets.
        port: where the answer is expected; another port is used where that one is in use.
        seconds: how long to wait for the person.
    """

    def __init__(
        self,
        issuer: IssuerClient,
        terminal: Terminal,
        *,
        draw: Callable[[int], bytes],
        port: int = CALLBACK_PORT,
        seconds: float = MOST_SECONDS,
    ) -> None:
        self._issuer = issuer
        self._terminal = terminal
        self._port = port
        self._seconds = seconds
        self._state = url_text(draw(32))
        self._verifier = url_text(draw(32))
        loop = asyncio.get_running_loop()
        self._callback: asyncio.Future[Callback] = loop.create_future()
        self._page: asyncio.Future[Page] = loop.create_future()

    async def run(self) -> Login:
        """Sign in.

        Raises:
            SignInRefused: the person or the issuer said no, or nobody answered in time.
            IssuerUnavailable: the issuer cannot be asked, or answers what makes no sense.
            NoPort: no port can be had.
        """
        async with CallbackServer(self._port, self._visited) as server:
            asking = Asking(self._state, self._verifier, server.redirect_uri)
            self._invite(asking, server.port)
            callback = await self._answered()
            try:
                login = await self._finish(asking, callback)
            except CodexlbError:
                self._show(_DENIED if callback.answer is Answer.DENIED else _FAILED)
                raise
            except BaseException:
                self._show(_FAILED)
                raise
            self._show(_DONE)
        return login

    def _invite(self, asking: Asking, port: int) -> None:
        url = authorize_url(self._issuer.url, self._issuer.client_id, asking)
        if port != self._port and self._port:
            self._terminal.say(f"port {self._port} is in use: expecting the answer on port {port}")
        self._terminal.say(f"sign in on this page:\n\n{url}\n")
        self._terminal.say(
            "if the last page cannot be shown, as over SSH, paste its address here; Ctrl-C gives up"
        )
        self._terminal.open_url(url)

    async def _answered(self) -> Callback:
        pasting = asyncio.create_task(self._read_pasted())
        try:
            async with asyncio.timeout(self._seconds):
                return await self._callback
        except TimeoutError:
            raise SignInRefused(
                f"nobody signed in within {self._seconds / 60:g} minutes",
                reason="timeout",
            ) from None
        finally:
            pasting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pasting

    async def _finish(self, asking: Asking, callback: Callback) -> Login:
        if callback.answer is Answer.DENIED:
            said = "was refused" if callback.reason == "access_denied" else "failed"
            raise SignInRefused(
                f"the sign-in {said}: `{self._issuer.url}` says {callback.reason}",
                reason=callback.reason,
            )
        return await self._issuer.redeem(callback.code, asking.verifier, asking.redirect_uri)

    def _visited(self, query: str) -> asyncio.Future[Page] | Page:
        """Take the query of a request to the callback; return the page for it."""
        callback = read_callback(query, self._state)
        match callback.answer:
            case Answer.FOREIGN:
                self._terminal.warn("an answer to another sign-in came, and was left aside")
                return _FOREIGN
            case Answer.NONE:
                return _NOTHING
        if self._callback.done():
            return _LATE
        self._callback.set_result(callback)
        return self._page

    async def _read_pasted(self) -> None:
        while (text := await self._terminal.read_line()) is not None:
            if not text or self._callback.done():
                continue
            callback = read_pasted(text, self._state)
            match callback.answer:
                case Answer.FOREIGN:
                    self._terminal.warn("this is the answer to another sign-in; paste the latest")
                case Answer.NONE:
                    self._terminal.warn("this holds no answer; paste the whole address")
                case _:
                    self._callback.set_result(callback)

    def _show(self, page: Page) -> None:
        if not self._page.done():
            self._page.set_result(page)
