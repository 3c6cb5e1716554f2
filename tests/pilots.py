"""Pilot trainings drawn from a known law: what advice must find again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from keepmore.advice.recommend import Pilots
from keepmore.advice.scaling_law import Law

TRUE = Law(1.6, 0.22, 150, 0.9, 0.02)
DISTANCES = {0.0: 50000.0, 2.0: 14000.0, 4.0: 9000.0, 6.0: 6500.0, 8.0: 5200.0, 10.0: 4300.0}
COUNTS = (100, 250, 600, 1500, 4000)


IMAGES = 6000  # that pilots are drawn from


def drawn_pilots(seed: int, seeds: int = 5, test_images: int = 1000, of_draws: float = 1) -> Pilots:
    """Each count at each distance. Test images differ in how easy they are; errors follow TRUE, but that each seed's
    draw of n images, the same at every distance and one with its smaller ones, is better or worse by about `of_draws`
    n^-1/2."""
    rng = np.random.default_rng(seed)
    n, distance = (grid.ravel() for grid in np.meshgrid(COUNTS, list(DISTANCES), indexing="ij"))
    size = np.array([DISTANCES[value] for value in distance.tolist()])
    skill = ndtri(1 - TRUE.error(n, size))[:, None, None] * np.sqrt(2)
    skill = skill + of_draws * _luck(rng, seeds)[np.searchsorted(COUNTS, n)][:, :, None]
    correct = skill + rng.normal(size=test_images) + rng.normal(size=(len(n), seeds, test_images)) > 0
    return Pilots(n, distance, size, correct, IMAGES)


def _luck(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """What draws of COUNTS images add, (counts, seeds): means of numbers that the images have, IMAGES of them."""
    images = rng.normal(size=IMAGES)
    draws = np.stack([rng.permutation(images) for _ in range(seeds)])
    return np.stack([draws[:, :count].mean(axis=1) for count in COUNTS])
