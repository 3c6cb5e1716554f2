"""Imputation: which images are sampled, and what stands in for those that are not."""

from __future__ import annotations

import numpy as np
import pytest

from keepmore import sampling
from keepmore.datasets.entry import Entry
from keepmore.estimation.imputation import Donors, Images, Sample, draw, strata


def test_the_seed_decides_which_images_are_sampled() -> None:
    """Else a second estimate with another seed cannot confirm the first."""
    entries = [Entry(f"{number:04d}.jpg", "file:///", None, 1000 + number) for number in range(1000)]
    images = Images.of(entries)
    drawings = [
        draw(strata(images, 128, balanced=False), sampling.ranks(images.path_hashes, seed), 128) for seed in (0, 1)
    ]
    assert [len(places) for places in drawings] == [128, 128]
    assert len(set(drawings[0].tolist()) & set(drawings[1].tolist())) < 40


def test_strata_hold_about_equal_bytes() -> None:
    """Else the few large images that make up most of a dataset are hardly sampled."""
    sizes = np.random.default_rng(0).lognormal(10, 1.5, 5000).astype(np.int64)
    images = Images(sizes, np.arange(5000, dtype=np.uint64), np.full(5000, -1, np.int32))
    stratum = strata(images, 128, balanced=False)
    shares = np.bincount(stratum, sizes) / sizes.sum()
    assert len(shares) == 8
    assert np.all(np.abs(shares - 1 / 8) < 0.02)
    assert np.all(np.bincount(stratum[draw(stratum, images.path_hashes, 128)]) == 16)


def test_donors_are_drawn_by_the_size_of_their_sources() -> None:
    """Else imputed totals are beside the expected ones wherever small images take more of their source's size."""
    sizes = np.array([100, 300, 600, 5000, 5000, 5000])
    images = Images(sizes, np.arange(6, dtype=np.uint64), np.full(6, -1, np.int32))
    sample = Sample(np.arange(3), np.full(3, True), sizes[:3], np.array([[100, 0, 0]]))
    donors = Donors.of(images, np.zeros(6, np.int64), sample)
    assert donors.expected(np.arange(6)) == pytest.approx([100 + 15000 * 100 / 1000])
    imputed = [each.bytes[0].copy() for each in donors.impute(np.arange(6), 8000, np.random.default_rng(0))]
    assert np.unique(imputed, axis=0)[:, :3].tolist() == [[100, 0, 0]] * len(np.unique(imputed, axis=0))
    # Two of the three are drawn again, with replacement: all of both, 1/4 or 1/7 of the two have the first one's size.
    share = 1 / 9 + 2 / 9 / 4 + 2 / 9 / 7
    assert np.mean(np.array(imputed)[:, 3:] == 5000) == pytest.approx(share, abs=0.01)
