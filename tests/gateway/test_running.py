"""Turns in flight: how the last moment of a turn and that of its client meet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from codexlb_cli.gateway.bodies import ClientGone
from codexlb_cli.gateway.running import RunningTurns
from codexlb_cli.gateway.turns import TurnRunner


class _Runner:
    """A turn that ends in its own way when it is cancelled."""

    def __init__(self, end: Exception | None) -> None:
        self._end = end

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._end is None:
                raise
            raise self._end from None


async def _ended(end: Exception | None) -> bool:
    return await RunningTurns().run(cast("TurnRunner", cast("Any", _Runner(end))), asyncio.sleep(0))


def test_a_turn_whose_client_left() -> None:
    assert asyncio.run(_ended(None)) is False


@pytest.mark.parametrize("end", [ClientGone(), ValueError("a bug")])
def test_what_a_turn_raises_when_its_client_has_left_is_not_lost(end: Exception) -> None:
    with pytest.raises(type(end)):
        asyncio.run(_ended(end))
