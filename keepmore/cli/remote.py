"""A desk that takes its questions to a service, by way of `keepmore.client`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keepmore.cli.backend import parse_reference
from keepmore.cli.console import Console
from keepmore.cli.progress_bars import RemoteProgress
from keepmore.client import Client
from keepmore.errors import InvalidRequest, NothingToRetry, from_dict
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Request, Selection
from keepmore.spec.training import Training

POLL_S = 0.5


class RemoteBackend:
    """Implements `keepmore.cli.backend.Desk`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def when_left(self) -> str:
        return "the job goes on at the service. Follow it"

    def start(self, request: Request) -> str:
        return self._client.start(request)["job"]

    def work(self, job: str, console: Console) -> dict[str, Any]:
        if self._client.job(job)["state"] != "succeeded":
            with suppress(NothingToRetry):  # it is under way
                self._client.retry(job)
        with RemoteProgress(console) as progress:
            ended = self._client.wait(job, progress.show)
        return self._client.report(job) | {"report": self._address(ended["report"])}

    def jobs(self) -> list[dict[str, Any]]:
        return list(self._client.jobs())

    def status(self, job: str) -> dict[str, Any]:
        found = dict(self._client.job(job))
        return found | {"report": self._address(found["report"])}

    def subsets(self, job: str) -> list[dict[str, Any]]:
        return [_bare(made) for made in self._client.subsets(job)]

    def cancel(self, job: str) -> None:
        self._client.cancel(job)

    def select(self, job: str, budget: Budget | None, selection: Selection) -> dict[str, Any]:
        return _bare(self._client.select(job, budget, asdict(selection)))

    def train(self, job: str, subset: str | None, training: Training, console: Console) -> dict[str, Any]:
        found = self._client.train(job, training.as_json(), subset)
        with console.counting("train", None) as on_distance:
            done = 0
            while found["state"] == "running":
                time.sleep(POLL_S)
                found = self._client.training(job, found["training"])
                on_distance(len(found["distances"]) - done, 0)
                done = len(found["distances"])
        if found["state"] == "failed":
            raise from_dict(found["error"])
        return found

    def advise(self, job: str, request: AdviceRequest, console: Console) -> tuple[dict[str, Any], bytes]:
        console.say("the service trains pilots; that takes minutes")
        made = self._client.advise(job, request.as_json())
        return made, self._client.advice_page(job, made["advice"])

    def estimate(self, question: EstimateRequest, console: Console) -> dict[str, Any]:
        made = self._client.estimate(question.as_json())
        return {name: value for name, value in made.items() if name not in ("estimate", "state")}

    def errors(self, job: str) -> Iterator[dict[str, Any]]:
        return self._client.errors(job)

    @contextmanager
    def manifest(self, reference: str) -> Iterator[Path]:
        if Path(reference).is_file():
            yield Path(reference)
            return
        named = parse_reference(reference)
        if named is None:
            raise InvalidRequest(f"manifest {reference}: no such file; with --server name it JOB/ARM")
        job, subset, variant = named
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "manifest.parquet"
            with copy.open("wb") as file:
                self._client.download_manifest(job, variant, file, subset)
            yield copy

    def resume_words(self, job: str) -> list[str]:
        return ["keepmore", "resume", job, "--server", self._client.url]

    def _address(self, path: Any) -> str | None:
        return None if path is None else f"{self._client.url}{path}"


def _bare(made: dict[str, Any]) -> dict[str, Any]:
    """A subset as the store holds it, without what only the API says of it."""
    return {name: value for name, value in made.items() if name not in ("state", "links")}
