"""What the service has done, for Prometheus: counters of this process, and totals that all workers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from keepmore import __version__
from keepmore.errors import QueueUnavailable
from keepmore.jobs.step import Lane
from keepmore.scheduling import metrics as totals
from keepmore_api.backend.base import Backend

# The tracker's totals, their meanings and their labels.
TOTALS = {
    "steps": ("Steps by kind and outcome.", ("kind", "outcome")),
    "failures": ("Steps that failed for good, by the code of their error.", ("code", "kind")),
    "delays": ("Steps put off because store, source or Redis did not answer, by code.", ("code", "kind")),
    "images": ("Images that steps have handled, by kind.", ("kind",)),
    "images_failed": ("Images that could not be read, by code, as indexes were finished.", ("code",)),
    "bytes_in": ("Bytes of source images read, by kind.", ("kind",)),
    "bytes_out": ("Bytes of encoded images, by kind.", ("kind",)),
    "bytes_saved": ("Bytes that pools are smaller by at a distance, as indexes were finished.", ("distance",)),
    "encode_s": ("Seconds spent encoding, by kind.", ("kind",)),
    "redis_errors": ("Calls of workers to Redis that failed.", ()),
}


UP = "Whether the queue can be reached."


class Meter:
    """The measurements of one API process, beside the totals that all workers share through the tracker."""

    def __init__(self, backend: Backend) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Shared(backend))
        names = ("method", "route", "status")
        self.requests = Counter("keepmore_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "keepmore_request_seconds", "Seconds until an answer began.", ("method", "route"), registry=self.registry
        )
        self.problems = Counter(
            "keepmore_problems", "Requests refused or failed, by code.", ("code",), registry=self.registry
        )
        Info("keepmore_build", "What runs here.", registry=self.registry).info({"version": __version__})


class _Shared(Collector):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterable[Metric]:
        tracker = self._backend.tracker
        try:
            counts, depths, loads, processes = (
                tracker.counters.counts(),
                self._backend.depths(),
                tracker.capacity.loads(),
                tracker.capacity.processes(),
            )
        except QueueUnavailable:
            yield _gauge("queue_up", UP, 0)
            return
        yield _gauge("queue_up", UP, 1)
        yield _gauge("compress_processes", "Processes that compress, those heard of lately.", processes)
        for name, (meaning, labels) in TOTALS.items():
            exposed = name.replace("encode_s", "encode_seconds")
            family = CounterMetricFamily(f"keepmore_{exposed}", meaning, labels=labels)
            for (counter, pairs), amount in counts.items():
                if counter == name:
                    family.add_metric([dict(pairs)[label] for label in labels], amount)
            yield family
        seconds = HistogramMetricFamily("keepmore_step_seconds", "Seconds that steps took, by kind.", labels=["kind"])
        for kind, (buckets, total) in totals.histogram(counts).items():
            seconds.add_metric([kind], buckets, total)
        yield seconds
        yield _by_lane("queue_depth", "Messages that wait for a worker, by lane.", depths)
        outstanding = {lane: load.waiting + load.under_way for lane, load in loads.items()}
        yield _by_lane("steps_outstanding", "Steps that wait or are under way, by lane.", outstanding)
        oldest = {lane: load.oldest_s for lane, load in loads.items()}
        yield _by_lane("queue_age_seconds", "For how long a step has been waiting for a worker, by lane.", oldest)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"keepmore_{name}", meaning, value)


def _by_lane(name: str, meaning: str, values: Mapping[Lane, float] | Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"keepmore_{name}", meaning, labels=["lane"])
    for lane, value in values.items():
        family.add_metric([str(lane)], value)
    return family
