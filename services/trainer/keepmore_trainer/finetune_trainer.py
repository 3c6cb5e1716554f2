"""Fine-tuning, as the steps call it: images are decoded once, the head starts from a probe, and every device of the
machine takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from keepmore.errors import KeepmoreError
from keepmore.progress import Progress
from keepmore.spec.training import PROBE, Training, Tuning
from keepmore.training.results import Features, FineTuneExecution, Run, numbers
from keepmore.training.trainer import WEIGHTS, Images, TrainerContext
from keepmore_trainer import artifacts, distributed, image_cache, models, run_plan, torchrun
from keepmore_trainer.linear_probe import fit_probe
from keepmore_trainer.probe_trainer import ProbeTrainer, load_features
from keepmore_trainer.run_plan import Outcome, Plan
from keepmore_trainer.train_loop import Interrupted, fit

PROBE_STEPS = 300
CHECKPOINT_EVERY_S = 300.0


class FineTuner:
    """Implements `keepmore.training.trainer.Trainer`. `processes`: how many train together (0: one per GPU)."""

    def __init__(self, processes: int = 0, checkpoint_every_s: float = CHECKPOINT_EVERY_S) -> None:
        self._processes = processes or max(1, torch.cuda.device_count())
        self._checkpoint_every_s = checkpoint_every_s
        self._probe = ProbeTrainer()

    def features(self, images: Images, training: Training, context: TrainerContext) -> Features:
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
        with ExitStack() as stack:
            weights = training.weights
            if models.is_file(weights):
                weights = str(stack.enter_context(context.weights_file(weights)))
            classifier = models.load(training.model, training.weights, lambda uri: nullcontext(Path(weights)))
            tuning = training.tuning or Tuning()
            transform = classifier.at(tuning.image_size).transform

            def decode(source: Images) -> tuple[Path, image_cache.Decoded]:
                return stack.enter_context(image_cache.decode_all(source, transform, context.scratch, context.report))

            (folder, pixels), *decoded_tests = map(decode, [images, *tests])
            test_folders = {test.at: str(path) for test, (path, _) in zip(tests, decoded_tests, strict=True)}
            notes = _fallbacks([pixels, *(test_pixels for _, test_pixels in decoded_tests)])
            targets: list[int] = numbers(images.labels, classes).tolist()
            for seed in seeds:
                with context.scratch.temporary("run-") as work:
                    plan = Plan(
                        str(work), training, seed, classes, targets, str(folder), test_folders, weights,
                        self._checkpoint_every_s,
                    )  # fmt: skip
                    if not context.load_checkpoint(plan.file(run_plan.CHECKPOINT)):
                        self._start_head(plan, images, context)
                    self._run(plan, context)
                    yield _run_of(plan, context, notes)

    def _start_head(self, plan: Plan, images: Images, context: TrainerContext) -> None:
        """Leave a head that fits the pretrained features: a short run from a random head would be spent on finding it
        (Kumar et al. 2022)."""
        if plan.tuning.head != PROBE or plan.weights == models.NO_WEIGHTS:
            return
        vectors = load_features(images, self._probe.features(images, plan.training, context), context)
        head, _ = fit_probe(vectors, torch.tensor(plan.targets), len(plan.classes), PROBE_STEPS, plan.seed)
        torch.save(head.state_dict(), plan.file(run_plan.HEAD))

    def _run(self, plan: Plan, context: TrainerContext) -> None:
        errors: list[KeepmoreError] = []
        saved = plan.file(run_plan.CHECKPOINT)
        uploaded = saved.stat().st_mtime_ns if saved.exists() else 0

        def save() -> None:
            nonlocal uploaded
            if saved.exists() and saved.stat().st_mtime_ns != uploaded:
                uploaded = saved.stat().st_mtime_ns
                context.save_checkpoint(saved)

        def on_step(images: int) -> bool:
            save()
            try:
                context.report(Progress(images=images))
            except KeepmoreError as error:
                errors.append(error)
            return bool(errors)

        try:
            if self._processes > 1:
                torchrun.run(plan, self._processes, on_step)
            else:
                with distributed.process_group() as alone:
                    fit(plan, alone, on_step)
        except Interrupted:
            save()
            raise errors[0] from None


def _fallbacks(sets: Sequence[image_cache.Decoded]) -> list[str]:
    undecoded = sum(pixels.undecoded for pixels in sets)
    if not undecoded:
        return []
    return [
        f"{undecoded:,} of {sum(map(len, sets)):,} images are decoded again every time: the scratch disk holds no "
        "more; give it more room with KEEPMORE_SCRATCH and KEEPMORE_SCRATCH_BYTES"
    ]


def _run_of(plan: Plan, context: TrainerContext, notes: list[str]) -> Run:
    outcome = Outcome.read(plan.file(run_plan.DONE))
    with np.load(plan.file(run_plan.NAMED)) as arrays:
        top_classes = {name.removeprefix("@"): arrays[name] for name in arrays}
    weights = context.save_artifact(WEIGHTS, plan.seed, plan.file(run_plan.WEIGHTS))
    events = artifacts.store_events(outcome.losses, outcome.rates, plan.seed, context)
    execution = FineTuneExecution(
        **{**asdict(outcome.model), "weights": plan.training.weights},
        processes=outcome.processes,
        preparation=outcome.preparation,
        skipped_steps=outcome.skipped_steps,
        steps=plan.steps,
        batch=plan.batch,
        tuning=plan.training.as_json()["tuning"],
    )
    curve = artifacts.curve(outcome.losses, outcome.rates)
    stored = ({WEIGHTS: weights} if weights else {}) | events
    return Run(plan.seed, top_classes, execution, curve, stored, [*notes, *outcome.notes])
