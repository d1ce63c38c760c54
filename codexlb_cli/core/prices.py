"""What tokens cost, in USD. Prices are what the person configured: none is built in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CURRENCY = "USD"
_MILLION = 1_000_000
_DEFAULT_TIERS = frozenset({None, "", "auto", "default"})


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD per million tokens.

    Attributes:
        input: of the request.
        cached: of the request, from the upstream's cache.
        output: of the answer, reasoning included.
    """

    input: float
    cached: float
    output: float

    def of(self, taken: int, cached: int, given: int) -> float:
        """Return the cost of tokens; `cached` are among those that were taken."""
        cost = (taken - cached) * self.input + cached * self.cached + given * self.output
        return cost / _MILLION


@dataclass(frozen=True, slots=True)
class Cost:
    """What some turns cost, as far as that is known.

    Attributes:
        usd: the cost of the turns whose price and tokens are known; None if there is none.
        unknown: how many turns were answered whose cost is not known.
    """

    usd: float | None = None
    unknown: int = 0

    def __add__(self, other: Cost) -> Cost:
        known = [usd for usd in (self.usd, other.usd) if usd is not None]
        return Cost(sum(known) if known else None, self.unknown + other.unknown)


FREE = Cost()
"""The cost of nothing."""


def price_of(model: str | None, tier: str | None, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of a model; None if it is not known.

    Args:
        model: its name.
        tier: the service tier; another than the default has a price of its own, `MODEL@TIER`.
        prices: by name.
    """
    if model is None:
        return None
    return prices.get(model if tier in _DEFAULT_TIERS else f"{model}@{tier}")


def cost_of(
    price: Price | None, *, answered: int, measured: int, tokens: tuple[int, int, int]
) -> Cost:
    """Return what some turns of one model cost.

    Args:
        price: of the model; None if it is not known.
        answered: how many of the turns began to be answered; the others cost nothing.
        measured: how many of those have known tokens.
        tokens: of those: input, cached (unknown ones count as not cached), output.
    """
    if price is None or not measured:
        return Cost(None, answered)
    return Cost(price.of(*tokens), answered - measured)
