"""Files: which calls are taken, whose files are listed, and what is remembered."""

from __future__ import annotations

import pytest

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.files import CALLS, FileCall, Verb, pins, read_call, route_list
from tests.core.pools import pool

PATHS = {
    ("POST", "/files"): Verb.CREATE,
    ("GET", "/files"): Verb.LIST,
    ("GET", "/files/file-1"): Verb.RETRIEVE,
    ("DELETE", "/files/file-1"): Verb.DELETE,
    ("GET", "/files/file-1/content"): Verb.CONTENT,
    ("POST", "/uploads"): Verb.BEGIN,
    ("POST", "/uploads/upload_1/parts"): Verb.ADD_PART,
    ("POST", "/uploads/upload_1/complete"): Verb.COMPLETE,
    ("POST", "/uploads/upload_1/cancel"): Verb.CANCEL,
}


def test_every_call_keeps_its_method_and_path() -> None:
    made = {}
    for row in CALLS:
        name = "upload_1" if row.path.startswith("/uploads/") else "file-1"
        call = read_call(row, name if "{id}" in row.path else None)
        assert call is not None
        made[call.method, call.path] = call.verb
        assert call.takes_body is (row.method == "POST")
        assert call.creates is (row.verb in (Verb.CREATE, Verb.BEGIN))
    assert made == PATHS


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("file-abc", True),
        ("file_abc.x~1:2", True),
        ("...", True),
        ("f" * 256, True),
        ("f" * 257, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a?b", False),
        ("a#b", False),
        ("a%2e", False),
        ("a b", False),
        ("file\n", False),
        ("datei-ä", False),
    ],
)
def test_only_ids_may_stand_in_a_path(name: str, *, is_id: bool) -> None:
    assert (read_call(CALLS[2], name) is not None) is is_id


@pytest.mark.parametrize("state", ["back_soon", "limited", "disabled", "needs_login"])
def test_a_list_is_not_gone_on_with_in_an_account_that_is_out_of_use(state: str) -> None:
    accounts = pool("work", "home", home=state)
    assert route_list("home", accounts).plan.error is not None
    assert route_list("work", accounts).plan.error is None
    assert route_list(None, accounts).plan.candidates == ("work",)


@pytest.mark.parametrize(
    ("call", "document", "expected"),
    [
        (FileCall(Verb.CREATE), {"id": "file-1", "object": "file"}, ["file-1"]),
        (FileCall(Verb.BEGIN), {"id": "upload_1"}, ["upload_1"]),
        (FileCall(Verb.ADD_PART, "upload_1"), {"id": "part_1"}, ["upload_1"]),
        (FileCall(Verb.COMPLETE, "upload_1"), {"id": "upload_1", "file": {"id": "file-2"}},
         ["upload_1", "file-2"]),
        (FileCall(Verb.COMPLETE, "upload_1"), {"file": None}, ["upload_1"]),
        (FileCall(Verb.RETRIEVE, "file-1"), None, ["file-1"]),
        (FileCall(Verb.CONTENT, "file-1"), None, ["file-1"]),
        (FileCall(Verb.DELETE, "file-1"), {"id": "file-1", "deleted": True}, []),
        (FileCall(Verb.CANCEL, "upload_1"), {"id": "upload_1"}, []),
        (FileCall(Verb.LIST), {"data": [{"id": "file-1"}]}, []),
        (FileCall(Verb.CREATE), None, []),
        (FileCall(Verb.CREATE), ["file-1"], []),
        (FileCall(Verb.CREATE), {"id": 1}, []),
        (FileCall(Verb.CREATE), {"id": "a/b"}, []),
    ],
)  # fmt: skip
def test_what_is_pinned(call: FileCall, document: object, expected: list[str]) -> None:
    assert pins(call, document) == tuple(Key("file", name) for name in expected)
