"""Fine-tuning, as the steps call it: images are decoded once, the head starts from a probe, all that is here trains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keepmore.errors import KeepmoreError
from keepmore.progress import Progress
from keepmore.spec.training import PROBE, Training, Tuning
from keepmore.training.results import numbers
from keepmore.training.trainer import EVENTS, WEIGHTS, Images, Run, TrainerContext
from keepmore_trainer import artifacts, distributed, image_cache, models, run_plan, torchrun
from keepmore_trainer.linear_probe import fit_probe
from keepmore_trainer.probe_trainer import ProbeTrainer, load_features
from keepmore_trainer.run_plan import Plan
from keepmore_trainer.train_loop import Interrupted, fit

PROBE_STEPS = 300
CHECKPOINT_EVERY_S = 300.0


class FineTuner:
    """Implements `keepmore.training.trainer.Trainer`. `processes`: how many train together (0: one a GPU)."""

    def __init__(self, processes: int = 0, checkpoint_every_s: float = CHECKPOINT_EVERY_S) -> None:
        self._processes = processes or max(1, torch.cuda.device_count())
        self._checkpoint_every_s = checkpoint_every_s
        self._probe = ProbeTrainer()

    def features(self, images: Images, training: Training, context: TrainerContext) -> dict[str, Any]:
        return self._probe.features(images, training, context)

    def train(
        self,
        images: Images,
        tests: Sequence[Images],
        classes: list[str],
        training: Training,
        seeds: Sequence[int],
        context: TrainerContext,
    ) -> Iterator[Run]:
        with ExitStack() as held:
            weights = training.weights
            if models.is_file(weights):
                weights = str(held.enter_context(context.file(weights)))
            classifier = models.load(training.model, training.weights, lambda uri: nullcontext(Path(weights)))
            transform = classifier.at(_tuning(training).image_size).transform

            def local(given: Images) -> tuple[Path, image_cache.Decoded]:
                return held.enter_context(image_cache.decode_all(given, transform, context.scratch, context.report))

            (folder, pixels), *others = map(local, [images, *tests])
            tested = {test.at: str(place) for test, (place, _) in zip(tests, others, strict=True)}
            notes = _fallbacks([pixels, *(of_test for _, of_test in others)])
            targets: list[int] = numbers(images.labels, classes).tolist()
            for seed in seeds:
                with context.scratch.temporary("run-") as work:
                    made = Plan(
                        str(work), training, seed, classes, targets, str(folder), tested, weights,
                        self._checkpoint_every_s,
                    )  # fmt: skip
                    if not context.load_checkpoint(made.file(run_plan.CHECKPOINT)):
                        self._start_head(made, images, context)
                    self._run(made, context)
                    yield _run_of(made, context, notes)

    def _start_head(self, made: Plan, images: Images, context: TrainerContext) -> None:
        """Leave a head that fits the untouched features: from a random one, few steps would go into finding it (Kumar
        et al. 2022)."""
        if made.tuning.head != PROBE or made.weights == models.NO_WEIGHTS:
            return
        vectors = load_features(images, self._probe.features(images, made.training, context), context)
        head, _ = fit_probe(vectors, torch.tensor(made.targets), len(made.classes), PROBE_STEPS, made.seed)
        torch.save(head.state_dict(), made.file(run_plan.HEAD))

    def _run(self, made: Plan, context: TrainerContext) -> None:
        trouble: list[KeepmoreError] = []
        saved = made.file(run_plan.CHECKPOINT)
        uploaded = saved.stat().st_mtime_ns if saved.exists() else 0

        def save() -> None:
            nonlocal uploaded
            if saved.exists() and saved.stat().st_mtime_ns != uploaded:
                uploaded = saved.stat().st_mtime_ns
                context.checkpoint(saved)

        def tell(images: int) -> bool:
            save()
            try:
                context.report(Progress(images=images))
            except KeepmoreError as error:
                trouble.append(error)
            return bool(trouble)

        try:
            if self._processes > 1:
                torchrun.run(made, self._processes, tell)
            else:
                with distributed.assembled() as alone:
                    fit(made, alone, tell)
        except Interrupted:
            save()
            raise trouble[0] from None


def _fallbacks(sets: Sequence[image_cache.Decoded]) -> list[str]:
    undecoded = sum(pixels.undecoded for pixels in sets)
    if not undecoded:
        return []
    return [
        f"{undecoded:,} of {sum(map(len, sets)):,} images are decoded again every time: the scratch disk holds no "
        "more; give it more room with KEEPMORE_SCRATCH and KEEPMORE_SCRATCH_BYTES"
    ]


def _tuning(training: Training) -> Tuning:
    return training.tuning or Tuning()


def _run_of(made: Plan, context: TrainerContext, notes: list[str]) -> Run:
    said = json.loads(made.file(run_plan.DONE).read_text())
    with np.load(made.file(run_plan.NAMED)) as arrays:
        named = {name.removeprefix("@"): arrays[name] for name in arrays}
    losses, rates = said["losses"], said["rates"]
    kept = {WEIGHTS: context.save_artifact(WEIGHTS, made.seed, made.file(run_plan.WEIGHTS))}
    kept[EVENTS] = artifacts.keep_events(losses, rates, made.seed, context)
    about = {**said["about"], "weights": made.training.weights, "steps": made.steps}
    about |= {"batch": made.batch, "tuning": made.training.as_json()["tuning"]}
    return Run(made.seed, named, about, artifacts.curve(losses, rates), kept, [*notes, *said["notes"]])
