"""What every tracker must do: in memory, and in Redis."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import redis

from keepmore.errors import QueueUnavailable
from keepmore.jobs.step import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.metrics import total
from keepmore.scheduling.tracker import GRACE_S, Load, StepTracker, window
from keepmore_services.broker.redis_tracker import RedisStepTracker
from tests.proxy import proxy_for

_NUMBERS = count()


@pytest.fixture(params=["memory", "redis"])
def tracker(request: pytest.FixtureRequest) -> Iterator[StepTracker]:
    if request.param == "memory":
        yield InMemoryStepTracker(slots=2)
        return
    tracker = _empty(request.getfixturevalue("redis_url"))
    tracker.capacity.beat("worker", 2)
    yield tracker


def _empty(url: str) -> RedisStepTracker:
    with redis.Redis.from_url(url) as server:
        server.flushall()
    return RedisStepTracker(url)


@pytest.fixture
def job() -> str:
    return f"job-{next(_NUMBERS)}"


def _steps(job: str, number: int) -> list[Step]:
    return [Step(job, Kind.COMPRESS, chunk=n) for n in range(number)]


def test_a_job_gets_its_share_and_no_more(tracker: StepTracker, job: str) -> None:
    """Else a huge job fills the queue, and a small one behind it waits for days."""
    tracker.leases.offer(_steps(job, 100))
    assert tracker.leases.take(job) == _steps(job, 4)
    assert tracker.leases.take(job) == []
    tracker.leases.finish(Step(job, Kind.COMPRESS, chunk=2))
    assert tracker.leases.take(job) == [Step(job, Kind.COMPRESS, chunk=4)]


def test_more_jobs_mean_a_smaller_share_each(tracker: StepTracker, job: str) -> None:
    """Else two jobs together hold twice as much in the queue, and a third waits twice as long."""
    other = job + "-other"
    tracker.leases.offer(_steps(job, 100))
    tracker.leases.offer(_steps(other, 100))
    assert len(tracker.leases.take(job)) == len(tracker.leases.take(other)) == 2
    assert window(slots=8, jobs=4) == 4
    assert window(slots=1, jobs=100) == 2


def test_what_is_offered_twice_is_taken_once(tracker: StepTracker, job: str) -> None:
    """Else every look of the reconciler doubles the work."""
    tracker.leases.offer(_steps(job, 3))
    steps = tracker.leases.take(job)
    tracker.leases.offer(_steps(job, 3))
    assert steps == _steps(job, 3)
    assert tracker.leases.take(job) == []


def test_a_job_is_idle_when_nothing_waits_or_is_under_way(tracker: StepTracker, job: str) -> None:
    """Else its next stage begins before the last part, or never."""
    assert tracker.leases.idle(job)
    tracker.leases.offer(_steps(job, 1))
    assert not tracker.leases.idle(job)
    (step,) = tracker.leases.take(job)
    assert not tracker.leases.idle(job)
    tracker.leases.begin(step)
    tracker.leases.finish(step)
    assert tracker.leases.idle(job)
    tracker.leases.finish(step)
    assert tracker.leases.idle(job)


def test_a_pushed_step_is_under_way_at_once(tracker: StepTracker, job: str) -> None:
    """Else a caller's question waits behind a thousand chunks."""
    tracker.leases.offer(_steps(job, 100))
    step = Step(job, Kind.SELECT, "abc")
    assert tracker.leases.push(step)
    assert not tracker.leases.push(step)


def test_tries_count_until_the_step_is_finished(tracker: StepTracker, job: str) -> None:
    """Else an image that kills its worker is tried for ever, or a step that was retried once counts as deadly."""
    (step,) = _steps(job, 1)
    assert [tracker.leases.begin(step) for _ in range(3)] == [1, 2, 3]
    tracker.leases.finish(step)
    assert tracker.leases.begin(step) == 1


def test_a_step_that_somebody_works_on_is_busy(tracker: StepTracker, job: str) -> None:
    """Else a message that comes twice has two workers do the same, and counts as a death."""
    tracker.leases.offer(_steps(job, 1))
    (step,) = tracker.leases.take(job)
    assert (tracker.leases.busy(step), tracker.leases.tries(step)) == (False, 0)
    tracker.leases.begin(step)
    assert (tracker.leases.busy(step), tracker.leases.tries(step)) == (True, 1)
    tracker.leases.push(step)
    assert (tracker.leases.busy(step), tracker.leases.tries(step)) == (False, 1)
    tracker.leases.finish(step)
    assert (tracker.leases.busy(step), tracker.leases.tries(step)) == (False, 0)


