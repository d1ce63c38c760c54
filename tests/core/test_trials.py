"""What a tried account is told of: results, exit codes, words; bounded and without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from codexlb_cli.core.failures import parse
from codexlb_cli.core.headers import Header
from codexlb_cli.core.trials import (
    LONGEST_MESSAGE,
    REASONS,
    Result,
    Timings,
    Tried,
    accepted,
    exit_status,
    limit_words,
    refused,
    unreachable,
    without_credential,
)
from codexlb_cli.errors import ExitStatus

SECRET = "sk-test-LEAK"
NO_TIME = Timings()


def refusal(status: int, message: object = "no", code: str | None = None, **headers: str) -> Tried:
    body = {"error": {"code": code, "message": message}}
    failure = parse(status, body, headers, 0.0, handshake=True)
    return refused("work", "websocket", failure, SECRET, NO_TIME)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (401, Result.NEEDS_LOGIN),
        (403, Result.REFUSED),
        (404, Result.REFUSED),
        (429, Result.REFUSED),
        (302, Result.REFUSED),
        (500, Result.REFUSED),
    ],
)
def test_refusals(status: int, result: Result) -> None:
    tried = refusal(status)
    assert (tried.result, tried.status, tried.message) == (result, status, "no")
    assert tried.reason


def test_the_worst_result_decides() -> None:
    some = {
        ExitStatus.DONE: accepted("work", "http", 200, (), NO_TIME),
        ExitStatus.SIGN_IN: without_credential("work", "`WORK_KEY` is not set in this shell"),
        ExitStatus.UPSTREAM: unreachable("work", "dns", NO_TIME),
    }
    for codes in product(some, repeat=3):
        assert exit_status(some[code] for code in codes) == max(codes)
    assert exit_status([]) == ExitStatus.DONE
    assert {result.exit_status for result in Result} == set(some)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_words(reason: str) -> None:
    assert unreachable("work", reason, NO_TIME).message == REASONS[reason]


def test_secrets_are_masked_and_messages_are_bounded() -> None:
    tried = refusal(401, f"bad key {SECRET}.", SECRET, **{"x-ratelimit-note": f"of {SECRET}"})
    assert tried.message == "bad key ***."
    assert tried.code == "***"
    assert tried.limits == (("x-ratelimit-note", "of ***"),)
    assert SECRET not in repr(tried)
    long = refusal(500, "x" * (LONGEST_MESSAGE + 1)).message
    assert long is not None
    assert len(long) == LONGEST_MESSAGE
    assert long.endswith("...")
    assert refusal(500, ["no text"]).message is None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([], []),
        (
            [
                ("x-codex-primary-used-percent", "12"),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-secondary-used-percent", "3.5"),
                ("x-codex-secondary-window-minutes", "10080"),
            ],
            ["5 h window 12 % used", "7 day window 3.5 % used"],
        ),
        ([("x-codex-primary-used-percent", "1")], ["primary window 1 % used"]),
        (
            [
                ("x-codex-primary-used-percent", "1"),
                ("x-codex-primary-window-minutes", "90"),
                ("x-ratelimit-remaining-tokens", "900"),
                ("x-ratelimit-limit-tokens", "1000"),
                ("x-ratelimit-remaining-requests", "0"),
            ],
            ["90 min window 1 % used", "requests 0 left", "tokens 900 of 1000 left"],
        ),
    ],
)
def test_words_for_limits(limits: Sequence[Header], words: list[str]) -> None:
    assert limit_words(limits) == words
