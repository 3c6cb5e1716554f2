"""The queue that is a pool of local processes.

A worker process that dies (a crash, or killed for its memory) costs its step another try, in which every image is
decoded in a process of its own, so that an image that kills decoders becomes a row in the errors list.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import cast

from keepmore.answers import ErrorAnswer
from keepmore.codec.malloc import return_large_blocks
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.config import RuntimeConfig
from keepmore.errors import Cancelled, KeepmoreError, from_dict
from keepmore.jobs.step import Lane, Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import attempt
from keepmore.scheduling.queue import TRIES, StepListener, lost
from keepmore.storage.base import Store


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    step: Step | None = None
    tries: int = 0


@dataclass(slots=True)
class _Pool:
    """Steps that wait for workers of one lane, and these workers."""

    most: int
    waiting: deque[Step] = field(default_factory=deque)
    workers: list[_Worker] = field(default_factory=list)

    def busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.step]

    def idle(self, config: RuntimeConfig) -> _Worker | None:
        for worker in self.workers:
            if worker.step is None:
                return worker
        if len(self.workers) == self.most:
            return None
        self.workers.append(_start(config))
        return self.workers[-1]


class LocalQueue:
    """Runs steps in local processes: `processes` that compress, one that trains, one for all the rest.

    `submit`, `cancel` and `stop` may be called from any thread while another one is in `run`. Use as a context
    manager: leaving it kills the workers at once, which loses nothing (see `keepmore.jobs.graph`).
    """

    def __init__(self, config: RuntimeConfig, processes: int) -> None:
        self._config = config
        self._pools = {Lane.CONTROL: _Pool(1), Lane.COMPRESS: _Pool(processes), Lane.TRAINING: _Pool(1)}
        self._lock = threading.Lock()
        self._incoming: deque[Step] = deque()
        self._cancelled: deque[str] = deque()
        self._stopped = False
        self._wake_reader, self._wake_writer = mp.Pipe(duplex=False)

    def __enter__(self) -> LocalQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pool in self._pools.values():
            for worker in list(pool.workers):
                self._end(pool, worker)

    def submit(self, steps: Iterable[Step]) -> None:
        self._incoming.extend(steps)
        self._ring()

    def cancel(self, job: str) -> None:
        self._cancelled.append(job)
        self._ring()

    def depths(self) -> dict[str, int]:
        return {lane.value: len(pool.waiting) for lane, pool in self._pools.items()}

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stopped = True
        self._ring()

    def run(self, listener: StepListener, until_idle: bool) -> None:
        """Run what is submitted and tell `listener`; raises what it raises. Steps under way end with the queue."""
        while not self._stopped:
            while self._cancelled:
                self._take_in()  # what was submitted before it was cancelled
                for step in self._stop(self._cancelled.popleft()):
                    listener.on_abandon(step)
            self._take_in()
            self._hand_out(listener)
            busy = {worker.pipe: worker for pool in self._pools.values() for worker in pool.busy()}
            if not busy and until_idle and not self._incoming:
                return
            for pipe in wait([*busy, self._wake_reader]):
                if pipe is self._wake_reader:
                    self._wake_reader.recv_bytes()
                else:
                    self._take(busy[cast(Connection, pipe)], listener)

    def _ring(self) -> None:
        with self._lock:  # a pipe takes one writer at a time; one unread wake-up is as good as many
            if not self._wake_reader.poll():
                self._wake_writer.send_bytes(b"!")

    def _take_in(self) -> None:
        while self._incoming:
            step = self._incoming.popleft()
            pool = self._pools[step.kind.lane]
            if step not in pool.waiting and all(worker.step != step for worker in pool.workers):
                pool.waiting.append(step)

    def _stop(self, job: str) -> list[Step]:
        """Drop a job's steps, those that wait and those under way; returns them."""
        stopped = []
        for pool in self._pools.values():
            stopped += [step for step in pool.waiting if step.job == job]
            pool.waiting = deque(step for step in pool.waiting if step.job != job)
            for worker in pool.busy():
                if worker.step and worker.step.job == job:
                    self._end(pool, worker)
                    stopped.append(worker.step)
        return stopped

    def _hand_out(self, listener: StepListener) -> None:
        for pool in self._pools.values():
            while pool.waiting and (worker := pool.idle(self._config)):
                step = worker.step = pool.waiting.popleft()
                worker.tries = listener.on_start(step)
                try:
                    worker.pipe.send((step, worker.tries > 1))
                except BrokenPipeError:
                    self._replace_dead(pool, worker, listener)

    def _take(self, worker: _Worker, listener: StepListener) -> None:
        step = cast(Step, worker.step)
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):  # it died, maybe in the middle of a message
            self._replace_dead(self._pools[step.kind.lane], worker, listener)
            return
        if kind == "progress":
            listener.on_progress(step, value)
            return
        worker.step = None
        if kind == "failed":
            listener.on_failure(step, from_dict(value))
        elif kind == "abandoned":
            listener.on_abandon(step)
        else:
            listener.on_finish(step)

    def _replace_dead(self, pool: _Pool, worker: _Worker, listener: StepListener) -> None:
        step = cast(Step, worker.step)
        self._end(pool, worker)
        if worker.tries < TRIES:
            pool.waiting.appendleft(step)
        else:
            listener.on_failure(step, lost(step, f"exit code {worker.process.exitcode}; -9 is often a lack of memory"))

    def _end(self, pool: _Pool, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        pool.workers.remove(worker)


def _start(config: RuntimeConfig) -> _Worker:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, config), name="keepmore-worker", daemon=True)
    with _hold_interrupts():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole terminal group. A process started here never sees it, its parent decides; and the parent
    gets the signal only when the start is over, because an interrupted start leaves a child that prints errors."""
    signals: list[int] = []
    handlers = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if (
        threading.current_thread() is threading.main_thread()
    ):  # only the main thread may; and others are not interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda number, frame: signals.append(number)) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for late in signals[:1]:
        signal.raise_signal(late)


def _work(pipe: Connection, config: RuntimeConfig) -> None:
    """A worker's life: steps come in, progress and outcomes go out, until the pipe or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # libraries start threads that do not keep it alive
    return_large_blocks()
    store = config.store()
    with IsolatedDecoder() as decoder, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            step, isolate = pipe.recv()
            context = StepContext.at(config, decoder, lambda progress: pipe.send(("progress", progress)), isolate)
            pipe.send(_outcome(step, store, context))


def _outcome(step: Step, store: Store, context: StepContext) -> tuple[str, ErrorAnswer | None]:
    try:
        attempt(step, store, context)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Cancelled:
        return "abandoned", None
    except KeepmoreError as error:
        return "failed", error.as_dict()
    return "done", None
