"""Pilot trainings drawn from a known law: what advice must find again."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from keepmore.advice import Pilots
from keepmore.law import Law

TRUE = Law(1.6, 0.22, 150, 0.9, 0.02)
DISTANCES = {0.0: 50000.0, 2.0: 14000.0, 4.0: 9000.0, 6.0: 6500.0, 8.0: 5200.0, 10.0: 4300.0}
COUNTS = (100, 250, 600, 1500, 4000)


def drawn_pilots(seed: int, seeds: int = 3, test_images: int = 1000, of_seeds: float = 0.01) -> Pilots:
    """Each count at each distance. Images differ in how easy they are, seeds by `of_seeds`; errors follow TRUE."""
    rng = np.random.default_rng(seed)
    n, distance = (grid.ravel() for grid in np.meshgrid(COUNTS, list(DISTANCES), indexing="ij"))
    size = np.array([DISTANCES[value] for value in distance.tolist()])
    skill = ndtri(1 - TRUE.error(n, size))[:, None, None] * np.sqrt(2 + of_seeds**2)
    skill = skill + of_seeds * rng.normal(size=(len(n), seeds, 1))
    correct = skill + rng.normal(size=test_images) + rng.normal(size=(len(n), seeds, test_images)) > 0
    return Pilots(n, distance, size, correct)