def test_silent_steps_are_found_and_live_ones_are_not(tracker: StepTracker, job: str) -> None:
    """Else a lost message hangs its job, or a long step is done twice."""
    tracker.leases.offer(_steps(job, 2))
    lost, live = tracker.leases.take(job)
    tracker.leases.begin(lost)
    time.sleep(0.3)
    tracker.leases.renew(live)
    assert tracker.leases.lost(job, 0.2) == [lost]
    assert tracker.leases.lost(job, 60) == []


def test_a_step_may_wait_for_a_worker_for_a_while(tracker: StepTracker, job: str) -> None:
    """Else a busy cluster does every step twice, once for each time that it waited."""
    tracker.leases.offer(_steps(job, 2))
    (step, _) = tracker.leases.take(job)
    tracker.leases.push(Step(job, Kind.SELECT, "abc"))
    time.sleep(0.3)
    assert tracker.leases.lost(job, 0.2) == []
    assert tracker.leases.lost(job, -GRACE_S - 1) != []
    tracker.leases.begin(step)
    time.sleep(0.3)
    assert tracker.leases.lost(job, 0.2) == [step]


def test_dropping_forgets_what_waits(tracker: StepTracker, job: str) -> None:
    """Else a cancelled job goes on for as long as it has steps."""
    tracker.leases.offer(_steps(job, 100))
    steps = tracker.leases.take(job)
    tracker.leases.drop(job)
    for step in steps:
        tracker.leases.finish(step)
    assert tracker.leases.take(job) == []
    assert tracker.leases.idle(job)


def test_progress_reported_twice_counts_once(tracker: StepTracker, job: str) -> None:
    """Else a redelivered step shows more images done than there are."""
    first, second = _steps(job, 2)
    assert tracker.progress.pace(job, Kind.COMPRESS) is None
    for _ in range(2):
        tracker.progress.note(first, Progress(images=16, failed=1, bytes_in=100, bytes_out=40, encode_s=0.5))
    tracker.progress.note(second, Progress(images=3))
    time.sleep(0.05)
    pace = tracker.progress.pace(job, Kind.COMPRESS)
    assert pace is not None
    assert (pace.done.images, pace.done.failed, pace.done.bytes_in) == (19, 1, 100)
    assert pace.rate is not None
    assert 0 < pace.rate < 19 / 0.05


def test_a_poll_gets_the_sum_of_the_last_reports(tracker: StepTracker, job: str) -> None:
    """Else a total that is kept, so that polls of a large job cost no more, drifts from what the parts add up to."""
    draw = random.Random(0)
    parts: dict[str, Progress] = {}
    for _ in range(300):
        step = Step(job, Kind.COMPRESS, chunk=draw.randrange(40))
        images, failed, bytes_in, bytes_out = (draw.randrange(10**13) for _ in range(4))
        parts[step.part] = Progress(images, failed, bytes_in, bytes_out, draw.random())
        tracker.progress.note(step, parts[step.part])
    restored = {str(n): Progress(images=1000 + n, bytes_in=n) for n in range(30, 50)}
    tracker.progress.restore(job, Kind.COMPRESS, restored)
    pace = tracker.progress.pace(job, Kind.COMPRESS)
    assert pace is not None
    whole, fresh = sum((restored | parts).values(), Progress()), sum(parts.values(), Progress())
    assert (pace.done.images, pace.done.failed) == (whole.images, whole.failed)
    assert (pace.done.bytes_in, pace.done.bytes_out) == (whole.bytes_in, whole.bytes_out)
    assert pace.done.encode_s == pytest.approx(whole.encode_s)
    assert pace.seen_images == fresh.images


def test_a_job_of_many_chunks_is_handed_out_in_their_number(job: str) -> None:
    """Else handing out one more step passes over all of a job, and ten million images take days of nothing else."""
    tracker = InMemoryStepTracker(slots=2)
    tracker.leases.offer(_steps(job, 60_000))
    started_at = time.process_time()
    while steps := tracker.leases.take(job):
        for step in steps:
            tracker.leases.finish(step)
    assert time.process_time() - started_at < 10
    assert tracker.leases.idle(job)


def test_restored_progress_is_no_speed(tracker: StepTracker, job: str) -> None:
    """Else after a restart the time that is left is a fantasy."""
    assert not tracker.progress.restored(job, Kind.COMPRESS)
    tracker.progress.restore(job, Kind.COMPRESS, {"0": Progress(images=1000)})
    tracker.progress.restore(job, Kind.COMPRESS, {"0": Progress(images=5)})
    assert tracker.progress.restored(job, Kind.COMPRESS)
    pace = tracker.progress.pace(job, Kind.COMPRESS)
    assert pace is not None
    assert pace.done.images == 1000
    assert pace.rate is None


