"""Ports for programs that must be told theirs, and that nobody takes before they listen."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count

FIRST = 10_000
COUNT = 20_000
"""Below those that the kernel gives away: from 32768 on Linux, from 49152 elsewhere."""
EACH = 64
"""How far apart test processes begin, so that those that run at once do not meet."""

_offsets = count(os.getpid() * EACH, 2)


def free_port() -> int:
    """Return a port that is free, as is the next one; each call returns another."""
    while True:
        port = FIRST + next(_offsets) % COUNT
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
