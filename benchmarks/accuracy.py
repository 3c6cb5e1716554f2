"""The accuracy at each distance, order and effort, and whether advice predicts it: docs/results.md.

`python -m benchmarks.accuracy DATASET STORE [minutes]`. DATASET has the folders train and test, one folder per class in
each. Everything is done by jobs, subsets, trainings and advice in STORE, as a user would ask for them; what is there
already is not done again. With `minutes`, fine-tuning of at most that many minutes is compared with the probe. Writes
docs/results.md and its plots.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy_page
from benchmarks.accuracy_results import EFFORTS, FRACTIONS, SEEDS, SPREAD, Measured, Variants
from keepmore.codec import jpegxl
from keepmore.codec.jpegxl import Pixels
from keepmore.compression import compressor
from keepmore.compression.index import Summary
from keepmore.config import RuntimeConfig
from keepmore.datasets.address import absolute_uri
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import request_advice, request_subset, request_training
from keepmore.scheduling.local_run import run_job, run_missing
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import LARGEST_PIXELS, Evaluation, Request, Selection, SubsetRequest
from keepmore.spec.training import Training, TrainingRequest, Tuning
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.training import evaluation

DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0)
EVERYTHING = 10**12
TIMED_IMAGES = 48
TUNED = (0.0, 4.0, 8.0, 10.0, 25.0)
TUNED_SEEDS = 3
TUNING = Tuning(batch=32, image_size=128)
# The share of the minutes for training steps: the rest decodes, evaluates and compares.
SHARE_OF_STEPS = 0.7
LEAST_STEPS = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs run."""

    config: RuntimeConfig
    store: Store

    def job(self, dataset: Path, effort: int) -> Job:
        """The finished job of an effort: the one that is there, or a new one."""
        request = Request(
            absolute_uri(str(dataset / "train")),
            DISTANCES,
            effort,
            evaluation=Evaluation(dataset=absolute_uri(str(dataset / "test"))),
            rules=(SPREAD,) if effort == EFFORTS[0] else (),
        )
        repository = JobRepository(self.store)
        jobs = [job for name in repository.ids() if (job := repository.get(name)).request == request]
        job = jobs[0] if jobs else repository.create(request)
        return run_job(job, self.config, self.store, os.cpu_count() or 1, lambda step, done: None, _say)

    def finish(self, job: Job) -> None:
        run_missing(job.id, self.config, self.store, os.cpu_count() or 1, lambda step, done: None, _say)

    def pool(self, job: Job) -> Summary:
        return Summary.from_json(json.loads(self.store.get(layout.index_summary(job.id))))


def _say(step: Any) -> None:
    print(f"{time.strftime('%H:%M:%S')} {step}", file=sys.stderr, flush=True)


def measure(place: Place, job: Job, budgets: Mapping[str, int], order: str, training: Training) -> dict[str, Variants]:
    """Every variant at every budget, with SEEDS draws of the images; the smallest images have no draws, but seeds."""
    selections = [Selection("random", True, seed) for seed in range(SEEDS)]
    if order == "smallest":
        selections, training = [Selection("smallest")], replace(training, seeds=SEEDS)
    subsets_by_budget = {
        name: [
            request_subset(job, place.store, SubsetRequest(BytesBudget(size), selection)).request
            for selection in selections
        ]
        for name, size in budgets.items()
    }
    place.finish(job)
    trained = {
        name: [(subset, request_training(job, place.store, TrainingRequest(subset, training))) for subset in subsets]
        for name, subsets in subsets_by_budget.items()
    }
    place.finish(job)
    return {name: _variants(place.store, job, draws) for name, draws in trained.items()}


def _variants(store: Store, job: Job, draws: Sequence[tuple[str, str]]) -> Variants:
    records = [json.loads(store.get(layout.subset(job.id, subset)))["distances"] for subset, _ in draws]
    measurements = {}
    for variant in job.request.variants:
        correct = [evaluation.read_correct(store.get(layout.predictions(job.id, name, variant))) for _, name in draws]
        images, size = (float(np.mean([subset[variant][what] for subset in records])) for what in ("images", "bytes"))
        measurements[variant] = Measured(images, size, np.concatenate(correct))
    return measurements


