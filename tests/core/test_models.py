"""One model list out of those of several accounts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.models import (
    CATALOGUE,
    LIST,
    Answered,
    CatalogueEtags,
    Form,
    ModelList,
    asked_for_models,
    first_that_has,
    merge,
    nobody_tells,
)
from tests.core.pools import pool

JSON = "application/json"


def answered(
    name: str, body: str | bytes, status: int = 200, etag: str | None = None, **options: Any
) -> Answered:
    data = body.encode() if isinstance(body, str) else body
    return Answered(Account(name, **options), status, data, etag, JSON)


def listing(*ids: str) -> str:
    return json.dumps({"object": "list", "data": [{"id": name} for name in ids]})


def catalogue(*slugs: str) -> str:
    return json.dumps({"models": [{"slug": slug} for slug in slugs]})


def merged(*answers: Answered, form: Form = LIST) -> ModelList:
    found = merge(answers, form)
    assert found is not None
    return found


def test_each_model_is_the_first_accounts_byte_for_byte() -> None:
    work = '{"object" : "list","data":[ {"id":"a", "n":1.50} , {"n":1e400,"id":"b"} ],"x": [ ]}'
    home = '{"data":[{"id":"b","n":2},{"id":"\\u00fc","big":123456789012345678901234567890}]}'
    found = merged(answered("work", work), answered("home", home))
    assert found.body == (
        b'{"object":"list","data":[{"id":"a", "n":1.50},{"n":1e400,"id":"b"},'
        b'{"id":"\\u00fc","big":123456789012345678901234567890}],"x":[ ]}'
    )
    assert (found.status, found.content_type) == (200, JSON)
    assert found.accounts == ("work", "home")
    assert found.said == {"work": "contributed", "home": "contributed"}


def test_the_catalogue_is_merged_by_its_own_names() -> None:
    found = merged(
        answered("work", catalogue("a", "b")), answered("home", catalogue("c", "a")), form=CATALOGUE
    )
    assert json.loads(found.body) == {"models": [{"slug": "a"}, {"slug": "b"}, {"slug": "c"}]}


@pytest.mark.parametrize(
    "others",
    [
        [],
        [answered("home", listing("a", "b"), etag="h")],
        [answered("home", listing("b"), etag="h")],
        [answered("home", listing(), etag="h")],
        [answered("home", "<html>", etag="h")],
        [answered("home", listing("c"), etag="h", not_models=("c",))],
        [answered("home", catalogue("c"), etag="h")],
    ],
)
def test_what_adds_nothing_leaves_the_first_body_and_its_etag(others: list[Answered]) -> None:
    body = f" {listing('a', 'b')}\n"
    found = merged(answered("work", body, etag='W/"1"'), *others)
    assert (found.body, found.etag, found.accounts) == (body.encode(), 'W/"1"', ("work",))


def test_a_list_put_together_has_an_etag_of_its_own() -> None:
    one = merged(answered("work", listing("a"), etag="w"), answered("home", listing("b")))
    same = merged(answered("work", listing("a"), etag="x"), answered("home", listing("b")))
    other = merged(answered("work", listing("a"), etag="w"), answered("home", listing("c")))
    assert one.etag == same.etag != other.etag
    assert one.etag is not None
    assert one.etag.startswith('"codexlb-')


def test_a_model_that_the_configuration_keeps_from_an_account_is_not_its() -> None:
    work = answered("work", listing("a", "b-1", "c"), models=("a", "b-*"))
    home = answered("home", listing("b-1", "c", "d"), not_models=("d",))
    found = merged(work, home)
    assert [m["id"] for m in json.loads(found.body)["data"]] == ["a", "b-1", "c"]
    assert found.accounts == ("work", "home")


def test_an_entry_without_a_name_is_kept() -> None:
    found = merged(
        answered("work", '{"data":[{"id":"a"},7]}'), answered("home", '{"data":[7,{"id":3},null]}')
    )
    assert json.loads(found.body)["data"] == [{"id": "a"}, 7, {"id": 3}, None]


FAILED = [
    answered("home", "oops", 500),
    answered("home", listing("z"), 401),
    answered("home", b"\xff"),
    answered("home", "[1]"),
    answered("home", "[" * 100_000),
    answered("home", '{"data":[1'),
]


@pytest.mark.parametrize("failed", FAILED)
def test_who_gives_no_list_is_left_out(failed: Answered) -> None:
    found = merged(failed, answered("work", listing("a")))
    assert (found.accounts, found.said) == (("work",), {"home": "failed", "work": "contributed"})
    assert merge([failed], LIST) is None


@pytest.mark.parametrize("body", [listing("a"), '{"models":{}}'])
def test_where_nobody_contributes_the_first_answer_is_passed_on(body: str) -> None:
    found = merged(FAILED[0], answered("work", body, etag="w"), form=CATALOGUE)
    assert (found.status, found.body, found.etag) == (200, body.encode(), "w")
    assert (found.accounts, found.said["work"]) == (("work",), "other_form")


@pytest.mark.parametrize("body", ["<html>", '{"error":{"code":"x"}}', "[" * 100_000])
def test_a_refusal_is_passed_on_in_the_envelope(body: str) -> None:
    found = merged(FAILED[0], answered("work", body, 404, etag="w"))
    error = json.loads(found.body)["error"]
    assert {"message", "type", "code", "param"} <= set(error)
    assert error["code"] == ("x" if "code" in body else None)
    assert (found.status, found.etag, found.content_type) == (404, None, JSON)
    assert (found.accounts, found.said["work"]) == (("work",), "refused")


def test_nobody_answered() -> None:
    assert merge([], LIST) is None
    assert first_that_has([]) is None


NOT_FOUND = answered("home", "no", 404)


def test_one_model_is_the_first_accounts_that_has_it() -> None:
    found = first_that_has([NOT_FOUND, None, answered("work", "{}"), answered("spare", "{ }")])
    assert found is not None
    assert (found.body, found.accounts) == (b"{}", ("work",))


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([NOT_FOUND, answered("work", "neither", 404)], 404),
        ([NOT_FOUND, None], None),
        ([NOT_FOUND, answered("work", "", 500)], None),
        ([NOT_FOUND, answered("work", "", 401)], None),
    ],
)
def test_a_model_is_not_found_only_if_all_say_so(
    answers: list[Answered | None], status: int | None
) -> None:
    found = first_that_has(answers)
    assert (None if found is None else found.status) == status


def test_limits_do_not_shrink_the_list() -> None:
    found = pool(
        *("a", "b", "c", "d", "e"), b="limited_for_long", c="cooling", d="disabled", e="needs_login"
    )
    assert [account.name for account in asked_for_models(found)] == ["a", "b", "c"]


def test_the_error_where_nobody_tells() -> None:
    assert nobody_tells(pool("a", "b", b="disabled"), "why").code == "upstream_unavailable"
    assert nobody_tells(pool("a", a="limited"), "why").code == "rate_limit_exceeded"
    assert nobody_tells(pool("a", a="needs_login"), "why").code == "no_accounts"


NO_ETAGS = CatalogueEtags()


def after(*answers: Answered, etags: CatalogueEtags = NO_ETAGS) -> CatalogueEtags:
    return etags.after(answers, merged(*answers, form=CATALOGUE))


def test_before_a_catalogue_was_asked_for_turns_tell_their_own_etag() -> None:
    assert CatalogueEtags().told("work", "w") == "w"


def test_turns_tell_the_etag_of_the_catalogue_that_clients_have() -> None:
    work = answered("work", catalogue("a"), etag="w")
    home = answered("home", catalogue("b"), etag="h")
    ours = merged(work, home, form=CATALOGUE).etag
    etags = after(work, home)
    assert (etags.told("work", "w"), etags.told("home", "h")) == (ours, ours)
    # What is new is told, and sends clients for a new catalogue.
    assert etags.told("home", "h2") == "h2"
    newer = after(work, answered("home", catalogue("b", "c"), etag="h2"), etags=etags)
    assert newer.told("home", "h2") == newer.told("work", "w") not in ("h2", "w", ours)


def test_the_same_catalogue_under_several_etags() -> None:
    etags = after(
        answered("work", catalogue("a"), etag="w"), answered("home", catalogue("a"), etag="h")
    )
    assert (etags.told("work", "w"), etags.told("home", "h")) == ("w", "w")


@pytest.mark.parametrize(
    "home",
    [
        answered("home", catalogue("b")),
        answered("home", listing("b"), etag="h"),
        answered("home", "", 500, etag="h"),
    ],
)
def test_an_account_whose_catalogue_clients_do_not_have_tells_no_etag(home: Answered) -> None:
    etags = after(answered("work", catalogue("a"), etag="w"), home)
    assert etags.told("work", "w") is not None
    assert etags.told("home", "h") is None
    assert etags.told("spare", "s") is None


def test_a_catalogue_without_an_etag_is_never_asked_for_again() -> None:
    assert after(answered("work", catalogue("a"))).told("work", "w") is None


def test_old_etags_are_forgotten() -> None:
    etags = CatalogueEtags()
    for number in range(300):
        etags = after(answered("work", catalogue("a"), etag=f"w{number}"), etags=etags)
    assert len(etags.handed_out) == 200
    assert etags.told("work", "w299") == "w299"


names = st.lists(st.sampled_from("abcdef"), max_size=5)


@given(st.lists(names, min_size=1, max_size=4))
def test_all_models_are_there_once_and_in_order(lists: list[list[str]]) -> None:
    answers = [answered(f"account-{n}", listing(*ids)) for n, ids in enumerate(lists)]
    found = merged(*answers)
    expected = list(dict.fromkeys(name for ids in lists for name in ids))
    assert [model["id"] for model in json.loads(found.body)["data"]] == expected
    again = merged(answered("all", found.body))
    assert again.body == found.body
