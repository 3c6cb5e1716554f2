"""Rules: how they are written, named and checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import DistanceOutOfRange, DuplicateDistance, InvalidRequest, UnknownField, WrongType
from keepmore.spec import variants as variant_specs
from keepmore.spec.budget import BytesBudget, DistanceBudget
from keepmore.spec.job import Request
from keepmore.spec.variants import FitCount, Spread

SPREAD = Spread(0.5, 15)
FIXED = (0.0, 2.0)


@given(low=st.floats(0.11, 24.9), width=st.floats(0.001, 24.0))
def test_a_ladder_stays_within_its_ends(low: float, width: float) -> None:
    """Else an image is worse than the user allowed, or one cannot be encoded."""
    high = min(25.0, low + width)
    ladder = Spread(low, high).ladder
    assert (ladder[0], ladder[-1]) == (low, high)
    assert sorted(set(ladder)) == list(ladder)
    assert 2 <= len(ladder) <= variant_specs.STEPS


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("8", "8"),
        ("8.0", "8"),
        ("spread:0.5-15", "spread-0.5-15"),
        ("spread-0.50-15", "spread-0.5-15"),
        ("fit-2000", "fit-2000"),
        ("manifest.parquet", None),
        ("spread-15-0.5", None),
        ("", None),
    ],
)
def test_a_variant_has_one_name(expression: str, name: str | None) -> None:
    """Else a manifest is not found under the name that its user knows, or a file is taken for one."""
    assert variant_specs.variant(expression) == name


EVERY_RULE: dict[type[variant_specs.VariantSpec], variant_specs.VariantSpec] = {
    Spread: SPREAD,
    FitCount: FitCount(2000),
}


@pytest.mark.parametrize("kind", variant_specs.RULES)
def test_every_kind_of_rule_can_be_written_and_is_named_in_messages(kind: type[variant_specs.VariantSpec]) -> None:
    """Else a kind that somebody adds is refused in one of its forms, or nobody reads that there is one."""
    rule = EVERY_RULE[kind]
    assert variant_specs.parse(rule.expression) == ((), (rule,))
    assert variant_specs.variant(rule.expression) == variant_specs.variant(rule.name) == rule.name
    assert variant_specs.from_json(rule.as_json()) == ((), (rule,))
    assert [*rule.as_json()] == [kind.KEY]
    assert kind.FORM.startswith(f"{kind.KEY}:")
    assert kind.FORM in variant_specs.FORMS
    assert kind.JSON_FORM in variant_specs.JSON_FORMS
    assert Request("file:///d", (), budget=BytesBudget(9), rules=(rule,)).compressed == (rule.ladder or (0,))


def test_rules_are_written_and_read_again() -> None:
    """Else the command in a report, or a job's record, asks for something else."""
    fixed, rules = variant_specs.parse("8, 0,fit:2000,spread:0.5-15,fit:20")
    assert list(fixed) == [0, 8]
    assert list(rules) == [Spread(0.5, 15), FitCount(20), FitCount(2000)]
    assert variant_specs.parse(variant_specs.unparse(fixed, rules)) == (fixed, rules)
    assert variant_specs.from_json(json.loads(json.dumps(variant_specs.as_json(fixed, rules)))) == (fixed, rules)
    assert variant_specs.from_json({"fit": 3}) == ((), (FitCount(3),))


@pytest.mark.parametrize(
    ("value", "error", "why"),
    [
        ([], InvalidRequest, "the list is empty"),
        ("0,8", WrongType, "is not a list"),
        (["8"], WrongType, r"distances\[0\]"),
        ([True], WrongType, r"distances\[0\]"),
        ([10**400], DistanceOutOfRange, "not possible"),
        ([{"spread": [0, 15]}], DistanceOutOfRange, "0.11"),
        ([{"spread": [0.5, 26]}], DistanceOutOfRange, "26"),
        ([{"spread": [float("nan"), 2]}], DistanceOutOfRange, "nan"),
        ([{"spread": [15, 0.5]}], InvalidRequest, "smaller one first"),
        ([{"spread": [5]}], WrongType, "pair of numbers"),
        ([{"spread": "0.5-15"}], WrongType, "pair of numbers"),
        ([{"fit": 0}], InvalidRequest, "use 1 to"),
        ([{"fit": 2.5}], WrongType, "whole number"),
        ([{"fit": True}], WrongType, "whole number"),
        ([{"fit": 2, "spread": [1, 2]}], InvalidRequest, "is not a variant"),
        ([{}], InvalidRequest, "is not a variant"),
        ([{"spred": [1, 2]}], UnknownField, "distances.spred"),
        ([{"fit": 2}, {"fit": 2}], DuplicateDistance, "fit:2 is named more than once"),
    ],
)
def test_wrong_rules_say_what_is_wrong(value: Any, error: type[InvalidRequest], why: str) -> None:
    """Else a typing error costs a job, or is reported as something else."""
    with pytest.raises(error, match=why):
        variant_specs.from_json(value)


@pytest.mark.parametrize("expression", ["spread:0.5", "spread:a-b", "fit:", "fit:2.5", "fit:-3", "fill:3"])
def test_wrong_words_say_which_are_right(expression: str) -> None:
    """Else the command's user has to guess."""
    with pytest.raises(InvalidRequest, match="fit:IMAGES"):
        variant_specs.parse(f"0,{expression}")


def test_a_request_without_rules_is_written_as_ever() -> None:
    """Else ids of subsets and trainings change, and what earlier jobs made is not found again."""
    plain = Request("file:///d", (10, 0, 2), budget=BytesBudget(1000))
    assert plain.as_json()["distances"] == [0, 2, 10]
    assert "levels" not in plain.as_json()
    assert (plain.variants, plain.compressed) == (("0", "2", "10"), (0, 2, 10))
    assert plain.subset_id == "2df9c67cdadc"


def test_a_request_with_rules_names_variants_and_what_to_compress() -> None:
    """Else a worker compresses at other distances than a select step looks for."""
    request = Request("file:///d", (8,), budget=DistanceBudget(15), rules=(FitCount(20), SPREAD))
    assert request.variants == ("8", "spread-0.5-15", "fit-20")
    assert request.compressed == tuple(sorted({8.0, *SPREAD.ladder}))
    assert Request.from_json(request.as_json()) == request
    assert Request("file:///d", (), budget=BytesBudget(9), rules=(FitCount(20),)).compressed == (0,)


def test_a_fit_without_a_budget_is_refused() -> None:
    """Else it is noticed only after hours of compressing."""
    with pytest.raises(InvalidRequest, match="fit:20 needs a budget"):
        Request("file:///d", FIXED, rules=(FitCount(20),))


def test_a_spread_alone_needs_no_fixed_distance() -> None:
    """Else a user compresses at distances that nobody asked for."""
    assert Request("file:///d", (), rules=(SPREAD,)).compressed == SPREAD.ladder
