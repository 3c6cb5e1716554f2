"""The step tracker within one process."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import RLock

from keepmore.jobs.step import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.metrics import Amounts, Total
from keepmore.scheduling.tracker import BUSY_S, GRACE_S, Load, Pace, window

# Of how many stages, a few per job, the progress stays in memory; the store knows that of older ones.
MOST_STAGES = 3000


@dataclass(slots=True)
class _JobState:
    """One job on the tracker: steps that wait, in order; steps under way and when a worker last reported on them."""

    # Taking from the front of a dictionary skips over everything that was taken before.
    waiting: OrderedDict[Step, None] = field(default_factory=OrderedDict)
    under_way: dict[Step, float] = field(default_factory=dict)
    tries: Counter[Step] = field(default_factory=Counter)


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


class InMemoryLeases:
    """Implements `Leases` for any number of threads."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = RLock()
        self._jobs: dict[str, _JobState] = {}

    def offer(self, steps: Iterable[Step]) -> None:
        with self._lock:
            for step in steps:
                state = self._jobs.setdefault(step.job, _JobState())
                if step not in state.under_way:
                    state.waiting[step] = None

    def take(self, job: str) -> list[Step]:
        with self._lock:
            state = self._jobs.get(job, _JobState())
            most = window(self._slots, len(self._jobs)) - len(state.under_way)
            steps = [state.waiting.popitem(last=False)[0] for _ in range(min(most, len(state.waiting)))]
            state.under_way |= dict.fromkeys(steps, time.monotonic() + GRACE_S)
            return steps

    def push(self, step: Step) -> bool:
        with self._lock:
            state = self._jobs.setdefault(step.job, _JobState())
            state.waiting.pop(step, None)
            new = step not in state.under_way
            state.under_way[step] = time.monotonic() + GRACE_S
            return new

    def begin(self, step: Step) -> int:
        with self._lock:
            state = self._jobs.setdefault(step.job, _JobState())
            state.under_way[step] = time.monotonic()
            state.tries[step] += 1
            return state.tries[step]

    def tries(self, step: Step) -> int:
        with self._lock:
            return self._jobs.get(step.job, _JobState()).tries[step]

    def busy(self, step: Step) -> bool:
        with self._lock:
            at = self._jobs.get(step.job, _JobState()).under_way.get(step, -math.inf)
            return self.tries(step) > 0 and 0 <= time.monotonic() - at < BUSY_S

    def renew(self, step: Step) -> None:
        with self._lock:
            if step.job in self._jobs:
                self._jobs[step.job].under_way[step] = time.monotonic()

    def finish(self, step: Step) -> None:
        with self._lock:
            state = self._jobs.get(step.job)
            if state:
                state.waiting.pop(step, None)
                state.under_way.pop(step, None)
                state.tries.pop(step, None)
                self._tidy(step.job)

    def idle(self, job: str) -> bool:
        with self._lock:
            return job not in self._jobs

    def lost(self, job: str, silent_s: float) -> list[Step]:
        limit = time.monotonic() - silent_s
        with self._lock:
            return [step for step, at in self._jobs.get(job, _JobState()).under_way.items() if at < limit]

    def drop(self, job: str) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs[job].waiting.clear()
                self._tidy(job)

    def _tidy(self, job: str) -> None:
        if not self._jobs[job].waiting and not self._jobs[job].under_way:
            del self._jobs[job]

    def loads(self) -> dict[Lane, Load]:
        loads, now = dict.fromkeys(Lane, Load()), time.monotonic()
        with self._lock:
            for state in self._jobs.values():
                for step, at in state.under_way.items():
                    loads[step.kind.lane] = loads[step.kind.lane].and_one(state.tries[step] > 0, now + GRACE_S - at)
                if state.waiting:  # one stage waits at a time, and its steps are of one lane
                    lane = next(reversed(state.waiting)).kind.lane
                    loads[lane] = loads[lane].and_more(len(state.waiting))
        return loads


class InMemoryProgress:
    """Implements `StepProgress` for any number of threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._stages: OrderedDict[tuple[str, Kind], _Stage] = OrderedDict()

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


class InMemoryCapacity:
    """Implements `Capacity`: the processes are as many as there are slots."""

    def __init__(self, slots: int, leases: InMemoryLeases) -> None:
        self._slots = slots
        self._leases = leases

    def slots(self) -> int:
        return self._slots

    def processes(self) -> int:
        return self._slots

    def loads(self) -> dict[Lane, Load]:
        return self._leases.loads()


class InMemoryCounters:
    """Implements `Counters` for any number of threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._counts: Counter[Total] = Counter()

    def count(self, amounts: Amounts) -> None:
        with self._lock:
            self._counts.update(amounts)

    def counts(self) -> Amounts:
        with self._lock:
            return dict(self._counts)


class InMemoryStepTracker:
    """Implements `StepTracker` within one process."""

    def __init__(self, slots: int) -> None:
        self.leases = InMemoryLeases(slots)
        self.progress = InMemoryProgress()
        self.capacity = InMemoryCapacity(slots, self.leases)
        self.counters = InMemoryCounters()
