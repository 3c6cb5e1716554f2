"""The board of the distributed service, in Redis. Flushing it at any moment costs time and nothing else.

Per job: a sorted set of steps that wait (by number), one of steps under way (by when they were heard of last), a set of
begun tries a step, and a hash of progress by part. Besides: the jobs on the board, the workers that live, totals.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import redis

from keepmore.board import BUSY_S, FEWEST_STEPS, GRACE_S, STEPS_A_SLOT, Labels, Pace
from keepmore.compress import Progress
from keepmore.errors import QueueUnavailable
from keepmore.steps import Kind, Step

PREFIX = "keepmore:"
JOBS, SLOTS, COUNTS = PREFIX + "jobs", PREFIX + "slots", PREFIX + "counts"
ALIVE_S = 40.0
# Progress is for looking at: it may go once nobody has asked for a week.
KEPT_S = 7 * 24 * 3600
OFFERED_AT_ONCE = 10_000

# Keys: waiting, under way, jobs. Arguments: slots, when to be heard of, job, steps a slot, fewest steps.
_TAKE = """
local jobs = math.max(1, redis.call('SCARD', KEYS[3]))
local window = math.max(tonumber(ARGV[5]), math.ceil(tonumber(ARGV[4]) * tonumber(ARGV[1]) / jobs))
local room = window - redis.call('ZCARD', KEYS[2])
if room <= 0 then return {} end
local popped = redis.call('ZPOPMIN', KEYS[1], room)
local steps = {}
for i = 1, #popped, 2 do
  redis.call('ZADD', KEYS[2], ARGV[2], popped[i])
  steps[#steps + 1] = popped[i]
end
return steps
"""

# Keys: waiting, under way, tries, jobs. Arguments: step, job.
_FINISH = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then redis.call('SREM', KEYS[4], ARGV[2]) end
"""


class RedisBoard:
    """Implements `keepmore.board.Board`; raises QueueUnavailable while Redis cannot be reached."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5, health_check_interval=30
        )
        self._take = self._redis.register_script(_TAKE)
        self._finish = self._redis.register_script(_FINISH)
        self._slots = (0.0, 1)

    def _now(self) -> float:
        """Seconds since 1970 by the clock of Redis: those of the machines that ask differ."""
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6

    def offer(self, steps: Iterable[Step]) -> None:
        with _explained():
            batch: dict[str, dict[str, float]] = {}
            for number, step in enumerate(steps):
                batch.setdefault(step.job, {})[str(step)] = number
                if number % OFFERED_AT_ONCE == OFFERED_AT_ONCE - 1:
                    self._offer(batch)
                    batch = {}
            self._offer(batch)

    def _offer(self, batch: dict[str, dict[str, float]]) -> None:
        for job, found in batch.items():
            under_way = set(cast(list[str], self._redis.zrange(_under_way(job), 0, -1)))
            waiting = {name: rank for name, rank in found.items() if name not in under_way}
            if waiting:
                self._redis.zadd(_waiting(job), cast(Any, waiting))
                self._redis.sadd(JOBS, job)

    def take(self, job: str) -> list[Step]:
        with _explained():
            keys = [_waiting(job), _under_way(job), JOBS]
            arguments: list[str | float] = [self.slots(), self._now() + GRACE_S, job, STEPS_A_SLOT, FEWEST_STEPS]
            return [Step.parse(job, name) for name in cast(list[str], self._take(keys, arguments))]

    def push(self, step: Step) -> bool:
        with _explained():
            self._redis.zrem(_waiting(step.job), str(step))
            self._redis.sadd(JOBS, step.job)
            return bool(self._redis.zadd(_under_way(step.job), {str(step): self._now() + GRACE_S}))

    def begin(self, step: Step) -> int:
        with _explained(), self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(JOBS, step.job)
            pipe.zadd(_under_way(step.job), {str(step): self._now()})
            self._begun(step, pipe)
            pipe.scard(_tries(step))
            return int(pipe.execute()[-1])

    def _begun(self, step: Step, commands: redis.Redis) -> None:
        commands.sadd(_tries(step), secrets.token_hex(8))
        commands.expire(_tries(step), KEPT_S)

    def tries(self, step: Step) -> int:
        with _explained():
            return self._redis.scard(_tries(step))

    def busy(self, step: Step) -> bool:
        with _explained():
            at = self._redis.zscore(_under_way(step.job), str(step))
        return at is not None and 0 <= self._now() - at < BUSY_S and self.tries(step) > 0

    def seen(self, step: Step) -> None:
        with _explained(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(_under_way(step.job), {str(step): self._now()})
            pipe.exists(_tries(step))
            if not pipe.execute()[-1]:  # the board was lost since the step began
                self._begun(step, self._redis)

    def finish(self, step: Step) -> None:
        with _explained():
            self._finish([_waiting(step.job), _under_way(step.job), _tries(step), JOBS], [str(step), step.job])

    def idle(self, job: str) -> bool:
        with _explained():
            return not self._redis.exists(_waiting(job), _under_way(job))

    def lost(self, job: str, silent_s: float) -> list[Step]:
        with _explained():
            names = self._redis.zrangebyscore(_under_way(job), "-inf", self._now() - silent_s)
            return [Step.parse(job, name) for name in cast(list[str], names)]

    def drop(self, job: str) -> None:
        with _explained():
            self._redis.delete(_waiting(job))
            if self.idle(job):
                self._redis.srem(JOBS, job)

    def note(self, step: Step, total: Progress) -> None:
        with _explained(), self._redis.pipeline(transaction=False) as pipe:
            key = _progress(step.job, step.kind)
            pipe.hsetnx(key, "since", self._now())
            pipe.hset(key, step.part, json.dumps(asdict(total)))
            pipe.expire(key, KEPT_S)
            pipe.execute()

    def restore(self, job: str, kind: Kind, parts: Mapping[str, Progress]) -> None:
        with _explained():
            key = _progress(job, kind)
            with self._redis.pipeline(transaction=False) as pipe:
                for part, done in parts.items():
                    pipe.hsetnx(key, part, json.dumps(asdict(done)))
                unheard = pipe.execute()
            images = sum(done.images for done, was in zip(parts.values(), unheard, strict=True) if was)
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.hsetnx(key, "since", self._now())
                pipe.hincrby(key, "restored", images)
                pipe.expire(key, KEPT_S)
                pipe.execute()

    def restored(self, job: str, kind: Kind) -> bool:
        with _explained():
            return bool(self._redis.hexists(_progress(job, kind), "restored"))

    def pace(self, job: str, kind: Kind) -> Pace | None:
        with _explained():
            found = cast(dict[str, str], self._redis.hgetall(_progress(job, kind)))
            now = self._now()
        if not found:
            return None
        since, restored = float(found.pop("since", now)), int(found.pop("restored", 0))
        done = sum((Progress(**json.loads(value)) for value in found.values()), Progress())
        return Pace(done, done.images - restored, now - since)

    def beat(self, worker: str, slots: int) -> None:
        """`worker` is alive and compresses in so many processes."""
        with _explained():
            self._redis.zadd(SLOTS, {f"{worker} {slots}": self._now()})

    def slots(self) -> int:
        checked, known = self._slots
        if time.monotonic() - checked > ALIVE_S / 4:
            with _explained():
                self._redis.zremrangebyscore(SLOTS, "-inf", self._now() - ALIVE_S)
                found = cast(list[str], self._redis.zrange(SLOTS, 0, -1))
            known = max(1, sum(int(name.rsplit(" ", 1)[1]) for name in found))
            self._slots = (time.monotonic(), known)
        return known

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        with _explained():
            self._redis.hincrbyfloat(COUNTS, json.dumps([name, sorted(labels.items())]), amount)

    def counts(self) -> dict[tuple[str, Labels], float]:
        with _explained():
            found = cast(dict[str, str], self._redis.hgetall(COUNTS))
        decoded = ((json.loads(key), float(value)) for key, value in found.items())
        return {(name, tuple((key, value) for key, value in labels)): amount for (name, labels), amount in decoded}

    def ping(self) -> None:
        with _explained():
            self._redis.ping()


def _waiting(job: str) -> str:
    return f"{PREFIX}{job}:waiting"


def _under_way(job: str) -> str:
    return f"{PREFIX}{job}:under-way"


def _tries(step: Step) -> str:
    return f"{PREFIX}{step.job}:tries:{step}"


def _progress(job: str, kind: Kind) -> str:
    return f"{PREFIX}{job}:progress:{kind}"


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise QueueUnavailable(
            f"the queue's Redis cannot be reached ({error}); the job goes on once it is back"
        ) from error
