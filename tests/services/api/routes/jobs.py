"""Jobs of the sample dataset, as the tests of several routes start them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.services.api.conftest import Ask


def job_body(sample: Path, **more: object) -> dict[str, object]:
    """A request for a job over the smaller half of the sample, with more fields."""
    return {"dataset": (sample / "test").as_uri(), "distances": [4], **more}


def wait_for_end(ask: Ask, job: str) -> dict[str, Any]:
    """The job as it is shown once it has ended."""
    view: dict[str, Any] = ask("GET", f"/v1/jobs/{job}?wait=60").json
    assert view["state"] != "accepted"
    return view
