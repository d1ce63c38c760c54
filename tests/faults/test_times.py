"""What takes long, with the times that are configured by default."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.gateway import Stage, session
from tests.support.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_socket_in_use_retires_before_the_upstream_ends_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(40):  # two hours
            assert (await stage.turn(headers=session("s"))).status == 200
            await asyncio.sleep(180)
        dialled = [handshake.at for handshake in stage.mock.handshakes]
        ages = [later - earlier for earlier, later in pairwise(dialled)]
        # `[lanes] max_age` is 55 minutes; no turn begins in its last two.
        assert len(ages) == 2
        assert all(3300 - 120 <= age < 3600 for age in ages)
        assert {turn.account for turn in stage.mock.turns} == {"work"}

    run_virtually(test, tmp_path)


@pytest.mark.parametrize(("pause", "sockets"), [(290, 1), (310, 2)])
def test_an_idle_socket_is_kept_for_five_minutes(tmp_path: Path, pause: int, sockets: int) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            assert (await stage.turn(headers=session("s"))).status == 200
            await asyncio.sleep(pause)
        assert len(stage.mock.handshakes) == sockets

    run_virtually(test, tmp_path)


def test_an_account_is_dialled_eight_times_at_once_and_then_once_a_second(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        began = now()
        answers = await asyncio.gather(*(stage.turn() for _ in range(12)))
        assert {answer.status for answer in answers} == {200}
        after = [round(handshake.at - began, 3) for handshake in stage.mock.handshakes]
        assert after == [0] * 8 + [1, 2, 3, 4]

    run_virtually(test, tmp_path, TurnRule(delay=60), names=["work"])


@pytest.mark.parametrize(
    ("client", "line"), [("curl/8", b": keep-alive\n\n"), ("codex_cli_rs/1", b'"keepalive"}\n\n')]
)
def test_a_silent_stream_gets_a_keepalive_every_quarter_minute(
    tmp_path: Path, client: str, line: bytes
) -> None:
    async def test(stage: Stage) -> None:
        began = now()
        answer = await stage.turn(headers=[("user-agent", client)])
        assert now() - began == pytest.approx(610)
        assert answer.types[-1] == "response.completed"
        assert answer.body.count(line) == 40

    run_virtually(test, tmp_path, TurnRule(when="created", fault_delay=610, send=('{"type":"x"}',)))


@pytest.mark.parametrize("reach", [1, 0])
def test_silence_before_the_first_event_is_over_in_time(tmp_path: Path, reach: int) -> None:
    async def test(stage: Stage) -> None:
        began = now()
        answer = await stage.turn(prompt_cache_key="k")
        if reach:
            assert answer.status == 200
            assert now() - began == pytest.approx(100)
        else:
            assert answer.status == 503
            assert now() - began == pytest.approx(200)
        assert answer.header("x-codexlb-attempts") == "2"

    run_virtually(test, tmp_path, TurnRule(silence=True, times=reach))


def test_all_waiting_ends_with_the_total(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        began = now()
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert now() - began == pytest.approx(240)
        assert stage.sent == ["work", "work"]

    more = "[timeouts]\nfirst_event = 200"
    run_virtually(test, tmp_path, TurnRule(silence=True), more=more)
