"""Advice: the distance to store at, from pilots that were drawn from a known law."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.advice.answer import Advice
from keepmore.advice.recommend import Sizes, advise
from keepmore.errors import BudgetTooSmall, InvalidRequest, PilotsInsufficient
from keepmore.reporting import advice_page, plots
from tests.browser import check_plots, open_page
from tests.pilots import DISTANCES, TRUE, drawn_pilots

POOL = Sizes(DISTANCES, 40_000)
SMALL, MIDDLE, LARGE = 20_000_000, 80_000_000, 400_000_000


@pytest.fixture(scope="module")
def advice() -> Advice:
    return advise(drawn_pilots(0), POOL, [SMALL, MIDDLE, LARGE], 0.7, Decimal("0.023"))


@pytest.fixture(scope="module")
def advice_json(advice: Advice) -> dict[str, Any]:
    """As it is stored and answered."""
    return advice.as_json()


def _advise(*arguments: Any, **settings: Any) -> dict[str, Any]:
    return advise(*arguments, **settings).as_json()


def _true_accuracy(images: int, distance: str) -> float:
    return 1 - float(TRUE.error(images, DISTANCES[float(distance)]))


def test_the_recommended_distance_is_right(advice_json: dict[str, Any]) -> None:
    """Else a team stores at a distance that costs it accuracy: within half a point of the best there is."""
    for budget in advice_json["budgets"]:
        true = {row["distance"]: _true_accuracy(row["images"], row["distance"]) for row in budget["distances"]}
        recommended = budget["recommended"]
        assert true[recommended["distance"]] >= max(true.values()) - 0.005
        assert max(true, key=lambda name: true[name]) in [recommended["distance"], *recommended["alike"]]
        assert recommended["accuracy"] == max(row["accuracy"] for row in budget["distances"])


def test_counts_are_what_fits(advice_json: dict[str, Any]) -> None:
    """Else the advice promises images for which there is no room."""
    for budget in advice_json["budgets"]:
        for row in budget["distances"]:
            size = DISTANCES[float(row["distance"])]
            assert row["images"] == min(POOL.images, budget["bytes"] // size)
            assert row["bytes"] <= budget["bytes"]
            assert row["whole_pool"] == (row["images"] == POOL.images)
            assert row["extrapolated"] == (not 100 <= row["images"] <= 4 * 4000)


@pytest.mark.slow
@pytest.mark.parametrize("pools", [8, pytest.param(20, marks=pytest.mark.long)])
def test_predictions_hold_the_truth(pools: int) -> None:
    """Else the interval beside a predicted accuracy means nothing."""
    hits = []
    for seed in range(pools):
        for budget in _advise(drawn_pilots(seed), POOL, [SMALL, LARGE], replicates=100)["budgets"]:
            for row in budget["distances"]:
                low, high = row["interval"]
                assert low <= row["accuracy"] <= high
                hits.append(low <= _true_accuracy(row["images"], row["distance"]) <= high)
    assert np.mean(hits) >= 0.85


def test_images_without_a_label_take_room_and_teach_nothing(advice_json: dict[str, Any]) -> None:
    """Else advice promises the accuracy of three times the images that anything is learnt from."""
    third = _advise(drawn_pilots(0), replace(POOL, labelled=1 / 3), [MIDDLE, 3 * MIDDLE], 0.7)
    plain = _advise(drawn_pilots(0), replace(POOL, images=round(POOL.images / 3)), [MIDDLE], 0.7)
    assert third["pool"] == {**third["pool"], "images": 40_000, "labelled": 13_333}
    assert third["fit"]["constants"]["a"]["value"] == plain["fit"]["constants"]["a"]["value"]
    for tripled, row in zip(third["budgets"][1]["distances"], plain["budgets"][0]["distances"], strict=True):
        assert tripled["images"] == pytest.approx(3 * row["images"], abs=3)
        assert tripled["accuracy"] == pytest.approx(row["accuracy"], abs=1e-3)
    assert third["wished"]["bytes"] == pytest.approx(3 * plain["wished"]["bytes"], rel=0.01)


def test_few_images_and_little_money_are_reported(advice_json: dict[str, Any]) -> None:
    """Else an accuracy is predicted from one image of many classes, or a price in another unit ends in a traceback."""
    few = _advise(drawn_pilots(0), POOL, [50_000], price_per_gb_month=Decimal("1e-18"))["budgets"][0]
    assert all(row["extrapolated"] for row in few["distances"])
    assert few["monthly_cost"] == 5e-23
    advice = advise(drawn_pilots(0), POOL, [MIDDLE], price_per_gb_month=Decimal("1e-18"))
    assert "<svg" in plots.accuracy_by_cost(advice)
    assert "fewer than any pilot had" in advice_page.page(advise(drawn_pilots(0), POOL, [50_000]))


def test_sizes_are_written_in_the_unit_that_they_round_to() -> None:
    """Else the first sentence of the page says "1e+03 MB"."""
    texts = {999_400_000: "999 MB", 999_600_000: "1 GB", 999_600: "1 MB", 999: "999 bytes", 10**16: "10,000 TB"}
    assert {size: advice_page.written_bytes(size) for size in texts} == texts


def test_the_optimum_is_no_worse_than_any_distance(advice_json: dict[str, Any]) -> None:
    """Else the law's own optimum is beaten by a distance of the list."""
    for budget in advice_json["budgets"]:
        assert budget["optimum"]["accuracy"] >= budget["recommended"]["accuracy"] - 1e-4
        assert budget["optimum"]["bytes"] <= budget["bytes"]
        assert 0 <= float(budget["optimum"]["distance"]) <= 10


