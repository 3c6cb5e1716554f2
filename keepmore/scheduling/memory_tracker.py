"""The step tracker within one process."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import RLock

from keepmore.jobs.graph import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.metrics import Amounts, Total
from keepmore.scheduling.tracker import BUSY_S, GRACE_S, Load, Pace, window

# Of so many the tracker in memory remembers how far they are; the store knows of older ones.
MOST_STAGES = 3000


@dataclass(slots=True)
class _JobState:
    """One job on the tracker: steps that wait, in order; steps under way and when they were heard of last."""

    # Taking from the front of a dictionary passes over all that was taken before.
    waiting: OrderedDict[Step, None] = field(default_factory=OrderedDict)
    under_way: dict[Step, float] = field(default_factory=dict)
    begun: Counter[Step] = field(default_factory=Counter)


@dataclass(slots=True)
class _Stage:
    """One stage of a job: progress by part, and of all; how many images were restored, None before any could be."""

    parts: dict[str, Progress] = field(default_factory=dict)
    total: Progress = field(default_factory=Progress)
    restored: int | None = None
    since: float = field(default_factory=time.monotonic)

    def note(self, part: str, done: Progress) -> None:
        self.total = self.total - self.parts.get(part, Progress()) + done
        self.parts[part] = done


class InMemoryStepTracker:
    """A tracker within one process, for any number of threads."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = RLock()
        self._desks: dict[str, _JobState] = {}
        self._stages: OrderedDict[tuple[str, Kind], _Stage] = OrderedDict()
        self._counts: Counter[Total] = Counter()

    def offer(self, steps: Iterable[Step]) -> None:
        with self._lock:
            for step in steps:
                backend = self._desks.setdefault(step.job, _JobState())
                if step not in backend.under_way:
                    backend.waiting[step] = None

    def take(self, job: str) -> list[Step]:
        with self._lock:
            backend = self._desks.get(job, _JobState())
            most = window(self._slots, len(self._desks)) - len(backend.under_way)
            taken = [backend.waiting.popitem(last=False)[0] for _ in range(min(most, len(backend.waiting)))]
            backend.under_way |= dict.fromkeys(taken, time.monotonic() + GRACE_S)
            return taken

    def push(self, step: Step) -> bool:
        with self._lock:
            backend = self._desks.setdefault(step.job, _JobState())
            backend.waiting.pop(step, None)
            new = step not in backend.under_way
            backend.under_way[step] = time.monotonic() + GRACE_S
            return new

    def begin(self, step: Step) -> int:
        with self._lock:
            backend = self._desks.setdefault(step.job, _JobState())
            backend.under_way[step] = time.monotonic()
            backend.begun[step] += 1
            return backend.begun[step]

    def tries(self, step: Step) -> int:
        with self._lock:
            return self._desks.get(step.job, _JobState()).begun[step]

    def busy(self, step: Step) -> bool:
        with self._lock:
            at = self._desks.get(step.job, _JobState()).under_way.get(step, -math.inf)
            return self.tries(step) > 0 and 0 <= time.monotonic() - at < BUSY_S

    def seen(self, step: Step) -> None:
        with self._lock:
            if step.job in self._desks:
                self._desks[step.job].under_way[step] = time.monotonic()

    def finish(self, step: Step) -> None:
        with self._lock:
            backend = self._desks.get(step.job)
            if backend:
                backend.waiting.pop(step, None)
                backend.under_way.pop(step, None)
                backend.begun.pop(step, None)
                self._tidy(step.job)

    def idle(self, job: str) -> bool:
        with self._lock:
            return job not in self._desks

    def lost(self, job: str, silent_s: float) -> list[Step]:
        limit = time.monotonic() - silent_s
        with self._lock:
            return [step for step, at in self._desks.get(job, _JobState()).under_way.items() if at < limit]

    def drop(self, job: str) -> None:
        with self._lock:
            if job in self._desks:
                self._desks[job].waiting.clear()
                self._tidy(job)

    def _tidy(self, job: str) -> None:
        if not self._desks[job].waiting and not self._desks[job].under_way:
            del self._desks[job]

    def note(self, step: Step, total: Progress) -> None:
        with self._lock:
            self._stage(step.job, step.kind).note(step.part, total)

    def restore(self, job: str, kind: Kind, parts: Mapping[str, Progress]) -> None:
        with self._lock:
            stage = self._stage(job, kind)
            unheard = {part: done for part, done in parts.items() if part not in stage.parts}
            for part, done in unheard.items():
                stage.note(part, done)
            stage.restored = (stage.restored or 0) + sum(done.images for done in unheard.values())

    def restored(self, job: str, kind: Kind) -> bool:
        with self._lock:
            stage = self._stages.get((job, kind))
            return stage is not None and stage.restored is not None

    def _stage(self, job: str, kind: Kind) -> _Stage:
        stage = self._stages.setdefault((job, kind), _Stage())
        if len(self._stages) > MOST_STAGES:
            self._stages.popitem(last=False)
        return stage

    def pace(self, job: str, kind: Kind) -> Pace | None:
        with self._lock:
            stage = self._stages.get((job, kind))
            if stage is None:
                return None
            return Pace(stage.total, stage.total.images - (stage.restored or 0), time.monotonic() - stage.since)

    def slots(self) -> int:
        return self._slots

    def processes(self) -> int:
        return self._slots

    def loads(self) -> dict[Lane, Load]:
        found, now = dict.fromkeys(Lane, Load()), time.monotonic()
        with self._lock:
            for backend in self._desks.values():
                for step, at in backend.under_way.items():
                    found[step.kind.lane] = found[step.kind.lane].and_one(backend.begun[step] > 0, now + GRACE_S - at)
                if backend.waiting:  # one stage waits at a time, and its steps are of one lane
                    lane = next(reversed(backend.waiting)).kind.lane
                    found[lane] = found[lane].and_more(len(backend.waiting))
        return found

    def count(self, amounts: Amounts) -> None:
        with self._lock:
            self._counts.update(amounts)

    def counts(self) -> Amounts:
        with self._lock:
            return dict(self._counts)
