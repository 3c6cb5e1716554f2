"""The search for the distance at which so many images fit."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from keepmore import search
from keepmore.search import Curve, Trial


def _search(images: int, exponent: float, budget: int, off: float = 1.0) -> list[Trial]:
    """A search over images of equal size, source 100,000 bytes, by a curve that is `off` by a factor."""

    def size(distance: float) -> float:
        return 80_000 * math.pow(distance, -exponent) * (1.25 if distance > 10 else 1.0)

    curve = Curve([(d, off * size(d) * (images + 0.5)) for d in (0.11, 0.35, 1.0, 2.5, 5.0, 10.0, 10.5, 16.0, 25.0)])
    tried: list[Trial] = []
    while (distance := search.next_trial(curve, tried, budget, search.digits(images))) is not None:
        tried.append(Trial(distance, math.ceil(size(distance) * images), size(distance)))
    return tried


@given(
    images=st.integers(1, 20_000),
    exponent=st.floats(0.4, 0.8),
    wanted=st.floats(0.13, 9.8) | st.floats(16, 24),
    off=st.floats(0.8, 1.25),
)
def test_a_search_finds_the_window(images: int, exponent: float, wanted: float, off: float) -> None:
    """Else so many images fit only by chance, or a pool is encoded dozens of times."""
    size = 80_000 * wanted**-exponent * (1.25 if wanted > 10 else 1)
    tried = _search(images, exponent, budget := int(size * (images + 0.5)), off)
    assert tried[-1].hits(budget), [(trial.distance, trial.bytes / budget) for trial in tried]
    assert len(tried) <= 8


def test_a_search_without_an_end_tries_the_ends() -> None:
    """Else images that would fit at the largest distance are said to fit at none."""
    assert _search(10, 0.5, 10)[-1].distance == 25
    assert _search(10, 0.5, 10**9)[-1].distance == 0.11
