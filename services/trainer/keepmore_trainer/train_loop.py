"""The loop of a fine-tuning. A step depends on the plan and the step's number alone: a run that was killed resumes as
if nothing had happened, and several processes together compute what one does."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from keepmore.errors import NotTrainable
from keepmore.training.results import LoadedModel
from keepmore_trainer import artifacts, device, image_cache, models, param_groups
from keepmore_trainer.data_loader import LOADERS_CPU, DataLoader
from keepmore_trainer.distributed import ProcessGroup
from keepmore_trainer.image_cache import Decoded, Pixels
from keepmore_trainer.run_plan import CHECKPOINT, DONE, HEAD, NAMED, WEIGHTS, OnStep, Outcome, Plan
from keepmore_trainer.transforms import Transform

TEST_BATCH = 64


class Interrupted(Exception):
    """The run was asked to stop, and saved a checkpoint."""


def fit(plan: Plan, process_group: ProcessGroup, on_step: OnStep) -> None:
    """Train as in `plan`, from its checkpoint if there is one, and leave weights and predictions in its folder.

    Raises Interrupted when `on_step` asks for a stop, and NotTrainable when the loss is NaN or infinite.
    """
    classifier = models.load(plan.training.model, plan.weights).at(plan.tuning.image_size)
    transform = classifier.transform
    head = models.new_head(classifier.width, len(plan.classes), plan.seed)
    if plan.file(HEAD).exists():
        head.load_state_dict(torch.load(plan.file(HEAD), weights_only=True))
    classifier.set_head(head)
    rates = param_groups.groups(classifier, plan.tuning)
    module = param_groups.trainable(classifier, plan.weights != models.NO_WEIGHTS, process_group)
    loop = _Loop(plan, process_group, module, transform, torch.optim.AdamW(rates, lr=plan.tuning.learning_rate))
    loop.run(on_step)
    top_classes = {at: loop.classify(image_cache.open_folder(Path(path), transform)) for at, path in plan.tests.items()}
    if process_group.is_main:
        state = {name: value.detach().cpu().contiguous() for name, value in classifier.module.state_dict().items()}
        about = {"classes": plan.classes, "model": plan.training.model}
        artifacts.save_weights(state, about, plan.file(WEIGHTS))
        with plan.file(NAMED).open("wb") as file:
            np.savez(file, **{f"@{at}": numbers for at, numbers in top_classes.items()})  # type: ignore[arg-type]
        model = LoadedModel(**asdict(classifier.info), device=process_group.place.type, precision=loop.precision)
        done = loop.state
        Outcome(
            model, process_group.size, transform.as_json(), done.skipped, done.losses, loop.rates(), done.notes
        ).write(plan.file(DONE))


def rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate of a step as a fraction of the highest: a linear rise over `warmup` of the steps, then half a
    cosine to zero (Loshchilov and Hutter 2017)."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@dataclass(slots=True)
class _State:
    step: int = 0
    micro: int = 0
    skipped: int = 0  # steps whose gradients were too large for float16
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Loop:
    def __init__(
        self,
        plan: Plan,
        process_group: ProcessGroup,
        module: nn.Module,
        transform: Transform,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._plan = plan
        self._process_group = process_group
        self._module = module
        self._transform = transform
        self._optimizer = optimizer
        self.precision = device.precision(process_group.place, plan.tuning.precision)
        # Scaling up keeps small gradients from becoming zero in float16 (Micikevicius et al. 2018).
        self._scaler = torch.amp.GradScaler(process_group.place.type, enabled=self.precision == "float16")
        self.state = _State(micro=plan.tuning.micro_batch or plan.batch)
        self._load()

    def run(self, on_step: OnStep) -> None:
        plan, state = self._plan, self.state
        saved_at = time.monotonic()
        images = image_cache.open_folder(Path(plan.images), self._transform)
        for batch, targets in DataLoader(plan, images, self._transform, self._process_group).steps(state.step):
            loss, stop = self._step(batch, targets, on_step)
            state.losses.append(loss)
            state.step += 1
            if stop or time.monotonic() - saved_at >= plan.checkpoint_every_s:
                self._save()
                saved_at = time.monotonic()
            if stop:
                raise Interrupted
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._module.parameters()):
            raise self._diverged("weights are not finite")

    def rates(self) -> list[float]:
        highest, warmup = self._plan.tuning.learning_rate, self._plan.tuning.warmup
        return [highest * rate(step, self._plan.steps, warmup) for step in range(self._plan.steps)]

    def _step(self, batch: list[Pixels], targets: list[int], on_step: OnStep) -> tuple[float, bool]:
        """One step; its mean loss, and whether a stop was requested."""
        part = rate(self.state.step, self._plan.steps, self._plan.tuning.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.tuning.learning_rate * group["scale"] * part
        own = self._gradients(batch, targets)
        stop = self._process_group.is_main and on_step(self._plan.batch)
        loss, stops = self._process_group.total(own, float(stop))
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss} at step {self.state.step + 1} of {self._plan.steps}")
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.state.skipped += self._scaler.get_scale() < scale
        return loss, stops > 0

    def _diverged(self, what: str) -> NotTrainable:
        narrow = ", or set tuning.precision to float32" if self.precision == "float16" else ""
        return NotTrainable(
            f"{what}; lower tuning.learning_rate, now {self._plan.tuning.learning_rate:g}, or raise "
            f"tuning.warmup{narrow}"
        )

    def _gradients(self, batch: list[Pixels], targets: list[int]) -> float:
        """This process's gradients of a step; its part of the mean loss. With too little memory, in smaller parts."""
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                return sum(self._parts(batch, targets))
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
                self._halve(error)

    def _parts(self, batch: list[Pixels], targets: list[int]) -> Iterator[float]:
        size = self.state.micro
        for start in range(0, len(batch), size):
            last = start + size >= len(batch)
            classes = torch.tensor(targets[start : start + size], device=self._process_group.place)
            images = self._transform.tensor(batch[start : start + size], self._process_group.place)
            module = self._module
            with module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext():
                with device.autocast(self._process_group.place, self.precision):
                    scores = self._module(images)
                smoothing = self._plan.tuning.label_smoothing
                losses = nn.functional.cross_entropy(
                    _logits(scores).float(), classes, label_smoothing=smoothing, reduction="sum"
                )
                mean = losses / self._plan.batch
                self._scaler.scale(mean * self._process_group.size).backward()  # type: ignore[no-untyped-call] # averaged
            yield mean.item()

    def _halve(self, error: RuntimeError) -> None:
        size = self.state.micro
        if size == 1 or self._process_group.size > 1:
            raise NotTrainable(
                f"out of memory with {size} images at once; set tuning.micro_batch or tuning.image_size lower, or "
                "train on a machine with more"
            ) from error
        if self._process_group.place.type == "cuda":
            torch.cuda.empty_cache()
        self.state.micro = size // 2
        self.state.notes.append(
            f"out of memory with {size} images at once: {size // 2} from step {self.state.step + 1} on; a step still "
            f"takes {self._plan.batch}"
        )

    def classify(self, images: Decoded) -> NDArray[np.int32]:
        """The most likely classes of test images, best first, (images, 5)."""
        self._module.eval()
        share = self._process_group.share(len(images))
        own = range(len(images))[share]
        parts: list[NDArray[np.int32]] = []
        size = min(TEST_BATCH, 2 * self.state.micro)  # takes less memory than training
        computing = device.autocast(self._process_group.place, self.precision)
        with torch.inference_mode(), computing, ThreadPoolExecutor(LOADERS_CPU) as threads:
            middles = image_cache.batches(
                len(own), lambda row: self._transform.center_crop(images[own[row]]), size, threads
            )
            for batch in middles:
                scores = self._module(self._transform.tensor(batch, self._process_group.place))
                parts.append(models.top_classes(_logits(scores).float()).numpy())
        by_rank: list[Any] = self._process_group.all_gather(parts)
        return np.concatenate([part for parts in by_rank for part in parts])

    def _load(self) -> None:
        file = self._plan.file(CHECKPOINT)
        if file.exists():
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            param_groups.bare(self._module).load_state_dict(checkpoint["model"])
            self._optimizer.load_state_dict(checkpoint["optimizer"])
            if checkpoint["scaler"]:  # otherwise it was saved with another precision
                self._scaler.load_state_dict(checkpoint["scaler"])
            self.state = _State(**checkpoint["state"])

    def _save(self) -> None:
        if not self._process_group.is_main:
            return
        checkpoint = {
            "model": param_groups.bare(self._module).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "state": asdict(self.state),
        }
        half = self._plan.file(f"{CHECKPOINT}.half")
        torch.save(checkpoint, half)
        half.replace(self._plan.file(CHECKPOINT))


def _logits(scores: Any) -> Tensor:
    """The scores of the main head, where a model has auxiliary ones."""
    main: Tensor = scores if isinstance(scores, Tensor) else scores[0]
    return main
