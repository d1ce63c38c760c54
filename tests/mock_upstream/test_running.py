from __future__ import annotations

import json
from urllib.request import Request, urlopen

import pytest

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.running import running_mock


def test_a_mock_in_a_thread_of_its_own() -> None:
    with running_mock(accounts={"work": "demo-key-work"}) as mock:
        body = json.dumps({"model": "mock", "input": "hello"}).encode()
        headers = {"authorization": "Bearer demo-key-work"}
        with urlopen(Request(f"{mock.base_url}/responses", body, headers)) as answer:
            assert json.load(answer)["metadata"] == {"account": "work"}
        mock.wait_for(lambda upstream: len(upstream.turns) == 1)
        with pytest.raises(TimeoutError):
            mock.wait_for(lambda upstream: len(upstream.turns) == 2, timeout=0.01)


def test_a_port_in_use() -> None:
    with running_mock() as mock, pytest.raises(ConfigError):  # noqa: SIM117
        with running_mock(port=mock.upstream.port):
            pass
