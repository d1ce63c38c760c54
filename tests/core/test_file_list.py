"""The files of several accounts as one list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.file_list import MOST_LISTED, Ask, FileList, ListQuery, read_query


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", ListQuery()),
        ("limit=2", ListQuery(2)),
        ("limit=&after=", ListQuery()),
        ("limit=10000&after=file-1&order=asc&purpose=user_data",
         ListQuery(10_000, "file-1", (("order", "asc"), ("purpose", "user_data")))),
        ("purpose=a%20b&x", ListQuery(others=(("purpose", "a b"), ("x", "")))),
    ],
)  # fmt: skip
def test_queries(text: str, query: ListQuery) -> None:
    assert read_query(text) == query


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=999999999999999999999", "limit"),
        ("after=..%2Fmodels", "after"),
        ("after=..", "after"),
    ],
)
def test_queries_that_make_no_sense(text: str, param: str) -> None:
    error = read_query(text)
    assert isinstance(error, ClientError)
    assert (error.code, error.param) == ("invalid_request", param)


def test_the_query_of_a_page() -> None:
    assert Ask("work", None, 5).query([("order", "asc")]) == "order=asc&limit=5"
    assert Ask("work", "file-1", 5).query([("p", "a b")]) == "p=a+b&after=file-1&limit=5"


Stored = dict[str, list[str]]


class Upstreams:
    """Accounts with files, listed as an upstream does it."""

    def __init__(self, stored: Stored, longest: int = MOST_LISTED) -> None:
        self.stored = stored
        self.owners: dict[str, str] = {}
        self.asked: list[Ask] = []
        self._longest = longest

    def answer(self, ask: Ask) -> dict[str, Any]:
        self.asked.append(ask)
        files = self.stored[ask.account]
        start = files.index(ask.after) + 1 if ask.after else 0
        most = min(ask.limit, self._longest)
        page = files[start : start + most]
        data = [{"id": name, "object": "file"} for name in page]
        return {"object": "list", "data": data, "has_more": len(files) > start + most}

    def page(self, query: ListQuery) -> dict[str, Any]:
        owner = self.owners[query.after] if query.after else None
        page = FileList(query, list(self.stored), owner)
        while page.ask is not None:
            account = page.ask.account
            mine = page.take(self.answer(page.ask), self.owners.get)
            self.owners.update(dict.fromkeys(mine, account))
        return page.document()

    def all(self, limit: int) -> list[list[str]]:
        pages: list[list[str]] = []
        after = None
        while True:
            document = self.page(ListQuery(limit, after))
            ids = [file["id"] for file in document["data"]]
            assert document["first_id"] == (ids[0] if ids else None)
            assert document["last_id"] == (ids[-1] if ids else None)
            pages.append(ids)
            if not document["has_more"]:
                return pages
            after = document["last_id"]
            assert len(pages) < 100, "it never ends"


THREE = {"work": ["w1", "w2", "w3"], "home": [], "spare": ["s1", "s2"]}


@pytest.mark.parametrize(
    ("limit", "pages"),
    [
        (10_000, [["w1", "w2", "w3", "s1", "s2"]]),
        (5, [["w1", "w2", "w3", "s1", "s2"]]),
        (4, [["w1", "w2", "w3", "s1"], ["s2"]]),
        (3, [["w1", "w2", "w3"], ["s1", "s2"]]),
        (2, [["w1", "w2"], ["w3", "s1"], ["s2"]]),
        (1, [["w1"], ["w2"], ["w3"], ["s1"], ["s2"]]),
    ],
)
@pytest.mark.parametrize("longest", [MOST_LISTED, 2, 1])
def test_one_account_after_the_other(limit: int, pages: list[list[str]], longest: int) -> None:
    assert Upstreams(THREE, longest).all(limit) == pages


def test_it_begins_with_the_first_account_and_goes_on_with_the_owner() -> None:
    upstreams = Upstreams(THREE)
    upstreams.page(ListQuery(2))
    assert upstreams.asked == [Ask("work", None, 2)]
    upstreams.page(ListQuery(2, "w2"))
    assert upstreams.asked[1:] == [
        Ask("work", "w2", 2),
        Ask("home", None, 1),
        Ask("spare", None, 1),
    ]


def test_files_that_two_accounts_share_are_listed_once_and_stay_with_the_first() -> None:
    shared = {"work": ["a", "b", "c"], "home": ["a", "b", "c", "h"]}
    for limit in (1, 2, 3, 10):
        upstreams = Upstreams(shared)
        assert [name for page in upstreams.all(limit) for name in page] == ["a", "b", "c", "h"]
        assert upstreams.owners == {"a": "work", "b": "work", "c": "work", "h": "home"}


def test_a_file_whose_account_is_not_listed_stands_where_it_is_found() -> None:
    upstreams = Upstreams({"home": ["a"]})
    upstreams.owners["a"] = "work"  # out of use
    assert upstreams.all(5) == [["a"]]
    assert upstreams.owners == {"a": "home"}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"data": None},
        {"data": {}},
        {"data": ["a", None, {}, {"id": 1}, {"id": "../x"}], "has_more": True},
        {"data": [], "has_more": True},
    ],
)
def test_answers_that_are_no_list_count_as_empty(document: object) -> None:
    page = FileList(ListQuery(5), ["work"], None)
    assert page.take(document, lambda _: None) == []
    assert page.ask is None
    assert page.document() == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip


def test_an_upstream_that_ignores_the_cursor_does_not_keep_us_for_ever() -> None:
    same = {"data": [{"id": "a"}], "has_more": True}
    page = FileList(ListQuery(5), ["work", "home"], None)
    rounds = 0
    while page.ask is not None:
        page.take(same, {"a": "home"}.get)
        rounds += 1
        assert rounds < 10
    assert page.document()["has_more"] is False


STORED = st.dictionaries(
    st.sampled_from(["work", "home", "spare"]),
    st.lists(st.sampled_from([f"f{n}" for n in range(8)]), unique=True),
    min_size=1,
)


@given(STORED, st.integers(1, 6), st.integers(1, 4))
def test_every_file_comes_exactly_once(stored: Stored, limit: int, longest: int) -> None:
    upstreams = Upstreams(stored, longest)
    pages = upstreams.all(limit)
    names = [name for page in pages for name in page]
    assert sorted(names) == sorted({name for files in stored.values() for name in files})
    assert all(len(page) <= limit for page in pages)
    for name in names:
        assert upstreams.owners[name] == next(a for a, files in stored.items() if name in files)
