"""Turns at accounts that are spoken to over HTTP: the same rules as over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import (
    ErrorSpec,
    HandshakeRule,
    RateLimits,
    RateWindow,
    TurnRule,
)
from codexlb_cli.store.cooldowns import read_states
from tests.gateway.test_closes import keyed
from tests.gateway.test_dials import assert_served
from tests.support.client import Exchange
from tests.support.gateway import Stage, play, run, run_each, session
from tests.support.raw_upstream import (
    COMPLETED,
    CREATED,
    HANG,
    STREAM_HEAD,
    RawUpstream,
    run_raw,
    sse,
)

HTTP = 'transport = "http"'
WORK_OVER_HTTP = {"work": HTTP}
ALL_OVER_HTTP = dict.fromkeys(("work", "home", "spare"), HTTP)
NO_WEBSOCKET = HandshakeRule(account="work", status=426)


def transports(stage: Stage) -> list[tuple[str, str]]:
    return [(turn.account, turn.transport) for turn in stage.mock.turns]


def nothing_left(stage: Stage) -> None:
    """No connection outlives its turn."""
    assert len(stage.gateway.services.lanes) == 0
    assert stage.gateway.responses.running == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_cannot_tell_the_transports_apart(tmp_path: Path, stream: bool) -> None:
    """Status, headers and body are the same, ids and times apart."""
    rule = TurnRule(reasoning=True, tool="shell", text="hi", metadata={"openai-model": "m-1"})
    seen: list[Any] = []

    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=stream, tools=[{"type": "function", "name": "shell"}])
        names = {"date", "x-request-id", "content-length"}
        document: Any = answer.types if stream else sorted(answer.json)
        headers = [(n, v) for n, v in answer.headers if n not in names]
        seen.append((answer.status, headers, document, transports(stage)[0][0]))

    for accounts, folder in (({}, "websocket"), (WORK_OVER_HTTP, "http")):
        (tmp_path / folder).mkdir()
        run(test, tmp_path / folder, rule, accounts=accounts)
    assert seen[0] == seen[1]
    assert ("openai-model", "m-1") in seen[1][1]


def test_every_turn_is_a_post_of_its_own(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(3):
            assert_served(await stage.turn(headers=session("s")), "work")
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(stage.turn(headers=session("s")))
        assert transports(stage) == [("work", "http")] * 6
        assert len({turn.socket for turn in stage.mock.turns}) == 6
        assert (stage.dialled, stage.mock.overlaps) == ([], 0)
        nothing_left(stage)

    run(test, tmp_path, accounts=WORK_OVER_HTTP)


# --- closes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1011, 1006, 1000])
@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_connection_that_is_cut_before_the_first_event(
    tmp_path: Path, key: str, code: int
) -> None:
    """HTTP has no close codes: each is a lost transport, and the turn is sent once more."""

    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(**keyed(key)), "work", attempts=2)
        assert transports(stage) == [("work", "http")] * 2
        nothing_left(stage)

    run(test, tmp_path, TurnRule(times=1, close=code), accounts=WORK_OVER_HTTP)


@pytest.mark.parametrize("when", ["created", "streaming"])
def test_a_connection_that_is_cut_after_it(tmp_path: Path, when: Any) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert answer.types[-1] == "error"
        assert answer.events[-1].data["code"] == "upstream_closed"
        answer = await stage.turn(headers=session("s"), stream=False)
        assert (answer.status, answer.error["code"]) == (502, "upstream_closed")
        assert stage.sent == ["work", "work"]
        nothing_left(stage)

    run(test, tmp_path, TurnRule(close=1011, when=when), accounts=WORK_OVER_HTTP)


def test_cut_connections_are_counted(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            await stage.turn(headers=session("s"))
        states = await stage.command("accounts", "list", "--json")
        assert b'"reason": "transport_lost"' in states.stdout

    run(
        test,
        tmp_path,
        TurnRule(account="work", close=1006),
        names=["work"],
        accounts=WORK_OVER_HTTP,
    )


# --- refusals: section 4 of the rules ----------------------------------------------------------

MOVES = {
    # the refusal; what the account is known for afterwards
    "401": (ErrorSpec(status=401), "needs_login"),
    "invalid key": (ErrorSpec(status=401, code="invalid_api_key"), "needs_login"),
    "403": (ErrorSpec(status=403), "cooling_down"),
    "429": (ErrorSpec(status=429), "cooling_down"),
    "429 in 40 s": (ErrorSpec(status=429, headers={"retry-after": "40"}), "limited"),
    "usage": (
        ErrorSpec(status=429, code="usage_limit_reached", resets_in_seconds=7200),  # type: ignore[call-arg]
        "limited",
    ),
    "quota": (ErrorSpec(status=403, code="insufficient_quota"), "cooling_down"),
    "500": (ErrorSpec(status=500), "ready"),
    "502": (ErrorSpec(status=502), "ready"),
    "503": (ErrorSpec(status=503, code="server_is_overloaded"), "ready"),
    "504": (ErrorSpec(status=504), "ready"),
    "529": (ErrorSpec(status=529), "ready"),
    "model 404": (ErrorSpec(status=404, code="model_not_found"), "ready"),
    "model 403": (ErrorSpec(status=403, code="model_not_available"), "ready"),
}


@pytest.mark.parametrize("key", ["cache", "none"])
def test_a_refusal_reaches_no_client_while_another_account_is_free(
    tmp_path: Path, key: str
) -> None:
    async def one(case: tuple[ErrorSpec, str], folder: Path) -> None:
        error, state = case

        async def test(stage: Stage) -> None:
            assert_served(await stage.turn(**keyed(key)), "home", attempts=2)
            assert transports(stage) == [("work", "http"), ("home", "websocket")]
            (work, *_) = stage.gateway.services.accounts.pool().accounts
            pool = stage.gateway.services.accounts.pool()
            assert pool.standing(work).state == state

        await play(test, folder, TurnRule(account="work", error=error), accounts=WORK_OVER_HTTP)

    run_each(MOVES, one, tmp_path)


PASSED_ON = {
    "400": ErrorSpec(status=400, code="context_length_exceeded"),
    "404": ErrorSpec(status=404),
    "405": ErrorSpec(status=405),
    "413": ErrorSpec(status=413),
    "422": ErrorSpec(status=422),
    "426": ErrorSpec(status=426),
    "previous": ErrorSpec(status=400, code="previous_response_not_found"),
}


def test_what_is_the_requests_own_fault_is_passed_on(tmp_path: Path) -> None:
    async def one(error: ErrorSpec, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            for stream in (True, False):
                answer = await stage.turn(stream=stream)
                assert answer.status == error.status
                assert answer.error["code"] == error.code
                assert answer.error["message"] == "Scripted error."
            assert stage.sent == ["work", "work"]
            assert read_states(stage.state_folder) == {}

        await play(test, folder, TurnRule(error=error), names=["work"], accounts=WORK_OVER_HTTP)

    run_each(PASSED_ON, one, tmp_path)


@pytest.mark.parametrize("status", [401, 429])
def test_a_session_moves_when_its_account_fails(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=session("s")), "home", attempts=2)
        assert_served(await stage.turn(headers=session("s")), "home")
        assert {transport for _, transport in transports(stage)} == {"http"}

    rule = TurnRule(account="work", skip=1, error=ErrorSpec(status=status))
    run(test, tmp_path, rule, accounts=ALL_OVER_HTTP)


@pytest.mark.parametrize("status", [500, 503])
def test_a_session_stays_with_an_owner_that_cannot_serve_now(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(headers=session("s")), "work")
        assert_served(await stage.turn(headers=session("s")), "work", attempts=2)
        assert stage.sent == ["work"] * 3

    rule = TurnRule(account="work", skip=1, times=1, error=ErrorSpec(status=status))
    run(test, tmp_path, rule, accounts=ALL_OVER_HTTP)


def test_no_upstream_status_is_the_clients(tmp_path: Path) -> None:
    async def one(status: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            answer = await stage.turn()
            assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
            assert "Scripted" not in answer.error["message"]
            assert answer.header("x-codexlb-attempts") == "2"

        await play(test, folder, TurnRule(error=ErrorSpec(status=status)), accounts=ALL_OVER_HTTP)

    run_each({str(status): status for status in (401, 403, 500, 503)}, one, tmp_path)


def test_an_error_event_is_as_over_a_websocket(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(stream=False)
        assert (answer.status, answer.header("x-should-retry")) == (502, "false")
        assert answer.error["message"] == "Scripted error."

    rule = TurnRule(error=ErrorSpec(), when="created")
    run(test, tmp_path, rule, accounts=WORK_OVER_HTTP)


# --- where there is no WebSocket ---------------------------------------------------------------


@pytest.mark.parametrize("key", ["session", "cache", "none"])
@pytest.mark.parametrize("status", [404, 426])
def test_the_account_that_has_none_serves_over_http(tmp_path: Path, status: int, key: str) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            assert_served(await stage.turn(**keyed(key)), "work")
        assert stage.dialled == ["work"]
        assert transports(stage) == [("work", "http")] * 2
        assert "work refused with" in stage.lines[0]
        listed = await stage.command("accounts", "show", "work")
        assert b"http, no WebSocket, " in listed.stdout

    run(test, tmp_path, refused_with(status), names=["work"])


def refused_with(status: int) -> HandshakeRule:
    return NO_WEBSOCKET.model_copy(update={"status": status})


def test_it_is_remembered_for_ten_minutes_over_a_restart(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert_served(await stage.turn(), "work")
        async with stage.serving():
            assert_served(await stage.turn(), "work")
            assert stage.dialled == ["work"]
            stage.clock.advance(599)
            await stage.turn()
            assert stage.dialled == ["work"]
            stage.clock.advance(2)
            assert_served(await stage.turn(), "work")
            assert stage.dialled == ["work", "work"]
        assert transports(stage) == [("work", "http")] * 3 + [("work", "websocket")]

    rule = NO_WEBSOCKET.model_copy(update={"times": 1})
    run(test, tmp_path, rule, names=["work"], serve=False)


def test_a_reset_tries_the_websocket_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.turn()
        assert (await stage.command("accounts", "reset", "work")).returncode == 0
        await stage.turn()
        assert transports(stage) == [("work", "http"), ("work", "websocket")]

    run(test, tmp_path, NO_WEBSOCKET.model_copy(update={"times": 1}), names=["work"])


@pytest.mark.parametrize("status", [404, 426])
def test_an_account_that_must_have_one_is_passed_over(tmp_path: Path, status: int) -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            assert_served(await stage.turn(headers=session("s")), "home")
        assert stage.dialled == ["work", "home"]

    run(test, tmp_path, refused_with(status), accounts={"work": 'transport = "websocket"'})


def test_an_account_without_either_is_passed_over(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert_served(await stage.turn(), "home", attempts=2)
        assert transports(stage) == [("work", "http"), ("home", "websocket")]

    run(test, tmp_path, NO_WEBSOCKET, TurnRule(account="work", error=ErrorSpec(status=502)))


def test_a_transport_that_is_configured_anew_is_in_force_at_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.turn(headers=session("s"))
        stage.configure(accounts=WORK_OVER_HTTP)
        await stage.turn(headers=session("s"))
        stage.configure()
        await stage.turn(headers=session("s"))
        assert [transport for _, transport in transports(stage)] == [
            "websocket",
            "http",
            "websocket",
        ]
        assert stage.dialled == ["work"]  # the socket was still there

    run(test, tmp_path, names=["work"])


# --- what belongs to a conversation ------------------------------------------------------------


def test_a_chain_without_store_is_lost_at_once(tmp_path: Path) -> None:
    """The response lives nowhere: the client sends its whole input again."""

    async def test(stage: Stage) -> None:
        first = await stage.turn(headers=session("s"), store=False)
        response_id = first.events[-1].data["response"]["id"]
        for store in (False, True):
            answer = await stage.turn(previous_response_id=response_id, store=store)
            assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert len(stage.mock.turns) == 1
        nothing_left(stage)

    run(test, tmp_path, accounts=WORK_OVER_HTTP)


def test_a_chain_without_store_is_lost_while_its_turn_still_runs(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.streaming(store=False) as exchange:
            await exchange.head()
            created = await exchange.event()
            response_id = created.data["response"]["id"]
            answer = await stage.turn(previous_response_id=response_id, store=False)
            assert answer.error["code"] == "previous_response_not_found"

    rule = TurnRule(silence=True, when="created")
    run(test, tmp_path, rule, accounts=WORK_OVER_HTTP)


def test_a_stored_chain_goes_on_at_its_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await stage.turn(prompt_cache_key="k")
        response_id = first.events[-1].data["response"]["id"]
        assert_served(await stage.turn(previous_response_id=response_id), "work")

    run(test, tmp_path, accounts=ALL_OVER_HTTP)


def test_an_anchor_outlives_a_change_of_transport(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await stage.turn(store=False)
        stage.configure(accounts=WORK_OVER_HTTP)
        response_id = first.events[-1].data["response"]["id"]
        state = [("x-codex-turn-state", "ts-1")]
        answer = await stage.turn(previous_response_id=response_id, store=False, headers=state)
        assert_served(answer, "work")
        assert transports(stage) == [("work", "websocket")] * 2
        assert stage.frames[-1]["client_metadata"] == {"x-codex-turn-state": "ts-1"}

    run(test, tmp_path, TurnRule(metadata={"x-codex-turn-state": "ts-1"}), names=["work"])


def test_the_turn_state_is_a_header_both_ways(tmp_path: Path) -> None:
    """Not a member of the body, where it stands over a WebSocket."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nX-Codex-Turn-State: ts-1\r\n\r\n")

    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn(headers=session("s"))
        assert answer.header("x-codex-turn-state") == "ts-1"
        for state in ("ts-1", "of nobody"):
            await stage.turn(headers=[("x-codex-turn-state", state), *session("s")])
        sent = [dict(posted.headers).get("x-codex-turn-state") for posted in raw.posted]
        assert sent == [None, "ts-1", None]
        assert not any("client_metadata" in posted.json for posted in raw.posted)

    run_raw(test, tmp_path, [head + sse(CREATED, COMPLETED)])


