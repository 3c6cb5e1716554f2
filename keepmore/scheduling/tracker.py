"""Which steps are handed out and how far they are, beside the store: a cache that may be lost at any moment without
losing work.

Everything in it is a set, keyed by step, so that doing something twice says the same thing once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from keepmore.jobs.step import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.metrics import Amounts

# Twice as many steps as there are processes keep every process busy; more would stand in the way of other jobs.
STEPS_A_SLOT = 2
FEWEST_STEPS = 2
# How long a step that was handed out may wait for a worker before it needs a sign of life.
GRACE_S = 100.0
BUSY_S = 6.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Images of a stage done so far, how many of them while this tracker watched, and in how many seconds."""

    done: Progress
    seen_images: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Images per second; None before there is a measurement."""
        return self.seen_images / self.seconds if self.seen_images and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Load:
    """Steps of a lane on the tracker: that wait for their turn or a worker, and that are under way. `oldest_s`: for how
    long the one that was handed out first has been waiting for a worker, in seconds."""

    waiting: int = 0
    under_way: int = 0
    oldest_s: float = 0.0

    def and_one(self, is_running: bool, waits_s: float) -> Load:
        """With one more step that was handed out `waits_s` seconds ago."""
        if is_running:
            return Load(self.waiting, self.under_way + 1, self.oldest_s)
        return Load(self.waiting + 1, self.under_way, max(self.oldest_s, waits_s))

    def and_more(self, waiting: int) -> Load:
        """With `waiting` more steps that are not handed out."""
        return Load(self.waiting + waiting, self.under_way, self.oldest_s)


class Leases(Protocol):
    """Which steps wait, which are handed out, and when the worker of each last reported."""

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
        """A worker starts on `step`; returns how many did so without ending it, this one included."""
        ...

    def tries(self, step: Step) -> int:
        """How many workers started on `step` without ending it."""
        ...

    def busy(self, step: Step) -> bool:
        """Whether a worker on `step` has reported in the last BUSY_S seconds."""
        ...

    def renew(self, step: Step) -> None:
        """The worker of `step` is alive."""
        ...

    def finish(self, step: Step) -> None:
        """`step` is neither waiting nor under way any more."""
        ...

    def idle(self, job: str) -> bool:
        """Whether nothing of `job` waits or is under way."""
        ...

    def lost(self, job: str, silent_s: float) -> list[Step]:
        """Steps that a worker began and has not reported on for `silent_s` seconds; and steps not begun GRACE_S later
        still."""
        ...

    def drop(self, job: str) -> None:
        """Forget what waits of `job`."""
        ...


class StepProgress(Protocol):
    """How far steps are, by stage and part."""

    def note(self, step: Step, total: Progress) -> None:
        """`total` of `step` is done."""
        ...

    def restore(self, job: str, kind: Kind, parts: Mapping[str, Progress]) -> None:
        """Add the progress from before this tracker started, by part; parts that it already knows are left as they
        are."""
        ...

    def restored(self, job: str, kind: Kind) -> bool:
        """Whether `restore` was called: the tracker knows all progress."""
        ...

    def pace(self, job: str, kind: Kind) -> Pace | None:
        """How far the steps of `kind` are; None where the tracker knows nothing."""
        ...


class Capacity(Protocol):
    """How many processes there are, and how much waits for them."""

    def slots(self) -> int:
        """Processes that compress, 1 at least."""
        ...

    def processes(self) -> int:
        """Processes that compress and reported lately."""
        ...

    def loads(self) -> dict[Lane, Load]:
        """How much there is to do, by lane; all lanes are named.

        All waiting steps of one job count for the lane of the last of them, because stages run one after another.
        """
        ...


class Counters(Protocol):
    """Totals that are kept for monitoring alone."""

    def count(self, amounts: Amounts) -> None:
        """Add to totals that are kept for monitoring alone."""
        ...

    def counts(self) -> Amounts: ...


class StepTracker(Protocol):
    """All four. Code that needs one takes only that one."""

    @property
    def leases(self) -> Leases: ...

    @property
    def progress(self) -> StepProgress: ...

    @property
    def capacity(self) -> Capacity: ...

    @property
    def counters(self) -> Counters: ...


def window(slots: int, jobs: int) -> int:
    """How many steps of one job may be under way at once while `jobs` share `slots` processes."""
    return max(FEWEST_STEPS, math.ceil(STEPS_A_SLOT * slots / max(1, jobs)))
