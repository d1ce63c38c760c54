"""A headless Chromium, driven over WebDriver (W3C) by its chromedriver."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver") or shutil.which("chromium.chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever a page or the browser itself asks for: nothing leaves this computer.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's id, by the standard."""


class Browser:
    """One session of a browser."""

    def __init__(self, http: httpx2.Client, session: str) -> None:
        self._http = http
        self._session = session

    def go(self, url: str) -> None:
        """Open a page, and wait until it is there."""
        self._post("url", {"url": url})

    def click(self, selector: str) -> None:
        """Click what a CSS selector names."""
        self._post(f"element/{self._element(selector)}/click", {})

    def until(self, heading: str) -> None:
        """Wait until the page with this heading is there."""
        self._post("element", {"using": "xpath", "value": f"//h1[text()='{heading}']"})

    def text(self, selector: str) -> str:
        """Return the visible text of what a CSS selector names."""
        found = self._get(f"element/{self._element(selector)}/text")
        assert isinstance(found, str)
        return found

    def write(self, selector: str, text: str) -> None:
        """Type into what a CSS selector names."""
        self._post(f"element/{self._element(selector)}/value", {"text": text})

    @property
    def url(self) -> str:
        """The address of the page."""
        found = self._get("url")
        assert isinstance(found, str)
        return found

    def close(self) -> None:
        """End the session, and the browser with it."""
        _value(self._http.delete(f"/session/{self._session}"))

    def _element(self, selector: str) -> str:
        found = self._post("element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def _post(self, path: str, document: dict[str, object]) -> Any:
        return _value(self._http.post(f"/session/{self._session}/{path}", json=document))

    def _get(self, path: str) -> Any:
        return _value(self._http.get(f"/session/{self._session}/{path}"))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Run a browser with an empty profile in the folder `profile`."""
    assert DRIVER is not None
    driver = subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        url = f"http://127.0.0.1:{_port(driver)}"
        with httpx2.Client(base_url=url, trust_env=False, timeout=60) as http:
            made = _value(http.post("/session", json={"capabilities": _capabilities(profile)}))
            browser = Browser(http, str(made["sessionId"]))
            try:
                yield browser
            finally:
                browser.close()
    finally:
        driver.terminate()
        driver.wait(30)
        if driver.stdout is not None:
            driver.stdout.close()


def _capabilities(profile: Path) -> dict[str, object]:
    options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
    return {
        "alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"implicit": 10_000}},
    }


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return int(found[1])
    raise AssertionError(f"{DRIVER} did not start")


def _value(answer: httpx2.Response) -> Any:
    document = answer.json()
    assert answer.status_code == 200, document
    return document["value"]
