"""The tracker of the distributed service, in Redis. Flushing it at any moment costs time and nothing else.

Per job: a sorted set of steps that wait (by number), one of steps under way (by when their worker last reported), a set
of tries per step, and a hash of progress by part and in total. Also: the jobs on the tracker, the workers that are
alive, counts for monitoring.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import redis

from keepmore.errors import QueueUnavailable
from keepmore.jobs.step import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling.metrics import Amounts, total
from keepmore.scheduling.tracker import BUSY_S, FEWEST_STEPS, GRACE_S, STEPS_A_SLOT, Load, Pace

PREFIX = "keepmore:"
JOBS, SLOTS, COUNTS = PREFIX + "jobs", PREFIX + "slots", PREFIX + "counts"
ALIVE_S = 40.0
# Progress is for display only: it may expire after a week without use.
KEPT_S = 7 * 24 * 3600
OFFERED_AT_ONCE = 10_000

# Keys: waiting, under way, jobs. Arguments: slots, when a sign of life is due, job, steps a slot, fewest steps.
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

# An earlier report on the part is subtracted, so that a total is exact and reading it costs the same for any number of
# parts. Keys: progress. Arguments: part, its progress as a list in JSON, seconds to keep, 1 if an earlier report on the
# part stays as it is and its images do not count for the speed.
_NOTE = """
local heard = redis.call('HGET', KEYS[1], ARGV[1])
if heard and ARGV[4] == '1' then return end
local was, now = cjson.decode(heard or '[0,0,0,0,0]'), cjson.decode(ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for i, name in ipairs({'images', 'failed', 'bytes_in', 'bytes_out'}) do
  redis.call('HINCRBY', KEYS[1], name, string.format('%.0f', now[i] - was[i]))
end
redis.call('HINCRBYFLOAT', KEYS[1], 'encode_s', now[5] - was[5])
if ARGV[4] == '1' then redis.call('HINCRBY', KEYS[1], 'before', now[1]) end
local clock = redis.call('TIME')
redis.call('HSETNX', KEYS[1], 'since', clock[1] .. '.' .. string.format('%06d', clock[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
TOTALS = ("images", "failed", "bytes_in", "bytes_out", "encode_s")


class _Server:
    """The Redis server that all roles share."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5, health_check_interval=30
        )
        self.errors = 0

    def now(self) -> float:
        """Seconds since 1970 by the clock of Redis: those of its clients differ."""
        seconds, microseconds = self.redis.time()
        return seconds + microseconds / 1e6

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Counts the errors of Redis and translates them. Raises QueueUnavailable."""
        try:
            yield
        except redis.RedisError as error:
            self.errors += 1
            raise QueueUnavailable(
                f"the queue's Redis cannot be reached ({error}); what was accepted continues once it is back"
            ) from error


class RedisCapacity:
    """Implements `Capacity`. Workers report every few seconds in how many processes they compress."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._slots = (0.0, 0)

    def beat(self, worker: str, slots: int) -> None:
        """`worker` is alive and compresses in `slots` processes."""
        with self._server.translate_errors():
            self._server.redis.zadd(SLOTS, {f"{worker} {slots}": self._server.now()})

    def slots(self) -> int:
        return max(1, self.processes())

    def processes(self) -> int:
        checked_at, processes = self._slots
        if time.monotonic() - checked_at > ALIVE_S / 4:
            with self._server.translate_errors():
                self._server.redis.zremrangebyscore(SLOTS, "-inf", self._server.now() - ALIVE_S)
                workers = cast(list[str], self._server.redis.zrange(SLOTS, 0, -1))
            processes = sum(int(name.rsplit(" ", 1)[1]) for name in workers)
            self._slots = (time.monotonic(), processes)
        return processes

    def loads(self) -> dict[Lane, Load]:
        loads = dict.fromkeys(Lane, Load())
        with self._server.translate_errors():
            jobs, now = list(cast(set[str], self._server.redis.smembers(JOBS))), self._server.now()
            with self._server.redis.pipeline(transaction=False) as pipe:
                for job in jobs:
                    pipe.zcard(_waiting(job))
                    pipe.zrange(_waiting(job), -1, -1)
                    pipe.zrange(_under_way(job), 0, -1, withscores=True)
                answers = iter(pipe.execute())
            handed_out: list[tuple[Step, float]] = []
            for job, waiting, last, under_way in zip(jobs, answers, answers, answers, strict=True):
                if last:
                    lane = Step.parse(job, last[0]).kind.lane
                    loads[lane] = loads[lane].and_more(waiting)
                handed_out += [(Step.parse(job, name), at) for name, at in under_way]
            with self._server.redis.pipeline(transaction=False) as pipe:
                for step, _ in handed_out:
                    pipe.exists(_tries(step))
                for (step, at), tries in zip(handed_out, pipe.execute(), strict=True):
                    loads[step.kind.lane] = loads[step.kind.lane].and_one(bool(tries), now + GRACE_S - at)
        return loads


class RedisLeases:
    """Implements `Leases`."""

    def __init__(self, server: _Server, capacity: RedisCapacity) -> None:
        self._server = server
        self._capacity = capacity
        self._take = server.redis.register_script(_TAKE)
        self._finish = server.redis.register_script(_FINISH)

    def offer(self, steps: Iterable[Step]) -> None:
        with self._server.translate_errors():
            batch: dict[str, dict[str, float]] = {}
            for number, step in enumerate(steps):
                batch.setdefault(step.job, {})[str(step)] = number
                if number % OFFERED_AT_ONCE == OFFERED_AT_ONCE - 1:
                    self._offer(batch)
                    batch = {}
            self._offer(batch)

    def _offer(self, batch: dict[str, dict[str, float]]) -> None:
        for job, names in batch.items():
            under_way = set(cast(list[str], self._server.redis.zrange(_under_way(job), 0, -1)))
            waiting = {name: rank for name, rank in names.items() if name not in under_way}
            if waiting:
                self._server.redis.zadd(_waiting(job), cast(Any, waiting))
                self._server.redis.sadd(JOBS, job)

    def take(self, job: str) -> list[Step]:
        with self._server.translate_errors():
            keys = [_waiting(job), _under_way(job), JOBS]
            heard_by = self._server.now() + GRACE_S
            arguments: list[str | float] = [self._capacity.slots(), heard_by, job, STEPS_A_SLOT, FEWEST_STEPS]
            return [Step.parse(job, name) for name in cast(list[str], self._take(keys, arguments))]

    def push(self, step: Step) -> bool:
        with self._server.translate_errors():
            self._server.redis.zrem(_waiting(step.job), str(step))
            self._server.redis.sadd(JOBS, step.job)
            return bool(self._server.redis.zadd(_under_way(step.job), {str(step): self._server.now() + GRACE_S}))

    def begin(self, step: Step) -> int:
        with self._server.translate_errors(), self._server.redis.pipeline(transaction=False) as pipe:
            pipe.sadd(JOBS, step.job)
            pipe.zadd(_under_way(step.job), {str(step): self._server.now()})
            self._add_try(step, pipe)
            pipe.scard(_tries(step))
            return int(pipe.execute()[-1])

    def _add_try(self, step: Step, commands: redis.Redis) -> None:
        commands.sadd(_tries(step), secrets.token_hex(8))
        commands.expire(_tries(step), KEPT_S)

    def tries(self, step: Step) -> int:
        with self._server.translate_errors():
            return self._server.redis.scard(_tries(step))

    def busy(self, step: Step) -> bool:
        with self._server.translate_errors():
            at = self._server.redis.zscore(_under_way(step.job), str(step))
        return at is not None and 0 <= self._server.now() - at < BUSY_S and self.tries(step) > 0

    def renew(self, step: Step) -> None:
        with self._server.translate_errors(), self._server.redis.pipeline(transaction=False) as pipe:
            pipe.zadd(_under_way(step.job), {str(step): self._server.now()})
            pipe.exists(_tries(step))
            if not pipe.execute()[-1]:  # the tracker was lost since the step began
                self._add_try(step, self._server.redis)

    def finish(self, step: Step) -> None:
        with self._server.translate_errors():
            self._finish([_waiting(step.job), _under_way(step.job), _tries(step), JOBS], [str(step), step.job])

    def idle(self, job: str) -> bool:
        with self._server.translate_errors():
            return not self._server.redis.exists(_waiting(job), _under_way(job))

    def lost(self, job: str, silent_s: float) -> list[Step]:
        with self._server.translate_errors():
            names = self._server.redis.zrangebyscore(_under_way(job), "-inf", self._server.now() - silent_s)
            return [Step.parse(job, name) for name in cast(list[str], names)]

    def drop(self, job: str) -> None:
        with self._server.translate_errors():
            self._server.redis.delete(_waiting(job))
            if self.idle(job):
                self._server.redis.srem(JOBS, job)


class RedisProgress:
    """Implements `StepProgress`."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._note = server.redis.register_script(_NOTE)

    def note(self, step: Step, total: Progress) -> None:
        with self._server.translate_errors():
            self._note([_progress(step.job, step.kind)], [step.part, _to_json(total), KEPT_S, 0])

    def restore(self, job: str, kind: Kind, parts: Mapping[str, Progress]) -> None:
        key = _progress(job, kind)
        items = iter(parts.items())
        with self._server.translate_errors():
            while batch := list(islice(items, OFFERED_AT_ONCE)):
                with self._server.redis.pipeline(transaction=False) as pipe:
                    for part, done in batch:
                        self._note([key], [part, _to_json(done), KEPT_S, 1], client=pipe)
                    pipe.execute()
            with self._server.redis.pipeline(transaction=False) as pipe:
                pipe.hset(key, "restored", 1)
                pipe.hsetnx(key, "since", self._server.now())
                pipe.expire(key, KEPT_S)
                pipe.execute()

    def restored(self, job: str, kind: Kind) -> bool:
        with self._server.translate_errors():
            return bool(self._server.redis.hexists(_progress(job, kind), "restored"))

    def pace(self, job: str, kind: Kind) -> Pace | None:
        with self._server.translate_errors():
            values = self._server.redis.hmget(_progress(job, kind), ["since", "before", *TOTALS])
            now = self._server.now()
        since, before, *totals = cast(list[str | None], values)
        if since is None:
            return None
        images, failed, bytes_in, bytes_out = (int(total or 0) for total in totals[:-1])
        done = Progress(images, failed, bytes_in, bytes_out, float(totals[-1] or 0))
        return Pace(done, done.images - int(before or 0), now - float(since))


class RedisCounters:
    """Implements `Counters`."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    def count(self, amounts: Amounts) -> None:
        """Also counts how often Redis could not be reached since the last call."""
        errors = self._server.errors
        missed = {total("redis_errors"): float(errors)} if errors else {}
        with self._server.translate_errors(), self._server.redis.pipeline(transaction=False) as pipe:
            for (name, labels), amount in {**amounts, **missed}.items():
                pipe.hincrbyfloat(COUNTS, json.dumps([name, labels]), amount)
            pipe.execute()
        self._server.errors -= errors

    def counts(self) -> Amounts:
        with self._server.translate_errors():
            fields = cast(dict[str, str], self._server.redis.hgetall(COUNTS))
        decoded = ((json.loads(key), float(value)) for key, value in fields.items())
        return {(name, tuple((key, value) for key, value in labels)): amount for (name, labels), amount in decoded}


class RedisStepTracker:
    """Implements `keepmore.scheduling.tracker.StepTracker`; raises QueueUnavailable while Redis cannot be reached."""

    def __init__(self, url: str) -> None:
        self._server = _Server(url)
        self.capacity = RedisCapacity(self._server)
        self.leases = RedisLeases(self._server, self.capacity)
        self.progress = RedisProgress(self._server)
        self.counters = RedisCounters(self._server)

    def ping(self) -> None:
        with self._server.translate_errors():
            self._server.redis.ping()


def _waiting(job: str) -> str:
    return f"{PREFIX}{job}:waiting"


def _under_way(job: str) -> str:
    return f"{PREFIX}{job}:under-way"


def _tries(step: Step) -> str:
    return f"{PREFIX}{step.job}:tries:{step}"


def _progress(job: str, kind: Kind) -> str:
    return f"{PREFIX}{job}:done:{kind}"  # "progress" once, in another form


def _to_json(done: Progress) -> str:
    return json.dumps([getattr(done, name) for name in TOTALS], separators=(",", ":"))
