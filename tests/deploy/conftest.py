"""The chart, rendered with each of tests/deploy/values, and an API process with its metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from keepmore.compression.index import Summary
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.metrics import total
from keepmore_api.app import create_app
from keepmore_api.auth import Gate
from keepmore_api.backend.embedded import Embedded
from keepmore_api.metrics import Meter
from keepmore_services.settings import load
from tests.deploy.chart import ROOT, SETS, Helm, Rendered, run_helm, template
from tests.deploy.monitoring import MONITORING, Dashboard, Metrics


@pytest.fixture(scope="session")
def helm() -> Helm:
    binary = Path(os.environ.get("HELM", ROOT / ".venv" / "tools" / "helm"))
    assert binary.is_file(), f"{binary} is missing: `make test` fetches it, HELM names another"
    return partial(run_helm, binary)


@pytest.fixture(scope="session")
def renderings(helm: Helm) -> Callable[[str], Rendered]:
    """The chart by the name of a set of values: each is rendered once, however many files of tests ask for it."""
    return cache(lambda values: template(helm, values=values))


@pytest.fixture(scope="session", params=SETS)
def rendered(renderings: Callable[[str], Rendered], request: pytest.FixtureRequest) -> Rendered:
    return renderings(request.param)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An API process that has counted one of everything."""
    backend = Embedded(load(store=str(tmp_path_factory.mktemp("store")), processes=1))
    step = Step("job", Kind.COMPRESS, chunk=0)
    backend.tracker.counters.count(metrics.of_step(step, "done", Progress(1, 1, 1, 1, 1.0), 2.0))
    backend.tracker.counters.count(metrics.of_failure(step, "worker_lost"))
    backend.tracker.counters.count(metrics.of_delay(step, "store_unavailable"))
    backend.tracker.counters.count(
        metrics.of_index(Summary(pool_bytes={0.0: 2, 4.0: 1}, errors={"unreadable_image": 1}))
    )
    backend.tracker.counters.count({total("redis_errors"): 1.0})
    app = create_app(backend, Gate(()), 1000, local_only=True)
    meter: Meter = app.state.meter
    meter.requests.labels("GET", "/v1/jobs", "200").inc()
    meter.seconds.labels("GET", "/v1/jobs").observe(0.1)
    meter.problems.labels("no_such_page").inc()
    return app


@pytest.fixture(scope="session")
def exposed(api: FastAPI) -> Metrics:
    """Every series' name and labels."""
    families = text_string_to_metric_families(generate_latest(api.state.meter.registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {one.name: frozenset(one.labels) for one in samples if not one.name.endswith("_created")}


@pytest.fixture(scope="session")
def dashboard() -> Dashboard:
    return cast(Dashboard, json.loads((MONITORING / "dashboard.json").read_text()))
