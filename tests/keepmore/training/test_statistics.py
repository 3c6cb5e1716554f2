"""Accuracy, its intervals, and which variant is better."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import ndtr

from keepmore.training.statistics import compare, comparisons, confusion, holm, per_class, summary, wilson

IMAGES = 500
EASE = 0.8
DRAWS = 400

answers = st.tuples(st.integers(1, 5), st.integers(1, 60)).flatmap(lambda shape: arrays(np.bool_, shape))
pairs = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 40)).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, (shape[0], shape[2])), arrays(np.bool_, (shape[1], shape[2])))
)


def _answers(
    rng: np.random.Generator, seeds: int, of_images: NDArray[np.float64], of_seeds: float, ease: float = EASE
) -> NDArray[np.bool_]:
    """Answers of crossed random effects: how easy an image is, how good a seed is, and chance."""
    skill = ease + of_seeds * rng.normal(size=(seeds, 1))
    correct: NDArray[np.bool_] = skill + of_images + rng.normal(size=(seeds, len(of_images))) > 0
    return correct


@pytest.mark.parametrize("of_seeds", [0.05, 0.2])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, of_seeds: float) -> None:
    """Else an interval of 95 % is beside the accuracy of new images and seeds far more often than one time in 20."""
    rng = np.random.default_rng(seeds)
    truth = ndtr(EASE / np.sqrt(2 + of_seeds**2))
    hits = []
    for _ in range(DRAWS):
        low, high = summary(_answers(rng, seeds, rng.normal(size=IMAGES), of_seeds)).interval
        hits.append(low <= truth <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_one_seed_alone_misses_what_seeds_do() -> None:
    """Else the interval over images is trusted where seeds vary more, and the text beside it does not say so."""
    rng = np.random.default_rng(0)
    truth = ndtr(EASE / np.sqrt(2 + 0.5**2))
    summaries = [summary(_answers(rng, 1, rng.normal(size=IMAGES), 0.5)) for _ in range(DRAWS)]
    assert np.mean([low <= truth <= high for low, high in (one.interval for one in summaries)]) < 0.7
    assert "how much seeds differ is not counted" in summaries[0].interval_kind
    assert summaries[0].interval == wilson(summaries[0].top1, IMAGES)
    assert summaries[0].seed_std is None


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_variants_that_are_alike_are_not_distinguished(seeds: int) -> None:
    """Else a distance is called worse than another one by nothing but chance."""
    rng = np.random.default_rng(seeds)
    verdicts = []
    for _ in range(DRAWS):
        images = rng.normal(size=IMAGES)
        # One seed says nothing about other seeds, so these two models have to be alike themselves.
        of_seeds = 0.1 if seeds > 1 else 0.0
        verdicts.append(compare(_answers(rng, seeds, images, of_seeds), _answers(rng, seeds, images, of_seeds)).verdict)
    assert np.mean([verdict == "cannot tell" for verdict in verdicts]) >= 0.93


def test_pairs_tell_what_two_intervals_do_not() -> None:
    """Else a true difference drowns in how hard the images are, which both variants share."""
    rng = np.random.default_rng(0)
    images = 3 * rng.normal(size=2000)
    better, worse = _answers(rng, 5, images, 0.02, 1.05), _answers(rng, 5, images, 0.02, 0.8)
    assert summary(better).interval[0] < summary(worse).interval[1]
    difference = compare(better, worse)
    assert (difference.verdict, compare(worse, better).verdict) == ("better", "worse")
    assert difference.interval[0] > 0
    assert difference.difference == pytest.approx(-compare(worse, better).difference)


@pytest.mark.parametrize(
    ("only_ours", "only_theirs", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 0.021484375), (0, 5, 0.0625), (0, 6, 0.03125), (12, 3, 0.03515625)],
)
def test_mcnemar_of_known_cases(only_ours: int, only_theirs: int, expected: float) -> None:
    """Else the p value of two models is wrong: twice the tail of a fair coin, by hand."""
    ours = np.array([[True] * only_ours + [False] * only_theirs + [True] * 30])
    theirs = np.array([[False] * only_ours + [True] * only_theirs + [True] * 30])
    difference = compare(ours, theirs)
    assert difference.p_value == pytest.approx(expected)
    assert difference.verdict == (
        "cannot tell" if expected >= 0.05 else "better" if only_ours > only_theirs else "worse"
    )
    assert "McNemar" in difference.method


def test_a_variant_of_one_seed_borrows_the_spread_of_the_other() -> None:
    """Else one lucky training beats the mean of several."""
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(DRAWS):
        images = rng.normal(size=IMAGES)
        verdicts.append(compare(_answers(rng, 1, images, 0.3), _answers(rng, 5, images, 0.3)).verdict)
    assert np.mean([verdict == "cannot tell" for verdict in verdicts]) >= 0.9


@given(answers)
def test_summaries_stay_in_range(correct: NDArray[np.bool_]) -> None:
    """Else an accuracy of 100 % is certain, or one lies outside of its own interval."""
    result = summary(correct)
    low, high = result.interval
    assert 0 <= low <= result.top1 + 1e-12
    assert result.top1 - 1e-12 <= high <= 1
    assert high > low
    assert np.mean(result.top1_by_seed) == pytest.approx(result.top1)
    assert json.loads(json.dumps(result.as_json())) == result.as_json()


@given(pairs)
def test_differences_stay_in_range(variants: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    """Else a difference of more than 100 points, or a p value over 1, is reported."""
    ours, theirs = variants
    difference = compare(ours, theirs)
    low, high = difference.interval
    assert -1 <= low < high <= 1
    assert 0 <= difference.p_value <= 1
    assert compare(theirs, ours).p_value == pytest.approx(difference.p_value)
    assert json.loads(json.dumps(difference.as_json())) == difference.as_json()


def test_a_perfect_variant_is_not_certain() -> None:
    """Else all right on 100 images is read as all right on every image."""
    for correct in (np.ones((3, 100), np.bool_), np.zeros((3, 100), np.bool_)):
        low, high = summary(correct).interval
        assert high - low == pytest.approx(0.038, abs=0.002)


def test_families_of_comparisons() -> None:
    """Else five chances to be lucky count as one, or a variant is compared with another one than it says."""
    rng = np.random.default_rng(2)
    images = rng.normal(size=1000)
    eases = {"0": 0.4, "4": 0.8, "8": 0.82, "10": 0.4}
    results = comparisons({name: _answers(rng, 3, images, 0.01, ease) for name, ease in eases.items()})
    reference, best = results[:3], results[3:]
    assert [(one.variant, one.against) for one in reference] == [("4", "0"), ("8", "0"), ("10", "0")]
    assert [one.verdict for one in reference] == ["better", "better", "cannot tell"]
    assert {one.against for one in best} <= {"4", "8"}
    assert {one.variant: one.verdict for one in best}["0"] == "worse"
    assert all(one.adjusted_p >= one.difference.p_value for one in results)
    assert json.loads(json.dumps([one.as_json() for one in results]))[0]["family"] == "reference"
    assert comparisons({}) == comparisons({"0": np.ones((1, 9), np.bool_)}) == []
    assert comparisons({name: np.ones((2, 1), np.bool_) for name in ("0", "8")}) == [], "one image compares nothing"


def test_holm_of_a_known_case() -> None:
    """Else verdicts of several variants rest on wrong p values: by hand, 4 x 0.01, 3 x 0.02, and never falling."""
    assert holm([0.04, 0.01, 0.02, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_classes_are_summed_up_by_themselves() -> None:
    """Else the accuracy of one class is that of another one."""
    correct = np.array([[True, True, False, True], [True, False, False, True]])
    by_class = per_class(correct, np.array([0, 0, 2, 3]), ["a", "b", "c", "d"])
    assert {name: (one.images, one.top1) for name, one in by_class.items()} == {
        "a": (2, 0.75),
        "c": (1, 0.0),
        "d": (1, 1.0),
    }


def test_confusion_has_the_truth_in_its_rows() -> None:
    """Else "cats are called dogs" is read as "dogs are called cats"."""
    counts = confusion(np.array([[0, 1, 1], [0, 0, 1]]), np.array([0, 0, 2]), 3)
    assert counts.tolist() == [[3, 1, 0], [0, 0, 0], [0, 2, 0]]
    with pytest.raises(ValueError, match="there are 2 classes"):
        confusion(np.array([[0, 2]]), np.array([0, 1]), 2)


def test_shapes_that_do_not_match_are_refused() -> None:
    """Else variants with other test images are compared as if they were pairs."""
    with pytest.raises(ValueError, match="is not"):
        summary(np.ones(5, np.bool_))
    with pytest.raises(ValueError, match="share"):
        compare(np.ones((2, 5), np.bool_), np.ones((2, 6), np.bool_))


@given(st.integers(1, 500), st.data())
def test_wilson_intervals_hold_the_share_and_stay_in_range(images: int, data: st.DataObject) -> None:
    """Else an accuracy of 100 % on ten images claims to be certain."""
    share = data.draw(st.integers(0, images)) / images
    low, high = wilson(share, images)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high - low > 0
    wider = wilson(share, images, z=3)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


def test_wilson_interval_of_a_known_case() -> None:
    """Else every interval in every report is wrong: 81 of 263, from Newcombe (1998), Table I."""
    low, high = wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
