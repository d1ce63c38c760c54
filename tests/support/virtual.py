"""An event loop whose clock jumps to the next timer, while its sockets and threads are real.

Fifteen minutes of silence take a moment, and nothing has to be configured shorter for a test. Time
goes on only when nothing can happen without it: no socket is ready, no thread of ours is at work.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.support.gateway import Case, Clock, Stage, Test, play, run_each

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

GRACE_SECONDS = 0.002
"""How long the kernel has, in real time, to deliver over loopback what was written."""
POLL_SECONDS = 0.0005
"""How often work in threads is looked at, in real time."""
TICK_SECONDS = 0.11
"""Timers shorter than this are taken for housekeeping: nothing is expected to follow from them."""
PATIENCE_SECONDS = 2.0
"""How long something may come from outside, in real time, when nothing else can happen."""
LIMIT_SECONDS = 7 * 24 * 3600.0
"""How long a test may take, in virtual time."""
AHEAD_SECONDS = 24 * 3600.0
"""How far the virtual clock is ahead of the wall clock, so that the program, which runs by that
one, takes nothing for over that lasts until a virtual time."""
START = 1000.0
"""The time at which a loop begins."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Busy = Callable[[], bool]


class HangError(Exception):
    """Nothing is ready, no timer runs, and no thread works: what is awaited never comes."""


class JumpingSelector(selectors.BaseSelector):
    """Polls real file objects, and takes a wait for passed when nothing is ready.

    Attributes:
        now: the virtual time, in seconds.

    Args:
        busy: whether a thread is at work.
    """

    def __init__(self, busy: Busy) -> None:
        self.now = START
        self._real = selectors.DefaultSelector()
        self._busy = [busy]
        self._expected: list[float] = []
        self._active = True

    def expect(self, when: float) -> None:
        """Note that at `when` something may happen that sockets and threads answer to."""
        heapq.heappush(self._expected, when)

    def stir(self) -> None:
        """Note that something was begun that sockets and threads answer to."""
        self._active = True

    @contextmanager
    def watching(self, busy: Busy) -> Iterator[None]:
        """Let no time pass while `busy()` says that a thread is at work."""
        self._busy.append(busy)
        try:
            yield
        finally:
            self._busy.remove(busy)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, `timeout` seconds have passed.

        Raises:
            HangError: there is no timeout, so nothing would ever happen again.
        """
        ready = self._real.select(0)
        if not ready and (timeout is None or timeout > 0):
            ready = self._settle()
        if not ready and timeout is None:
            # asyncio's own threads, such as the one that ends the executor, are not known here.
            ready = self._real.select(PATIENCE_SECONDS)
        if ready:
            self._active = True
        elif timeout is None:
            raise HangError("nothing is ready, no timer runs and no thread works: a hang")
        elif timeout > 0:
            self._jump(timeout)
        return ready

    def _settle(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait in real time for what may still come of what was done since the last jump."""
        ready: list[tuple[selectors.SelectorKey, int]] = []
        if not self._active:
            return ready
        waiting = list(self._busy)
        while not ready and (waiting := [busy for busy in waiting if busy()]):
            ready = self._real.select(POLL_SECONDS)
        return ready or self._real.select(GRACE_SECONDS)

    def _jump(self, seconds: float) -> None:
        self.now += seconds
        self._active = False
        while self._expected and self._expected[0] <= self.now:
            heapq.heappop(self._expected)
            self._active = True

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Poll another file object."""
        self.stir()
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Poll a file object no longer."""
        self.stir()
        return self._real.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Poll a file object for something else."""
        self.stir()
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        """Return what is polled."""
        return self._real.get_map()

    def close(self) -> None:
        """Stop polling."""
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time.

    Attributes:
        jumping: its selector, which owns the clock.
    """

    def __init__(self) -> None:
        self._at_work = 0
        self.jumping = JumpingSelector(lambda: self._at_work > 0)
        super().__init__(self.jumping)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.jumping.now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a timer; after a long one, sockets get the time to answer."""
        if when - self.time() > TICK_SECONDS:
            self.jumping.expect(when)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in a thread; no time passes meanwhile."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._at_work += 1
        self.jumping.stir()
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: asyncio.Future[Any]) -> None:
        self._at_work -= 1


@dataclass
class VirtualClock(Clock):
    """Seconds since the epoch that pass with the loop's time."""

    loop: VirtualLoop = field(default_factory=lambda: virtual_loop())  # noqa: PLW0108 - it stands below

    def __post_init__(self) -> None:
        """Begin a day from now."""
        self.at += AHEAD_SECONDS - self.loop.time()

    def __call__(self) -> float:
        """Return the time."""
        return self.at + self.loop.time()

    def advance(self, seconds: float) -> None:
        """Let time pass at once; `asyncio.sleep` lets happen what happens meanwhile."""
        self.loop.jumping.now += seconds


def store_busy(stage: Stage) -> bool:
    """Whether the store of the stage's gateway reads or writes."""
    gateway = getattr(stage, "gateway", None)  # none before it has been started
    return gateway is not None and gateway.store.busy


def virtual_loop() -> VirtualLoop:
    """Return the running loop, which must be a virtual one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "this needs a VirtualLoop"
    return loop


async def play_virtually(
    test: Test, folder: Path, *rules: HandshakeRule | TurnRule, **options: Any
) -> None:
    """Play a test on the running virtual loop; arguments as for `play`."""
    loop = virtual_loop()

    async def watched(stage: Stage) -> None:
        with loop.jumping.watching(lambda: store_busy(stage)):
            await test(stage)

    limits = {"seconds": LIMIT_SECONDS, "answer_seconds": LIMIT_SECONDS}
    await play(watched, folder, *rules, **{"clock": VirtualClock(), **limits, **options})


def run_virtually(
    test: Test, folder: Path, *rules: HandshakeRule | TurnRule, **options: Any
) -> None:
    """Run one test on virtual time; arguments as for `play`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play_virtually(test, folder, *rules, **options))


def run_each_virtually(
    cases: Mapping[str, Case], one: Callable[[Case, Path], Awaitable[None]], folder: Path
) -> None:
    """Run the cases at once on one virtual loop; see `run_each`."""
    run_each(cases, one, folder, loop_factory=VirtualLoop)
