"""What an account's own table says of it: the models that it takes, and how many turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codexlb_cli.core.accounts import Account
from codexlb_cli.core.calls import listed_accounts
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.plan import Plan, Start, opening, with_models
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool, first_choice, unusable_reason
from codexlb_cli.core.turn_events import TurnFacts
from tests.core.pools import NOW, pool

FREE = TurnFacts()


@pytest.mark.parametrize(
    ("models", "not_models", "model", "takes"),
    [
        ((), (), "gpt-5", True),
        ((), (), None, True),
        (("gpt-5*",), (), "gpt-5.2-codex", True),
        (("gpt-5*",), (), "GPT-5", False),
        (("gpt-5*",), (), "o3", False),
        (("o3", "gpt-4?"), (), "gpt-4o", True),
        (("gpt-5*",), (), None, True),
        ((), ("*-mini",), "gpt-5-mini", False),
        ((), ("*-mini",), "gpt-5", True),
        (("gpt-5*",), ("*-mini",), "gpt-5-mini", False),
        (("*",), ("*",), "gpt-5", False),
    ],
)
def test_the_models_that_an_account_takes(
    models: tuple[str, ...], not_models: tuple[str, ...], model: str | None, takes: bool
) -> None:
    assert Account("work", models=models, not_models=not_models).takes(model) is takes


def plan(facts: TurnFacts, accounts: Pool) -> Plan:
    return opening(facts, with_models(accounts, is_hard=facts.is_hard), ReconnectPolicy())


def reasons(plan: Plan) -> dict[str, str]:
    return {verdict.account: verdict.reason for verdict in plan.verdicts}


def test_a_model_goes_to_an_account_that_takes_it() -> None:
    accounts = replace(pool("work", "home"), not_taking=frozenset({"work"}))
    assert first_choice(accounts) == ["home"]
    assert unusable_reason(accounts, "work") == "model_unavailable"
    planned = plan(FREE, accounts)
    assert planned.candidates == ("home",)
    assert reasons(planned) == {"home": "policy", "work": "model_unavailable"}


def test_a_soft_owner_that_does_not_take_the_model_is_left_for_this_turn() -> None:
    accounts = replace(pool("work", "home"), not_taking=frozenset({"work"}))
    planned = plan(TurnFacts(strength=Strength.SOFT, owner="work"), accounts)
    assert (planned.reason, planned.candidates) == (Start.OWNER_CANNOT_SERVE, ("home",))


def test_a_conversation_stays_with_its_owner_whatever_its_model() -> None:
    accounts = replace(pool("work", "home"), not_taking=frozenset({"work"}))
    planned = plan(TurnFacts(strength=Strength.HARD, owner="work", bound=True), accounts)
    assert (planned.reason, planned.candidates) == (Start.OWNER, ("work",))


def test_a_model_that_no_account_takes_is_an_error_of_its_own() -> None:
    accounts = replace(
        pool("work", "home", "spare", home="limited", spare="disabled"),
        not_taking=frozenset({"work", "home"}),
    )
    planned = plan(FREE, accounts)
    assert planned.candidates == planned.queued_for == ()
    assert planned.error is not None
    assert (planned.error.code, planned.error.status) == ("model_unavailable", 400)
    assert planned.error.param == "model"


def test_only_accounts_that_take_the_model_are_waited_for() -> None:
    accounts = replace(
        pool("work", "home", "spare", home="limited", spare="limited_for_long"),
        not_taking=frozenset({"home"}),
        max_turns=1,
        in_flight={"work": 1},
    )
    assert plan(FREE, accounts).queued_for == ("work",)
    others = replace(accounts, not_taking=frozenset({"work", "home"}))
    planned = plan(FREE, others)
    assert planned.error is not None
    assert planned.error.code == "usage_limit_reached", "until `spare` is back, not `home`"


def test_what_was_learned_of_models_gives_way_and_the_configuration_does_not() -> None:
    learned = replace(pool("work", "home"), without_model=frozenset({"work"}))
    both = replace(learned, not_taking=frozenset({"home"}))
    assert plan(FREE, both).candidates == ("work",), "its own error is the answer"


def test_an_account_may_take_fewer_or_more_turns_than_others() -> None:
    accounts = (Account("work", max_turns=1), Account("home"), Account("spare", max_turns=0))
    busy = Pool(accounts, NOW, in_flight=dict.fromkeys(("work", "home", "spare"), 1), max_turns=2)
    assert [busy.crowded(a.name) for a in accounts] == [True, False, False]
    assert first_choice(busy) == ["home", "spare"]
    busier = replace(busy, in_flight=dict.fromkeys(("work", "home", "spare"), 2))
    assert [busier.crowded(a.name) for a in accounts] == [True, True, False]
    assert listed_accounts(busier) == ["work", "home", "spare"], "files take no turns"
    unbounded = replace(busy, max_turns=0)
    assert [unbounded.crowded(a.name) for a in accounts] == [True, False, False]
