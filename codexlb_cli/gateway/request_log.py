"""One line per request, for the person who looks at the terminal. No header, no prompt, no key."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.gateway.turns import TurnRunner

_COLUMNS = "{:<8}  {:<6}  {:<7}  {:<8}  {}   {}   "
_PREFIX = _COLUMNS.format("TIME", "STATUS", "ACCOUNT", "AFFINITY", "FIRST ", "TOTAL ")
HEADER = f"{_PREFIX}OUTCOME"
LONGEST_LINE = 99


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class RequestLine:
    """What is told of one request.

    Attributes:
        request_id: the value of `x-request-id`.
        started_at: loop time.
    """

    request_id: str
    started_at: float = field(default_factory=_loop_time)
    status: int | None = None
    account: str = "-"
    affinity: str = "-"
    first: float | None = None
    outcome: str = ""

    def refused(self, error: ClientError) -> RequestLine:
        """Complete the line of a request that was answered without a turn."""
        return self.answered(error.status, error.code)

    def answered(self, status: int | None, outcome: str) -> RequestLine:
        """Complete the line of a request that is no turn."""
        self.status, self.outcome = status, outcome
        return self

    def served(self, runner: TurnRunner, status: int | None, outcome: str) -> RequestLine:
        """Complete the line of a turn.

        Args:
            runner: the turn.
            status: what the client was told; None if it left before.
            outcome: overrides what the turn says of itself.
        """
        turn = runner.turn
        self.status, self.affinity = status, runner.strength.value
        if turn is not None and turn.account is not None:
            self.account = turn.account
        if runner.first_event_at is not None:
            self.first = runner.first_event_at - self.started_at
        self.outcome = outcome or runner.outcome
        return self


class RequestLog:
    """Writes request lines.

    Args:
        write: takes a line of text without its line break.
        clock: local time of day as HH:MM:SS.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        self._write = write
        self._clock = clock

    def write(self, line: RequestLine) -> None:
        """Write one line."""
        prefix = _COLUMNS.format(
            self._clock(),
            line.status if line.status is not None else "-",
            line.account,
            line.affinity,
            "     -" if line.first is None else _duration(line.first),
            _duration(_loop_time() - line.started_at),
        )
        indent = " " * len(_PREFIX)
        width = max(LONGEST_LINE - len(indent), 20)
        outcome = textwrap.wrap(line.outcome, width, break_on_hyphens=False) or ["-"]
        self._write("\n".join([prefix + outcome[0], *(indent + more for more in outcome[1:])]))


def _duration(seconds: float) -> str:
    text = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"{text:>6}"
