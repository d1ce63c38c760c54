"""What the gateway remembers of its turns: one row each, written behind, without a secret."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.config.schema import UsageTable
from codexlb_cli.core.affinity import UNKEYED
from codexlb_cli.core.usage import TurnRecord
from codexlb_cli.gateway.usage import TURNS_BETWEEN_PRUNINGS, UsageLog
from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from codexlb_cli.store.database import database_path
from codexlb_cli.store.running import MemoryStore
from tests.support.gateway import Stage, run, session

COLUMNS = (
    "account, model, source, session, status, outcome, error, attempts, input, cached, output,"
    " reasoning, total, service_tier"
)
SECRET = "the prompt LEAK-7f3a"


def rows(stage: Stage, columns: str = COLUMNS) -> list[tuple[Any, ...]]:
    """What is stored; read once the gateway has ended and written everything."""
    with closing(sqlite3.connect(database_path(stage.state_folder))) as connection:
        return connection.execute(f"SELECT {columns} FROM turns ORDER BY id").fetchall()


def usage(event: dict[str, Any]) -> tuple[int, ...]:
    used = event["response"]["usage"]
    return (
        used["input_tokens"],
        used["input_tokens_details"]["cached_tokens"],
        used["output_tokens"],
        used["output_tokens_details"]["reasoning_tokens"],
        used["total_tokens"],
    )


UNKNOWN = (None,) * 5


def test_a_row_for_every_turn(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            answer = await stage.turn(headers=session("s"), model="think", input=SECRET)
            whole = json.loads((await stage.turn(stream=False, prompt_cache_key="k")).body)
            short = await stage.turn(model="short")
            await stage.turn(model="failed")
            await stage.turn(model="refused")
            again = await stage.turn(headers=session("s"), model="closed")
            await stage.turn(model="cut")
            assert (await stage.post(b"[]")).status == 400
            stage.clock.advance(5)
        used, short_used = usage(answer.events[-1].data), usage(short.events[-1].data)
        assert used[3] > 0, "it thought"
        accounts = [account for (account,) in rows(stage, "account")]
        assert [row[1:] for row in rows(stage)] == [
            ("think", "session", "s", 200, "completed", 0, 1, *used, "default"),
            ("mock", "prompt_cache", "k", 200, "completed", 0, 1,
             *usage({"response": whole}), "default"),
            ("short", "none", "", 200, "incomplete", 0, 1, *short_used, "default"),
            ("failed", "none", "", 200, "failed", 1, 1, *UNKNOWN, "default"),
            ("refused", "none", "", 400, "context_length_exceeded", 1, 1, *UNKNOWN, None),
            ("closed", "session", "s", 200, "completed", 0, 2,
             *usage(again.events[-1].data), "default"),
            ("cut", "none", "", 200, "upstream_closed", 1, 1, *UNKNOWN, None),
        ]  # fmt: skip
        assert accounts[0] == answer.header("x-codexlb-account")
        assert None not in accounts
        times = rows(stage, "ended_at, first_event_ms, total_ms")
        assert all(at == stage.clock() - 5 for at, _, _ in times)
        assert [first is None for _, first, _ in times] == [n == 4 for n in range(7)]
        assert all(total >= (first or 0) for _, first, total in times)
        assert SECRET not in str(rows(stage, "*"))

    run(
        test,
        tmp_path,
        TurnRule(model="think", reasoning=True),
        TurnRule(model="short", incomplete="max_output_tokens"),
        TurnRule(model="failed", failed=FailedSpec()),
        TurnRule(model="refused", error=ErrorSpec(status=400, code="context_length_exceeded")),
        TurnRule(model="closed", close=1011, times=1),
        TurnRule(model="cut", close=1011, when="created"),
        serve=False,
    )


def test_a_client_that_leaves_is_no_error(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving(), stage.streaming(model="slow") as exchange:
            await exchange.head()
            await exchange.until("response.output_text.delta")
            exchange.leave()
            await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)
        ((outcome, error, attempts, first, tokens),) = rows(
            stage, "outcome, error, attempts, first_event_ms, input"
        )
        assert (outcome, error, attempts, tokens) == ("client_left", 0, 1, None)
        assert first is not None

    slow = TurnRule(model="slow", deltas=10_000, delta_delay=0.01)
    run(test, tmp_path, slow, serve=False)


@pytest.mark.parametrize("status", [503, 401])
def test_nobody_could_serve(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert (await stage.turn()).status == 503
        ((outcome, error, attempts, first),) = rows(
            stage, "outcome, error, attempts, first_event_ms"
        )
        assert (error, attempts, first) == (1, 0, None)
        assert outcome == ("upstream_unavailable" if status == 503 else "no_accounts")

    run(test, tmp_path, HandshakeRule(status=status), serve=False)


def test_nothing_is_recorded_if_so_configured(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await stage.turn()
        assert len(rows(stage)) == 1
        stage.configure("[usage]\nkeep_days = 0\n")
        async with stage.serving():
            await stage.turn()
        assert rows(stage) == []

    run(test, tmp_path, serve=False)


def test_turns_are_pruned_while_the_gateway_runs() -> None:
    now = 1_800_000_000.0
    store = MemoryStore()
    log = UsageLog(store, lambda: UsageTable(keep_days=1, keep_turns=10), lambda: now)

    def kept() -> int:
        (count,) = store.find(lambda c: c.execute("SELECT count(*) FROM turns").fetchone())
        return int(count)

    def turn(ended_at: float) -> None:
        log.write(TurnRecord(ended_at, "work", "m", UNKEYED, 200, "completed", 1))

    turn(now - 90_000)
    for _ in range(TURNS_BETWEEN_PRUNINGS - 2):
        turn(now)
    assert kept() == TURNS_BETWEEN_PRUNINGS - 1
    turn(now)
    assert kept() == 10
    store.close()
