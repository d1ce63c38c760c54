"""The program at a terminal, with somebody who reads and types."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cli import Cli

SECONDS = 30
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes stdin the terminal whose Ctrl-C a program gets, and runs it."""


class Typist:
    """Somebody at a terminal.

    Attributes:
        seen: all that the terminal showed so far.
    """

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.seen = ""
        self._descriptor = descriptor
        self._process = process

    def until(self, text: str) -> None:
        """Read until the terminal shows a text that comes after what was seen so far."""
        start = len(self.seen)
        while text not in self.seen[start:]:
            assert self._read(), f"it ended without {text!r}: {self.seen}"

    def wait_for_it(self) -> None:
        """Wait until the program sleeps in its read.

        Python loses no signal that comes there, but it does not notice one that comes between the
        prompt and the read before another key is pressed.
        """
        stat = Path(f"/proc/{self._process.pid}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def answer(self, question: str, text: str) -> None:
        self.until(question)
        self.type(f"{text}\n")

    def end(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        return self._process.wait(SECONDS)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:  # Linux says EIO once nobody has the other end any more
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def terminal(cli: Cli, *args: str, **environ: str) -> Iterator[Typist]:
    """Run `codexlb ARGS` with a terminal as stdin, stdout and stderr."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, "-m", "codexlb_cli", *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environment(TERM="dumb", **environ),
        cwd=cli.home,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Typist(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        os.close(master)
