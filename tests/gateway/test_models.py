"""The models of all accounts, asked for over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, ModelsRule, TurnRule
from tests.gateway.filing import account
from tests.support.client import connection, request_head
from tests.support.gateway import Stage, closed_port, play, run
from tests.support.raw_upstream import HANG, RawUpstream, plain

CATALOGUE = "/backend-api/codex/models?client_version=0.169.0"
WORK = ModelsRule(account="work", models=("mock", "only-work"), etag='"w"')
HOME = ModelsRule(account="home", models=("only-home", "mock"), etag='"h"')
BOTH = ["mock", "only-work", "only-home"]


def ids(document: Any) -> list[str]:
    key, name = ("models", "slug") if "models" in document else ("data", "id")
    return [model[name] for model in document[key]]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models?client_version=1", CATALOGUE])
def test_the_models_of_all_accounts(tmp_path: Path, path: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get(path)
        assert (answer.status, ids(answer.json)) == (200, BOTH)
        assert answer.header("x-codexlb-account") == "work, home"
        assert answer.header("content-type") == "application/json"
        assert str(answer.header("etag")).startswith('"codexlb-')
        assert answer.header("x-request-id")
        assert stage.dialled == []
        assert "work, home" in stage.lines[-1]

    run(test, tmp_path, WORK, HOME, names=["work", "home"])


def test_accounts_are_asked_at_once_and_not_waited_for_long(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get("/v1/models")
        assert ids(answer.json) == ["mock", "only-work", "late"]

    slow = ModelsRule(account="home", silence=True)
    late = ModelsRule(account="spare", models=("late",), delay=0.3)
    run(test, tmp_path, WORK, slow, late, more="[timeouts]\ndial = 1\n")


@pytest.mark.parametrize(
    "failing",
    [
        ModelsRule(account="work", status=500),
        ModelsRule(account="work", status=403, body="<html>no</html>"),
        ModelsRule(account="work", status=404),
        ModelsRule(account="work", status=302),
        ModelsRule(account="work", cut=True),
    ],
)
def test_an_account_that_fails_is_left_out(tmp_path: Path, failing: ModelsRule) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get("/v1/models")
        assert (answer.status, ids(answer.json)) == (200, ["only-home", "mock"])
        assert (answer.header("x-codexlb-account"), answer.header("etag")) == ("home", '"h"')
        assert (await stage.get("/readyz")).json["accounts"]["work"] == "ready"

    run(test, tmp_path, failing, HOME, names=["work", "home"])


def test_no_account_gives_its_models(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get("/v1/models")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert answer.header("retry-after") == "1"

    with closed_port() as port:
        run(test, tmp_path, ModelsRule(account="work", status=500), names=["work", "home"],
            urls={"home": f"ws://127.0.0.1:{port}/v1"})  # fmt: skip


def test_an_endless_list_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with RawUpstream([plain(200, b'{"data": [' + b" " * 17_000_000 + b"]}")]) as raw:

            async def test(stage: Stage) -> None:
                assert ids((await stage.get("/v1/models")).json) == ["mock", "only-work"]

            await play(test, tmp_path, WORK, names=["home", "work"], urls={"home": raw.base_url})

    asyncio.run(main())


def test_one_list_goes_through_as_it_is(tmp_path: Path) -> None:
    body = b' {"models" : [ {"slug":"a", "n":1.0}], "x":1 }\n'

    async def main() -> None:
        async with RawUpstream([plain(200, body, 'etag: W/"1"')]) as raw:

            async def test(stage: Stage) -> None:
                answer = await stage.get(CATALOGUE)
                assert (answer.body, answer.header("etag")) == (body, 'W/"1"')

            await play(test, tmp_path, names=["work"], urls={"work": raw.base_url})

    asyncio.run(main())


def test_a_model_that_the_configuration_keeps_from_an_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert ids((await stage.get("/v1/models")).json) == ["only-home", "mock"]
        assert (await stage.get("/v1/models/only-work")).status == 404
        for name in ("mock", "only-home"):
            assert (await stage.get(f"/v1/models/{name}")).header("x-codexlb-account") == "home"

    own = {"work": 'not_models = ["only-*", "mock"]'}
    run(test, tmp_path, WORK, HOME, names=["home", "work"], accounts=own)


def test_an_account_without_a_catalogue_adds_nothing_to_it(tmp_path: Path) -> None:
    key = ModelsRule(account="work", models=("gpt",), catalogue=False, etag='"w"')

    async def test(stage: Stage) -> None:
        assert ids((await stage.get(CATALOGUE)).json) == ["only-home", "mock"]
        assert ids((await stage.get("/v1/models")).json) == ["gpt", "only-home", "mock"]
        stage.environ["HOME_KEY"] = "sk-that-nobody-knows"
        # What the upstream itself would have told.
        assert ids((await stage.get(CATALOGUE)).json) == ["gpt"]

    run(test, tmp_path, key, HOME, names=["work", "home"])


def test_a_limited_account_keeps_its_models_on_the_list(tmp_path: Path) -> None:
    limit = ErrorSpec(status=429, code="rate_limit_exceeded", headers={"retry-after": "600"})

    async def test(stage: Stage) -> None:
        assert (await stage.turn()).header("x-codexlb-account") == "home"
        assert (await stage.get("/readyz")).json["accounts"]["work"] == "limited"
        assert ids((await stage.get("/v1/models")).json) == BOTH

    run(test, tmp_path, TurnRule(account="work", error=limit), WORK, HOME, names=["work", "home"])


def test_one_model(tmp_path: Path) -> None:
    rules = (
        ModelsRule(account="work", models=("mock",)),
        ModelsRule(account="home", models=("mock", "org/model:1 ü?")),
    )

    async def test(stage: Stage) -> None:
        for prefix in ("/v1", "/backend-api/codex"):
            mine = await stage.get(f"{prefix}/models/mock")
            assert (mine.json["id"], mine.header("x-codexlb-account")) == ("mock", "work")
            other = await stage.get(f"{prefix}/models/org/model:1%20%C3%BC%3F")
            assert other.json["id"] == "org/model:1 ü?"
            assert other.header("x-codexlb-account") == "home"
            unknown = await stage.get(f"{prefix}/models/unknown")
            assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
            for path in ("models/", "models/%2e%2e/files", "models/a/.."):
                assert (await stage.get(f"{prefix}/{path}")).error["code"] == "not_found"

    run(test, tmp_path, *rules, names=["work", "home"])


def test_a_model_is_not_missing_while_an_account_cannot_tell(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.get("/v1/models/unknown")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert (await stage.get("/v1/models/mock")).status == 200

    failing = ModelsRule(account="home", status=500)
    run(test, tmp_path, WORK, failing, names=["work", "home"])


def tells(account: str, etag: str, **options: Any) -> HandshakeRule:
    return HandshakeRule(account=account, headers={"x-models-etag": etag}, **options)


async def etag_of_a_turn(stage: Stage, account: str) -> str | None:
    answer = await stage.turn(model=f"only-{account}")
    assert answer.header("x-codexlb-account") == account
    return answer.header("x-models-etag")


OWN = {"work": 'not_models = ["only-home"]', "home": 'not_models = ["only-work"]'}


def test_turns_tell_the_etag_of_the_catalogue_that_clients_have(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert await etag_of_a_turn(stage, "work") == '"w"'
        mine = (await stage.get(CATALOGUE)).header("etag")
        assert await etag_of_a_turn(stage, "work") == mine
        assert await etag_of_a_turn(stage, "home") == mine
        # A list in the other form is another list.
        await stage.get("/v1/models")
        assert await etag_of_a_turn(stage, "work") == mine

    rules = (WORK, HOME, tells("work", '"w"'), tells("home", '"h"'))
    run(test, tmp_path, *rules, names=["work", "home"], accounts=OWN)


def test_a_catalogue_that_is_new_upstream_is_asked_for_once(tmp_path: Path) -> None:
    new = ModelsRule(account="home", models=("only-home", "new"), etag='"h2"')

    async def test(stage: Stage) -> None:
        old = (await stage.get(CATALOGUE)).header("etag")
        assert await etag_of_a_turn(stage, "home") == '"h2"', "clients ask again"
        newer = (await stage.get(CATALOGUE)).header("etag")
        assert await etag_of_a_turn(stage, "home") == newer != old

    rules = (WORK, HOME.model_copy(update={"times": 1}), new, tells("home", '"h2"'))
    run(test, tmp_path, *rules, names=["work", "home"], accounts=OWN)


def test_an_account_without_a_catalogue_sends_nobody_for_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.get(CATALOGUE)
        assert await etag_of_a_turn(stage, "work") is None
        assert await etag_of_a_turn(stage, "home") == '"h"'

    key = ModelsRule(account="work", catalogue=False, etag='"w"')
    rules = (key, HOME, tells("work", '"w"'), tells("home", '"h"'))
    run(test, tmp_path, *rules, names=["work", "home"], accounts=OWN)


@pytest.mark.parametrize("path", ["/v1/models", CATALOGUE, "/v1/models/x"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>LEAK</html>", "the upstream refused the request"),
        (b"", "the upstream refused the request"),
        (b'{"detail":"Not here."}', "Not here."),
        (b'{"error":{"message":"No.","type":"t","code":null}}', "No."),
    ],
)
def test_a_refusal_comes_in_the_envelope(
    tmp_path: Path, path: str, body: bytes, message: str
) -> None:
    async def main() -> None:
        refused = plain(404, body, "content-type: text/html", 'etag: "e"', "set-cookie: LEAK")
        async with RawUpstream([refused]) as raw:

            async def test(stage: Stage) -> None:
                answer = await stage.get(path)
                assert (answer.status, answer.error["message"]) == (404, message)
                assert (answer.header("etag"), account(answer)) == (None, "work")
                assert answer.header("x-request-id")
                assert "LEAK" not in repr(answer)

            await play(test, tmp_path, names=["work"], urls={"work": raw.base_url})

    asyncio.run(main())


def test_header_values_that_cannot_be_sent_are_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        lines = ("content-type: a\x01b", "etag: \x7f")
        async with RawUpstream([plain(200, b"{}", *lines)]) as raw:

            async def test(stage: Stage) -> None:
                answer = await stage.get("/v1/models/x")
                assert (answer.status, answer.body) == (200, b"{}")
                assert (answer.header("content-type"), answer.header("etag")) == (None, None)

            await play(test, tmp_path, names=["work"], urls={"work": raw.base_url})

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x"])
def test_a_client_that_leaves_ends_the_question(tmp_path: Path, path: str) -> None:
    """Else the gateway would wait for it when it stops."""

    async def main() -> None:
        async with RawUpstream([HANG]) as raw:

            async def test(stage: Stage) -> None:
                async with connection(stage.port) as exchange:
                    await exchange.send(request_head("GET", path, [("Host", "localhost")]))
                    await raw.asked.wait()
                    exchange.leave()
                await raw.left.wait()

            await play(
                test, tmp_path, names=["work"], urls={"work": raw.base_url},
                more="[timeouts]\ndial = 300\n",
            )  # fmt: skip

    asyncio.run(main())
