"""What a client sees when the upstream closes before `response.created`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from tests.support.gateway import Stage, play, run, run_each, session
from tests.support.virtual import run_virtually

HOME_KEYS = ("s-work", "s-home", "s-spare")


async def settle(stage: Stage) -> None:
    """Give each account a session of its own."""
    for key, account in zip(HOME_KEYS, ("work", "home", "spare"), strict=True):
        answer = await stage.turn(headers=session(key))
        assert answer.header("x-codexlb-account") == account


CODES = (1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 1014, 3003, 4001)


def test_a_session_stays_on_its_account(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            await settle(stage)
            stage.mock.turns.clear()
            for key, account in (("s-home", "home"), ("s-spare", "spare"), ("s-work", "work")):
                answer = await stage.turn(headers=session(key), model=f"mock-close-{code}")
                assert (answer.status, answer.types[-1]) == (200, "response.completed")
                assert answer.header("x-codexlb-account") == account
                assert answer.header("x-codexlb-attempts") == "2"
                assert stage.sent[-2:] == [account, account]
            assert len(stage.mock.turns) == 6

        await play(test, folder)

    run_each({str(code): code for code in CODES}, one, tmp_path)


GOES = {
    1000: "home",
    1006: "home",
    1012: "home",
    1011: "spare",
    1013: "spare",
    1008: "spare",
    4001: "spare",
}


def test_where_a_cache_key_goes(tmp_path: Path) -> None:
    async def one(code: int, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            await stage.turn()
            for model in ("mock", f"mock-close-{code}"):
                answer = await stage.turn(model=model, prompt_cache_key="k")
                assert answer.types[-1] == "response.completed"
            assert stage.sent == ["work", "home", "home", GOES[code]]
            stage.clock.advance(600)  # a cooldown that the close caused is over
            after = await stage.turn(prompt_cache_key="k")
            assert after.header("x-codexlb-account") == "home"

        await play(test, folder)

    run_each({str(code): code for code in GOES}, one, tmp_path)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_fault_that_no_account_can_cure(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        for code in (1002, 1003, 1007, 1010, 1016, 2999, 1009):
            stage.mock.turns.clear()
            answer = await stage.turn(model=f"mock-close-{code}", **keyed(key, f"k{code}"))
            error = answer.error
            if code == 1009:
                assert (answer.status, error["code"]) == (400, "request_too_large")
                assert error["type"] == "invalid_request_error"
                assert answer.header("retry-after") is None
            else:
                assert (answer.status, error["code"]) == (502, "upstream_protocol_error")
                assert error["type"] == "server_error"
                assert answer.header("retry-after") is not None
            assert answer.header("x-codexlb-attempts") == "1"
            assert len(stage.sent) == 1

    run(test, tmp_path)


FAULTS = {
    "binary": TurnRule(binary=True, times=1),
    "text": TurnRule(send=("no json",), times=1),
    "array": TurnRule(send=("[1]",), times=1),
    "cut": TurnRule(send=('{"type":"response.created"',), times=1),
    "deep": TurnRule(send=("[" * 100_000,), times=1),
}


def test_what_is_no_event_is_a_protocol_fault(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (502, "upstream_protocol_error")
        assert stage.sent == ["work"]
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)
        again = await stage.turn(headers=session("s"))
        assert (again.status, again.types[-1]) == (200, "response.completed")

    run_each(FAULTS, lambda fault, folder: play(test, folder, fault), tmp_path)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_a_second_close_gives_up(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(**keyed(key))
        error = answer.error
        assert (answer.status, error["code"]) == (503, "upstream_unavailable")
        assert (error["type"], error["param"]) == ("server_error", None)
        assert answer.header("retry-after") == "1"
        assert answer.header("x-codexlb-attempts") == "2"
        assert stage.sent == ["work", "work" if key == "session" else "home"]

    run(test, tmp_path, TurnRule(close=1011))


@pytest.mark.parametrize("key", ["session", "cache"])
def test_a_key_that_gave_up_gets_no_replay_for_half_a_minute(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        waits = []
        for seconds in (0, 10, 10, 9):
            stage.clock.advance(seconds)
            answer = await stage.turn(model="bad", **keyed(key))
            assert answer.status == 503
            waits.append((answer.header("retry-after"), answer.header("x-codexlb-attempts")))
        assert waits == [("1", "2"), ("2", "1"), ("4", "1"), ("8", "1")]
        other = await stage.turn(model="once", **keyed(key, "another"))
        assert other.header("x-codexlb-attempts") == "2"
        completed = await stage.turn(**keyed(key))
        assert completed.status == 200
        after = await stage.turn(model="bad", **keyed(key))
        assert after.header("retry-after") == "1"
        assert after.header("x-codexlb-attempts") == "2"
        stage.clock.advance(30)
        later = await stage.turn(model="bad", **keyed(key))
        assert later.header("x-codexlb-attempts") == "2"

    run(
        test,
        tmp_path,
        TurnRule(model="bad", close=1012),
        TurnRule(model="once", close=1012, every=2),
    )


def test_retry_after_is_thirty_seconds_at_most(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        waits = [
            (await stage.turn(model="bad", headers=session("s"))).header("retry-after")
            for _ in range(7)
        ]
        assert waits == ["1", "2", "4", "8", "16", "30", "30"]

    run(test, tmp_path, TurnRule(model="bad", close=1012), names=["work"])


def test_a_conversation_never_stays_dead(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "work"
        for _ in range(3):
            answer = await stage.turn(model="bad", headers=session("s"))
            assert answer.error["code"] == "upstream_unavailable"
            assert answer.header("x-codexlb-account") == "work"
            stage.clock.advance(31)
        moved = await stage.turn(model="bad", headers=session("s"))
        assert (moved.status, moved.types[-1]) == (200, "response.completed")
        assert moved.header("x-codexlb-account") == "home"
        stays = await stage.turn(headers=session("s"))
        assert stays.header("x-codexlb-account") == "home"

    run(test, tmp_path, TurnRule(model="bad", account="work", close=1012))


def test_no_replay_where_the_configuration_forbids_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert stage.sent == ["work"]

    run(test, tmp_path, TurnRule(close=1011), more="[reconnect]\nreplays = 0")


TOOLS: list[dict[str, Any]] = [
    {"type": "mcp", "server_label": "x", "server_url": "https://example.com"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "computer_use_preview"},
    {"type": "shell"},
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: str(tool["type"]))
def test_a_tool_with_side_effects_is_not_set_off_twice(
    tmp_path: Path, tool: dict[str, Any]
) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(tools=[tool])
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert stage.sent == ["work"]

    run(test, tmp_path, TurnRule(close=1011))


def test_it_may_be_configured_to_be(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(tools=TOOLS)).status == 200
        assert stage.sent == ["work", "home"]

    more = "[reconnect]\nreplay_hosted_tools = true"
    run(test, tmp_path, TurnRule(close=1011, times=1), more=more)


def test_the_table_of_the_configuration(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        soft = await stage.turn(prompt_cache_key="k")
        assert (soft.status, soft.error["code"]) == (503, "upstream_unavailable")
        hard = await stage.turn(headers=session("s"))
        assert hard.status == 200
        assert [turn.outcome for turn in stage.mock.turns] == [
            "close 1011", "close 1011", "response.completed",
        ]  # fmt: skip
        assert stage.sent[1] == stage.sent[2]

    more = '[reconnect.close.1011]\nsoft = "give_up"'
    run(test, tmp_path, TurnRule(close=1011, times=2), more=more)


def test_silence_is_a_lost_transport(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(prompt_cache_key="k")
        assert (answer.status, answer.types[-1]) == (200, "response.completed")
        assert answer.header("x-codexlb-attempts") == "2"
        assert stage.sent == ["work", "work"]
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)

    run_virtually(test, tmp_path, TurnRule(silence=True, times=1))


def test_silence_without_end(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert stage.sent == ["work", "work"]

    run_virtually(test, tmp_path, TurnRule(silence=True))


def test_all_attempts_have_one_deadline(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(headers=session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert stage.sent == ["work"]
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)

    more = "[timeouts]\nfirst_event = 100\nbefore_first_event_total = 90"
    run_virtually(test, tmp_path, TurnRule(silence=True), more=more)


@pytest.mark.parametrize("key", ["session", "cache", "none"])
def test_four_parallel_turns_lose_no_text(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        texts = [f"turn {number} " + "word " * 40 for number in range(4)]
        for _ in range(2):  # on new sockets, then on kept ones
            answers = await asyncio.gather(
                *(stage.turn(input=text, **keyed(key)) for text in texts)
            )
            for text, answer in zip(texts, answers, strict=True):
                assert (answer.status, answer.types[-1]) == (200, "response.completed")
                assert answer.text == f"You said: {text}"
                assert answer.types.count("response.created") == 1
        assert stage.mock.overlaps == 0
        if key != "none":
            assert set(stage.sent) == {"work"}
            assert len(stage.mock.handshakes) <= 4

    run_virtually(test, tmp_path, TurnRule(delta_delay=1))


@pytest.mark.parametrize("key", ["session", "cache"])
def test_four_parallel_turns_whose_sockets_close(tmp_path: Path, key: str) -> None:
    async def test(stage: Stage) -> None:
        texts = [f"turn {number} " + "word " * 20 for number in range(4)]
        answers = await asyncio.gather(*(stage.turn(input=text, **keyed(key)) for text in texts))
        for text, answer in zip(texts, answers, strict=True):
            assert (answer.status, answer.types[-1]) == (200, "response.completed")
            assert answer.text == f"You said: {text}"
            assert answer.header("x-codexlb-attempts") == "2"
        assert stage.mock.overlaps == 0
        assert set(stage.sent) == ({"work"} if key == "session" else {"work", "home"})
        assert len(stage.sent) == 8

    # No replay overtakes a first try: all four are sent before any socket closes.
    closes = TurnRule(close=1011, times=4, fault_delay=1.0)
    run_virtually(test, tmp_path, closes, TurnRule(delta_delay=0.001))


def keyed(kind: str, value: str = "k") -> dict[str, Any]:
    """What makes a turn hard, soft or neither."""
    match kind:
        case "session":
            return {"headers": session(value)}
        case "cache":
            return {"prompt_cache_key": value}
    return {}


@pytest.mark.parametrize("soft", ["give_up", "another_account"])
def test_silence_follows_the_row_of_a_lost_transport(tmp_path: Path, soft: str) -> None:
    async def test(stage: Stage) -> None:
        for model in ("silent", "cut"):
            sent = len(stage.sent)
            answer = await stage.turn(model=model)
            expected = ["work"] if soft == "give_up" else ["work", "home"]
            assert stage.sent[sent:] == expected, model
            assert answer.status == (503 if soft == "give_up" else 200)
            stage.mock.turns.clear()
            await stage.command("accounts", "reset", "work")

    more = f'[reconnect.close.1006]\nsoft = "{soft}"\naccount = "neutral"\n'
    more += '[selection]\npolicy = "first"\n'
    silent = TurnRule(model="silent", account="work", silence=True)
    cut = TurnRule(model="cut", account="work", close=1006)
    run_virtually(test, tmp_path, silent, cut, more=more, names=["work", "home"])
