"""How a job stands, read from what its store holds."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq

from keepmore import keys
from keepmore.jobs import Job
from keepmore.steps import chunk_count, ready_steps
from keepmore.store import Store


def status(job: Job, store: Store) -> dict[str, Any]:
    """State, the stage that is next or under way, counts, and where the results lie."""
    done = set(store.keys(keys.work(job.id)))
    chunks = chunk_count(store, job.id)
    ready = list(ready_steps(job, done, chunks))
    found: dict[str, Any] = {
        "job": job.id,
        "state": job.state.value,
        "error": job.error,
        "created_at": job.created_at,
        "request": job.request.as_json(),
        "stage": ready[-1].kind.value if ready else None,
        "images": None if chunks is None else dict(zip(("done", "all"), images_in_parts(store, job.id), strict=True)),
        "report": store.uri(keys.report_page(job.id)) if keys.report(job.id) in done else None,
    }
    if keys.index_summary(job.id) in done:
        found["index"] = json.loads(store.get(keys.index_summary(job.id)))
    if keys.codec_check(job.id) in done:
        found["warnings"] = json.loads(store.get(keys.codec_check(job.id)))["warnings"]
    subsets = [key for key in sorted(done) if key.endswith("/subset.json")]
    found["subsets"] = [json.loads(store.get(key)) for key in subsets]
    return found


def images_in_parts(store: Store, job_id: str) -> tuple[int, int]:
    """Images compressed (or failed) so far, and all that were listed. Reads footers only."""
    done = 0
    for key in store.keys(keys.parts_prefix(job_id)):
        with store.open(key) as file:
            done += pq.read_metadata(file).num_rows
    return done, int(json.loads(store.get(keys.listing(job_id)))["images"])