def test_plain_distance_8_is_always_compared(advice_json: dict[str, Any]) -> None:
    """Else nobody sees that the rule of thumb would have done as well."""
    large = advice_json["budgets"][2]["plain"]
    assert large["ahead"]["verdict"] == "better"
    assert large["ahead"]["interval"][0] > 0
    near = [_advise(drawn_pilots(seed), POOL, [SMALL], replicates=50)["budgets"][0] for seed in range(6)]
    assert {budget["plain"]["ahead"]["verdict"] for budget in near} == {"same", "cannot tell"}
    for budget in near:
        differs = budget["recommended"]["alike"].count("8") == 0
        assert differs == (budget["recommended"]["distance"] == "8")
    only_8 = _advise(drawn_pilots(0), Sizes({8.0: 5200.0}, 40_000), [SMALL])["budgets"][0]
    assert only_8["plain"]["ahead"] == {"difference": 0.0, "interval": [0.0, 0.0], "verdict": "same"}
    without_8 = _advise(drawn_pilots(0), Sizes({0.0: 50_000.0, 6.0: 6500.0}, 40_000), [SMALL])["budgets"][0]
    assert without_8["plain"] is None


def test_a_wished_accuracy_is_that_of_its_budget(advice_json: dict[str, Any]) -> None:
    """Else a team buys storage for an accuracy that the same advice does not predict for it."""
    target = advice_json["wished"]
    assert target["reached"]
    assert target["bytes_interval"][0] <= target["bytes"] <= target["bytes_interval"][1]
    again = _advise(drawn_pilots(0), POOL, [target["bytes"], target["bytes"] - 10_000])["budgets"]
    assert again[0]["recommended"]["distance"] == target["distance"]
    assert again[0]["recommended"]["images"] == target["images"]
    assert again[0]["recommended"]["accuracy"] >= 0.7 > again[1]["recommended"]["accuracy"]


def test_an_accuracy_out_of_reach_says_what_the_pool_can_do() -> None:
    """Else a team buys storage for what its images cannot give."""
    target = _advise(drawn_pilots(0), POOL, [], accuracy=0.9)["wished"]
    assert (target["reached"], target["distance"], target["bytes_interval"][1]) == (False, None, None)
    assert target["most"]["images"] == POOL.images
    low, high = target["most"]["interval"]
    assert low <= _true_accuracy(POOL.images, target["most"]["distance"]) <= high < 0.9
    assert target["most"]["limit"]["accuracy"] > target["most"]["accuracy"]


def test_costs_stand_beside_bytes(advice_json: dict[str, Any]) -> None:
    """Else the storage bill is another one than the advice says: 0.023 for 10^9 bytes and month."""
    assert [budget["monthly_cost"] for budget in advice_json["budgets"]] == [0.00046, 0.00184, 0.0092]
    assert advice_json["pool"]["distances"][0]["monthly_cost"] == pytest.approx(2 * 0.023)
    free = advise(drawn_pilots(0), POOL, [SMALL])
    assert free.budgets[0].monthly_cost is None
    with pytest.raises(ValueError, match="without a price"):
        plots.accuracy_by_cost(free)


