"""Sign-in with a real browser: what the person sees, and where it leads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.script import Script
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.clients.chromium import CHROMIUM, DRIVER, Browser, chromium
from tests.support.cli import Cli
from tests.support.signing import Signing, nothing_is_kept, signing, stored, variables

if "TEST_BROWSER" not in os.environ:
    pytest.skip("needs a browser: make test-browser", allow_module_level=True)

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="chromium and chromedriver are not here; Debian: apt install chromium-driver",
    ),
    pytest.mark.timeout(180),
]

Visit = Callable[[Browser], None]


async def visited(folder: Path, visit: Visit) -> None:
    """Let a browser with an empty profile visit something."""

    def run() -> None:
        with chromium(folder / "profile") as browser:
            visit(browser)

    await asyncio.to_thread(run)


def play(
    folder: Path, way: str, visit: Callable[[Browser, str], None], *rules: IssuerRule
) -> tuple[int, str]:
    """Sign in with a browser; return the exit code of the program and what it said."""

    async def main() -> tuple[int, str]:
        async with MockUpstream(script=Script(rules)) as mock:
            cli = Cli(folder)
            given = variables(mock)
            async with signing(cli, "accounts", "add", "work", way, **given) as it:
                page = await page_of(it, way)
                await visited(folder, lambda browser: visit(browser, page))
                code, out, err = await it.ended()
                assert out == []
                return code, err

    return asyncio.run(main())


async def page_of(it: Signing, way: str) -> str:
    url = await it.url()
    return f"{url}?user_code={await it.user_code()}" if way == "--device" else url


def test_a_person_signs_in(tmp_path: Path) -> None:
    def visit(browser: Browser, page: str) -> None:
        browser.go(page)
        browser.until("Mock sign-in")
        browser.click("#approve")
        browser.until("Signed in")
        assert "go back to the terminal" in browser.text("p")
        assert "/auth/callback?code=" in browser.url

    code, err = play(tmp_path, "--login", visit)
    assert (code, err.splitlines()[-1]) == (0, "work: signed in as ada@example.com, plan plus")
    assert stored(Cli(tmp_path), "work") is not None


def test_a_person_says_no(tmp_path: Path) -> None:
    def visit(browser: Browser, page: str) -> None:
        browser.go(page)
        browser.click("#approve")
        browser.until("Not signed in")

    code, err = play(tmp_path, "--login", visit, IssuerRule(on="authorize", deny=True))
    assert code == 4
    assert "error: the sign-in was refused" in err
    assert nothing_is_kept(Cli(tmp_path))


def test_a_person_enters_a_code(tmp_path: Path) -> None:
    def visit(browser: Browser, page: str) -> None:
        url, _, code = page.partition("?user_code=")
        browser.go(url)
        browser.write("#user_code", code)
        browser.click("#approve")
        browser.until("Signed in")

    code, err = play(tmp_path, "--device", visit, IssuerRule(on="usercode", interval="0.2"))
    assert (code, err.splitlines()[-1]) == (0, "work: signed in as ada@example.com, plan plus")
