"""Who owns a turn, and what is remembered of its keys."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.affinity import ANCHORS, STRENGTHS, Key, read_evidence, turn_state_key
from codexlb_cli.core.frames import parse_body
from codexlb_cli.core.ownership import (
    NEW,
    KeyRecord,
    Seated,
    anchor_lost,
    keeps_soft_owner,
    owner_after,
    plan_error,
    resolve,
)
from codexlb_cli.core.reconnect import Strength
from tests.core.pools import NOW, pool

# --- what a key remembers --------------------------------------------------------------------


def test_a_key_that_gave_up_gets_no_replay_for_thirty_seconds() -> None:
    assert KeyRecord().may_replay(NOW)
    record = KeyRecord("work", bound=True).failed(NOW)
    assert [record.may_replay(NOW + s) for s in (0, 29.9, 30, 31)] == [False, False, True, True]
    assert record.owner == "work"
    assert record.bound
    again = record.failed(NOW + 40)
    assert not again.may_replay(NOW + 69)
    assert again.may_replay(NOW + 70)


def test_three_failed_turns_over_a_minute_are_the_owners_failure() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 30):
        record = record.failed(NOW + second)
        assert not record.owner_keeps_failing
    record = record.failed(NOW + 60)
    assert record.owner_keeps_failing
    assert record.failures == 3


def test_three_quick_failures_are_not() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 1, 2):
        record = record.failed(NOW + second)
    assert not record.owner_keeps_failing


def test_a_completed_turn_forgets_failures() -> None:
    record = KeyRecord("work", bound=True)
    for second in (0, 40, 80):
        record = record.failed(NOW + second)
    done = record.completed("home")
    assert done == KeyRecord("home", bound=True)
    assert done.may_replay(NOW + 80)
    assert not done.failed(NOW + 200).owner_keeps_failing


@pytest.mark.parametrize(
    ("state", "keeps"),
    [
        ("ready", True), ("cooling", True), ("back_soon", True), ("limited", True),
        ("limited_for_long", False), ("needs_login", False), ("disabled", False),
    ],
)  # fmt: skip
def test_what_holds_for_one_request_never_rewrites_a_soft_row(state: str, keeps: bool) -> None:
    standing = pool("work", work=state).standing_of("work")
    assert keeps_soft_owner(standing, NOW) is keeps
    assert not keeps_soft_owner(None, NOW)


@pytest.mark.parametrize(
    ("members", "on_socket", "live", "owner_known", "lost"),
    [
        ({}, False, False, False, False),
        ({"previous_response_id": "r"}, True, True, False, False),
        ({"previous_response_id": "r"}, True, False, False, True),
        ({"previous_response_id": "r", "store": False}, True, False, False, True),
        ({"previous_response_id": "r", "store": False}, False, False, True, False),
        ({"previous_response_id": "r", "store": False}, False, False, False, True),
        ({"previous_response_id": "r"}, False, False, False, False),
    ],
)
def test_when_the_response_that_a_turn_continues_is_lost(
    members: dict[str, Any], on_socket: bool, live: bool, owner_known: bool, lost: bool
) -> None:
    evidence = read_evidence([], parse_body(json.dumps(members).encode()))
    assert anchor_lost(evidence, on_socket=on_socket, live=live, owner_known=owner_known) is lost


@pytest.mark.parametrize(
    ("source", "bound", "state", "owner"),
    [
        ("session", True, "ready", "home"),
        ("prompt_cache", False, "ready", "home"),
        ("prompt_cache", True, "ready", "work"),
        ("prompt_cache", True, "disabled", "home"),
    ],
)
def test_who_owns_a_key_after_another_account_completed_a_turn(
    source: str, bound: bool, state: str, owner: str
) -> None:
    record = KeyRecord("work", bound=bound)
    assert owner_after(Key(source, "k"), record, "home", pool("work", "home", work=state)) == owner
    assert owner_after(Key(source, "k"), record, "home", pool("home")) == "home"


def test_a_cache_key_follows_its_model() -> None:
    lacking = replace(pool("work", "home"), without_model=frozenset({"work"}))
    record = KeyRecord("work", bound=True)
    assert owner_after(Key("prompt_cache", "k"), record, "home", lacking) == "home"


# --- which key decides -----------------------------------------------------------------------

PREVIOUS, CONVERSATION = Key("previous_response", "r"), Key("conversation", "c")
FILE, OTHER_FILE = Key("file", "f1"), Key("file", "f2")
STATE, SESSION, CACHE = turn_state_key("ts"), Key("session", "s"), Key("prompt_cache", "k")
EVERY = (PREVIOUS, CONVERSATION, FILE, OTHER_FILE, STATE, SESSION, CACHE)


def request(*keys: Key, **members: Any) -> Any:
    """The evidence of a request that names exactly these keys."""
    headers = []
    content = [{"type": "input_file", "file_id": k.value} for k in keys if k.source == "file"]
    body: dict[str, Any] = {"input": [{"role": "user", "content": content}], **members}
    for key in keys:
        match key.source:
            case "previous_response":
                body["previous_response_id"] = key.value
            case "conversation":
                body["conversation"] = {"id": key.value}
            case "turn_state":
                headers.append(("x-codex-turn-state", "ts"))
            case "session":
                headers.append(("session-id", key.value))
            case "prompt_cache":
                body["prompt_cache_key"] = key.value
    evidence = read_evidence(headers, parse_body(json.dumps(body).encode()))
    assert evidence.keys == keys
    return evidence


def owned(**owners: str) -> dict[Key, KeyRecord]:
    by_name = {
        "previous": PREVIOUS, "conversation": CONVERSATION, "file": FILE, "other_file": OTHER_FILE,
        "state": STATE, "session": SESSION, "cache": CACHE,
    }  # fmt: skip
    return {by_name[name]: KeyRecord(owner, bound=True) for name, owner in owners.items()}


@pytest.mark.parametrize(
    ("keys", "owners", "decides", "owner"),
    [
        ((), {}, Key("none", ""), None),
        ((CACHE,), {}, CACHE, None),
        ((CACHE,), {"cache": "work"}, CACHE, "work"),
        ((SESSION, CACHE), {"cache": "work"}, SESSION, None),
        ((SESSION, CACHE), {"session": "home", "cache": "work"}, SESSION, "home"),
        ((STATE,), {}, Key("none", ""), None),
        ((STATE, SESSION), {}, SESSION, None),
        ((STATE, SESSION), {"state": "work"}, STATE, "work"),
        ((STATE, SESSION), {"session": "work"}, SESSION, "work"),
        ((STATE, SESSION), {"state": "work", "session": "home"}, STATE, "work"),
        ((CONVERSATION, SESSION), {"session": "home"}, SESSION, "home"),
        (
            (CONVERSATION, SESSION),
            {"conversation": "work", "session": "home"},
            CONVERSATION,
            "work",
        ),
        ((FILE, SESSION), {"file": "work", "session": "home"}, FILE, "work"),
        ((FILE, OTHER_FILE), {"other_file": "work"}, OTHER_FILE, "work"),
        ((PREVIOUS, SESSION), {"previous": "work", "session": "home"}, PREVIOUS, "work"),
        ((PREVIOUS, FILE), {"file": "work"}, FILE, "work"),
        ((FILE, CACHE), {"cache": "work"}, FILE, None),
    ],
)
def test_the_strongest_key_with_an_owner_decides(
    keys: tuple[Key, ...], owners: dict[str, str], decides: Key, owner: str | None
) -> None:
    ownership = resolve(request(*keys), lambda k: owned(**owners).get(k, NEW))
    assert (ownership.key, ownership.owner) == (decides, owner)
    assert not ownership.asks
    assert ownership.error is None


def test_nobody_knows_the_previous_response() -> None:
    known = owned(session="home")
    ownership = resolve(request(PREVIOUS, SESSION), lambda k: known.get(k, NEW))
    assert (ownership.key, ownership.owner) == (PREVIOUS, None)
    assert (ownership.asks, ownership.hint) == (True, "home")
    assert plan_error(ownership, request(PREVIOUS, SESSION), Seated()) is None
    lost = plan_error(ownership, request(PREVIOUS, SESSION, store=False), Seated())
    assert lost is not None
    assert lost.code == "previous_response_not_found"


@pytest.mark.parametrize(
    ("keys", "owners"),
    [
        ((PREVIOUS, CONVERSATION), {"previous": "work", "conversation": "home"}),
        ((PREVIOUS, FILE), {"previous": "work", "file": "home"}),
        ((CONVERSATION, FILE), {"conversation": "work", "file": "home"}),
        ((FILE, OTHER_FILE), {"file": "work", "other_file": "home"}),
    ],
)
def test_anchors_in_two_accounts_are_a_conflict(
    keys: tuple[Key, ...], owners: dict[str, str]
) -> None:
    ownership = resolve(request(*keys), lambda k: owned(**owners).get(k, NEW))
    assert ownership.conflict == ("work", "home")
    error = plan_error(ownership, request(*keys), Seated())
    assert error is not None
    assert (error.status, error.code) == (400, "continuity_owner_conflict")
    assert "`work` and `home`" in error.message


def test_a_claim_that_is_not_bound_yet_is_no_conflict() -> None:
    known = {CONVERSATION: KeyRecord("work", bound=True), FILE: KeyRecord("home")}
    assert resolve(request(CONVERSATION, FILE), lambda k: known.get(k, NEW)).conflict == ()


@given(
    st.sets(st.sampled_from(EVERY)).map(lambda some: tuple(k for k in EVERY if k in some)),
    st.dictionaries(st.sampled_from(EVERY), st.sampled_from(["work", "home"])),
)
def test_what_holds_for_every_ownership(keys: tuple[Key, ...], owners: dict[Key, str]) -> None:
    records = {key: KeyRecord(owner, bound=True) for key, owner in owners.items()}
    ownership = resolve(request(*keys), lambda k: records.get(k, NEW))
    anchors = {owners[k] for k in keys if k.source in ANCHORS and k in owners}
    assert set(ownership.conflict) == (anchors if len(anchors) > 1 else set())
    assert [w.key for w in ownership.witnesses] == list(keys)
    assert sum(w.role == "decides" for w in ownership.witnesses) == (ownership.key.source != "none")
    if ownership.owner is not None:
        ranks = list(STRENGTHS)
        hard = [k for k in keys if k in owners and k.strength is Strength.HARD]
        best = min((ranks.index(k.source) for k in hard), default=None)
        assert ownership.owner == owners[ownership.key]
        assert best is None or ranks.index(ownership.key.source) == best
    if anchors and not ownership.conflict:
        assert {ownership.owner} == anchors
