"""Where a gateway says that it listens."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from codexlb_cli.store.presence import Presence, announce, announced, presence_path, withdraw

ONE = Presence("127.0.0.1", 2455, "one")
OTHER = Presence("::1", 2460, "other")


def test_a_gateway_is_announced_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert announced(folder) is None
    assert announce(folder, ONE)
    assert announced(folder) == ONE
    assert stat.S_IMODE(presence_path(folder).stat().st_mode) == 0o600
    withdraw(folder, ONE)
    assert announced(folder) is None
    assert list(folder.iterdir()) == []
    withdraw(folder, ONE)


def test_another_gateway_is_not_taken_back(tmp_path: Path) -> None:
    announce(tmp_path, ONE)
    announce(tmp_path, OTHER)
    withdraw(tmp_path, ONE)
    assert announced(tmp_path) == OTHER


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "7", "{}", '{"host": "h", "port": "1", "instance": "i"}',
        '{"host": 1, "port": 1, "instance": "i"}', '{"host": "h", "port": 1}',
        '{"host": "h", "port": 1, "instance": "i", "more": 1}', "\x00",
    ],
)  # fmt: skip
def test_what_is_no_announcement_is_none(tmp_path: Path, content: str) -> None:
    presence_path(tmp_path).write_text(content)
    assert announced(tmp_path) is None


def test_a_folder_that_cannot_be_made_announces_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert announce(tmp_path / "file" / "state", ONE) is False
