"""Store keys."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from keepmore.storage import layout

numbers = st.integers(0, 10**8 - 1)
distances = st.floats(0.11, 25.0)


@given(st.lists(numbers, min_size=2, max_size=20, unique=True))
def test_chunks_and_parts_sort_by_number(chunk_numbers: list[int]) -> None:
    """Else a merge concatenates parts out of order, and the index is not sorted by path."""
    for key in (partial(layout.chunk, "job", "listing"), partial(layout.part, "job")):
        assert sorted(map(key, chunk_numbers)) == [key(n) for n in sorted(chunk_numbers)]


@given(
    st.lists(st.tuples(st.sampled_from(["lossy", "lossless", "original"]), distances, st.integers(1, 10)), unique=True)
)
def test_objects_share_a_key_only_if_they_are_the_same(encodings: list[tuple[str, float, int]]) -> None:
    """Else one encoding overwrites another: images are lost or have the wrong size."""
    by_key: dict[str, tuple[object, ...]] = {}
    for encoding, distance, effort in encodings:
        key = layout.object("ab" * 32, encoding, distance, effort, "codec")
        same = (encoding, distance, effort) if encoding == "lossy" else (encoding,)
        assert by_key.setdefault(key, same) == same
    other = layout.object("cd" * 32, "lossy", 2, 3, "codec")
    assert other not in by_key
    assert layout.object("cd" * 32, "lossy", 2, 3, "newer codec") != other


def test_work_of_one_job_is_no_prefix_of_anothers() -> None:
    """Else finishing job 1 counts the steps of job 10 as done."""
    for key in (layout.listing, layout.index, layout.report, layout.index_summary, layout.codec_check):
        assert key("job-1").startswith(layout.work("job-1"))
        assert not key("job-10").startswith(layout.work("job-1"))
