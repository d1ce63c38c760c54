from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from codexlb_cli.signin.terminal import TypedLines, may_open_browser, no_lines


def lines_of(descriptor: int, most: int = 10) -> list[str | None]:
    async def main() -> list[str | None]:
        typed = TypedLines(descriptor)
        found: list[str | None] = []
        while len(found) < most:
            found.append(await typed())
            if found[-1] is None:
                found.append(await typed())
                break
        return found

    async def bounded() -> list[str | None]:
        async with asyncio.timeout(10):
            return await main()

    return asyncio.run(bounded())


def test_the_lines_of_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\r\n  two \n\xff\nlast")
    os.close(writer)
    assert lines_of(reader) == ["one", "two", "\ufffd", "last", None, None]
    os.close(reader)


def test_the_lines_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "typed"
    file.write_bytes(b"one\n")
    for path, expected in ((file, ["one", None, None]), (Path(os.devnull), [None, None])):
        with path.open("rb") as opened:
            assert lines_of(opened.fileno()) == expected


def test_a_descriptor_that_is_closed_has_no_lines() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert lines_of(reader) == [None, None]


def test_a_line_without_end_is_cut() -> None:
    reader, writer = os.pipe()

    async def main() -> str | None:
        typed = TypedLines(reader)
        reading = asyncio.create_task(typed())
        for _ in range(100):
            await asyncio.to_thread(os.write, writer, b"x" * 4096)
        await asyncio.to_thread(os.write, writer, b"\n")
        return await reading

    line = asyncio.run(main())
    assert line is not None
    assert len(line) <= 16 * 1024 + 4096
    os.close(writer)
    os.close(reader)


def test_nobody_types() -> None:
    assert asyncio.run(no_lines()) is None


@pytest.mark.parametrize(
    ("environ", "platform", "opens"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({"TERM": "xterm"}, "linux", False),
        ({"BROWSER": "firefox"}, "linux", True),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "darwin", False),
    ],
)
def test_where_a_browser_may_be_opened(environ: dict[str, str], platform: str, opens: bool) -> None:
    assert may_open_browser(environ, platform) is opens
