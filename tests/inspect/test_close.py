"""What `simulate close` says for every code, affinity and phase, against a table typed by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from codexlb_cli.core.accounts import Account, AccountState
from codexlb_cli.core.closes import CloseOverride, ReconnectPolicy, SoftMove
from codexlb_cli.core.reconnect import Phase, Strength
from codexlb_cli.inspect.close import Question, Simulation, document, simulate, text
from codexlb_cli.inspect.pool import OfflinePool
from tests.inspect.accounts import HOME, LAB, LIMITED, NOW, WORK, five_accounts, pool_of

NAMES = ("a", "b", "c", "d")


def asked(
    code: int,
    offline: OfflinePool,
    *,
    closed: str = "work",
    phase: str = "sent",
    affinity: str | None = None,
    replays: int = 0,
    policy: ReconnectPolicy | None = None,
) -> Simulation:
    affinities = tuple(Strength) if affinity is None else (Strength(affinity),)
    question = Question(code, closed, Phase(phase), affinities, replays)
    return simulate(question, offline, policy or ReconnectPolicy())


def outcome(code: int, offline: OfflinePool, affinity: str, **more: Any) -> dict[str, Any]:
    (found,) = document(asked(code, offline, affinity=affinity, **more))["outcomes"]
    return dict(found)


def brief(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(v["account"], v["verdict"], v["reason"]) for v in found["verdicts"]]


# Code; what a soft turn does; what it waits for on the same account; the row's reason.
STAY, LEAVE, FAIL = "same account, then others", "another account", "give up"
TABLE: list[tuple[int, str, float, str]] = [
    *[(code, STAY, 0.0, "upstream_going_away") for code in (1000, 1001, 1005)],
    (1006, STAY, 0.0, "transport_lost"),
    *[
        (code, FAIL, 0.0, "protocol_fault")
        for code in (1002, 1003, 1004, 1007, 1010, 1015, 1016, 1999, 2000, 2999)
    ],
    (1008, LEAVE, 0.25, "policy_violation"),
    *[(code, LEAVE, 0.25, "credentials_refused") for code in (3000, 3003)],
    (1009, FAIL, 0.0, "message_too_big"),
    (1011, LEAVE, 0.25, "internal_error"),
    (1012, STAY, 1.0, "upstream_restarting"),
    *[(code, STAY, 0.25, "upstream_restarting") for code in (1014, 3008)],
    (1013, LEAVE, 1.0, "try_again_later"),
    *[
        (code, LEAVE, 0.25, "private_close")
        for code in (3001, 3002, 3004, 3007, 3009, 3999, 4000, 4008, 4429, 4999)
    ],
]
SEEN = {"protocol_fault": "upstream_protocol_error", "message_too_big": "request_too_large"}

Expected = tuple[str, str | None, bool, float, str, str, list[tuple[str, str, str]]]


def expected(
    row: tuple[int, str, float, str],
    affinity: str,
    phase: str,
    names: tuple[str, ...],
    replays: int,
) -> Expected:
    """Return move, account, replay, delay, reason, client_sees and verdicts; `names[0]` closed."""
    _, soft, wait, reason = row
    closed, *others = names
    if phase in ("created", "streaming"):
        return give_up(affinity, names, "response_started", "upstream_closed")
    if phase == "sent" and soft == FAIL:
        return give_up(affinity, names, reason, SEEN[reason])
    if phase == "sent" and replays >= 1:
        return give_up(affinity, names, reason, "upstream_unavailable")
    replay = phase == "sent"
    if phase == "idle":
        soft, wait, reason = STAY, 0.0, "idle_socket_retired"
    if affinity == "hard":
        kept = "hard_affinity_keeps_owner" if soft == LEAVE else reason
        rest = [(name, "excluded", "not_owner") for name in sorted(others)]
        verdicts = [(closed, "picked", "owner"), *rest]
        return "reconnect", closed, replay, wait, kept, "nothing", verdicts
    if soft == STAY:
        why = "owner" if affinity == "soft" else "policy"
        verdicts = [(closed, "picked", why), *((name, "next", "policy") for name in others)]
        return "reconnect", closed, replay, wait, reason, "nothing", verdicts
    if not others:
        verdicts = [(closed, "picked", "only_usable_account")]
        return "reconnect", closed, replay, wait, reason, "nothing", verdicts
    first, *rest_of_them = others
    verdicts = [
        (first, "picked", "policy"),
        *((name, "next", "policy") for name in rest_of_them),
        (closed, "excluded", "closed"),
    ]
    return "fail_over", first, replay, 0.0, reason, "nothing", verdicts


def give_up(affinity: str, names: tuple[str, ...], reason: str, sees: str) -> Expected:
    others = "not_owner" if affinity == "hard" else "no_replay"
    verdicts = [
        (name, "excluded", "no_replay" if name == names[0] else others) for name in sorted(names)
    ]
    return "give_up", None, False, 0.0, reason, sees, verdicts


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_every_code_in_every_phase(row: tuple[int, str, float, str]) -> None:
    cases = product(
        ("hard", "soft", "none"),
        ("idle", "sent", "created", "streaming"),
        (1, 2, 3, 4),
        (0, 1, 2),
    )
    for affinity, phase, count, replays in cases:
        accounts = [Account(name) for name in NAMES[:count]]
        for closed in range(count):
            order = NAMES[closed:count] + NAMES[:closed]
            found = outcome(
                row[0],
                pool_of(*accounts),
                affinity,
                closed=NAMES[closed],
                phase=phase,
                replays=replays,
            )
            assert (
                found["move"],
                found["account"],
                found["replay"],
                found["delay_seconds"],
                found["reason"],
                found["client_sees"],
                brief(found),
            ) == expected(row, affinity, phase, order, replays), (affinity, phase, count, replays)
            assert found["owner"] == (None if affinity == "none" else NAMES[closed])


def test_the_fields_of_the_document() -> None:
    found = document(asked(1011, five_accounts()))
    assert list(found) == ["schema", "code", "phase", "closed", "session", "outcomes"]
    assert found["schema"] == "codexlb.simulate.close/1"
    assert (found["code"], found["phase"], found["closed"]) == (1011, "sent", "work")
    assert [o["affinity"] for o in found["outcomes"]] == ["hard", "soft", "none"]
    for one in found["outcomes"]:
        assert list(one) == [
            "affinity",
            "owner",
            "move",
            "account",
            "replay",
            "delay_seconds",
            "reason",
            "client_sees",
            "verdicts",
        ]
        for verdict in one["verdicts"]:
            assert list(verdict) == ["account", "verdict", "reason", "until", "credential_present"]
    soft = found["outcomes"][1]["verdicts"]
    assert soft[-1] == {
        "account": "spare",
        "verdict": "excluded",
        "reason": "limited",
        "until": "2026-05-28T20:27:22Z",
        "credential_present": True,
    }
    assert soft[2] == {
        "account": "lab",
        "verdict": "next",
        "reason": "policy",
        "until": None,
        "credential_present": False,
    }


def test_1011_for_a_person() -> None:
    assert (
        text(asked(1011, five_accounts()))
        == """\
