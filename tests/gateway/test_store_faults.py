"""A database that locks, fills up, breaks or goes away costs one warning and no request."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from codexlb_cli.core.affinity import Key
from codexlb_cli.mock_upstream.rules import TurnRule
from codexlb_cli.store.database import database_path, open_for_writing, tell_gateway
from codexlb_cli.store.owner_rows import Selection, read_rows
from codexlb_cli.store.owners import write_owner
from codexlb_cli.store.running import AGAIN_SECONDS
from tests.gateway.test_state import owners
from tests.support.client import connection, request, request_head
from tests.support.gateway import RESPONSES, Stage, play, run, run_each, session, turn_body
from tests.support.serving import Program, serving

HOMES = {"s1": "work", "s2": "home", "s3": "spare"}
"""First turns go to the account that was least recently chosen."""
Fault = Callable[[Stage], AbstractAsyncContextManager[None]]


async def served(stage: Stage, key: str) -> str | None:
    answer = await stage.turn(headers=session(key))
    assert (answer.status, answer.types[-1]) == (200, "response.completed")
    return answer.header("x-codexlb-account")


def database(stage: Stage) -> Path:
    return database_path(stage.state_folder)


def remove_database(stage: Stage) -> None:
    for path in stage.state_folder.glob("state.sqlite3*"):
        path.unlink()


def damage(change: Callable[[Path], None]) -> Fault:
    """A fault that changes the file, and is over when the file is removed."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        if database(stage).exists():
            with closing(sqlite3.connect(database(stage))) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            with closing(open_for_writing(database(stage))) as connection, connection:
                for number in range(200):
                    write_owner(Key("session", f"{number}"), "work", stage.clock())(connection)
        change(database(stage))
        yield
        remove_database(stage)

    return fault


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(stage: Stage) -> AsyncIterator[None]:
    """Another process holds the lock."""
    stage.state_folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(database(stage)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    yield
    await process.communicate(b"")


@asynccontextmanager
async def deleted(stage: Stage) -> AsyncIterator[None]:
    if stage.state_folder.exists():
        shutil.rmtree(stage.state_folder)
    yield


@asynccontextmanager
async def a_folder_in_its_place(stage: Stage) -> AsyncIterator[None]:
    if stage.state_folder.exists():
        remove_database(stage)
    database(stage).mkdir(parents=True)
    yield
    database(stage).rmdir()


FAULTS: dict[str, Fault] = {
    "overwritten in the middle": damage(overwrite),
    "truncated": damage(lambda path: os.truncate(path, 5000)),
    "emptied": damage(lambda path: os.truncate(path, 0)),
    "no database": damage(no_database),
    "locked": locked,
    "deleted": deleted,
    "a folder": a_folder_in_its_place,
}


async def again(stage: Stage) -> None:
    """Let the database be tried again, and wait until what was queued by then is settled."""
    stage.clock.advance(AGAIN_SECONDS + 1)
    for key in HOMES:
        await served(stage, key)
    written = stage.gateway.store.submit(lambda _connection: None)
    await asyncio.wrap_future(written)


def assert_one_warning(stage: Stage) -> None:
    (warning,) = stage.warnings
    assert f"`{database(stage)}`" in warning
    assert "may not survive a restart" in warning


def test_while_the_gateway_runs(tmp_path: Path) -> None:
    async def one(fault: Fault, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            assert [await served(stage, key) for key in ("s1", "s2")] == ["work", "home"]
            tell_gateway(stage.state_folder, stage.clock())
            assert await served(stage, "s1") == "work"
            async with fault(stage):
                assert await served(stage, "s3") == "spare"
                for key, home in [*HOMES.items()] * 3:
                    assert await served(stage, key) == home
            await again(stage)
            await again(stage)
            assert {key: owners(stage).get(key) for key in HOMES} == HOMES
            assert [await served(stage, key) for key in HOMES] == list(HOMES.values())
            assert_one_warning(stage)

        await play(test, folder)

    run_each(FAULTS, one, tmp_path)


def test_from_the_start(tmp_path: Path) -> None:
    faults = {n: f for n, f in FAULTS.items() if n not in ("deleted", "emptied")}

    async def one(fault: Fault, folder: Path) -> None:
        async def test(stage: Stage) -> None:
            async with fault(stage), stage.serving():
                for key, home in [*HOMES.items()] * 3:
                    assert await served(stage, key) == home
                assert_one_warning(stage)

        await play(test, folder, serve=False)

    run_each(faults, one, tmp_path)


# A process of its own


async def ask(program: Program, key: str) -> str | None:
    body = turn_body({})
    lines = [*session(key), ("Content-Length", str(len(body))), ("Connection", "close")]
    answer = await request(program.port, "POST", RESPONSES, lines, body)
    assert (answer.status, answer.types[-1]) == (200, "response.completed")
    return answer.header("x-codexlb-account")


def warned(program: Program) -> list[str]:
    return [line for line in program.err if line.startswith("warning: ")]


def test_a_full_disk(tmp_path: Path) -> None:
    limit = ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh"]  # blocks of 512 or 1024 bytes

    async def test(stage: Stage) -> None:
        # Python would cache its modules cut off at the limit.
        environ = {**stage.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        async with serving(stage.cli, wrapper=limit, **environ) as program:
            for number in range(20):
                assert await ask(program, f"first {number}") in HOMES.values()
            homes = {f"s{number}": await ask(program, f"s{number}") for number in range(9)}
            for key, home in homes.items():
                assert await ask(program, key) == home
            program.terminate()
            assert await program.exit_code() == 0
        (warning,) = warned(program)
        assert f"`{database(stage)}` cannot be written (" in warning

    run(test, tmp_path, serve=False)


def _without_rights() -> list[str]:
    """Return a command that runs another one without the right to ignore permissions."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("known", [False, True])
def test_a_folder_that_cannot_be_written(tmp_path: Path, known: bool) -> None:
    wrapper = _without_rights()

    async def test(stage: Stage) -> None:
        stage.state_folder.mkdir(parents=True)
        if known:
            with closing(open_for_writing(database(stage))) as connection, connection:
                write_owner(Key("session", "before"), "spare", stage.clock())(connection)
            database(stage).chmod(0o400)
        stage.state_folder.chmod(0o500)
        try:
            async with serving(stage.cli, wrapper=wrapper, **stage.environ) as program:
                if known:
                    assert await ask(program, "before") == "spare"
                homes = {key: await ask(program, key) for key in HOMES}
                assert len(set(homes.values())) == 3
                for key, home in homes.items():
                    assert await ask(program, key) == home
            (warning,) = warned(program)
            assert f"`{database(stage)}` cannot be written (" in warning
        finally:
            stage.state_folder.chmod(0o700)

    run(test, tmp_path, serve=False)


def sessions(stage: Stage) -> dict[str, str]:
    rows = read_rows(stage.state_folder, Selection(("session",)), stage.clock())
    return {row.key.value: row.account for row in rows}


async def killed_while_it_streams(stage: Stage, program: Program, key: str) -> None:
    """Kill the gateway when output has come and the owner is on disk."""
    body = turn_body({"model": "slow"})
    lines: Sequence[tuple[str, str]] = [
        ("Host", f"127.0.0.1:{program.port}"),
        *session(key),
        ("Content-Length", str(len(body))),
    ]
    async with connection(program.port) as exchange:
        await exchange.send(request_head("POST", RESPONSES, lines) + body)
        await exchange.head()
        await exchange.until("response.output_text.delta")
        while key not in sessions(stage):
            await exchange.event()
        program.kill()
        await program.process.wait()


def test_owners_survive_a_kill_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    slow = TurnRule(model="slow", deltas=10_000, delta_delay=0.002)

    async def test(stage: Stage) -> None:
        homes: dict[str, str | None] = {}
        for number in range(4):
            async with serving(stage.cli, **stage.environ) as program:
                for key, home in homes.items():
                    assert await ask(program, key) == home
                key = f"s{number}"
                await killed_while_it_streams(stage, program, key)
            homes[key] = sessions(stage)[key]
            with closing(sqlite3.connect(database(stage))) as checked:
                assert checked.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert stage.sent[-1] == homes["s3"]
        assert warned(program) == []

    run(test, tmp_path, slow, serve=False)
