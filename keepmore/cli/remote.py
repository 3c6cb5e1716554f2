"""A service answers, by way of `keepmore.client`."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from keepmore.answers import (
    AdviceAnswer,
    EstimateAnswer,
    FailedImageAnswer,
    JobAnswer,
    JobRecordAnswer,
    ReportAnswer,
    SubsetAnswer,
    TrainingAnswer,
)
from keepmore.cli.console import Console
from keepmore.cli.progress_bars import RemoteProgress
from keepmore.cli.reference import parse_reference
from keepmore.client import Client
from keepmore.errors import InvalidRequest, NothingToRetry, from_dict
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Request, Selection
from keepmore.spec.training import Training

POLL_S = 0.5


class RemoteBackend:
    """Implements `keepmore.cli.backend.Backend`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def where(self) -> str:
        return f"the service is {self._client.url}"

    @property
    def when_left(self) -> str:
        return "the job continues at the service. Follow it"

    def start(self, request: Request) -> str:
        return self._client.start(request)["job"]

    def work(self, job: str, console: Console) -> ReportAnswer:
        if self._client.job(job)["state"] != "succeeded":
            with suppress(NothingToRetry):  # it is under way
                self._client.retry(job)
        with RemoteProgress(console) as progress:
            ended = self._client.wait(job, progress.show)
        return {**self._client.report(job), "report": self._address(ended["report"])}

    def jobs(self) -> list[JobRecordAnswer]:
        return list(self._client.jobs())

    def status(self, job: str) -> JobAnswer:
        status = self._client.job(job)
        return {**status, "report": self._address(status["report"])}

    def subsets(self, job: str) -> list[SubsetAnswer]:
        return [_as_stored(subset) for subset in self._client.subsets(job)]

    def cancel(self, job: str) -> None:
        self._client.cancel(job)

    def select(self, job: str, budget: Budget | None, selection: Selection) -> SubsetAnswer:
        return _as_stored(self._client.select(job, budget, asdict(selection)))

    def train(self, job: str, subset: str | None, training: Training, console: Console) -> TrainingAnswer:
        answer = self._client.train(job, training.as_json(), subset)
        with console.counting("train", None) as on_variant:
            trained = 0
            while answer["state"] == "running":
                time.sleep(POLL_S)
                answer = self._client.training(job, answer["training"])
                on_variant(len(answer["distances"]) - trained, 0)
                trained = len(answer["distances"])
        if answer["state"] == "failed" and answer["error"]:
            raise from_dict(answer["error"])
        return answer

    def advise(self, job: str, request: AdviceRequest, console: Console) -> tuple[AdviceAnswer, bytes]:
        console.say("the service trains pilots; that takes minutes")
        advice = self._client.advise(job, request.as_json())
        return advice, self._client.advice_page(job, advice["advice"])

    def estimate(self, request: EstimateRequest, console: Console) -> EstimateAnswer:
        estimate = self._client.estimate(request.as_json())
        estimate.pop("estimate", None)  # only the service adds these two
        estimate.pop("state", None)
        return estimate

    def errors(self, job: str) -> Iterator[FailedImageAnswer]:
        return self._client.errors(job)

    @contextmanager
    def manifest(self, reference: str) -> Iterator[Path]:
        if Path(reference).is_file():
            yield Path(reference)
            return
        parts = parse_reference(reference)
        if parts is None:
            raise InvalidRequest(f"manifest {reference}: no such file; with --server name it JOB/VARIANT")
        job, subset, variant = parts
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "manifest.parquet"
            with copy.open("wb") as file:
                self._client.download_manifest(job, variant, file, subset)
            yield copy

    def command(self, name: str, job: str) -> str:
        return shlex.join(["keepmore", name, job, "--server", self._client.url])

    def _address(self, path: str | None) -> str | None:
        return None if path is None else f"{self._client.url}{path}"


def _as_stored(subset: SubsetAnswer) -> SubsetAnswer:
    """A subset as the store holds it, without the fields that only the service adds."""
    subset.pop("state", None)
    subset.pop("links", None)
    return subset
