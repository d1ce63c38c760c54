"""Where a running gateway listens, for the commands beside it: one small file in the state folder.

It names no secret. A gateway that was killed leaves it behind, so whoever reads it asks the gateway
that it names for its `instance` before believing anything.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from codexlb_cli.config.files import replace_file


@dataclass(frozen=True, slots=True)
class Presence:
    """A gateway that runs, or ran.

    Attributes:
        host: the address that it listens on.
        port: its port.
        instance: a text that no other gateway has.
    """

    host: str
    port: int
    instance: str


def presence_path(state_folder: Path) -> Path:
    """Return the file in which a gateway says where it listens."""
    return state_folder / "gateway.json"


def announce(state_folder: Path, presence: Presence) -> bool:
    """Say where a gateway listens; returns whether that could be written."""
    try:
        state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = json.dumps(asdict(presence)).encode()
        replace_file(presence_path(state_folder), content, mode=0o600)
    except OSError:
        return False
    return True


def withdraw(state_folder: Path, presence: Presence) -> None:
    """Take back what `announce` said, unless another gateway has announced itself since."""
    if announced(state_folder) == presence:
        with suppress(OSError):
            presence_path(state_folder).unlink(missing_ok=True)


def announced(state_folder: Path) -> Presence | None:
    """Return the gateway that announced itself last; None if none did, or it ended in order."""
    try:
        presence = Presence(**json.loads(presence_path(state_folder).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    sound = isinstance(presence.host, str) and isinstance(presence.port, int)
    return presence if sound and isinstance(presence.instance, str) else None
