"""What survives a restart, and the command line beside a running gateway."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from tests.gateway.test_closes import keyed
from tests.support.gateway import Stage, run, session

LIMITED = HandshakeRule(account="work", times=1, status=429, headers={"retry-after": "600"})


async def states(stage: Stage) -> dict[str, tuple[str, str | None]]:
    """What `accounts list` says of each account."""
    ran = await stage.command("accounts", "list", "--json")
    assert (ran.returncode, ran.stderr) == (0, b"")
    return {a["name"]: (a["state"], a["reason"]) for a in json.loads(ran.stdout)["accounts"]}


def owners(stage: Stage) -> dict[str, str]:
    """The owner rows on disk, by key."""
    with sqlite3.connect(stage.state_folder / "state.sqlite3") as connection:
        rows = connection.execute("SELECT key, account FROM owners").fetchall()
    connection.close()
    return dict(rows)


def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        kinds = {"s1": "session", "k1": "cache", "s2": "session"}
        async with stage.serving():
            homes = {
                value: (await stage.turn(**keyed(kind, value))).header("x-codexlb-account")
                for value, kind in kinds.items()
            }
        assert homes == {"s1": "work", "k1": "home", "s2": "spare"}
        async with stage.serving():
            for value in reversed(kinds):
                answer = await stage.turn(**keyed(kinds[value], value))
                assert answer.header("x-codexlb-account") == homes[value]
        async with stage.serving():
            closed = await stage.turn(model="mock-close-1011", headers=session("s2"))
            assert closed.header("x-codexlb-account") == "spare"
            assert closed.header("x-codexlb-attempts") == "2"

    run(test, tmp_path, serve=False)


def test_an_owner_is_on_disk_before_the_client_has_its_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for number in range(5):
            key = f"s{number}"
            async with stage.streaming(headers=session(key)) as exchange:
                await exchange.head()
                await exchange.until("response.completed")
                assert key in owners(stage)
        assert (await stage.turn(stream=False, headers=session("whole"))).status == 200
        assert "whole" in owners(stage)

    run(test, tmp_path)


def test_a_session_that_moved_stays_moved_after_a_restart(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "work"
            lines = [*session("s"), ("originator", "another")]  # needs another socket
            assert (await stage.turn(headers=lines)).header("x-codexlb-account") == "home"
        stage.clock.advance(3600)
        async with stage.serving():
            assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "home"

    run(test, tmp_path, LIMITED.model_copy(update={"skip": 1}), serve=False)


def test_limits_survive_a_restart_and_are_seen(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert (await stage.turn()).header("x-codexlb-account") == "home"
        assert await states(stage) == {
            "work": ("limited", "rate_limit_exceeded"),
            "home": ("ready", None),
            "spare": ("ready", None),
        }
        ran = await stage.command("accounts", "show", "work", "--json")
        assert json.loads(ran.stdout)["account"]["until"]
        async with stage.serving():
            for _ in range(4):
                assert (await stage.turn()).header("x-codexlb-account") != "work"
            assert stage.dialled.count("work") == 1
            stage.clock.advance(601)
            assert (await stage.turn()).header("x-codexlb-account") == "work"

    run(test, tmp_path, LIMITED, serve=False)


def test_cooldowns_survive_a_restart_and_are_seen(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            assert (await stage.turn()).header("x-codexlb-account") == "home"
            seen = await states(stage)
        assert seen["work"] == ("cooling_down", "policy_violation")
        async with stage.serving():
            served = [(await stage.turn()).header("x-codexlb-account") for _ in range(4)]
            assert "work" not in served
            stage.clock.advance(31)
            assert (await stage.turn()).header("x-codexlb-account") == "work"
            assert (await states(stage))["work"] == ("ready", None)

    run(test, tmp_path, TurnRule(close=1008, times=1), serve=False)


def test_three_counted_closes_cool_and_a_completed_turn_clears_them(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async def cooling() -> bool:
            return bool((await stage.get("/readyz")).json["accounts"]["work"] == "cooling_down")

        for _ in range(2):
            await stage.turn(model="bad", headers=session("s"))
        assert await cooling()  # two turns, with a replay in the first: three closes
        stage.clock.advance(31)
        assert not await cooling()
        assert (await stage.turn(headers=session("s"))).status == 200
        await stage.turn(model="bad", headers=session("s"))
        assert not await cooling()

    run(test, tmp_path, TurnRule(model="bad", close=1006))


def test_reset_takes_effect_at_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn()).status == 429
        ran = await stage.command("accounts", "reset", "work")
        assert ran.returncode == 0
        answer = await stage.turn()
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")
        assert await states(stage) == {"work": ("ready", None)}

    run(test, tmp_path, LIMITED, names=["work"])


def test_a_refused_key_is_asked_again_after_a_reset_or_a_change(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.environ["WORK_KEY"] = "sk-refused"
        for _ in range(3):
            assert (await stage.turn()).header("x-codexlb-account") == "home"
        assert stage.dialled.count("nobody") == 1
        ran = await stage.command("accounts", "list", "--json")
        assert json.loads(ran.stdout)["accounts"][0]["state"] == "needs_login"
        assert (await stage.command("accounts", "reset", "work")).returncode == 0
        assert (await stage.turn()).header("x-codexlb-account") == "home"
        assert stage.dialled.count("nobody") == 2
        stage.environ["WORK_KEY"] = "sk-test-work"
        assert (await stage.turn()).header("x-codexlb-account") == "work"

    run(test, tmp_path, names=["work", "home"])


def test_disable_and_enable_take_effect_at_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "work"
        assert (await stage.command("accounts", "disable", "work")).returncode == 0
        for _ in range(3):
            assert (await stage.turn()).header("x-codexlb-account") == "home"
        moved = await stage.turn(headers=session("s"))
        assert moved.header("x-codexlb-account") == "home"
        assert (await stage.get("/readyz")).json["accounts"]["work"] == "disabled"
        assert (await stage.command("accounts", "disable", "home")).returncode == 0
        assert (await stage.turn()).error["code"] == "no_accounts"
        assert (await stage.command("accounts", "enable", "work")).returncode == 0
        assert (await stage.turn()).header("x-codexlb-account") == "work"
        assert stage.warnings == []

    run(test, tmp_path, names=["work", "home"])


def test_an_account_that_is_added(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        url = stage.urls["work"]
        arguments = ["--api-key-env", "HOME_KEY", "--base-url", url]
        assert (await stage.command("accounts", "disable", "work")).returncode == 0
        assert (await stage.command("accounts", "add", "another", *arguments)).returncode == 0
        answer = await stage.turn()
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "another")
        assert stage.sent == ["home"]  # its key is that of `home`

    run(test, tmp_path, names=["work", "home"], accounts={"home": "enabled = false"})


def test_an_account_that_is_gone(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        first = await stage.turn(headers=session("s"))
        assert first.header("x-codexlb-account") == "work"
        text = stage.config_file.read_text()
        stage.config_file.write_text("[accounts.home]" + text.split("[accounts.home]")[1])
        pinned: dict[str, Any] = {"conversation": "conv_1"}
        answer = await stage.turn(headers=session("s"), **pinned)
        assert (answer.status, answer.error["code"]) == (503, "owner_unavailable")
        assert "`work`" in answer.error["message"]
        assert answer.header("retry-after") is None
        moved = await stage.turn(headers=session("s"))
        assert (moved.status, moved.header("x-codexlb-account")) == (200, "home")

    run(test, tmp_path, names=["work", "home"])


def test_a_broken_edit_keeps_the_old_configuration_and_warns_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        good = stage.config_file.read_text()
        stage.config_file.write_text(good + "\n[limits]\nrequest_bytes = -1\n")
        for _ in range(3):
            assert (await stage.turn(input="x" * 500)).status == 200
        assert len(stage.warnings) == 1
        assert "`limits.request_bytes`" in stage.warnings[0]
        stage.config_file.write_text(good + "\nnonsense")
        for _ in range(2):
            assert (await stage.turn()).status == 200
        assert len(stage.warnings) == 2
        stage.config_file.write_text(good + "\n[limits]\nrequest_bytes = 100\n")
        assert (await stage.turn(input="x" * 500)).error["code"] == "request_too_large"
        stage.config_file.unlink()
        assert (await stage.turn()).error["code"] == "no_accounts"
        stage.config_file.write_text(good)
        assert (await stage.turn()).status == 200
        assert len(stage.warnings) == 2

    run(test, tmp_path)


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.state_folder.mkdir(parents=True)
        database = stage.state_folder / "state.sqlite3"
        database.write_bytes(b"this is no database, and stays as it is" * 100)
        before = database.read_bytes()
        async with stage.serving():
            for _ in range(2):
                answer = await stage.turn(headers=session("s"))
                assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")
        assert len(stage.warnings) == 1
        assert "state.sqlite3" in stage.warnings[0]
        assert database.read_bytes() == before

    run(test, tmp_path, serve=False)


def test_a_database_of_a_newer_program(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.state_folder.mkdir(parents=True)
        with sqlite3.connect(stage.state_folder / "state.sqlite3") as connection:
            connection.execute("PRAGMA user_version = 99")
            connection.execute("CREATE TABLE owners (something TEXT)")
        connection.close()
        async with stage.serving():
            assert (await stage.turn(headers=session("s"))).status == 200
        assert len(stage.warnings) == 1

    run(test, tmp_path, serve=False)
