"""The grid of pilots: on how many images they train, and how many trainings support a fit. Imports no SciPy: a request
for advice is checked at once."""

from __future__ import annotations

from keepmore.errors import PilotsInsufficient

SHARE_OF_POOL = 1 / 3
FEWEST_IMAGES, MOST_IMAGES = 60, 2000
# Images per class: the fewest in the smallest pilot, and the number in all pilots together if there are enough.
LEAST_A_CLASS, WANTED_A_CLASS = 2, 8
# Sizes of the trainings: how many there are, and the smallest as a part of the largest.
SIZES, SMALLEST_SHARE = 5, 1 / 12

FEWEST_SIZES = 3
FEWEST_DISTANCES = 3
FEWEST_TEST_IMAGES = 50


def count(labelled: int, classes: int, images: int | None) -> int:
    """How many of the pool's labelled images pilots use."""
    third = round(labelled * SHARE_OF_POOL)
    return min(labelled, images or max(FEWEST_IMAGES, min(third, max(MOST_IMAGES, WANTED_A_CLASS * classes))))


def sizes(images: int, classes: int) -> list[int]:
    """The numbers of images that pilots train on, ascending; two per class at least, in geometric steps."""
    least = min(images, max(LEAST_A_CLASS * classes, round(images * SMALLEST_SHARE)))
    return sorted({round(least * (images / least) ** (step / (SIZES - 1))) for step in range(SIZES)})


def check(numbers: int, distances: int, test_images: int) -> None:
    """Raises PilotsInsufficient where so few numbers of images, distances or test images support no fit."""
    for what, there, fewest in (
        (
            f"they have {numbers} sizes; train on {FEWEST_SIZES} numbers of images or more, of {LEAST_A_CLASS} per "
            f"class at least: it takes {WANTED_A_CLASS} images of each class, and --images to ask for them",
            numbers,
            FEWEST_SIZES,
        ),
        (f"they have {distances} distances; train at {FEWEST_DISTANCES} or more", distances, FEWEST_DISTANCES),
        (
            f"they were tested on {test_images} images; test on {FEWEST_TEST_IMAGES} or more",
            test_images,
            FEWEST_TEST_IMAGES,
        ),
    ):
        if there < fewest:
            raise PilotsInsufficient(f"pilots: {what}")
