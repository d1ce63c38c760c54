"""Moments as a person names them."""

from __future__ import annotations

import pytest

from codexlb_cli.core.period import moment

NOW = 1_770_379_200.0  # 2026-02-06T12:00:00Z


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30m", 1800),
        ("24h", 86_400),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("0d", 0),
        ("2026-02-06", 43_200),
        ("2026-02-05T12:00", 86_400),
        ("2026-02-06T11:59:59Z", 1),
        ("2026-02-06 12:00:00+01:00", 3600),
        ("2026-02-07", -43_200),
    ],
)
def test_moments(text: str, ago: float) -> None:
    assert moment(text, NOW) == NOW - ago


def test_nothing_lies_before_the_epoch() -> None:
    assert moment("999999w", NOW) == 0.0


NONE_OF_THEM = (
    "", "7", "d", "-7d", "7 d", "1.5d", "7y", "9999999d", "2026-13-01", "today", "20260206",
    "1969-12-31", "9999-12-31",
)  # fmt: skip


@pytest.mark.parametrize("text", NONE_OF_THEM)
def test_what_names_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text, NOW)
