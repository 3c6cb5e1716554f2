"""A request for advice: a frozen record, its checks, and its JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec import distance as distances
from keepmore.spec.budget import Budget, MoneyBudget
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import ID_DIGITS
from keepmore.spec.pilot_grid import FEWEST_DISTANCES, FEWEST_IMAGES
from keepmore.spec.training import PROBE, Training

DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0)
MOST_BUDGETS = 100
# Random choices of images: the intervals are based on the differences between them, and two or three say little about
# these.
SEEDS, MOST_SEEDS = 8, 100
LEAST_PRICE, MOST_PRICE = Decimal("1e-18"), Decimal("1e18")


def price(value: float | str | None) -> Decimal | None:
    """Money per 10^9 bytes and month, as people write it. Raises InvalidRequest."""
    if value is None:
        return None
    try:
        return Decimal(str(value)[: budgets.MOST_CHARACTERS])
    except InvalidOperation:
        raise InvalidRequest(
            f"{str(value)[:20]!r} is not a number; give such as 0.023", field="price_per_gb_month"
        ) from None


@dataclass(frozen=True, slots=True)
class AdviceRequest:
    """A request for advice. `images`: how many the pilots use (None: as `pilot_grid.count` says); `accuracy`: the
    target, between 0 and 1; `price_per_gb_month`: money per 10^9 bytes and month."""

    budgets: tuple[Budget, ...]
    accuracy: float | None = None
    price_per_gb_month: Decimal | None = None
    images: int | None = None
    distances: tuple[float, ...] = DISTANCES
    training: Training = field(default_factory=lambda: Training(seeds=SEEDS))

    def __post_init__(self) -> None:
        if not 1 <= len(self.budgets) <= MOST_BUDGETS:
            raise InvalidRequest(f"{len(self.budgets)} are not possible; name 1 to {MOST_BUDGETS}", field="budgets")
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise InvalidRequest(f"{self.accuracy} is not possible; give a share such as 0.8", field="accuracy")
        prices = self._prices()
        if any(not (price.is_finite() and LEAST_PRICE <= price < MOST_PRICE) for price in prices):
            raise InvalidRequest(
                f"{prices[0]} is not possible; give a number above 0, for 10^9 bytes and month",
                field="price_per_gb_month",
            )
        if len(prices) > 1:
            raise InvalidRequest(
                f"{', '.join(map(str, prices))} are asked for, with budgets in money; ask for "
                "advice at each price by itself",
                field="price_per_gb_month",
            )
        if self.images is not None and self.images < FEWEST_IMAGES:
            raise InvalidRequest(f"{self.images} are too few for pilots; use {FEWEST_IMAGES} or more", field="images")
        if self.training.method != PROBE:
            raise InvalidRequest("pilots are probes, because there are so many; leave it out", field="training.method")
        if self.training.seeds > MOST_SEEDS:
            raise InvalidRequest(
                f"{self.training.seeds} are too many for pilots; use {MOST_SEEDS}", field="training.seeds"
            )
        if self.training.test_distances:
            raise InvalidRequest(
                "pilots are tested on the original images; leave it out", field="training.test_distances"
            )
        object.__setattr__(self, "distances", distances.check((ORIGINAL, *(d for d in self.distances if d))))
        if len(self.distances) < FEWEST_DISTANCES:
            raise InvalidRequest(
                f"{len(self.distances)} with 0 are too few; name {FEWEST_DISTANCES} or more", field="distances"
            )

    def _prices(self) -> list[Decimal]:
        """The different prices in the request, including those of budgets in money."""
        paid = [budget.price_per_gb_month for budget in self.budgets if isinstance(budget, MoneyBudget)]
        return list(dict.fromkeys([*([] if self.price_per_gb_month is None else [self.price_per_gb_month]), *paid]))

    @property
    def price(self) -> Decimal | None:
        """The price of the request, or that of a budget in money."""
        return next(iter(self._prices()), None)

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:ID_DIGITS]

    def as_json(self) -> dict[str, Any]:
        price = self.price_per_gb_month
        return {
            "budgets": [budgets.as_json(budget) for budget in self.budgets],
            "accuracy": self.accuracy,
            "price_per_gb_month": None if price is None else str(price),
            "images": self.images,
            "distances": list(self.distances),
            "training": self.training.as_json(),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> AdviceRequest:
        price = record["price_per_gb_month"]
        parsed_budgets = [budgets.from_json(budget) for budget in record["budgets"]]
        return AdviceRequest(
            budgets=tuple(budget for budget in parsed_budgets if budget),
            accuracy=record["accuracy"],
            price_per_gb_month=None if price is None else Decimal(price),
            images=record["images"],
            distances=tuple(record["distances"]),
            training=Training.from_json(record["training"]),
        )
