"""This machine answers, from the store, and works in processes of its own."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

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
from keepmore.cli.progress_bars import JobProgress
from keepmore.cli.reference import parse_reference
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.config import RuntimeConfig
from keepmore.datasets.address import check_dataset
from keepmore.errors import JobNotFound, KeepmoreError, SubsetNotFound
from keepmore.jobs.graph import subset_steps
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import (
    RequestRef,
    RequestRepository,
    request_advice,
    request_subset,
    request_training,
    subset_request,
)
from keepmore.jobs.stage import require
from keepmore.jobs.step import Kind, Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.estimate import estimate_dataset
from keepmore.pipeline.runner import run_step
from keepmore.progress import Progress
from keepmore.scheduling import status
from keepmore.scheduling.local_run import run_job, run_missing
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import OWN, Request, Selection, SubsetRequest
from keepmore.spec.training import Training, TrainingRequest
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind

BLOCK_BYTES = 1 << 20


class LocalBackend:
    """Answers from the store that `config` names, and works in processes of its own: `processes` of them compress."""

    def __init__(self, config: RuntimeConfig, default_place: str, processes: int) -> None:
        self._config = config
        self._default_place = default_place
        self._processes = processes
        self._store: Store | None = None

    @property
    def where(self) -> str:
        return f"the store is {self._config.place}"

    @property
    def when_left(self) -> str:
        return "stopped; nothing is lost. Continue"

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = self._config.store()
        return self._store

    @property
    def _repository(self) -> JobRepository:
        return JobRepository(self.store)

    def start(self, request: Request) -> str:
        repository = self._repository  # first: a wrong address of the store is not the dataset's fault
        for field, uri in request.datasets():
            check_dataset(uri, self._config.access)
            self._config.check_dataset(field, uri)
        self._check_training(request.training)
        return repository.create(request).id

    def _job(self, job: str) -> Job:
        try:
            return self._repository.get(job)
        except JobNotFound as error:
            raise JobNotFound(f"{error.reason}; {self.where}, and --store or KEEPMORE_STORE names another") from None

    def work(self, job: str, console: Console) -> ReportAnswer:
        record = self._job(job)
        with JobProgress(console, record, self.store) as progress:
            run_job(record, self._config, self.store, self._processes, progress.add, progress.done)
        report: ReportAnswer = json.loads(self.store.get(layout.report(job)))
        return {**report, "report": self.store.uri(layout.report_page(job))}

    def jobs(self) -> list[JobRecordAnswer]:
        records = []
        for name in self._repository.ids():
            with suppress(JobNotFound):  # deleted meanwhile, or a link to nothing
                records.append(self._repository.record_for_list(name))
        return records

    def status(self, job: str) -> JobAnswer:
        return status.status(self._job(job), self.store).as_json()

    def subsets(self, job: str) -> list[SubsetAnswer]:
        return status.subsets(self._job(job), self.store)

    def cancel(self, job: str) -> None:
        with LocalQueue(self._config, 1) as queue:
            Scheduler(self.store, InMemoryStepTracker(1), queue).cancel(job)

    def select(self, job: str, budget: Budget | None, selection: Selection) -> SubsetAnswer:
        record = self._job(job)
        select = request_subset(record, self.store, SubsetRequest(budget, selection))
        try:
            with IsolatedDecoder() as decoder:
                for step in (*subset_steps(record, select.request, Kind.FIT), select):
                    run_step(step, self.store, StepContext.at(self._config, decoder, lambda progress: None))
        except KeepmoreError as error:  # otherwise the next command for the job tries it again, and fails because of it
            RequestRepository(self.store).fail(RequestRef(RequestKind.SUBSET, job, select.request), error)
            raise
        subset: SubsetAnswer = json.loads(self.store.get(select.output))
        return subset

    def train(self, job: str, subset: str | None, training: Training, console: Console) -> TrainingAnswer:
        record = self._job(job)
        self._check_training(training)
        subset_id = record.request.subset_id if subset in (None, OWN) else subset
        name = request_training(record, self.store, TrainingRequest(subset_id, training))
        images = status.training_images(record, name, self.store)
        remaining = sum(count for step, count in images.items() if not self.store.exists(step.output))
        self._run(record, console, "train", remaining, lambda step: step in images)
        return status.training_status(record, name, self.store).as_json()

    def advise(self, job: str, request: AdviceRequest, console: Console) -> tuple[AdviceAnswer, bytes]:
        record = self._job(job)
        self._check_training(request.training)
        name = request_advice(record, self.store, request)
        self._run(record, console, "advise", None, lambda step: True)
        answer = status.advice_status(record, name, self.store)
        return answer, self.store.get(layout.advice_page(record.id, name))

    def _run(self, job: Job, console: Console, what: str, images: int | None, counts: Callable[[Step], bool]) -> None:
        """Run the requests beside a job, counting the images of the steps for which `counts` is true."""
        with console.counting(what, images) as on_images:

            def on_progress(step: Step, progress: Progress) -> None:
                if counts(step):
                    on_images(progress.images, progress.bytes_in)

            run_missing(job.id, self._config, self.store, self._processes, on_progress, lambda step: None)

    def estimate(self, request: EstimateRequest, console: Console) -> EstimateAnswer:
        with console.counting("sample", request.images) as on_images, IsolatedDecoder() as decoder:
            answer = estimate_dataset(
                request, self._config.access, decoder, lambda progress: on_images(progress.images, progress.bytes_in)
            )
        return cast(EstimateAnswer, answer.as_json())

    def errors(self, job: str) -> Iterator[FailedImageAnswer]:
        record = self._job(job)
        require(record, self.store, Kind.INDEX)
        images = index.errors(self.store, layout.index(record.id), layout.evaluation(record.id))
        return (cast(FailedImageAnswer, image.as_json()) for image in images)

    @contextmanager
    def manifest(self, reference: str) -> Iterator[Path]:
        if Path(reference).is_file() or not (parts := parse_reference(reference)):
            yield Path(reference)
            return
        job_id, subset, variant = parts
        job = self._job(job_id)
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

    def _check_training(self, training: Training | None) -> None:
        """Raises what its weights, or the scratch disk that it needs, may raise: before anything is compressed."""
        self._config.check_training(training)
        if training:
            self._config.scratch.root.stat()

    def command(self, name: str, job: str) -> str:
        place = [] if self._config.place == self._default_place else ["--store", self._config.place]
        return shlex.join(["keepmore", name, job, *place])