def cpu_seconds(dataset: Path) -> dict[int, dict[float, float]]:
    """CPU seconds of encoding an image, by effort and distance, and of decoding it (distance 0), over a few images."""
    files = sorted((dataset / "train").rglob("*.jpg"))
    seconds = {effort: dict.fromkeys(DISTANCES, 0.0) for effort in EFFORTS}
    for file in files[:: max(1, len(files) // TIMED_IMAGES)][:TIMED_IMAGES]:
        source = file.read_bytes()
        start = time.process_time()
        pixels = Pixels.of(jpegxl.decode(source, LARGEST_PIXELS))
        decoded_s = time.process_time() - start
        for effort, distance in ((effort, distance) for effort in EFFORTS for distance in DISTANCES):
            start = time.process_time()
            if distance:
                list(compressor.encodings(pixels, source, [distance], effort))
            spent = time.process_time() - start if distance else decoded_s
            seconds[effort][distance] += spent / min(TIMED_IMAGES, len(files))
    return seconds


def advice(place: Place, job: Job, budgets: Mapping[str, int]) -> dict[str, Any]:
    request = AdviceRequest(tuple(BytesBudget(size) for size in budgets.values()), training=Training(seeds=SEEDS))
    name = request_advice(job, place.store, request)
    place.finish(job)
    record: dict[str, Any] = json.loads(place.store.get(layout.advice(job.id, name)))
    return record


def tuned(place: Place, job: Job, budget: int, minutes: float) -> dict[str, Any]:
    """Fine-tuning beside the probe on the same subsets, with as many steps as fit `minutes`."""
    variants = [variant for variant in job.request.variants if variant in {f"{distance:g}" for distance in TUNED}]
    request = Request(
        job.request.dataset, TUNED, job.request.effort, BytesBudget(budget), evaluation=job.request.evaluation
    )
    repository = JobRepository(place.store)
    jobs = [other for name in repository.ids() if (other := repository.get(name)).request == request]
    own = jobs[0] if jobs else repository.create(request)
    own = run_job(own, place.config, place.store, os.cpu_count() or 1, lambda step, done: None, _say)
    file = f"benchmarks/tuned-{own.id}.json"
    if not place.store.exists(file):  # as many steps when it is run again
        steps = _steps(minutes, len(variants) * TUNED_SEEDS)
        place.store.put(file, json.dumps({"steps": steps}).encode())
    steps = int(json.loads(place.store.get(file))["steps"])
    results: dict[str, Any] = {
        "steps": steps,
        "seeds": TUNED_SEEDS,
        "image_size": TUNING.image_size,
        "batch": TUNING.batch,
    }
    for method, training in (
        ("finetune", Training(method="finetune", steps=steps, seeds=TUNED_SEEDS, tuning=TUNING)),
        ("probe", Training(seeds=SEEDS)),
    ):
        name = request_training(own, place.store, TrainingRequest(own.request.subset_id, training))
        place.finish(own)
        results[method] = _variants(place.store, own, [(own.request.subset_id, name)])
    return results


def _steps(minutes: float, runs: int) -> int:
    """The number of steps per run that fits the minutes, from the time of a bare step here."""
    from benchmarks.training import bare_step_s

    step_s = bare_step_s(TUNING.batch, TUNING.image_size or 224)
    return max(LEAST_STEPS, int(SHARE_OF_STEPS * 60 * minutes / runs / step_s))


def main(dataset: Path, place: Path, minutes: float) -> None:
    config = RuntimeConfig(str(place))
    where = Place(config, config.store())
    jobs = {effort: where.job(dataset, effort) for effort in EFFORTS}
    first = jobs[EFFORTS[0]]
    pool = where.pool(first)
    budgets = {name: int(pool.pool_bytes[10.0] * Decimal(name)) for name in FRACTIONS}
    probe = Training(seeds=1)
    results: dict[str, Any] = {"pool": pool, "budgets": budgets, "cpu": cpu_seconds(dataset)}
    results["advice"] = advice(where, first, budgets)
    results["random"] = measure(where, first, {**budgets, "all": EVERYTHING}, "random", probe)
    results["smallest"] = measure(where, first, budgets, "smallest", probe)
    results["efforts"] = {EFFORTS[0]: results["random"]} | {
        effort: measure(where, jobs[effort], budgets, "random", probe) for effort in EFFORTS[1:]
    }
    results["sizes"] = {effort: _mean_sizes(where.pool(job)) for effort, job in jobs.items()}
    results["tuned"] = tuned(where, first, budgets["0.5"], minutes) if minutes else None
    accuracy_page.write(results)


def _mean_sizes(pool: Summary) -> dict[float, float]:
    return {distance: size / pool.pool for distance, size in pool.pool_bytes.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0)
