"""The advise step: pilots are trained, the storage scaling law is fitted to them, and the advice is stored."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from keepmore.advice import pilots, recommend
from keepmore.advice.answer import Advice, Origin
from keepmore.advice.recommend import Pilots, Sizes
from keepmore.compression import index
from keepmore.compression.index import Summary
from keepmore.errors import NotTrainable
from keepmore.jobs.graph import EVALUATION
from keepmore.jobs.job import Job
from keepmore.net.access import Access
from keepmore.pipeline import training as training_steps
from keepmore.progress import Report
from keepmore.reporting import advice_page
from keepmore.selection import manifest
from keepmore.selection.select import object_uris
from keepmore.spec import pilot_grid
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.distance import ORIGINAL, text
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.scratch import Scratch
from keepmore.training import results
from keepmore.training.feature_cache import FeatureCache
from keepmore.training.trainer import Images, Trainer, TrainerContext


@dataclass(frozen=True, slots=True)
class PilotContext(TrainerContext):
    """The context of pilots, which leave nothing in the store, and read each feature cache once."""

    caches: dict[tuple[str, str], FeatureCache] = field(default_factory=dict)

    def feature_cache(self, backbone: str, group: str) -> FeatureCache:
        cache = FeatureCache(self.store, layout.feature_cache(backbone, group), in_memory=True)
        return self.caches.setdefault((backbone, group), cache)

    def save_artifact(self, kind: str, seed: int, file: Path) -> None:
        return None

    def save_checkpoint(self, file: Path) -> None:
        return None

    def load_checkpoint(self, file: Path) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Adviser:
    """A job to advise on, and what its pilots are trained with."""

    job: Job
    store: Store
    access: Access
    scratch: Scratch
    report: Report
    trainer: Trainer

    def advise(self, request: AdviceRequest, name: str) -> Advice:
        """The advice; its page is in the store on return. Raises PilotsInsufficient where the pilots do not support
        any."""
        data = self.store.get(layout.pilots(self.job.id, name))
        encoded = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        summary = Summary.from_json(json.loads(self.store.get(layout.index_summary(self.job.id))))
        pool_means = {d: size / summary.pool for d, size in summary.pool_bytes.items() if d in request.distances}
        pool_means[ORIGINAL] = _mean_source_bytes(self.store, self.job.id)
        labelled = 1 - summary.unlabelled / summary.pool
        sizes = Sizes(pilots.means(encoded, request.distances, pool_means), summary.pool, labelled)
        budgets = [budget.bytes(summary.pool_bytes) for budget in request.budgets]
        for budget in budgets:
            sizes.require_room(budget)  # before minutes are spent on the pilots
        context = PilotContext(self.store, self.access, self.scratch, self.report)
        results = _PilotTrainings(self, request, context).run(encoded)
        advice = recommend.advise(results, sizes, budgets, request.accuracy, request.price)
        advice = replace(advice, origin=Origin(name, self.job.id, request, len(encoded)))
        self.store.put(layout.advice_page(self.job.id, name), advice_page.page(advice).encode())
        return advice


def _mean_source_bytes(store: Store, job_id: str) -> float:
    """Of the pool's good images."""
    total = count = 0
    for batch in index.rows(store, layout.index(job_id), ["error_code", "source_bytes"]):
        sizes = batch.filter(batch["error_code"].is_null())["source_bytes"]
        total, count = total + int(np.sum(sizes.to_numpy())), count + len(sizes)
    return total / count


@dataclass(frozen=True, slots=True)
class _PilotTrainings:
    """The trainings of the pilots of one request."""

    adviser: Adviser
    request: AdviceRequest
    context: TrainerContext

    def run(self, encoded: pa.Table) -> Pilots:
        """Train on every number of images at every distance, each seed on its own random order."""
        tested = training_steps.evaluation_table(self.adviser.store, self.adviser.job.id)
        labels = sorted(set(encoded["label"].to_pylist()))
        if len(labels) < 2:
            raise NotTrainable(f"pilots: a classifier needs two classes or more; the pool has {', '.join(labels)}")
        classes = results.all_classes(labels, tested["label"].to_pylist())
        orders = [pilots.order(encoded, seed) for seed in range(self.request.training.seeds)]
        counts = pilot_grid.sizes(len(encoded), len(labels))
        pilot_grid.check(len(counts), len(self.request.distances), len(tested))
        grid = [(distance, count) for distance in self.request.distances for count in counts]
        with self._open(tested, EVALUATION) as test:
            pairs = [
                pair
                for distance in self.request.distances
                for pair in self._at(distance, encoded, test, orders, counts, classes)
            ]
        sizes, correct = zip(*pairs, strict=True)
        return Pilots(
            n=np.array([count for _, count in grid]),
            distance=np.array([distance for distance, _ in grid]),
            size=np.array(sizes),
            correct=np.stack(correct),
            images=len(encoded),
        )

    def _at(
        self,
        distance: float,
        encoded: pa.Table,
        test: Images,
        orders: list[NDArray[np.int64]],
        counts: list[int],
        classes: list[str],
    ) -> Iterator[tuple[float, NDArray[np.bool_]]]:
        """For each of `counts`, mean bytes of the images, and which tests each seed classifies correctly, (seeds,
        images)."""
        truth, training = results.numbers(test.labels, classes), self.request.training
        with self._open(self._table(encoded, distance), text(distance)) as images:
            for count in counts:
                sizes, correct = [], []
                for seed, order in enumerate(orders):
                    part = replace(images, table=images.table.take(pa.array(np.sort(order[:count]))))
                    sizes.append(np.mean(part.table["bytes"].to_numpy()))
                    runs = self.adviser.trainer.train(part, [test], classes, training, [seed], self.context)
                    correct += [run.top_classes[""][:, 0] == truth for run in runs]
                yield float(np.mean(sizes)), np.stack(correct)

    @contextmanager
    def _open(self, table: pa.Table, group: str) -> Iterator[Images]:
        """The images of `table`, with their features."""
        access = self.adviser.access.trusting(self.adviser.store.uri(layout.objects()))
        with training_steps.open_images(table, self.adviser.job.request, access, group) as images:
            features = self.adviser.trainer.features(images, self.request.training, self.context)
            yield replace(images, features=features)

    def _table(self, encoded: pa.Table, distance: float) -> pa.Table:
        """The pilots' images with the columns of a manifest."""
        names = [index.column(name, distance) for name in ("bytes", "sha256", "encoding")]
        size, sha256, encoding = (encoded[name].combine_chunks() for name in names)
        uris = encoded["source_uri"].combine_chunks()
        if distance != ORIGINAL:
            source = encoded["source_sha256"].combine_chunks()
            uris = object_uris(self.adviser.store, source, encoding, distance, self.adviser.job.request.effort)
        columns = {
            "path": encoded["path"],
            "label": encoded["label"],
            "sha256": sha256,
            "object_uri": uris,
            "bytes": size,
        }
        schema = pa.schema([manifest.SCHEMA.field(name) for name in columns])
        return pa.table(columns, schema=schema).combine_chunks()
