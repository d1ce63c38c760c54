"""Files and uploads through the gateway: where they go, and that everything about them follows."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from codexlb_cli.mock_upstream.rules import HandshakeRule
from tests.gateway.filing import (
    CLOSE,
    asked,
    call,
    form,
    form_headers,
    ids,
    naming,
    part,
    rows,
    upload,
    uploaded,
)
from tests.support.client import request
from tests.support.gateway import Stage, run, session

LIMITED = HandshakeRule(account="work", status=429, headers={"retry-after": "30"}, times=1)
CLIENT_LINES = [
    ("Authorization", "Bearer sk-client-LEAK"),
    ("Cookie", "a=sk-client-LEAK"),
    ("OpenAI-Organization", "org-LEAK"),
    ("OpenAI-Beta", "assistants=v2"),
    ("User-Agent", "OpenAI/Python 2"),
    ("Accept", "application/json"),
    ("X-Stainless-OS", "Linux"),
    ("X-Forwarded-For", "10.0.0.1"),
]


@pytest.mark.parametrize("prefix", ["/v1", "/backend-api/codex"])
def test_the_life_of_a_file(tmp_path: Path, prefix: str) -> None:
    content = os.urandom(100_000) + b"\r\n--b0\r\n"

    async def test(stage: Stage) -> None:
        made = await upload(stage, content, path=f"{prefix}/files")
        assert (made.status, made.json["object"], made.json["bytes"]) == (200, "file", len(content))
        assert made.header("x-codexlb-account") == "work"
        assert made.header("x-request-id")
        assert made.header("x-codexlb-attempts") is None
        name = made.json["id"]
        assert rows(stage, "file") == {name: "work"}
        seen = await call(stage, "GET", f"{prefix}/files/{name}")
        assert seen.json == made.json
        got = await call(stage, "GET", f"{prefix}/files/{name}/content")
        assert (got.status, got.body, got.complete) == (200, content, True)
        assert got.header("content-type") == "text/plain"
        assert got.header("content-length") == str(len(content))
        assert "a.txt" in (got.header("content-disposition") or "")
        gone = await call(stage, "DELETE", f"{prefix}/files/{name}")
        assert gone.json == {"id": name, "object": "file", "deleted": True}
        missing = await call(stage, "GET", f"{prefix}/files/{name}")
        assert (missing.status, missing.error["type"]) == (404, "invalid_request_error")
        assert {account for account, *_ in asked(stage)[:4]} == {"work"}
        assert [line.split()[1:3] for line in stage.lines[:4]] == [["200", "work"]] * 4
        await stage.gateway.services.store.committed(
            stage.gateway.services.store.submit(lambda _: None)
        )
        assert rows(stage, "file") == {}

    run(test, tmp_path)


def test_only_what_it_should_reaches_the_upstream(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await upload(stage, b"hello", *CLIENT_LINES, *session("s"))
        [sent] = stage.mock.file_requests
        names = [name.lower() for name, _ in sent.headers]
        assert sorted(names) == [
            "accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
            "user-agent", "x-client-request-id",
        ]  # fmt: skip
        lines = {name.lower(): value for name, value in sent.headers}
        assert lines["authorization"] == "Bearer sk-test-work"
        assert lines["user-agent"] == "OpenAI/Python 2"
        assert "LEAK" not in repr(sent.headers)
        plain = await call(stage, "GET", "/v1/files?purpose=user_data&order=asc")
        assert plain.status == 200
        listed = stage.mock.file_requests[1]
        assert listed.target == "/v1/files?purpose=user_data&order=asc&limit=10000"
        own = {name.lower(): value for name, value in listed.headers}
        assert own["user-agent"].startswith("codexlb/")
        assert "content-type" not in own

    run(test, tmp_path)


def test_a_chunked_upload(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        body = form(b"hello")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:40], body[40:]))
        answer = await request(
            stage.port, "POST", "/v1/files", form_headers(None), chunks + b"0\r\n\r\n"
        )
        assert (answer.status, answer.json["bytes"]) == (200, 5)

    run(test, tmp_path)


def test_an_upload_in_parts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        asks = {"filename": "a.bin", "purpose": "user_data", "bytes": 6, "mime_type": "a/b"}
        begun = await call(stage, "POST", "/v1/uploads", asks)
        assert (begun.status, begun.json["status"]) == (200, "pending")
        path = f"/v1/uploads/{begun.json['id']}"
        assert rows(stage, "file") == {begun.json["id"]: "work"}
        parts = []
        for content in (b"abc", b"def"):
            assert (await stage.turn()).status == 200  # turns go around; parts do not
            body = part(content)
            answer = await request(
                stage.port, "POST", f"{path}/parts", form_headers(len(body)), body
            )
            parts.append(answer.json["id"])
        done = await call(stage, "POST", f"{path}/complete", {"part_ids": parts})
        file = done.json["file"]["id"]
        assert (done.json["status"], done.header("x-codexlb-account")) == ("completed", "work")
        assert rows(stage, "file")[file] == "work"
        assert (await call(stage, "GET", f"/v1/files/{file}/content")).body == b"abcdef"
        other = (await call(stage, "POST", "/v1/uploads", asks)).json["id"]
        cancelled = await call(stage, "POST", f"/v1/uploads/{other}/cancel")
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
        again = await call(stage, "POST", f"/v1/uploads/{other}/cancel")
        assert (again.status, again.error["code"]) == (400, "upload_not_pending")

    run(test, tmp_path)


def test_a_new_upload_goes_where_a_first_turn_would(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        homes = []
        for _ in range(4):
            homes.append((await uploaded(stage))[1])
            assert (await stage.turn()).header("x-codexlb-account") == homes[-1]
        assert homes == ["work", "home", "spare", "work"]
        assert [(await uploaded(stage))[1] for _ in range(3)] == ["home"] * 3

    run(test, tmp_path)


def test_an_upload_of_a_session_goes_to_its_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await stage.turn()
            assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "home"
        async with stage.serving():
            first = await uploaded(stage, b"a", *session("s"))
            assert (first[1], (await uploaded(stage))[1]) == ("home", "work")
            answer = await stage.turn(headers=session("s"), input=naming(first[0]))
            assert (answer.status, answer.header("x-codexlb-account")) == (200, "home")

    run(test, tmp_path, serve=False)


def test_a_session_that_begins_with_uploads_has_them_in_one_account(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        both = await asyncio.gather(*(uploaded(stage, b"a", *session("s")) for _ in range(2)))
        assert (await stage.turn()).header("x-codexlb-account") == "work"
        third = await uploaded(stage, b"c", *session("s"))
        assert (await uploaded(stage))[1] == "home"
        assert {account for _, account in (*both, third)} == {"work"}
        names = [name for name, _ in (*both, third)]
        answer = await stage.turn(headers=session("s"), input=naming(*names))
        assert (answer.status, answer.header("x-codexlb-account")) == (200, "work")

    run(test, tmp_path)


def test_a_turn_goes_to_the_account_of_its_file(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            in_work, _ = await uploaded(stage)
            await stage.turn()
            in_home, account = await uploaded(stage)
            assert account == "home"
        async with stage.serving():
            for name, owner in ((in_home, "home"), (in_work, "work"), (in_home, "home")):
                answer = await stage.turn(input=naming(name))
                assert (answer.status, answer.header("x-codexlb-account")) == (200, owner)
            sent = len(stage.sent)
            conflict = await stage.turn(input=naming(in_work, in_home))
            assert conflict.status == 400
            assert conflict.error["code"] == "continuity_owner_conflict"
            assert len(stage.sent) == sent
            unknown = await stage.turn(input=naming("file-nobody"))
            assert (unknown.status, unknown.error["code"]) == (404, "file_not_found")

    run(test, tmp_path, serve=False)


def test_a_file_that_nobody_knows_is_asked_for_in_order(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await stage.turn()
            name, account = await uploaded(stage)
            assert account == "home"
        (stage.state_folder / "state.sqlite3").unlink()
        before = len(asked(stage))
        async with stage.serving():
            got = await call(stage, "GET", f"/v1/files/{name}/content")
            assert (got.status, got.body) == (200, b"hello")
            assert got.header("x-codexlb-account") == "home"
            assert rows(stage, "file") == {name: "home"}
            assert (await call(stage, "GET", f"/v1/files/{name}")).status == 200
            target = f"/v1/files/{name}"
            assert asked(stage)[before:] == [
                ("work", "GET", f"{target}/content"),
                ("home", "GET", f"{target}/content"),
                ("home", "GET", target),
            ]
            before = len(asked(stage))
            missing = await call(stage, "GET", "/v1/files/file-nobody")
            assert (missing.status, missing.error["param"]) == (404, "id")
            assert missing.header("x-codexlb-account") == "spare"
            assert [a for a, *_ in asked(stage)[before:]] == ["work", "home", "spare"]

    run(test, tmp_path, serve=False)


def test_a_file_that_nobody_knows_is_deleted_where_it_is(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            await stage.turn()
            name, _ = await uploaded(stage)
        (stage.state_folder / "state.sqlite3").unlink()
        before = len(asked(stage))
        async with stage.serving():
            gone = await call(stage, "DELETE", f"/v1/files/{name}")
            assert (gone.status, gone.header("x-codexlb-account")) == (200, "home")
            assert [(a, m) for a, m, _ in asked(stage)[before:]] == [
                ("work", "GET"), ("home", "GET"), ("home", "DELETE"),
            ]  # fmt: skip
            again = await call(stage, "DELETE", f"/v1/files/{name}")
            assert again.status == 404
            assert "DELETE" not in [m for _, m, _ in asked(stage)[before + 3 :]]

    run(test, tmp_path, serve=False)


def test_a_list_over_all_accounts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with stage.serving():
            made: dict[str, list[str]] = {"work": [], "home": [], "spare": []}
            for _ in range(5):
                name, account = await uploaded(stage)
                made[account].insert(0, name)  # the newest first
                await stage.turn()
        (stage.state_folder / "state.sqlite3").unlink()
        expected = [name for names in made.values() for name in names]
        assert [len(names) for names in made.values()] == [2, 2, 1]
        async with stage.serving():
            assert await ids(stage) == (expected, False)
            assert rows(stage, "file") == {
                n: account for account, names in made.items() for n in names
            }
            after = ""
            pages = []
            more = True
            while more:
                page, more = await ids(stage, f"?limit=3{after}")
                pages.append(page)
                after = f"&after={page[-1]}"
            assert pages == [expected[:3], expected[3:]]
            assert await ids(stage, f"?after={expected[-1]}") == ([], False)
            by_purpose = await ids(stage, "?purpose=batch")
            assert by_purpose == ([], False)
            whole = await call(stage, "GET", "/v1/files")
            assert whole.header("x-codexlb-account") == "work, home, spare"
            ends = (whole.json["first_id"], whole.json["last_id"])
            assert ends == (expected[0], expected[-1])

    run(test, tmp_path, serve=False)


def test_lists_that_make_no_sense(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        bad = await call(stage, "GET", "/v1/files?limit=0")
        assert (bad.status, bad.error["code"], bad.error["param"]) == (
            400, "invalid_request", "limit",
        )  # fmt: skip
        bad = await call(stage, "GET", "/v1/files?after=..%2Fmodels")
        assert (bad.status, bad.error["param"]) == (400, "after")
        missing = await call(stage, "GET", "/v1/files?after=file-nobody")
        assert missing.status == 404
        assert [target for *_, target in asked(stage)] == ["/v1/files/file-nobody"] * 3

    run(test, tmp_path)


def test_a_list_leaves_out_accounts_that_are_out_of_use(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        in_work, _ = await uploaded(stage)
        await stage.turn()
        in_home, _ = await uploaded(stage)
        del stage.environ["WORK_KEY"]
        assert await ids(stage) == ([in_home], False)
        refused = await call(stage, "GET", f"/v1/files?after={in_work}")
        assert (refused.status, refused.error["code"]) == (503, "owner_unavailable")
        stage.environ.clear()
        nobody = await call(stage, "GET", "/v1/files")
        assert (nobody.status, nobody.error["code"]) == (503, "no_accounts")

    run(test, tmp_path)


def test_a_file_is_not_asked_for_elsewhere_while_its_account_is_out_of_use(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        name, account = await uploaded(stage)
        assert account == "work"
        assert (await stage.turn()).header("x-codexlb-account") == "home"  # work is limited now
        before = len(asked(stage))
        for method, path in (
            ("GET", f"/v1/files/{name}"),
            ("GET", f"/v1/files/{name}/content"),
            ("DELETE", f"/v1/files/{name}"),
        ):
            answer = await call(stage, method, path)
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
            assert answer.header("retry-after") == "30"
        stage.clock.advance(31)
        del stage.environ["WORK_KEY"]
        lost = await call(stage, "GET", f"/v1/files/{name}")
        assert (lost.status, lost.error["code"]) == (503, "owner_unavailable")
        assert "this file belongs to account `work`" in lost.error["message"]
        assert lost.header("retry-after") is None
        assert len(asked(stage)) == before

    run(test, tmp_path, LIMITED)


def test_without_accounts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for answer in (await upload(stage), await call(stage, "GET", "/v1/files")):
            assert (answer.status, answer.error["code"]) == (503, "no_accounts")
        assert (await call(stage, "GET", "/v1/files/file-1")).status == 503

    run(test, tmp_path, names=[])


def test_what_is_no_call_for_files(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for method, path in (
            ("PUT", "/files"),
            ("POST", "/files/file-1"),
            ("GET", "/files/file-1/other"),
            ("GET", "/files/a/b/content"),
            ("GET", "/files/"),
            ("GET", "/uploads"),
            ("GET", "/uploads/upload_1"),
            ("POST", "/uploads/upload_1/other"),
        ):
            for prefix in ("/v1", "/backend-api/codex"):
                answer = await call(stage, method, f"{prefix}{path}")
                assert (answer.status, answer.error["code"]) == (501, "not_supported"), path
        head = await stage_head(stage)
        assert head == 501
        for path in ("/v1/files/..%3Fx", "/v1/files/a%20b/content", "/v1/files/%2e%2e"):
            answer = await call(stage, "GET", path)
            assert (answer.status, answer.error["code"]) == (404, "not_found"), path
        assert asked(stage) == []

    async def stage_head(stage: Stage) -> int:
        from tests.support.client import connection, request_head

        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}"), CLOSE]
            await exchange.send(request_head("HEAD", "/v1/files", lines))
            await exchange.head()
            return exchange.status

    run(test, tmp_path)


def test_the_guard_and_bad_headers(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        foreign = await upload(stage, b"x", ("Origin", "https://elsewhere.example"))
        assert (foreign.status, foreign.error["code"]) == (403, "forbidden_origin")
        bad = await upload(stage, b"x", ("x-note", "a\x01b"))
        assert (bad.status, bad.error["code"]) == (400, "invalid_header")
        encoded = await upload(stage, b"x", ("Content-Encoding", "gzip"))
        assert (encoded.status, encoded.error["code"]) == (400, "invalid_request")
        broken = await request(
            stage.port, "POST", "/v1/files", [("Content-Length", "2"), CLOSE], b"{}"
        )
        assert (broken.status, broken.error["code"]) == (400, "invalid_multipart")
        assert [r.status for r in stage.mock.file_requests] == [400]

    run(test, tmp_path)
