"""Everything that is not a turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from codexlb_cli.core.usage import TurnRecord
from codexlb_cli.gateway.app import build_rest
from codexlb_cli.gateway.http import Responses
from codexlb_cli.gateway.request_log import RequestLog
from codexlb_cli.mock_upstream.rules import HandshakeRule
from tests.support.client import request
from tests.support.gateway import RESPONSES, Stage, closed_port, run

CLOSE = [("Connection", "close")]


def test_other_methods(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for path in (RESPONSES, "/backend-api/codex/responses"):
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
                answer = await request(stage.port, method, path, CLOSE)
                assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
                assert answer.header("allow") == "POST"
        for path in ("/healthz", "/readyz"):
            answer = await request(stage.port, "POST", path, CLOSE)
            assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")

    run(test, tmp_path)


def test_endpoints_that_do_not_exist(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for path in (
            "/",
            "/nothing",
            "/v2/responses",
            "/docs",
            "/openapi.json",
            "/v1",
            "/healthz/",
        ):
            answer = await request(stage.port, "GET", path, CLOSE)
            assert (answer.status, answer.error["code"]) == (404, "not_found"), path
            assert b"detail" not in answer.body

    run(test, tmp_path)


def test_health(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        health = await stage.get("/healthz")
        assert (health.status, health.json) == (200, {"status": "ok"})
        ready = await stage.get("/readyz")
        assert ready.status == 200
        assert ready.json["status"] == "ready"
        assert ready.json["accounts"] == {"work": "ready", "home": "needs_login"}

    def without_key(stage: Stage) -> None:
        del stage.environ["HOME_KEY"]

    async def prepared(stage: Stage) -> None:
        without_key(stage)
        await test(stage)
        del stage.environ["WORK_KEY"]
        health, ready = await stage.get("/healthz"), await stage.get("/readyz")
        assert (health.status, ready.status) == (200, 503)
        assert ready.json["status"] == "not_ready"

    run(prepared, tmp_path, names=["work", "home"])


def test_it_is_not_ready_while_all_accounts_are_limited(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn()).status == 429
        assert (await stage.get("/readyz")).status == 503
        stage.clock.advance(31)
        assert (await stage.get("/readyz")).status == 200

    limited = HandshakeRule(status=429, headers={"retry-after": "30"})
    run(test, tmp_path, limited, names=["work"])


@pytest.mark.parametrize("prefix", ["/v1", "/backend-api/codex"])
def test_models(tmp_path: Path, prefix: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(f"{prefix}/models", [("Authorization", "Bearer of-the-client")])
        assert answer.status == 200
        assert "mock" in [model["id"] for model in answer.json["data"]]
        assert answer.header("x-codexlb-account") == "work"
        assert answer.header("x-request-id")
        codex = await stage.get(f"{prefix}/models?client_version=0.144.5")
        assert "mock" in [model["slug"] for model in codex.json["models"]]
        one = await stage.get(f"{prefix}/models/unknown")
        assert (one.status, one.error["type"]) == (404, "invalid_request_error")
        assert stage.dialled == []

    run(test, tmp_path)


def test_models_of_the_next_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.environ["WORK_KEY"] = "sk-that-nobody-knows"
        answer = await stage.get("/v1/models")
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "spare")
        stage.environ["SPARE_KEY"] = "sk-that-nobody-knows"
        answer = await stage.get("/v1/models")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"
        assert b"nobody" not in answer.body
        stage.environ.clear()
        answer = await stage.get("/v1/models")
        assert answer.status == 503
        assert answer.error["code"] == "no_accounts"

    with closed_port() as port:
        run(test, tmp_path, urls={"home": f"ws://127.0.0.1:{port}/v1"})


def test_no_accounts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for stream in (True, False):
            answer = await stage.turn(stream=stream)
            assert (answer.status, answer.error["code"]) == (503, "no_accounts")
            assert "codexlb accounts add" in answer.error["message"]
            assert answer.error["type"] == "server_error"
            assert answer.header("retry-after") is None
            assert answer.header("x-codexlb-account") is None
        assert (await stage.get("/v1/models")).error["code"] == "no_accounts"
        assert (await stage.get("/readyz")).status == 503

    run(test, tmp_path, names=[])


def test_accounts_that_are_all_disabled(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn()
        assert (answer.status, answer.error["code"]) == (503, "no_accounts")
        assert "codexlb accounts enable" in answer.error["message"]

    run(test, tmp_path, names=["work"], accounts={"work": "enabled = false"})


def test_an_account_without_its_key_is_not_used(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        del stage.environ["WORK_KEY"]
        for _ in range(4):
            answer = await stage.turn()
            assert answer.header("x-codexlb-account") in ("home", "spare")
        assert "work" not in stage.dialled
        stage.environ["WORK_KEY"] = "sk-test-work"
        assert (await stage.turn()).header("x-codexlb-account") == "work"

    run(test, tmp_path)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/models", "/readyz"])
def test_a_bug_is_answered_with_the_envelope(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        services = stage.gateway.services
        bug = replace(services, accounts=_Broken())  # type: ignore[arg-type]
        transport = httpx2.ASGITransport(build_rest(bug), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get(path)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "LEAK" not in answer.text

    run(test, tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_in_a_turn_is_not_told_as_a_client_that_left(tmp_path: Path, stream: bool) -> None:
    def draw() -> float:
        raise LookupError("LEAK")

    async def test(stage: Stage) -> None:
        lines: list[str] = []
        records: list[TurnRecord] = []
        bug = replace(stage.gateway.services, draw=draw, record=records.append)
        transport = httpx2.ASGITransport(Responses(bug, RequestLog(lines.append), 10))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            with pytest.raises(LookupError):
                await client.post(RESPONSES, json={"model": "mock", "input": "x", "stream": stream})
        assert "internal_error" in lines[0]
        assert "client left" not in lines[0]
        assert [record.outcome for record in records] == ["internal_error"]

    run(test, tmp_path)


class _Broken:
    def refresh(self) -> bool:
        raise RuntimeError("sk-LEAK")