Simulated: the upstream closes the socket of work with 1011 (internal error), after
response.create and before response.created. Nothing was sent or changed.

AFFINITY  MOVE       ACCOUNT  REPLAY  WAIT          CLIENT SEES  REASON
hard      reconnect  work     yes     up to 0.25 s  nothing      hard_affinity_keeps_owner
soft      fail_over  home     yes     none          nothing      internal_error
none      fail_over  home     yes     none          nothing      internal_error

hard: tried in this order
  1  work   picked    owner      a close code never takes a session from its owner
  -  home   excluded  not_owner
  -  team   excluded  not_owner
  -  spare  excluded  not_owner
  -  lab    excluded  not_owner

soft and none: tried in this order
  1  home   picked    policy   the first ready account after work
  2  team   next      policy   if home cannot be dialled
  3  lab    next      policy   if team cannot be dialled (LAB_KEY is not set in this shell)
  -  work   excluded  closed   this turn only; a soft turn comes home next time
  -  spare  excluded  limited  rate_limit_exceeded, 42 s left

A turn is replayed at most once. The client reads it in the header x-codexlb-attempts: 2."""
    )


def test_giving_up_for_a_person() -> None:
    found = asked(1011, five_accounts(), affinity="hard", phase="streaming")
    assert found.gives_up
    assert (
        text(found)
        == """\