def test_the_same_pilots_give_the_same_advice(advice_json: dict[str, Any]) -> None:
    """Else asking again changes the answer, or it cannot be written down."""
    again = _advise(drawn_pilots(0), POOL, [SMALL, MIDDLE, LARGE], 0.7, Decimal("0.023"))
    text = json.dumps(advice_json, allow_nan=False)
    assert text == json.dumps(again, allow_nan=False)
    assert json.loads(text) == advice_json


def test_what_cannot_be_advised_is_refused() -> None:
    """Else pilots that say nothing end in a distance all the same."""
    pilots = drawn_pilots(0)
    chance = np.random.default_rng(0).random(pilots.correct.shape) < 0.3
    with pytest.raises(PilotsInsufficient, match="does not fall"):
        _advise(replace(pilots, correct=chance), POOL, [SMALL])
    with pytest.raises(BudgetTooSmall, match="4,299 bytes hold no image; one takes 4,300"):
        _advise(pilots, POOL, [4299])
    assert [row["distance"] for row in _advise(pilots, POOL, [4300])["budgets"][0]["distances"]] == ["10"]
    with pytest.raises(InvalidRequest, match="70 is not possible"):
        _advise(pilots, POOL, [], accuracy=70)
    with pytest.raises(ValueError, match="do not match"):
        replace(pilots, n=pilots.n[1:])


@given(st.floats(4300, 50_000))
def test_distances_follow_sizes(size: float) -> None:
    """Else the law's optimum is named by a distance at which images have another size."""
    distance = POOL.distance_at(size)
    assert 0 <= distance <= 10 + 1e-9
    assert POOL.distance_at(size * 0.99) >= distance
    for other, mean in DISTANCES.items():
        assert POOL.distance_at(mean) == pytest.approx(other)
    if size <= 14_000:
        assert min(DISTANCES, key=lambda other: abs(np.log(DISTANCES[other] / size))) == pytest.approx(distance, abs=2)
    assert Sizes({0.0: 100.0}, 9).distance_at(100) == 0
    assert Sizes({4.0: 100.0}, 9).distance_at(100) == pytest.approx(4)


def test_sentences_say_what_was_found(advice: Advice) -> None:
    """Else the sentence that is read first says something else than the table."""
    best, target = advice.budgets[0].recommended, advice.wished
    sentence = advice_page.recommendation(advice.budgets[0])
    assert sentence.startswith(
        f"With 20 MB at less than 0.01 per month, store at distance {best.distance}: "
        f"it keeps {best.prediction.images:,}"
    )
    assert f"{100 * best.prediction.accuracy:.1f} %" in sentence
    assert target
    assert target.prediction
    assert f"store {target.prediction.images:,} images" in str(advice_page.wish(target))
    out_of_reach = advise(drawn_pilots(0), POOL, [], accuracy=0.9).wished
    assert "predicted not to reach 90.0 %" in str(advice_page.wish(out_of_reach))
    assert advice_page.wish(None) is None


def test_the_page_opens_with_its_plots(advice: Advice, chromium: str, tmp_path: Path) -> None:
    """Else the page that decides what is stored is blank, or needs the internet."""
    (tmp_path / "advice.html").write_text(advice_page.page(advice))
    with open_page((tmp_path / "advice.html").as_uri(), chromium) as page:
        check_plots(page, ["storage", "cost", "surface"])
        recommended = page.locator("tr.chosen td:first-child").all_inner_texts()
        first = page.locator("p").first.inner_text()
        text = page.inner_text("body")
    assert recommended == [budget.recommended.distance for budget in advice.budgets]
    assert first == advice_page.recommendation(advice.budgets[0])
    assert "mathdefault" not in text, "the browser shows no TeX"


def test_a_page_without_price_wish_and_budgets_opens_too() -> None:
    """Else only the fullest question gets a page."""
    page = advice_page.page(advise(drawn_pilots(0), POOL, [SMALL]))
    assert "per month" not in page
    assert 'id="wish"' not in page
    assert "plot-cost" not in page
    assert "<svg" in advice_page.page(advise(drawn_pilots(0, seeds=1), POOL, []))


@pytest.mark.parametrize(
    ("size", "expected"), [(999, "999 bytes"), (508_000_000, "508 MB"), (1500, "1.5 kB"), (5 * 10**15, "5,000 TB")]
)
def test_sizes_as_they_are_read(size: int, expected: str) -> None:
    """Else a budget is read as a thousand times what it is."""
    assert advice_page.written_bytes(size) == expected
