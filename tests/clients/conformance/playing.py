"""Plays a scenario against the upstream itself and through `codexlb serve`."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.conformance.comparing import Document, neutral
from tests.clients.conformance.environments import CLIENTS
from tests.clients.conformance.scenario import Scenario
from tests.clients.running import KEYS, serving
from tests.clients.upstream import check_upstream
from tests.support.ports import free_port

CLIENT_KEY = "sk-client-LEAK"
"""The key of a person's client; through the gateway it must go nowhere."""
NOW = 1_767_225_600.0
"""What the mock's clock says, so that both runs see the same times."""

_RUN = "c0ffee"
_DRIVER_SECONDS = 100


def fabricated_token() -> str:
    """Return an access token of a ChatGPT login that no issuer has made: without a signature."""
    claims = {
        "email": "ada@example.com",
        "exp": 4_102_444_800,
        "https://api.openai.com/auth": {
            "chatgpt_plan_type": "plus",
            "chatgpt_user_id": "user-LEAK",
            "chatgpt_account_id": "acct-ada",
        },
    }
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
    return ".".join([*encoded, "LEAK"])


def play(scenario: Scenario, folder: Path) -> tuple[Document, Document]:
    """Return what the client saw of the upstream itself, and what it saw through the gateway."""
    key = fabricated_token() if scenario.login else CLIENT_KEY
    with _upstream(scenario, {"work": key}) as (mock, base_url):
        direct = _drive(scenario, base_url, key, folder / "direct")
        direct |= _upstreams_view(scenario, mock)
    home = folder / "gateway"
    home.mkdir(parents=True)
    with _upstream(scenario, KEYS, strict=True) as (mock, base_url):
        accounts, more = scenario.accounts, scenario.config
        with serving(home, base_url, accounts=accounts, more=more) as gateway:
            through = _drive(scenario, gateway.base_url, key, folder / "client")
            through |= _upstreams_view(scenario, mock)
        assert key not in gateway.log
        if mock.upstream.frames:
            check_upstream(mock.upstream, secret=key)
    return direct, through


@contextmanager
def _upstream(
    scenario: Scenario, accounts: Mapping[str, str], *, strict: bool = False
) -> Iterator[tuple[RunningMock, str]]:
    script = Script(scenario.rules)
    with running_mock(
        script=script, accounts=accounts, strict=strict, run=_RUN, wall_clock=lambda: NOW
    ) as mock:
        away = f"http://127.0.0.1:{free_port()}/v1"
        yield mock, away if scenario.away else mock.base_url


def _drive(scenario: Scenario, base_url: str, key: str, folder: Path) -> Document:
    """Run the driver; it prints one JSON document, whatever the client did."""
    client = CLIENTS[scenario.client]
    folder.mkdir(parents=True)
    # The key goes over stdin, since process arguments can be read by others.
    task = {
        "action": scenario.action,
        "base_url": base_url,
        "key": key,
        "transport": scenario.transport,
        "login": scenario.login,
        "options": dict(scenario.options),
    }
    ran = subprocess.run(
        client.command(),
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=client.environment() | {"HOME": str(folder)},
        cwd=folder,
        timeout=_DRIVER_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"the driver failed:\n{ran.stderr}\n{ran.stdout}"
    seen = json.loads(ran.stdout.splitlines()[-1])
    version = seen.pop("version")
    assert version == client.version, f"{client.title} {version} is installed: make test-clients"
    names = {urlsplit(base_url).netloc: "HOST", str(folder): "FOLDER"}
    plain: Document = neutral(seen, names)
    return plain


def _upstreams_view(scenario: Scenario, mock: RunningMock) -> Document:
    """Return the turns that the upstream had, and over a WebSocket what they were asked."""
    mock.wait_for(lambda upstream: all(turn.outcome for turn in upstream.turns))
    view: Document = {"turns": [turn.outcome for turn in mock.upstream.turns]}
    if scenario.transport == "WebSocket":
        view["frames"] = [_asked(frame.json) for frame in mock.upstream.frames]
    return view


def _asked(frame: Any) -> Document:
    items = frame.get("input", [])
    kinds = [items] if isinstance(items, str) else [i.get("type", "message") for i in items]
    return {
        "type": frame["type"],
        "continues": frame.get("previous_response_id"),
        "input": kinds,
        "warm_up": frame.get("generate") is False,
    }
