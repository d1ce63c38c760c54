"""Files and uploads of the mock: per account, bounded, and known to turns."""

from __future__ import annotations

import os
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.mock_upstream.files import FileStore, StoredFile, Upload
from codexlb_cli.mock_upstream.multipart import parse_multipart
from codexlb_cli.mock_upstream.requests import RefusedError
from codexlb_cli.mock_upstream.server import MockUpstream
from tests.mock_upstream.client import http_client, open_socket, run

FORM = "multipart/form-data; boundary=b"


def naming(name: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_file", "file_id": name}]}]


async def upload(client: httpx2.AsyncClient, mock: MockUpstream, content: bytes) -> dict[str, Any]:
    answer = await client.post(
        f"{mock.base_url}/files",
        data={"purpose": "user_data"},
        files={"file": ("ä b.bin", content, "application/x-b")},
    )
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_file_is_known_to_its_account_alone() -> None:
    content = os.urandom(5000)

    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            made = await upload(work, mock, content)
            assert (made["bytes"], made["purpose"]) == (5000, "user_data")
            url = f"{mock.base_url}/files/{made['id']}"
            assert (await work.get(url)).json() == made
            got = await work.get(f"{url}/content")
            assert (got.content, got.headers["content-type"]) == (content, "application/x-b")
            assert [(await home.request(m, url)).status_code for m in ("GET", "DELETE")] == [
                404
            ] * 2
            listed = (await home.get(f"{mock.base_url}/files")).json()
            assert listed["data"] == []
            gone = await work.delete(url)
            assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
            assert (await work.get(url)).json()["error"]["type"] == "invalid_request_error"
        statuses = [(r.account, r.method, r.status) for r in mock.file_requests]
        assert statuses[0] == ("work", "POST", 200)
        assert statuses[-1] == ("work", "GET", 404)
        assert (mock.file_requests[0].received or 0) > 5000

    run(test)


def test_a_turn_may_name_the_files_of_its_account_only() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as work, http_client("demo-key-home") as home:
            name = (await upload(work, mock, b"x"))["id"]
            body = {"model": "mock", "input": naming(name)}
            answers = [await c.post(f"{mock.base_url}/responses", json=body) for c in (work, home)]
            assert [a.status_code for a in answers] == [200, 404]
            error = answers[1].json()["error"]
            assert (error["code"], error["type"], error["param"]) == (
                "file_not_found", "invalid_request_error", "input",
            )  # fmt: skip
        async with open_socket(mock) as socket:
            assert (await socket.turn(input=naming(name)))[-1]["type"] == "response.completed"
            [error] = await socket.turn(input=naming("file-nobody"))
            assert (error["status"], error["error"]["code"]) == (404, "file_not_found")

    run(test)


def test_pages() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client:
            made = [(await upload(client, mock, b"x"))["id"] for _ in range(3)]
            url = f"{mock.base_url}/files"

            async def ids(query: str) -> tuple[list[str], bool]:
                page = (await client.get(f"{url}?{query}")).json()
                return [file["id"] for file in page["data"]], page["has_more"]

            assert await ids("") == (made[::-1], False)
            assert await ids("order=asc&limit=2") == (made[:2], True)
            assert await ids(f"order=asc&limit=2&after={made[1]}") == (made[2:], False)
            assert await ids("purpose=batch") == ([], False)
            assert (await client.get(f"{url}?limit=0")).status_code == 400
            assert (await client.get(f"{url}?after=nobody")).status_code == 404

    run(test)


def test_requests_that_make_no_sense() -> None:
    async def test(mock: MockUpstream) -> None:
        async with http_client() as client, http_client("nobodys") as stranger:
            files, uploads = f"{mock.base_url}/files", f"{mock.base_url}/uploads"
            assert (await stranger.get(files)).json()["error"]["code"] == "invalid_api_key"
            assert (await client.post(files, json={})).json()["error"]["code"] == (
                "invalid_multipart"
            )
            no_file = await client.post(files, files={"purpose": (None, "x")})
            assert no_file.json()["error"]["param"] == "file"
            assert (await client.put(files)).status_code == 404
            assert (await client.post(uploads, json={"bytes": 1})).status_code == 400
            assert (await client.post(f"{uploads}/upload_x/cancel")).status_code == 404
            asks = {"filename": "a", "purpose": "p", "bytes": 3, "mime_type": "a/b"}
            upload_id = (await client.post(uploads, json=asks)).json()["id"]
            wrong = await client.post(f"{uploads}/{upload_id}/complete", json={"part_ids": ["x"]})
            assert wrong.json()["error"]["code"] == "invalid_part"
            short = await client.post(f"{uploads}/{upload_id}/complete", json={"part_ids": []})
            assert short.status_code == 400

    run(test)


def multipart(fields: dict[str, bytes], boundary: str = "b") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content
        for name, content in fields.items()
    ]
    return b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()])


@given(st.dictionaries(st.sampled_from(["file", "purpose", "data"]), st.binary(), min_size=1))
def test_any_bytes_come_out_of_a_form_as_they_went_in(fields: dict[str, bytes]) -> None:
    boundary = "a-boundary-that-no-bytes-hold-by-chance"
    found = parse_multipart(
        f"multipart/form-data; boundary={boundary}", multipart(fields, boundary)
    )
    assert {name: field.content for name, field in found.items()} == fields


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", multipart({"file": b"x"})),
        ("multipart/mixed; boundary=b", multipart({"file": b"x"})),
        (FORM, b""),
        (FORM, b"hello"),
        (FORM, multipart({"file": b"x"})[:-6]),
        (FORM, b"--b\r\n\r\nx\r\n--b--\r\n"),
        (FORM, multipart({f"f{n}": b"" for n in range(33)})),
    ],
)
def test_broken_forms_are_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(RefusedError):
        parse_multipart(content_type, body)


def test_what_is_oldest_goes_first() -> None:
    store = FileStore("run")
    big = bytes(100 * 1024 * 1024)

    def stored(content: bytes) -> StoredFile:
        return StoredFile(store.new_id("file-"), "work", "a", "p", content, "a/b", 0)

    files = [stored(big) for _ in range(3)]
    for file in files:
        store.add(file)
    assert [store.file("work", file.id) is not None for file in files] == [False, True, True]
    upload_ = Upload("upload_1", "work", "a", "p", 1, "a/b", 0)
    store.begin(upload_)
    store.add_part(upload_, big)
    assert [file.id for file in store.files("work")] == [files[2].id]
    assert store.upload("home", "upload_1") is None
