"""Progress of jobs on a terminal: bars for local and remote jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import TaskID

from keepmore.cli.console import Console, new_bar, rate_text
from keepmore.jobs.job import Job
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress as Done
from keepmore.scheduling.status import parts_progress, training_images
from keepmore.spec.training import PROBE
from keepmore.storage import layout
from keepmore.storage.base import Store


class JobProgress:
    """One bar for each stage that counts images. Use as a context manager."""

    def __init__(self, console: Console, job: Job, store: Store) -> None:
        self._console = console
        self._job = job
        self._store = store
        self._display = new_bar(console)
        self._tasks: dict[Kind, TaskID] = {}
        self._bytes = dict.fromkeys((Kind.COMPRESS, Kind.FIT, Kind.FEATURES, Kind.TUNE), (0, 0))
        self._training = job.request.training and (Kind.FEATURES if job.request.training.method == PROBE else Kind.TUNE)

    def __enter__(self) -> JobProgress:
        self._display.start()
        if self._store.exists(layout.listing(self._job.id)):
            self._start(Kind.COMPRESS)
        if self._job.request.fits and self._store.exists(layout.index_summary(self._job.id)):
            self._start(Kind.FIT)
        if self._training and self._store.exists(layout.subset(self._job.id, self._job.request.subset_id)):
            self._start(self._training)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._display.stop()

    def add(self, step: Step, done: Done) -> None:
        """Some images of a step are done; the total of a listing is not known."""
        if step.kind not in self._tasks:
            return
        task = self._tasks[step.kind]
        bytes_in, bytes_out = self._bytes[step.kind]
        self._bytes[step.kind] = bytes_in + done.bytes_in, bytes_out + done.bytes_out
        self._display.update(task, advance=done.images, rate=rate_text(self._display, task, *self._bytes[step.kind]))

    def done(self, step: Step) -> None:
        """A whole step is done."""
        if step.kind is Kind.LIST:
            self._start(Kind.COMPRESS)
        elif step.kind is Kind.CHECK:
            for warning in json.loads(self._store.get(layout.codec_check(self._job.id)))["warnings"]:
                self._console.say(f"warning: {warning}")
        elif step.kind is Kind.INDEX and self._job.request.fits:
            self._start(Kind.FIT)
        elif step.kind is Kind.SELECT and self._training and step.part == self._job.request.subset_id:
            self._start(self._training)
        elif step.kind is Kind.TUNE and Kind.TUNE in self._tasks:
            # A run that continued from its checkpoint reported fewer images than it has.
            self._display.update(self._tasks[Kind.TUNE], completed=self._counts(Kind.TUNE)[0])

    def _start(self, kind: Kind) -> None:
        done, total = self._counts(kind)
        self._tasks[kind] = self._display.add_task(kind.value, total=total, completed=done, rate="")

    def _counts(self, kind: Kind) -> tuple[int, int | None]:
        if kind is Kind.FIT:
            return 0, None  # it is not known how often the images will be encoded
        if kind is Kind.COMPRESS:
            image_count = int(json.loads(self._store.get(layout.listing(self._job.id)))["images"])
            return sum(done.images for done in parts_progress(self._store, self._job.id).values()), image_count
        images = training_images(self._job, self._job.request.training_id, self._store)
        return sum(count for step, count in images.items() if self._store.exists(step.output)), sum(images.values())


class RemoteProgress:
    """One bar for the images that a service compresses, and a line for every other stage. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display = new_bar(console)
        self._task: TaskID | None = None
        self._stage: str | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> RemoteProgress:
        self._display.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._display.stop()

    def show(self, job: Mapping[str, Any]) -> None:
        """The current status of the job."""
        for warning in set(job["warnings"]) - self._warned:
            self._warned.add(warning)
            self._console.say(f"warning: {warning}")
        counts = job["images"]
        if counts:
            if self._task is None:
                self._task = self._display.add_task(Kind.COMPRESS.value, total=counts["listed"], rate="")
            size = job["bytes"]
            rate = rate_text(self._display, self._task, size["in"], size["out"])
            self._display.update(self._task, completed=counts["done"], rate=rate)
        if job["stage"] and job["stage"] != self._stage and job["stage"] != Kind.COMPRESS:
            self._console.say(f"stage: {job['stage']}")
        self._stage = job["stage"]
