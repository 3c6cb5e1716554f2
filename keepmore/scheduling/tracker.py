"""What is handed out and how far it is, beside the store: a cache that may be lost at any moment without losing work.

Everything in it is a set, keyed by step, so that doing something twice says the same thing once.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import Protocol

from keepmore.jobs.graph import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.metrics import Amounts, Total

# Twice as many steps as there are processes keep every process busy; more would stand in the way of other jobs.
STEPS_A_SLOT = 2
FEWEST_STEPS = 2
# How long a step that was handed out may wait for a worker before anybody has to be heard of about it.
GRACE_S = 100.0
BUSY_S = 6.0
# Of so many the board in memory remembers how far they are; the store knows of older ones.
MOST_STAGES = 3000


@dataclass(frozen=True, slots=True)
class Pace:
    """Images of a stage done so far, how many of them were seen being done, and in how many seconds."""

    done: Progress
    seen_images: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Images a second; None before there is anything to go by."""
        return self.seen_images / self.seconds if self.seen_images and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Load:
    """Steps of a lane on the board: that wait for their turn or a worker, and that are under way. `oldest_s`: for how
    long the one that was handed out first has been waiting for a worker, in seconds."""

    waiting: int = 0
    under_way: int = 0
    oldest_s: float = 0.0

    def and_one(self, begun: bool, waits_s: float) -> Load:
        """With one more step that was handed out `waits_s` seconds ago."""
        if begun:
            return Load(self.waiting, self.under_way + 1, self.oldest_s)
        return Load(self.waiting + 1, self.under_way, max(self.oldest_s, waits_s))

    def and_more(self, waiting: int) -> Load:
        """With so many more that are not handed out."""
        return Load(self.waiting + waiting, self.under_way, self.oldest_s)


class Board(Protocol):
    def offer(self, steps: Iterable[Step]) -> None:
        """These steps of a job wait to be handed out; those that wait or are under way already are left as they are."""
        ...

    def take(self, job: str) -> list[Step]:
        """Steps of `job` to hand out now, moved from waiting to under way: its fair share of the workers, no more."""
        ...

    def push(self, step: Step) -> bool:
        """`step` is under way, past all that waits; False if it was already."""
        ...

    def begin(self, step: Step) -> int:
        """A worker starts on `step`; gives how many did so without ending it, this one included."""
        ...

    def tries(self, step: Step) -> int:
        """How many workers started on `step` without ending it."""
        ...

    def busy(self, step: Step) -> bool:
        """Whether somebody who works on `step` was heard of in the last BUSY_S seconds."""
        ...

    def seen(self, step: Step) -> None:
        """Whoever has `step` is alive."""
        ...

    def finish(self, step: Step) -> None:
        """`step` is neither waiting nor under way any more."""
        ...

    def idle(self, job: str) -> bool:
        """Whether nothing of `job` waits or is under way."""
        ...

    def lost(self, job: str, silent_s: float) -> list[Step]:
        """Steps begun that nobody has been heard of about for `silent_s` seconds, or not begun GRACE_S later still."""
        ...

    def drop(self, job: str) -> None:
        """Forget what waits of `job`."""
        ...

    def note(self, step: Step, total: Progress) -> None:
        """So much of `step` is done."""
        ...

    def restore(self, job: str, kind: Kind, parts: Mapping[str, Progress]) -> None:
        """What was done before this board began, by part; parts that it has heard of already are left as they are."""
        ...

    def restored(self, job: str, kind: Kind) -> bool:
        """Whether `restore` was called: what the board knows is all that was done."""
        ...

    def pace(self, job: str, kind: Kind) -> Pace | None:
        """How far the steps of `kind` are; None where the board knows nothing."""
        ...

    def slots(self) -> int:
        """Processes that compress, 1 at least."""
        ...

    def loads(self) -> dict[Lane, Load]:
        """How much there is to do, by lane; all lanes are named.

        Steps of one job that wait are taken to be of one lane, that of the last of them: a stage follows another.
        """
        ...

    def processes(self) -> int:
        """Processes that compress, those that were heard of lately."""
        ...

    def count(self, amounts: Amounts) -> None:
        """Add to totals that are kept for monitoring alone."""
        ...

    def counts(self) -> Amounts: ...


