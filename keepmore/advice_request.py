"""What is to be advised on: a frozen record, its checks, and its JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from keepmore import budget as budgets
from keepmore import distance as distances
from keepmore.budget import Budget
from keepmore.distance import ORIGINAL
from keepmore.errors import InvalidRequest
from keepmore.request import ID_DIGITS, PROBE, Training

DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0)
MOST_BUDGETS = 100
FEWEST_IMAGES = 60
FEWEST_DISTANCES = 3  # what the law needs, which is not imported here because of SciPy


def price(written: float | str | None) -> Decimal | None:
    """Money for 10^9 bytes a month, as people write it. Raises InvalidRequest."""
    if written is None:
        return None
    try:
        return Decimal(str(written)[: budgets.MOST_CHARACTERS])
    except InvalidOperation:
        raise InvalidRequest(f"price_per_gb_month: {str(written)[:20]!r} is no number; give such as 0.023") from None


@dataclass(frozen=True, slots=True)
class AdviceRequest:
    """What is to be advised on. `images`: how many pilots use (None: a third of the pool, 2,000 at most); `accuracy`:
    one that is wished for, between 0 and 1; `price_per_gb_month`: money for 10^9 bytes a month."""

    budgets: tuple[Budget, ...]
    accuracy: float | None = None
    price_per_gb_month: Decimal | None = None
    images: int | None = None
    distances: tuple[float, ...] = DISTANCES
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if not 1 <= len(self.budgets) <= MOST_BUDGETS:
            raise InvalidRequest(f"budgets: {len(self.budgets)} are not possible; name 1 to {MOST_BUDGETS}")
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise InvalidRequest(f"accuracy: {self.accuracy} is not possible; give a share such as 0.8")
        if self.price_per_gb_month is not None and not (
            self.price_per_gb_month.is_finite() and 0 < self.price_per_gb_month < 10**18
        ):
            raise InvalidRequest(f"price_per_gb_month: {self.price_per_gb_month} is not possible; give one above 0")
        if self.images is not None and self.images < FEWEST_IMAGES:
            raise InvalidRequest(f"images: {self.images} are too few for pilots; use {FEWEST_IMAGES} or more")
        if self.training.method != PROBE:
            raise InvalidRequest("training.method: pilots are probes, because there are so many; leave it out")
        object.__setattr__(self, "distances", distances.check((ORIGINAL, *(d for d in self.distances if d))))
        if len(self.distances) < FEWEST_DISTANCES:
            raise InvalidRequest(
                f"distances: {len(self.distances)} with 0 are too few; name {FEWEST_DISTANCES} or more"
            )

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
    def from_json(written: dict[str, Any]) -> AdviceRequest:
        price = written["price_per_gb_month"]
        found = [budgets.from_json(budget) for budget in written["budgets"]]
        return AdviceRequest(
            budgets=tuple(budget for budget in found if budget),
            accuracy=written["accuracy"],
            price_per_gb_month=None if price is None else Decimal(price),
            images=written["images"],
            distances=tuple(written["distances"]),
            training=Training.from_json(written["training"]),
        )
