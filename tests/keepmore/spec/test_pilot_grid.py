"""How many images pilots use, in which numbers they train on them, and what is too little for a fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import PilotsInsufficient
from keepmore.spec import pilot_grid


@given(st.integers(1, 50_000), st.integers(1, 2000), st.none() | st.integers(60, 10**12))
def test_so_many_images_take_part(labelled: int, classes: int, images: int | None) -> None:
    """Else pilots cost more than what they save, or more images are asked for than there are."""
    count = pilot_grid.count(labelled, classes, images)
    assert 1 <= count <= labelled
    assert count == min(labelled, images) if images else count <= max(2000, 8 * classes)
    assert images or count >= min(labelled, 60)
    assert images or count <= max(60, labelled / 3 + 1)


def test_a_third_of_the_pool_takes_part_and_two_thousand_at_most() -> None:
    """Else the documented cost of advice is another one than it has."""
    counts = [pilot_grid.count(labelled, 10, None) for labelled in (30, 90, 600, 3000, 10**7)]
    assert counts == [30, 60, 200, 1000, 2000]


@pytest.mark.parametrize("classes", [2, 10, 101, 300, 1000, 21_843])
def test_pools_of_any_number_of_classes_get_pilots(classes: int) -> None:
    """Else advice on ImageNet is always refused, after its images were encoded nine times."""
    images = pilot_grid.count(300 * classes, classes, None)
    sizes = pilot_grid.sizes(images, classes)
    assert len(sizes) == 5
    assert sizes[-1] >= 4 * sizes[0]
    pilot_grid.check(len(sizes), 9, 1000)


@given(st.integers(60, 50_000), st.integers(2, 2000))
def test_sizes_ascend_to_all_images(images: int, classes: int) -> None:
    """Else the law is fitted to one number of images, or to classes that the smallest pilot never saw."""
    sizes = pilot_grid.sizes(images, classes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == images
    assert sizes[0] >= min(images, 2 * classes)
    assert len(sizes) <= 5
    if images >= 24 * classes:
        assert len(sizes) == 5
        assert sizes[0] == round(images / 12)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((2, 9, 500), "they have 2 sizes; train on 3 numbers of images or more, of 2 per class at least: .* --images"),
        ((5, 2, 500), "they have 2 distances; train at 3 or more"),
        ((5, 9, 49), "they were tested on 49 images; test on 50 or more"),
    ],
)
def test_too_little_for_a_fit_says_what_is_missing(counts: tuple[int, int, int], message: str) -> None:
    """Else five constants are fitted to what cannot hold them, and look as good as any."""
    with pytest.raises(PilotsInsufficient, match=message):
        pilot_grid.check(*counts)