def window(slots: int, jobs: int) -> int:
    """How many steps of one job may be under way at once while `jobs` share `slots` processes."""
    return max(FEWEST_STEPS, math.ceil(STEPS_A_SLOT * slots / max(1, jobs)))


@dataclass(slots=True)
class _Desk:
    """One job on the board: steps that wait, in order; steps under way and when they were heard of last."""

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


class MemoryBoard:
    """A board within one process, for any number of threads."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = RLock()
        self._desks: dict[str, _Desk] = {}
        self._stages: OrderedDict[tuple[str, Kind], _Stage] = OrderedDict()
        self._counts: Counter[Total] = Counter()

    def offer(self, steps: Iterable[Step]) -> None:
        with self._lock:
            for step in steps:
                desk = self._desks.setdefault(step.job, _Desk())
                if step not in desk.under_way:
                    desk.waiting[step] = None

    def take(self, job: str) -> list[Step]:
        with self._lock:
            desk = self._desks.get(job, _Desk())
            most = window(self._slots, len(self._desks)) - len(desk.under_way)
            taken = [desk.waiting.popitem(last=False)[0] for _ in range(min(most, len(desk.waiting)))]
            desk.under_way |= dict.fromkeys(taken, time.monotonic() + GRACE_S)
            return taken

    def push(self, step: Step) -> bool:
        with self._lock:
            desk = self._desks.setdefault(step.job, _Desk())
            desk.waiting.pop(step, None)
            new = step not in desk.under_way
            desk.under_way[step] = time.monotonic() + GRACE_S
            return new

    def begin(self, step: Step) -> int:
        with self._lock:
            desk = self._desks.setdefault(step.job, _Desk())
            desk.under_way[step] = time.monotonic()
            desk.begun[step] += 1
            return desk.begun[step]

    def tries(self, step: Step) -> int:
        with self._lock:
            return self._desks.get(step.job, _Desk()).begun[step]

    def busy(self, step: Step) -> bool:
        with self._lock:
            at = self._desks.get(step.job, _Desk()).under_way.get(step, -math.inf)
            return self.tries(step) > 0 and 0 <= time.monotonic() - at < BUSY_S

    def seen(self, step: Step) -> None:
        with self._lock:
            if step.job in self._desks:
                self._desks[step.job].under_way[step] = time.monotonic()

    def finish(self, step: Step) -> None:
        with self._lock:
            desk = self._desks.get(step.job)
            if desk:
                desk.waiting.pop(step, None)
                desk.under_way.pop(step, None)
                desk.begun.pop(step, None)
                self._tidy(step.job)

    def idle(self, job: str) -> bool:
        with self._lock:
            return job not in self._desks

    def lost(self, job: str, silent_s: float) -> list[Step]:
        limit = time.monotonic() - silent_s
        with self._lock:
            return [step for step, at in self._desks.get(job, _Desk()).under_way.items() if at < limit]

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
            for desk in self._desks.values():
                for step, at in desk.under_way.items():
                    found[step.kind.lane] = found[step.kind.lane].and_one(desk.begun[step] > 0, now + GRACE_S - at)
                if desk.waiting:  # one stage waits at a time, and its steps are of one lane
                    lane = next(reversed(desk.waiting)).kind.lane
                    found[lane] = found[lane].and_more(len(desk.waiting))
        return found

    def count(self, amounts: Amounts) -> None:
        with self._lock:
            self._counts.update(amounts)

    def counts(self) -> Amounts:
        with self._lock:
            return dict(self._counts)
