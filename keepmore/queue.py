"""The Queue protocol, and the queue that is a pool of local processes.

A worker process that dies (a crash, or killed for its memory) costs its step a second try, in which every image is
decoded apart, so that the one that kills decoders becomes a row in the errors list.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from keepmore.compress import Progress
from keepmore.errors import InternalError, KeepmoreError, WorkerLost, from_dict
from keepmore.isolation import IsolatedDecoder
from keepmore.jobs import JobBook
from keepmore.memory import return_large_blocks
from keepmore.steps import Step, Workshop, run_step
from keepmore.store import FolderStore

TRIES = 3

OnProgress = Callable[[Step, Progress], None]
OnDone = Callable[[Step], Iterable[Step]]


class Queue(Protocol):
    """Carries steps; knows no results."""

    def submit(self, steps: Iterable[Step]) -> None:
        """Have `steps` done some time; a step that is submitted twice is harmless."""
        ...


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    step: Step | None = None


@dataclass(slots=True)
class _Lane:
    """Steps that wait for workers of one kind, and these workers."""

    most: int
    waiting: deque[Step] = field(default_factory=deque)
    workers: list[_Worker] = field(default_factory=list)

    def busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.step]

    def idle(self, root: Path) -> _Worker | None:
        for worker in self.workers:
            if worker.step is None:
                return worker
        if len(self.workers) == self.most:
            return None
        self.workers.append(_start(root))
        return self.workers[-1]


class LocalQueue:
    """Runs steps in local processes: `processes` for most kinds, one for those that need torch.

    Use as a context manager: leaving it kills the workers at once, which loses nothing (see `keepmore.steps`).
    """

    def __init__(self, root: Path, processes: int) -> None:
        self._root = root
        self._lanes = {False: _Lane(processes), True: _Lane(1)}
        self._known: set[Step] = set()
        self._deaths: Counter[Step] = Counter()

    def __enter__(self) -> LocalQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for lane in self._lanes.values():
            for worker in lane.workers:
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()
            lane.workers = []

    def submit(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step not in self._known:
                self._known.add(step)
                self._lanes[step.kind.needs_torch].waiting.append(step)

    def drain(self, on_done: OnDone, on_progress: OnProgress) -> None:
        """Run everything submitted, and what `on_done` gives for each finished step, until nothing is left.

        Raises the error of the first step that fails; steps under way are abandoned when the queue is closed.
        """
        while True:
            self._hand_out()
            busy = {worker.pipe: worker for lane in self._lanes.values() for worker in lane.busy()}
            if not busy:
                return
            for pipe in wait(list(busy)):
                self._take(busy[cast(Connection, pipe)], on_done, on_progress)

    def _hand_out(self) -> None:
        for lane in self._lanes.values():
            while lane.waiting and (worker := lane.idle(self._root)):
                worker.step = lane.waiting.popleft()
                try:
                    worker.pipe.send((worker.step, self._deaths[worker.step] > 0))
                except BrokenPipeError:
                    self._bury(worker, worker.step)

    def _take(self, worker: _Worker, on_done: OnDone, on_progress: OnProgress) -> None:
        step = cast(Step, worker.step)
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker, step)
            return
        if kind == "progress":
            on_progress(step, value)
        elif kind == "failed":
            raise from_dict(value)
        else:
            worker.step = None
            self.submit(on_done(step))

    def _bury(self, worker: _Worker, step: Step) -> None:
        worker.process.join()
        worker.pipe.close()
        lane = self._lanes[step.kind.needs_torch]
        lane.workers.remove(worker)
        self._deaths[step] += 1
        if self._deaths[step] == TRIES:
            raise WorkerLost(
                f"a worker died {TRIES} times on step {step.kind} {step.part} (exit code {worker.process.exitcode}; "
                "-9 is often a lack of memory); give it more memory or use fewer processes, then resume the job"
            )
        lane.waiting.appendleft(step)


def _start(root: Path) -> _Worker:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, root), name="keepmore-worker")
    with _interrupts_held():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches the whole terminal group. A process started here never sees it: its parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, root: Path) -> None:
    """A worker's life: steps come in, progress and outcomes go out, until the pipe or the parent is gone."""
    return_large_blocks()
    store = FolderStore(root)
    with IsolatedDecoder() as decoder, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            step, isolate = pipe.recv()
            workshop = Workshop(decoder, lambda progress: pipe.send(("progress", progress)), isolate)
            pipe.send(_outcome(step, store, workshop))


def _outcome(step: Step, store: FolderStore, workshop: Workshop) -> tuple[str, dict[str, Any] | None]:
    try:
        run_step(JobBook(store).get(step.job), step, store, workshop)
    except KeepmoreError as error:
        return "failed", error.as_dict()
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception:  # noqa: BLE001 whatever a step raises is its job's failure, told with the traceback
        return "failed", InternalError(f"step {step.kind} {step.part}:\n{traceback.format_exc()}").as_dict()
    return "done", None
