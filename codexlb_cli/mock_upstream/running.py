"""A mock upstream in a thread of its own, for callers without an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codexlb_cli.mock_upstream.server import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.script import Script


@dataclass(frozen=True)
class RunningMock:
    """A mock that runs in another thread; its records may be read from this one.

    Attributes:
        upstream: the mock itself.
    """

    upstream: MockUpstream
    _loop: asyncio.AbstractEventLoop

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`."""
        return self.upstream.base_url

    def wait_for(self, predicate: Callable[[MockUpstream], bool], timeout: float = 10.0) -> None:
        """Block until `predicate(upstream)` holds; it is asked in the mock's thread.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        waiting = self.upstream.wait_for(predicate, timeout)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result()


@contextmanager
def running_mock(
    *,
    script: Script | None = None,
    accounts: Mapping[str, str] | None = None,
    strict: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    on_turn: Callable[[Turn], None] | None = None,
    run: str | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Iterator[RunningMock]:
    """Run a mock upstream in a thread while the context lasts; arguments as for `MockUpstream`.

    Raises:
        ConfigError: the port is in use.
    """
    upstream = MockUpstream(
        script=script,
        accounts=accounts,
        strict=strict,
        host=host,
        port=port,
        on_turn=on_turn,
        run=run,
        wall_clock=wall_clock,
    )
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(upstream.start())
        thread = threading.Thread(target=loop.run_forever, name="mock-upstream", daemon=True)
        thread.start()
        try:
            yield RunningMock(upstream, loop)
        finally:
            asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
