"""The person at the terminal: what is said to them, what they paste, and their browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

_LONGEST_LINE_BYTES = 16 * 1024
_READ_BYTES = 4096

ReadLine = Callable[[], Awaitable[str | None]]


async def no_lines() -> str | None:
    """Return None: nobody can type anything."""
    return None


@dataclass(frozen=True, slots=True)
class Terminal:
    """How a sign-in speaks with its person.

    Attributes:
        say: writes a line of progress.
        warn: writes a warning.
        open_url: opens a page in the browser, if there is one; returns at once.
        read_line: waits for a line that the person typed or pasted; None once there are no more.
    """

    say: Callable[[str], None]
    warn: Callable[[str], None]
    open_url: Callable[[str], None]
    read_line: ReadLine = no_lines


class TypedLines:
    """The lines that come in on a file descriptor, read by a thread of its own.

    A thread can wait for a terminal, a pipe and a file alike, and as it holds no lock of the
    interpreter's streams, the program can end while it still waits.

    Args:
        descriptor: such as that of stdin.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self) -> str | None:
        """Return the next line; None once there are no more."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._read, args=(self._loop,), daemon=True).start()
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)  # for whoever asks again
        return line

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        kept = b""
        with contextlib.suppress(OSError):
            while data := os.read(self._descriptor, _READ_BYTES):
                *whole, kept = (kept + data).split(b"\n")
                for line in whole:
                    self._tell(loop, line)
                kept = kept[:_LONGEST_LINE_BYTES]
        if kept:
            self._tell(loop, kept)
        self._tell(loop, None)

    def _tell(self, loop: asyncio.AbstractEventLoop, line: bytes | None) -> None:
        text = None if line is None else line.decode("utf-8", "replace").strip()
        with contextlib.suppress(RuntimeError):  # the sign-in has ended, and its loop with it
            loop.call_soon_threadsafe(self._lines.put_nowait, text)


def may_open_browser(environ: Mapping[str, str], platform: str) -> bool:
    """Whether opening a page leads to a window, and not into the terminal or to nowhere."""
    if environ.get("BROWSER"):
        return True
    if platform in ("darwin", "win32"):
        return not environ.get("SSH_CONNECTION")
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def open_in_browser(url: str) -> None:
    """Open a page without waiting for the browser, which may last as long as its window."""
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
