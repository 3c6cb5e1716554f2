"""Parts of archives, named by the end of a URI."""

from __future__ import annotations

import pytest

from keepmore.datasets.member import Member, member_of


@pytest.mark.parametrize(
    ("uri", "member"),
    [
        ("s3://b/a#b?c.jpg", Member("s3://b/a#b?c.jpg")),
        ("s3://b/x#y.tar#offset=512&length=7&path=a%23b.jpg", Member("s3://b/x#y.tar", 512, 7)),
        ("s3://b/x.jpg#offset=512&length=7&path=a", Member("s3://b/x.jpg#offset=512&length=7&path=a")),
        ("s3://b/x.tar#offset=-1&length=7&path=a", Member("s3://b/x.tar#offset=-1&length=7&path=a")),
        ("file:///x.parquet#row=3", Member("file:///x.parquet", row=3)),
        ("https://h/x.tar?sig=1#offset=512&length=7&path=a", Member("https://h/x.tar?sig=1", 512, 7)),
    ],
)
def test_only_the_end_of_a_uri_names_a_part_of_an_archive(uri: str, member: Member) -> None:
    """Else an object whose key holds "#" is reported missing."""
    assert member_of(uri) == member
