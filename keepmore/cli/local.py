"""The desk of this machine: answers from the store, and works in processes of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keepmore.cli.backend import parse_reference
from keepmore.cli.console import Console
from keepmore.cli.progress_bars import JobProgress
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.config import RuntimeConfig
from keepmore.datasets.listing import check_dataset
from keepmore.errors import KeepmoreError, SubsetNotFound
from keepmore.jobs.graph import Kind, Step, subset_steps
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import request_advice, request_subset, request_training, require, subset_request
from keepmore.pipeline.estimate import estimate_dataset
from keepmore.pipeline.runner import StepContext, run_step
from keepmore.progress import Progress
from keepmore.scheduling import status
from keepmore.scheduling.local_run import run_job, run_missing
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import OWN, Request, Selection
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store

BLOCK_BYTES = 1 << 20


class LocalBackend:
    """Answers from the store at `site`, and works in processes of its own: `processes` of them compress."""

    def __init__(self, config: RuntimeConfig, default_place: str, processes: int) -> None:
        self._config = config
        self._default_place = default_place
        self._processes = processes
        self._opened: Store | None = None

    @property
    def when_left(self) -> str:
        return "stopped; nothing is lost. Go on"

    @property
    def store(self) -> Store:
        if self._opened is None:
            self._opened = self._config.store()
        return self._opened

    def start(self, request: Request) -> str:
        for field, uri in request.datasets():
            check_dataset(uri, self._config.access)
            self._config.check_dataset(field, uri)
        self._config.check_training(request.training)
        return JobRepository(self.store).create(request).id

    def work(self, job: str, console: Console) -> dict[str, Any]:
        found = JobRepository(self.store).get(job)
        with JobProgress(console, found, self.store) as progress:
            run_job(found, self._config, self.store, self._processes, progress.add, progress.done)
        made: dict[str, Any] = json.loads(self.store.get(layout.report(job)))
        return made | {"report": self.store.uri(layout.report_page(job))}

    def jobs(self) -> list[dict[str, Any]]:
        repository = JobRepository(self.store)
        return [repository.shown(name) for name in repository.ids()]

    def status(self, job: str) -> dict[str, Any]:
        return status.status(JobRepository(self.store).get(job), self.store)

    def subsets(self, job: str) -> list[dict[str, Any]]:
        return status.subsets(JobRepository(self.store).get(job), self.store)

    def cancel(self, job: str) -> None:
        with LocalQueue(self._config, 1) as queue:
            Scheduler(self.store, InMemoryStepTracker(1), queue).cancel(job)

    def select(self, job: str, budget: Budget | None, selection: Selection) -> dict[str, Any]:
        found = JobRepository(self.store).get(job)
        step = request_subset(found, self.store, budget, selection)
        try:
            with IsolatedDecoder() as decoder:
                for one in (*subset_steps(found, Kind.FIT, step.part), step):
                    run_step(one, self.store, StepContext.at(self._config, decoder, _unseen))
        except KeepmoreError as error:  # else whatever is done next for the job tries it again, and fails of it
            self.store.put(layout.subset_error(job, step.part), json.dumps(error.as_dict()).encode())
            raise
        made: dict[str, Any] = json.loads(self.store.get(step.output))
        return made

    def train(self, job: str, subset: str | None, training: Training, console: Console) -> dict[str, Any]:
        found = JobRepository(self.store).get(job)
        self._config.check_training(training)
        asked = found.request.subset_id if subset in (None, OWN) else subset
        name = request_training(found, self.store, asked, training)
        images = status.training_images(found, name, self.store)
        left = sum(count for step, count in images.items() if not self.store.exists(step.output))
        self._run(found, console, "train", left, lambda step: step in images)
        return status.training(found, name, self.store)

    def advise(self, job: str, request: AdviceRequest, console: Console) -> tuple[dict[str, Any], bytes]:
        found = JobRepository(self.store).get(job)
        self._config.check_training(request.training)
        name = request_advice(found, self.store, request)
        self._run(found, console, "advise", None, lambda step: True)
        return status.advice(found, name, self.store), self.store.get(layout.advice_page(found.id, name))

    def _run(self, job: Job, console: Console, what: str, images: int | None, counts: Callable[[Step], bool]) -> None:
        """Do what was asked for beside a job, counting the images of the steps that `counts` says yes to."""
        with console.counting(what, images) as on_images:

            def on_progress(step: Step, progress: Progress) -> None:
                if counts(step):
                    on_images(progress.images, progress.bytes_in)

            run_missing(job.id, self._config, self.store, self._processes, on_progress, lambda step: None)

    def estimate(self, question: EstimateRequest, console: Console) -> dict[str, Any]:
        with console.counting("sample", question.images) as on_images, IsolatedDecoder() as decoder:
            return estimate_dataset(
                question, self._config.access, decoder, lambda progress: on_images(progress.images, progress.bytes_in)
            ).as_json()

    def errors(self, job: str) -> Iterator[dict[str, Any]]:
        found = JobRepository(self.store).get(job)
        require(found, self.store, Kind.INDEX)
        return index.errors(self.store, layout.index(found.id), layout.evaluation(found.id))

    @contextmanager
    def manifest(self, reference: str) -> Iterator[Path]:
        if Path(reference).is_file() or not (named := parse_reference(reference)):
            yield Path(reference)
            return
        job_id, subset, variant = named
        job = JobRepository(self.store).get(job_id)
        name = job.request.subset_id if subset == OWN else subset
        subset_request(job, name, self.store)
        if name == job.request.subset_id:
            require(job, self.store, Kind.SELECT)
        if variant not in job.request.variants:
            raise SubsetNotFound(f"job {job.id} has no manifest {reference}; `keepmore show {job.id}` names them")
        with tempfile.TemporaryDirectory() as folder, self.store.open(layout.manifest(job.id, name, variant)) as source:
            copy = Path(folder) / "manifest.parquet"
            with copy.open("wb") as target:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
            yield copy

    def resume_words(self, job: str) -> list[str]:
        place = [] if self._config.place == self._default_place else ["--store", self._config.place]
        return ["keepmore", "resume", job, *place]


def _unseen(progress: Progress) -> None:
    return None