Simulated: the upstream closes the socket of work with 1011 (internal error), after output
reached the client. Nothing was sent or changed.

AFFINITY  MOVE     ACCOUNT  REPLAY  WAIT  CLIENT SEES      REASON
hard      give_up  -        no      -     upstream_closed  response_started

No account is tried: a turn is never sent again once response.created has been received."""
    )


def test_an_account_that_is_alone_for_a_person() -> None:
    assert text(asked(1013, pool_of(WORK))).endswith("""\
hard: tried in this order
  1  work  picked  owner  a close code never takes a session from its owner

soft and none: tried in this order
  1  work  picked  only_usable_account  no other account can be used

A turn is replayed at most once. The client reads it in the header x-codexlb-attempts: 2.""")


def test_soft_and_unkeyed_turns_apart_where_they_differ() -> None:
    shown = text(asked(1012, pool_of(WORK, HOME)))
    assert "\n\nsoft: tried in this order\n" in shown
    assert "\n\nnone: tried in this order\n" in shown
    assert "up to 1 s" in shown


def test_an_owner_that_cannot_serve_for_a_person() -> None:
    offline = pool_of(WORK, LAB, states={"work": LIMITED}, missing=("lab",))
    found = asked(1000, offline)
    assert found.gives_up
    assert text(found).endswith("""\
AFFINITY  MOVE       ACCOUNT  REPLAY  WAIT  CLIENT SEES          REASON
hard      give_up    -        no      -     rate_limit_exceeded  limited
soft      fail_over  lab      yes     none  nothing              upstream_going_away
none      fail_over  lab      yes     none  nothing              upstream_going_away

hard: no account is tried, none that may serve this turn can be used now
  -  work  excluded  limited    rate_limit_exceeded, 42 s left
  -  lab   excluded  not_owner

soft and none: tried in this order
  1  lab   picked    policy   the first ready account after work (LAB_KEY is not set in this shell)
  -  work  excluded  limited  rate_limit_exceeded, 42 s left

A turn is replayed at most once. The client reads it in the header x-codexlb-attempts: 2.""")


def test_a_limited_owner_that_is_back_soon_is_waited_for() -> None:
    soon = AccountState(limited_until=NOW + 7.125, limited_reason="rate_limit_exceeded")
    found = asked(1006, pool_of(WORK, HOME, states={"work": soon}), affinity="hard")
    assert document(found)["outcomes"][0]["delay_seconds"] == 7.125
    assert "up to 7.13 s" in text(found)


def test_cooling_accounts_come_last_and_are_never_excluded() -> None:
    cooling = AccountState(cooling_until=NOW + 20, cooling_reason="private_close")
    offline = pool_of(WORK, HOME, LAB, states={"home": cooling})
    found = outcome(1011, offline, "soft")
    assert brief(found) == [
        ("lab", "picked", "policy"),
        ("home", "next", "cooling_down"),
        ("work", "excluded", "closed"),
    ]
    assert "if lab cannot be dialled; private_close, 20 s left" in text(asked(1011, offline))
    assert brief(outcome(1011, offline, "hard", closed="home"))[0] == ("home", "picked", "owner")


def test_the_users_changes_are_in_force() -> None:
    policy = ReconnectPolicy(replays=0, closes={1011: CloseOverride(soft=SoftMove.SAME_ACCOUNT)})
    found = outcome(1011, five_accounts(), "soft", phase="sent", policy=policy)
    assert (found["move"], found["client_sees"]) == ("give_up", "upstream_unavailable")
    policy = ReconnectPolicy(closes=policy.closes)
    found = outcome(1011, five_accounts(), "soft", policy=policy)
    assert (found["move"], found["account"]) == ("reconnect", "work")


def test_every_answer_fits_a_terminal_and_is_ascii() -> None:
    for code, phase, replays in product((1000, 1006, 1009, 1011, 2500, 4999), Phase, (0, 1)):
        shown = text(asked(code, five_accounts(), phase=phase, replays=replays))
        assert shown.isascii()
        assert max(map(len, shown.splitlines())) < 100
