"""The models of an account, as rules say them."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.rules import ErrorSpec, ModelsRule
from codexlb_cli.mock_upstream.scenario import parse_scenario
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import ACCOUNTS, run


async def get(mock: MockUpstream, path: str, account: str = "work") -> httpx2.Response:
    headers = {"authorization": f"Bearer {ACCOUNTS[account]}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
        return await client.get(f"{mock.base_url}{path}", timeout=5)


def ids(answer: httpx2.Response) -> list[str]:
    return [model["id"] for model in answer.json()["data"]]


def test_accounts_have_models_of_their_own() -> None:
    async def test(mock: MockUpstream) -> None:
        work, home = await get(mock, "/models"), await get(mock, "/models", "home")
        assert (ids(work), work.headers["etag"]) == (["a", "b/c"], '"w"')
        assert "mock" in ids(home)
        assert "etag" not in home.headers
        codex = await get(mock, "/models?client_version=0.169.0")
        assert [model["slug"] for model in codex.json()["models"]] == ["a", "b/c"]
        assert (await get(mock, "/models/b/c")).json()["id"] == "b/c"
        unknown = await get(mock, "/models/mock")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")

    run(test, ModelsRule(account="work", models=("a", "b/c"), etag='"w"'))


def test_an_account_without_a_catalogue() -> None:
    async def test(mock: MockUpstream) -> None:
        assert ids(await get(mock, "/models?client_version=0.169.0")) == ["a"]

    run(test, ModelsRule(models=("a",), catalogue=False))


def test_refusals() -> None:
    async def test(mock: MockUpstream) -> None:
        first, second = await get(mock, "/models"), await get(mock, "/models/a")
        assert (first.status_code, first.json()["error"]["code"]) == (403, "no")
        assert (second.status_code, second.text) == (503, "<html>")
        with pytest.raises(httpx2.RemoteProtocolError):
            await get(mock, "/models")
        assert (await get(mock, "/models")).status_code == 200

    run(
        test,
        ModelsRule(times=1, status=403, error=ErrorSpec(code="no")),
        ModelsRule(times=1, status=503, body="<html>"),
        ModelsRule(times=1, cut=True),
        ModelsRule(delay=0.01),
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"silence": True, "cut": True},
        {"body": "x"},
        {"etag": "a\nb"},
        {"etag": "ü"},
        {"model": "a"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelsRule.model_validate(keys)


def test_a_scenario_may_say_it() -> None:
    text = '[[upstream]]\non = "models"\naccount = "work"\nmodels = ["a"]\n'
    assert parse_scenario(text, "f.toml").rules == (ModelsRule(account="work", models=("a",)),)
    with pytest.raises(ConfigError, match="`model` in"):
        parse_scenario('[[upstream]]\non = "models"\nmodel = "a"\n', "f.toml")
