"""`codexlb serve` as a process: its start, its end, and that it survives being killed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.secrets import Secret
from tests.gateway.test_endings import assert_one_ending
from tests.support.cli import Cli
from tests.support.client import Exchange, connection, request, request_head
from tests.support.gateway import RESPONSES, Stage, run, session, turn_body
from tests.support.serving import serving

SLOW = TurnRule(model="slow", send=('{"type":"x"}',), when="streaming", fault_delay=2)
ENDLESS = TurnRule(model="endless", silence=True, when="streaming")


async def begin(exchange: Exchange, model: str) -> None:
    """Send a streamed turn, and read it until there is text."""
    body = turn_body({"model": model})
    lines = [("Host", "127.0.0.1"), ("Content-Length", str(len(body))), ("Connection", "close")]
    await exchange.send(request_head("POST", RESPONSES, lines) + body)
    await exchange.head()
    assert exchange.status == 200
    await exchange.until("response.output_text.delta")


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            answer = await request(program.port, "GET", "/healthz", [("Connection", "close")])
            assert answer.status == 200
            program.interrupt()
            assert await program.exit_code() == 130
        assert f"http://127.0.0.1:{program.port}/v1" in "\n".join(program.out)
        assert program.err[-1] == "stopped, no turn was running"

    run(test, tmp_path, serve=False)


def test_sigterm_ends_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            program.terminate()
            assert await program.exit_code() == 0

    run(test, tmp_path, serve=False)


@pytest.mark.parametrize("code", [130, 0])
def test_a_running_turn_completes(tmp_path: Path, code: int) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            async with connection(program.port) as exchange:
                await begin(exchange, "slow")
                (program.interrupt if code else program.terminate)()
                await program.until(program.err, "stopping when 1 turn is done")
                answer = await exchange.answer()
                assert answer.complete
                assert answer.types[-1] == "response.completed"
            assert await program.exit_code() == code
            assert program.err[-1] == "stopped"
        assert [turn.outcome for turn in stage.mock.turns] == ["response.completed"]

    run(test, tmp_path, SLOW, serve=False)


def test_a_turn_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            async with connection(program.port) as exchange:
                await begin(exchange, "endless")
                program.terminate()
                answer = await exchange.answer()
                assert answer.complete
                (last,) = answer.events
                assert last.data["type"] == "error"
                assert last.data["code"] == "upstream_closed"
            assert await program.exit_code() == 0
        await stage.mock.wait_for(lambda mock: mock.handshakes[0].ended is not None)

    run(test, tmp_path, ENDLESS, more="[timeouts]\ndrain = 0.3", serve=False)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            async with connection(program.port) as exchange:
                await begin(exchange, "endless")
                program.interrupt()
                await program.until(program.err, "Ctrl-C again to end now")
                program.interrupt()
                assert (await exchange.answer()).types == ["error"]
            assert await program.exit_code() == 130

    run(test, tmp_path, ENDLESS, more="[timeouts]\ndrain = 600", serve=False)


def test_it_survives_being_killed(tmp_path: Path) -> None:
    """A session's owner is on disk once the client has its answer."""

    async def test(stage: Stage) -> None:
        body = turn_body({})
        for account in ("work", "work"):
            async with serving(stage.cli, **stage.environ) as program:
                lines = [*session("s"), ("Content-Length", str(len(body))), ("Connection", "close")]
                if stage.mock.turns:  # so that `work` is not the next in turn anyway
                    other = [("Content-Length", str(len(body))), ("Connection", "close")]
                    await request(program.port, "POST", RESPONSES, other, body)
                answer = await request(program.port, "POST", RESPONSES, lines, body)
                assert answer.header("x-codexlb-account") == account
                program.process.kill()
                assert await program.exit_code() == -9

    run(test, tmp_path, serve=False)


def test_a_port_in_use(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            port = held.getsockname()[1]
            ran = await stage.command("serve", "--port", str(port))
        assert (ran.returncode, ran.stdout) == (3, b"")
        message, blank, hint = ran.stderr.decode().splitlines()
        assert message == f"error: port {port} is in use"
        assert (blank, hint.split(":")[0]) == ("", "hint")

    run(test, tmp_path, serve=False)


def test_a_broken_configuration(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.config_file.write_text("[gateway]\nport = true\n")
        ran = await stage.command("serve")
        assert (ran.returncode, ran.stdout) == (3, b"")
        assert ran.stderr.decode().startswith("error: `gateway.port` in `config.toml` must be")

    run(test, tmp_path, serve=False)


def test_without_accounts_it_starts_and_says_so(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli) as program:
            await program.until(program.err, "accounts add")
            assert any(line.startswith("warning: no account") for line in program.err)
            ready = await request(program.port, "GET", "/readyz", [("Connection", "close")])
            assert ready.status == 503
            program.interrupt()
            assert await program.exit_code() == 130

    run(test, tmp_path, names=[], serve=False)


def test_a_broken_edit_warns_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            stage.config_file.write_text("[gateway]\nprot = 1\n")
            for _ in range(3):
                body = turn_body({})
                lines = [("Content-Length", str(len(body))), ("Connection", "close")]
                answer = await request(program.port, "POST", RESPONSES, lines, body)
                assert_one_ending(answer.events)
            program.terminate()
            assert await program.exit_code() == 0
        warnings = [line for line in program.err if line.startswith("warning:")]
        assert len(warnings) == 1
        assert "`gateway.prot`" in warnings[0]

    run(test, tmp_path, serve=False)


def test_a_line_for_every_request(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with serving(stage.cli, **stage.environ) as program:
            for model in ("mock", "mock-close-1011"):
                body = turn_body({"model": model})
                lines = [*session("s"), ("Content-Length", str(len(body))), ("Connection", "close")]
                await request(program.port, "POST", RESPONSES, lines, body)
            program.terminate()
            assert await program.exit_code() == 0
        header, first, second, *more = program.err
        assert header.split() == [
            "TIME", "STATUS", "ACCOUNT", "AFFINITY", "FIRST", "TOTAL", "OUTCOME",
        ]  # fmt: skip
        assert first.split()[1:4] == ["200", "work", "hard"]
        assert first.endswith("response.completed")
        told = " ".join([second, *more])
        assert " ".join(told.split()).endswith(
            "response.completed, 2 attempts: 1011, replayed on work (owner)"
            " stopped, no turn was running"
        )
        assert all(len(line) < 100 for line in program.err)

    run(test, tmp_path, serve=False)


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_credentials_file_that_others_can_use_is_refused_at_the_start(
    tmp_path: Path, mode: int
) -> None:
    cli = Cli(tmp_path)
    cli.configure("[accounts.work]\n")
    credentials = Credentials(cli.state_folder, {})
    credentials.store("work", Secret("sk-test"))
    credentials.file.chmod(mode)
    for command in (("serve", "--port", "1"), ("accounts", "list")):
        ran = cli.spawn(*command)
        assert (ran.returncode, ran.stdout) == (3, b"")
        assert ran.stderr.decode() == (
            f"error: `{credentials.file}` can be used by others (mode {mode:04o})\n\n"
            f"hint: chmod 600 {credentials.file}\n"
        )