def test_limits_come_as_headers_and_are_remembered(tmp_path: Path) -> None:
    window = RateWindow(used_percent=42.5, window_minutes=300, reset_at=1_780_003_600)

    async def test(stage: Stage) -> None:
        for _ in range(2):
            answer = await stage.turn()
            assert answer.header("x-codex-primary-used-percent") == "42.5"
            assert answer.header("x-codex-primary-window-minutes") == "300"

    rule = TurnRule(times=1, rate_limits=RateLimits(primary=window))
    run(test, tmp_path, rule, names=["work"], accounts=WORK_OVER_HTTP)


# --- the end -----------------------------------------------------------------------------------


HALF = [STREAM_HEAD + sse(CREATED), HANG]
"""A stream that begins and then says nothing."""


def test_a_client_that_leaves_closes_the_upstreams_connection(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        async with stage.streaming() as exchange:
            await exchange.head()
            assert (await exchange.event()).data["type"] == "response.created"
        await raw.left.wait()
        assert len(stage.gateway.services.lanes) == 0

    run_raw(test, tmp_path, HALF)


def test_a_client_that_leaves_before_the_first_event(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        async with stage.streaming() as exchange:
            await raw.asked.wait()
            exchange.leave()
        await raw.left.wait()
        assert len(stage.gateway.services.lanes) == 0

    run_raw(test, tmp_path, [HANG])


def test_a_gateway_that_stops_ends_the_stream_and_its_connection(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        async with connection_of(stage) as exchange:
            answer = await exchange.until("error")
            assert answer[-1].data["code"] == "upstream_closed"
        await raw.left.wait()

    run_raw(test, tmp_path, HALF, serve=False, more="[timeouts]\ndrain = 0")


@asynccontextmanager
async def connection_of(stage: Stage) -> AsyncIterator[Exchange]:
    """A stream that has begun when its gateway stops."""
    async with AsyncExitStack() as stack:
        async with stage.serving():
            exchange = await stack.enter_async_context(stage.streaming())
            await exchange.head()
            await exchange.event()
        yield exchange


def test_an_answer_in_one_piece_has_what_the_last_event_leaves_out(tmp_path: Path) -> None:
    """The backend of ChatGPT plans ends with an empty `output`."""
    item = '{"type":"message","id":"msg_1","content":[{"type":"output_text","text":"hi"}]}'
    done = f'{{"type":"response.output_item.done","output_index":0,"item":{item}}}'

    async def test(stage: Stage, _raw: RawUpstream) -> None:
        answer = await stage.turn(stream=False)
        assert (answer.status, answer.json["id"]) == (200, "resp_1")
        assert answer.json["output"] == [json.loads(item)]

    run_raw(test, tmp_path, [STREAM_HEAD, sse(CREATED, done, COMPLETED)])
