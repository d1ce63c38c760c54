"""The close table, typed a second time: every code, its row, and what a setting may change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.accounts import Effect
from codexlb_cli.core.backoff import Backoff
from codexlb_cli.core.closes import (
    CLOSES,
    LIVENESS_TIMEOUT,
    CloseOverride,
    HardMove,
    ReconnectPolicy,
    SoftMove,
    close_row,
    close_rows,
)

SAME, ANOTHER, STOP = SoftMove.SAME_ACCOUNT, SoftMove.ANOTHER_ACCOUNT, SoftMove.GIVE_UP
OWNER, HARD_STOP = HardMove.OWNER, HardMove.GIVE_UP
NEUTRAL, COUNTED, COOLED = Effect.NEUTRAL, Effect.COUNTED, Effect.COOLED
NO_ONE = "upstream_unavailable"

# codes: reason, account, cooldown, soft, hard, first wait of a repeated account, client sees
EXPECTED: dict[tuple[int, ...], tuple[object, ...]] = {
    (1000, 1001, 1005): ("upstream_going_away", NEUTRAL, 0, SAME, OWNER, 0, NO_ONE),
    (1006,): ("transport_lost", COUNTED, 0, SAME, OWNER, 0, NO_ONE),
    (1002, 1003, 1004, 1007, 1010, 1015, *range(1016, 3000)): (
        "protocol_fault", NEUTRAL, 0, STOP, HARD_STOP, 0, "upstream_protocol_error",
    ),
    (1008,): ("policy_violation", COOLED, 30, ANOTHER, OWNER, 0.25, NO_ONE),
    (3000, 3003): ("credentials_refused", COOLED, 30, ANOTHER, OWNER, 0.25, NO_ONE),
    (1009,): ("message_too_big", NEUTRAL, 0, STOP, HARD_STOP, 0, "request_too_large"),
    (1011,): ("internal_error", COUNTED, 0, ANOTHER, OWNER, 0.25, NO_ONE),
    (1012,): ("upstream_restarting", NEUTRAL, 0, SAME, OWNER, 1, NO_ONE),
    (1014, 3008): ("upstream_restarting", NEUTRAL, 0, SAME, OWNER, 0.25, NO_ONE),
    (1013,): ("try_again_later", COOLED, 5, ANOTHER, OWNER, 1, NO_ONE),
    tuple(c for c in range(3000, 5000) if c not in (3000, 3003, 3008)): (
        "private_close", COOLED, 30, ANOTHER, OWNER, 0.25, NO_ONE,
    ),
}  # fmt: skip
BY_CODE = {code: row for codes, row in EXPECTED.items() for code in codes}
POLICY = ReconnectPolicy()


def test_every_code_has_exactly_one_row() -> None:
    assert sum(map(len, EXPECTED)) == len(BY_CODE) == 4000
    assert set(BY_CODE) == set(range(1000, 5000))
    for code, expected in BY_CODE.items():
        row = close_row(code)
        assert (
            row.reason, row.account, row.cooldown_seconds, row.soft, row.hard,
            POLICY.bound(row.wait), row.client_sees,
        ) == expected, code  # fmt: skip


def test_rows_that_are_not_private_do_not_overlap() -> None:
    for code in range(1000, 5000):
        covering = [row.reason for row in CLOSES if row.covers(code)]
        assert covering == [covering[0], *["private_close"] * (len(covering) - 1)], code


@pytest.mark.parametrize("code", [-1, 0, 999, 5000, 65535])
def test_other_numbers_are_no_close_codes(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        close_row(code)


def test_our_own_keepalive_timeout_blames_nobody() -> None:
    row = LIVENESS_TIMEOUT
    assert (row.reason, row.account, row.soft, row.hard) == (
        "liveness_timeout", NEUTRAL, SAME, OWNER,
    )  # fmt: skip
    assert POLICY.bound(row.wait) == 0
    assert not any(row.covers(code) for code in range(1000, 5000))


@pytest.mark.parametrize("code", [1006, 1008, 1011, 1013, 4321])
def test_the_evidence_names_the_reason(code: int) -> None:
    row = close_row(code)
    evidence = row.evidence
    assert (evidence.effect, evidence.reason) == (row.account, row.reason)
    assert evidence.seconds == row.cooldown_seconds


def test_a_setting_changes_one_code_of_a_row() -> None:
    policy = ReconnectPolicy(closes={1000: CloseOverride(account=Effect.COOLED, soft=ANOTHER)})
    changed = close_row(1000, policy)
    assert (changed.account, changed.soft, changed.hard) == (COOLED, ANOTHER, OWNER)
    assert changed.cooldown_seconds > 0
    assert changed.reason == "upstream_going_away"
    assert close_row(1001, policy) == close_row(1001)
    assert close_row(1000) == close_row(1001)


def test_a_row_that_no_longer_cools_has_no_cooldown() -> None:
    policy = ReconnectPolicy(closes={1013: CloseOverride(account=Effect.NEUTRAL)})
    row = close_row(1013, policy)
    assert (row.account, row.cooldown_seconds) == (NEUTRAL, 0)
    stops = close_row(1013, ReconnectPolicy(closes={1013: CloseOverride(hard=HARD_STOP)}))
    assert stops == replace(close_row(1013), codes=((1013, 1013),), hard=HARD_STOP)


def test_a_protocol_fault_that_may_be_repeated_waits() -> None:
    policy = ReconnectPolicy(closes={1002: CloseOverride(soft=SAME, hard=OWNER)})
    assert policy.bound(close_row(1002, policy).wait) == 0.25


def test_the_table_in_force_lists_the_users_rows_first() -> None:
    policy = ReconnectPolicy(
        closes={4001: CloseOverride(soft=SAME), 1011: CloseOverride(soft=SAME)}
    )
    rows = close_rows(policy)
    assert [row.codes for row in rows[:2]] == [((1011, 1011),), ((4001, 4001),)]
    assert rows[2:] == (*CLOSES, LIVENESS_TIMEOUT)


def test_back_off_bounds() -> None:
    policy = ReconnectPolicy(backoff=Backoff(0.5, 2.0))
    assert [policy.bound("none", n) for n in range(3)] == [0, 0, 0]
    assert [policy.bound("short", n) for n in range(4)] == [0.5, 1, 2, 2]
    assert [policy.bound("long", n) for n in range(5)] == [1, 2, 4, 5, 5]
