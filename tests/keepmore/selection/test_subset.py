"""The record of a subset."""

from __future__ import annotations

from dataclasses import fields

import pytest

from keepmore.selection.subset import RESULTS, FitDistance, RuleResult, SpreadResult, SubsetRow, rule_result

DESCRIPTIONS: dict[RuleResult, str] = {
    FitDistance(4.0, True): "distance 4",
    FitDistance(4.0, False): "distance 4, the nearest one: the budget holds another image",
    FitDistance(0.0, False): "distance 0: the budget holds more originals than that",
}


def test_results_of_rules_are_read_again() -> None:
    """Else a report says of a kind that somebody adds what another kind does, or cannot be opened."""
    spread = SpreadResult(0.5, {"2": 3, "4": 1})
    assert spread.describe() == "distances 2 to 4, scaled by 0.5"
    assert {type(result) for result in (spread, *DESCRIPTIONS)} == set(RESULTS)
    assert len({frozenset(field.name for field in fields(kind)) for kind in RESULTS}) == len(RESULTS)
    for result in (spread, *DESCRIPTIONS):
        row = SubsetRow(4, 100, "digest", "file:///m", {"a": 4}, result)
        assert SubsetRow.from_json(row.as_json()) == row
    for result, text in DESCRIPTIONS.items():
        assert result.describe() == text
    with pytest.raises(ValueError, match="a rule's result with the fields cap, distance is not one of this release"):
        rule_result({"cap": 4000, "distance": 4})