def test_progress_can_be_restored_when_work_has_begun_again(tracker: StepTracker, job: str) -> None:
    """Else a job whose tracker was lost shows too few bytes for good, because a worker was faster than the restore."""
    first, second = _steps(job, 2)
    tracker.progress.note(second, Progress(images=3, bytes_in=30))
    assert not tracker.progress.restored(job, Kind.COMPRESS)
    tracker.progress.restore(
        job, Kind.COMPRESS, {first.part: Progress(images=16, bytes_in=160), second.part: Progress()}
    )
    pace = tracker.progress.pace(job, Kind.COMPRESS)
    assert pace is not None
    assert (pace.done.images, pace.done.bytes_in, pace.seen_images) == (19, 190, 3)


def test_a_step_is_busy_again_after_the_tracker_was_lost(redis_url: str, job: str) -> None:
    """Else every step under way is done twice after a flush."""
    tracker = _empty(redis_url)
    (step,) = _steps(job, 1)
    tracker.leases.begin(step)
    tracker = _empty(redis_url)
    assert not tracker.leases.busy(step)
    tracker.leases.renew(step)
    assert (tracker.leases.busy(step), tracker.leases.tries(step)) == (True, 1)


def test_many_workers_take_each_step_once(tracker: StepTracker, job: str) -> None:
    """Else two workers compress the same chunk at once, all the time."""
    tracker.leases.offer(_steps(job, 60))

    def work(number: int) -> list[Step]:
        mine = []
        while steps := tracker.leases.take(job):
            for step in steps:
                mine.append(step)
                tracker.leases.finish(step)
        return mine

    with ThreadPoolExecutor(4) as pool:
        all_steps = [step for steps in pool.map(work, range(4)) for step in steps]
    assert len(all_steps) == len(set(all_steps))
    # A worker stops when the others hold the whole share; what is left then waits for the next.
    assert set(all_steps) | set(work(0)) == set(_steps(job, 60))


def test_counts_add_up_by_label(tracker: StepTracker, job: str) -> None:
    """Else an operator's graphs are wrong."""
    tracker.counters.count({total("steps", kind="list", outcome="done"): 1})
    tracker.counters.count({total("steps", outcome="done", kind="list"): 1, total("bytes_in", kind="compress"): 2.5})
    assert tracker.counters.counts() == {
        ("steps", (("kind", "list"), ("outcome", "done"))): 2,
        ("bytes_in", (("kind", "compress"),)): 2.5,
    }


def test_calls_to_redis_that_failed_are_counted_once_it_is_back(redis_url: str) -> None:
    """Else an operator never learns of a Redis that is away for seconds, again and again."""
    _empty(redis_url)
    with proxy_for(redis_url) as proxy:
        tracker = RedisStepTracker(proxy.url.replace("http://", "redis://"))
        tracker.counters.count({total("steps", kind="list", outcome="done"): 1})
        proxy.drop()
        for _ in range(2):
            with pytest.raises(QueueUnavailable):
                tracker.ping()
        proxy.restore()
        tracker.counters.count({})
        tracker.counters.count({})
        assert tracker.counters.counts()[total("redis_errors")] == 2


def test_the_load_counts_what_waits_and_what_is_under_way_by_lane(tracker: StepTracker, job: str) -> None:
    """Else an autoscaler starts no workers for a full tracker, or stops the trainer in the middle of a training."""
    assert tracker.capacity.loads() == dict.fromkeys(Lane, Load())
    tracker.leases.offer(_steps(job, 60))
    steps = tracker.leases.take(job)
    tracker.leases.begin(steps[0])
    training = Step(job, Kind.TRAIN, "a", "10")
    tracker.leases.push(training)
    tracker.leases.begin(training)
    loads = tracker.capacity.loads()
    compress = loads[Lane.COMPRESS]
    assert (compress.waiting, compress.under_way) == (59, 1)
    assert 0 <= compress.oldest_s < 30
    assert loads[Lane.TRAINING] == Load(0, 1)
    assert loads[Lane.CONTROL] == Load()
    for step in [*steps, training]:
        tracker.leases.finish(step)
    assert tracker.capacity.loads()[Lane.TRAINING] == Load()


def test_slots_are_those_of_living_workers(redis_url: str) -> None:
    """Else a fleet that grew is kept half idle, or one that shrank is flooded."""
    tracker = _empty(redis_url)
    assert (tracker.capacity.slots(), tracker.capacity.processes()) == (1, 0)
    for name, processes in (("a", 4), ("b", 8)):
        tracker.capacity.beat(name, processes)
    assert RedisStepTracker(redis_url).capacity.slots() == 12
