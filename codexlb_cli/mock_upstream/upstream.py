"""What every mock upstream has, however it is reached: its state, and the record of what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from codexlb_cli.mock_upstream.recording import (
    ApiRequest,
    FileRequest,
    Frame,
    Handshake,
    IssuerRequest,
    Recording,
    Turn,
)
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.state import UpstreamState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from codexlb_cli.mock_upstream.issuer import Issuer


class Upstream:
    """A mock upstream without a way in; `server` listens for sockets, `link` connects in memory."""

    def __init__(
        self,
        *,
        script: Script | None,
        accounts: Mapping[str, str] | None,
        strict: bool,
        keep: int,
        on_turn: Callable[[Turn], None] | None,
        run: str,
        takes_files: bool,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._recording = Recording(keep=keep, clock=clock, on_turn=on_turn)
        self._state = UpstreamState(
            script=script or Script(),
            accounts=accounts,
            strict=strict,
            recording=self._recording,
            run=run,
            takes_files=takes_files,
            clock=clock,
            wall_clock=wall_clock,
            sleep=sleep,
        )

    @property
    def handshakes(self) -> list[Handshake]:
        """The WebSocket upgrades, oldest first."""
        return self._recording.handshakes

    @property
    def frames(self) -> list[Frame]:
        """The clients' messages, oldest first."""
        return self._recording.frames

    @property
    def turns(self) -> list[Turn]:
        """The turns over either transport, oldest first."""
        return self._recording.turns

    @property
    def file_requests(self) -> list[FileRequest]:
        """The requests for files and uploads, oldest first."""
        return self._recording.file_requests

    @property
    def api_requests(self) -> list[ApiRequest]:
        """The calls about what is stored, and all others, oldest first."""
        return self._recording.api_requests

    @property
    def issuer_requests(self) -> list[IssuerRequest]:
        """The requests to the issuer, oldest first."""
        return self._recording.issuer_requests

    @property
    def issuer(self) -> Issuer:
        """What signs people in here."""
        return self._state.issuer

    def keep_file(self, account: str, name: str) -> None:
        """Give an account a file of this id, as if it had been uploaded by another way."""
        self._state.keep_file(account, name)

    @property
    def overlaps(self) -> int:
        """How often a turn was sent on a socket whose turn was still running."""
        return self._recording.overlaps

    async def wait_for(
        self,
        predicate: Callable[[Self], bool],
        timeout: float = 10.0,  # noqa: ASYNC109
    ) -> None:
        """Return once `predicate(self)` holds; it is asked whenever something is recorded.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        await self._recording.wait_for(lambda: predicate(self), timeout)
