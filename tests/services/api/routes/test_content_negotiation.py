"""Content negotiation: manifests and reports in the form that a caller asks for."""

from __future__ import annotations

import io
import json

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from keepmore.selection import manifest
from keepmore_api.content_negotiation import preferred
from keepmore_api.problems import Refused
from tests.services.api.conftest import Ask


def test_a_manifest_comes_in_three_forms_with_the_same_rows(ask: Ask, job: str) -> None:
    """Else what is deleted depends on the format that was asked for."""
    path = f"/v1/jobs/{job}/subsets/own/10"
    parquet = ask("GET", path)
    rows = list(manifest.rows(parquet.body))
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert ".parquet" in parquet.headers["content-disposition"]
    with manifest.open_manifest(parquet.body) as file:
        digest = manifest.metadata(file).totals.digest
    assert digest == ask("GET", f"/v1/jobs/{job}").json["subset"]["distances"]["10"]["digest"]
    lines = ask("GET", path, Accept="application/x-ndjson").body.decode().splitlines()
    assert [json.loads(line) for line in lines] == rows
    csv = ask("GET", path, Accept="text/csv;q=0.9, application/x-ndjson;q=0.1")
    assert csv.headers["content-type"].startswith("text/csv")
    table = pa_csv.read_csv(io.BytesIO(csv.body))
    assert table["path"].to_pylist() == [row["path"] for row in rows]
    assert table["bytes"].to_pylist() == [row["bytes"] for row in rows]
    link = ask("GET", f"/v1/jobs/{job}").json["links"]["manifests"]["10"]
    assert pq.read_table(io.BytesIO(ask("GET", link).body)).to_pylist() == rows


def test_the_report_is_json_for_programs_and_a_page_for_people(ask: Ask, job: str) -> None:
    """Else a browser shows raw JSON, or a pipeline has to parse HTML."""
    assert ask("GET", f"/v1/jobs/{job}/report").json["job"] == job
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = ask("GET", f"/v1/jobs/{job}/report", Accept=browser)
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["vary"] == "Accept"
    assert b"<!doctype html>" in page.body


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "a/x"),
        ("*/*", "a/x"),
        ("b/y", "b/y"),
        ("b/*", "b/y"),
        ("a/x;q=0.1, b/y;q=0.2", "b/y"),
        ("a/x;q=0, */*", "b/y"),
        ("B/Y", "b/y"),
        ("b/y;q=oops, a/x", "a/x"),
        ("c/z", None),
        ("*/*;q=0", None),
    ],
)
def test_negotiation(accept: str | None, expected: str | None) -> None:
    """Else a caller that states what it can read gets something else."""
    if expected is None:
        with pytest.raises(Refused, match="a/x, b/y"):
            preferred(accept, ("a/x", "b/y"))
    else:
        assert preferred(accept, ("a/x", "b/y")) == expected
