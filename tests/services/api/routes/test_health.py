"""Readiness and metrics of a service that runs."""

from __future__ import annotations

from pathlib import Path

from keepmore.jobs.job import JobRepository, State
from keepmore.storage.folder import FolderStore
from tests.service import Service
from tests.services.api.conftest import Ask


def test_readiness_and_metrics(service: Service, ask: Ask, job: str) -> None:
    """Else an orchestrator sends work to a service that cannot do any."""
    assert ask("GET", "/readyz").json == {"status": "ok"}
    repository = JobRepository(FolderStore(Path(service.environment["KEEPMORE_STORE"])))
    assert {repository.get(name).state for name in repository.ids()} <= set(State)
    text = ask("GET", "/metrics").body.decode()
    assert 'keepmore_queue_depth{lane="compress"}' in text
    assert 'keepmore_requests_total{method="GET",route="/readyz",status="200"}' in text
    assert job not in text, "one series a route, not one a job"
