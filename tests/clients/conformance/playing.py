"""Plays a scenario against the upstream itself and through `codexlb serve`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.chatgpt import login
from tests.clients.conformance.comparing import RUN, Document, Played, neutral
from tests.clients.conformance.environments import CLIENTS
from tests.clients.conformance.scenario import Scenario
from tests.clients.running import KEYS, serving
from tests.clients.upstream import check_upstream
from tests.support.ports import free_port

CLIENT_KEY = "sk-client-LEAK"
"""The key of a person's client; through the gateway it must go nowhere."""
NOW = 1_767_225_600.0
"""What the mock's clock says, so that both runs see the same times."""

_DRIVER_SECONDS = 150


@dataclass(frozen=True)
class _Place:
    """Where a client is sent: to an upstream, or to a gateway before it."""

    base_url: str
    folder: Path
    mock: RunningMock


def play(scenario: Scenario, folder: Path) -> Played:
    """Return what the client saw of the upstream itself, and what it saw through the gateway."""
    # A ChatGPT login's credential is the access token that is made of the key.
    token = json.loads(login(CLIENT_KEY))["tokens"]["access_token"]
    key = token if scenario.login else CLIENT_KEY
    with ExitStack() as stack:
        places = [stack.enter_context(_upstream(scenario, key, folder / "direct"))]
        if scenario.hidden is not None:
            well = replace(scenario, rules=scenario.hidden)
            places.append(stack.enter_context(_upstream(well, key, folder / "basis")))
        places.append(stack.enter_context(_gateway(scenario, key, folder)))
        seen = _drive(scenario, places)
    return Played(seen[0], seen[-2], seen[-1])


@contextmanager
def _upstream(scenario: Scenario, key: str, folder: Path) -> Iterator[_Place]:
    with _mock(scenario, {"work": key}) as mock:
        yield _Place(_address(scenario, mock), folder, mock)


@contextmanager
def _gateway(scenario: Scenario, key: str, folder: Path) -> Iterator[_Place]:
    home = folder / "gateway"
    home.mkdir(parents=True)
    accounts, more = scenario.accounts, scenario.config
    with _mock(scenario, KEYS, strict=True) as mock:
        with serving(home, _address(scenario, mock), accounts=accounts, more=more) as gateway:
            yield _Place(gateway.base_url, folder / "client", mock)
        assert key not in gateway.log
        if mock.upstream.frames:
            check_upstream(mock.upstream, secret=key)


def _mock(
    scenario: Scenario, accounts: Mapping[str, str], *, strict: bool = False
) -> AbstractContextManager[RunningMock]:
    return running_mock(
        script=Script(scenario.rules),
        accounts=accounts,
        strict=strict,
        run=RUN,
        wall_clock=lambda: NOW,
    )


def _address(scenario: Scenario, mock: RunningMock) -> str:
    return f"http://127.0.0.1:{free_port()}/v1" if scenario.away else mock.base_url


def _drive(scenario: Scenario, places: Sequence[_Place]) -> list[Document]:
    """Run the driver; it prints what the client saw at each place, whatever the client did."""
    client = CLIENTS[scenario.client]
    task = {
        "action": scenario.action,
        "key": CLIENT_KEY,
        "transport": scenario.transport,
        "login": scenario.login,
        "options": dict(scenario.options),
    }
    for place in places:
        place.folder.mkdir(parents=True)
    # The key goes over stdin, since process arguments can be read by others.
    tasks = [task | {"base_url": p.base_url, "folder": str(p.folder)} for p in places]
    ran = subprocess.run(
        client.command(),
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        env=client.environment() | {"HOME": str(places[0].folder)},
        cwd=places[0].folder,
        timeout=_DRIVER_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"the driver failed:\n{ran.stderr}\n{ran.stdout}"
    told = json.loads(ran.stdout.splitlines()[-1])
    version = told["version"]
    assert version == client.version, f"{client.title} {version} is installed: make test-clients"
    return [
        _plain(seen, place) | _upstreams_view(scenario, place.mock)
        for seen, place in zip(told["seen"], places, strict=True)
    ]


def _plain(seen: Document, place: _Place) -> Document:
    names = {urlsplit(place.base_url).netloc: "HOST", str(place.folder): "FOLDER"}
    plain: Document = neutral(seen, names)
    return plain


def _upstreams_view(scenario: Scenario, mock: RunningMock) -> Document:
    """Return the turns that the upstream had, and over a WebSocket what they were asked."""
    mock.wait_for(lambda upstream: all(turn.outcome for turn in upstream.turns))
    view: Document = {"upstream": [turn.outcome for turn in mock.upstream.turns]}
    if scenario.transport == "WebSocket":
        frames = [frame.json for frame in mock.upstream.frames]
        view["frames"] = [_asked(frame) for frame in frames]
        # `stream` is of HTTP alone, and a lane has an upstream socket for itself.
        left_out = {"stream", "stream_id"}
        view["fields"] = sorted({name for frame in frames for name in frame} - left_out)
        metadata = (frame.get("client_metadata", {}) for frame in frames)
        view["metadata"] = sorted({name for names in metadata for name in names})
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
