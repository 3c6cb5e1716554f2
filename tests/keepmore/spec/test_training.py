"""Tunings on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import InvalidRequest
from keepmore.spec import training
from keepmore.spec.training import Tuning

tunings = st.builds(
    Tuning,
    batch=st.integers(32, 65_536),
    micro_batch=st.none() | st.integers(1, 32),
    learning_rate=st.floats(1e-9, 10),
    weight_decay=st.floats(0, 10),
    layer_decay=st.none() | st.floats(0.01, 1),
    warmup=st.floats(0, 1),
    label_smoothing=st.floats(0, 0.99),
    crop=st.floats(0.01, 1),
    image_size=st.none() | st.integers(32, 1024),
    head=st.sampled_from(["probe", "new"]),
    precision=st.sampled_from([None, "float32", "bfloat16", "float16"]),
)


@given(tunings)
def test_words_say_a_tuning_again(tuning: Tuning) -> None:
    """Else the command in a report trains otherwise than the report says."""
    assert (training.parse_tuning(training.tuning_words(tuning)) or Tuning()) == tuning


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch"], "'batch' has no value; write it as NAME=VALUE, such as batch=32"),
        (["lr=1"], "'lr' is not a field; use one of batch, micro_batch, learning_rate"),
        (["batch=3.5"], "training.tuning.batch: '3.5' is not a whole number"),
        (["crop=half"], "training.tuning.crop: 'half' is not a number"),
        (["crop=nan"], "training.tuning.crop: nan is not possible; use above 0 to 1"),
        (["head=old"], "training.tuning.head: 'old' is unknown; use probe or new"),
        (["precision=half"], "training.tuning.precision: 'half' is unknown; use float32 or bfloat16 or float16"),
        (["batch=8", "batch=9"], "training.tuning.batch: named more than once"),
        (["batch=8", "micro_batch=9"], "training.tuning.micro_batch: 9 is not possible; use 1 to 8"),
    ],
)
def test_wrong_words_name_field_value_and_what_is_possible(words: list[str], message: str) -> None:
    """Else a typing error trains for hours with another value than was meant."""
    with pytest.raises(InvalidRequest) as excinfo:
        training.parse_tuning(words)
    assert message in str(excinfo.value)
