"""Adding up: what is known is summed, what is unknown is never zero, and costs are honest."""

from __future__ import annotations

import pytest

from codexlb_cli.core.prices import FREE, Cost, Price, cost_of, price_of
from codexlb_cli.core.usage_report import Group, Sums, Used, report

PRICES = {"m": Price(2.0, 0.5, 10.0), "m@flex": Price(1.0, 1.0, 1.0)}
MILLION = 1_000_000


def sums(group: str | int | None, model: str = "m", tier: str | None = None) -> Sums:
    """Two turns, both answered, one with known tokens."""
    numbers = (2, 1, 3, MILLION, MILLION // 2, MILLION, None, 2, 1)
    return Sums(None, group, model, tier, *numbers, MILLION, MILLION // 2, MILLION)


@pytest.mark.parametrize(
    ("model", "tier", "input_price"),
    [
        ("m", None, 2.0),
        ("m", "default", 2.0),
        ("m", "auto", 2.0),
        ("m", "flex", 1.0),
        ("m", "priority", None),
        ("other", None, None),
        (None, None, None),
    ],
)
def test_a_tier_has_a_price_of_its_own(
    model: str | None, tier: str | None, input_price: float | None
) -> None:
    price = price_of(model, tier, PRICES)
    assert (None if price is None else price.input) == input_price


def test_cached_tokens_are_among_the_input() -> None:
    cost = cost_of(PRICES["m"], answered=3, measured=2, tokens=(MILLION, 400_000, 100_000))
    assert cost == Cost(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10, 1)


def test_what_is_not_known_costs_no_zero() -> None:
    assert cost_of(None, answered=2, measured=2, tokens=(1, 0, 1)) == Cost(None, 2)
    assert cost_of(PRICES["m"], answered=2, measured=0, tokens=(0, 0, 0)) == Cost(None, 2)
    assert cost_of(PRICES["m"], answered=0, measured=0, tokens=(0, 0, 0)) == FREE
    assert Cost(1.5, 1) + Cost(None, 2) + FREE == Cost(1.5, 3)


def test_models_of_one_group_are_added_up() -> None:
    rows = [sums("a"), sums("b", "other"), sums("a", "other"), sums("a", tier="flex")]
    found = report(rows, "account", PRICES)
    a = Used(6, 3, 9, 3 * MILLION, 3 * MILLION // 2, 3 * MILLION, None, Cost(11.25 + 2.0, 4))
    b = Used(2, 1, 3, MILLION, MILLION // 2, MILLION, None, Cost(None, 2))
    assert found.groups == (Group(None, "a", a), Group(None, "b", b))
    assert found.total == a + b


def test_order_and_names() -> None:
    days = report([sums(20_491), sums(0), sums(None)], "day", {})
    assert [group.name for group in days.groups] == ["1970-01-01", "2026-02-07", None]
    equal = report([sums("b"), sums(None), sums("a")], "account", {})
    assert [group.name for group in equal.groups] == ["a", "b", None]
    assert report([], "account", {}).total == Used()
