"""The report of trainings: the command that asks again, and pages of results with and without what they may hold."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import Any

import pytest

from keepmore.cli.main import cli
from keepmore.cli.options import Place, TrainingOptions
from keepmore.reporting import plots
from keepmore.reporting.command import command
from keepmore.spec.job import Evaluation, Request
from keepmore.spec.training import Training, Tuning


@pytest.mark.parametrize(
    "training",
    [
        Training(weights="s3://bucket/vit weights/w.safetensors", seeds=1, test_distances=(10.0, 0.5)),
        Training(
            model="timm:vit_base_patch16_224.augreg_in21k",
            method="finetune",
            steps=7,
            epochs=3,
            test_distances=(4.0,),
            tuning=Tuning(batch=32, micro_batch=4, learning_rate=3e-5, layer_decay=0.9, image_size=96, head="new"),
        ),
        Training(method="finetune"),
    ],
)
def test_the_command_asks_for_the_same_training(training: Training) -> None:
    """Else a result cannot be reproduced from its report."""
    request = Request("file:///d", (0, 4), evaluation=Evaluation(holdout=0.2), training=training)
    words = shlex.split(command(request))[2:]
    values = cli.commands["run"].make_context("run", words).params
    options = TrainingOptions(**{field.name: values[field.name] for field in fields(TrainingOptions)})
    assert options.record(Place("store", None, None)) == training


def _row(distance: str, top1: float, **more: Any) -> dict[str, Any]:
    fixed = {"pool_bytes": 10**9, "bytes_per_image": 1e4, "encodings": {"lossy": 100}}
    accuracy = {"top1": top1, "top5": 0.9, "interval": [top1 - 0.1, top1 + 0.1]}
    return {"distance": distance, "images": 10, "factor": None, "bytes": 10**8} | fixed | accuracy | more


ROWS = [_row("0", 0.5), _row("8", 0.6), _row("spread-1-9", 0.7, pool_bytes=None), _row("fit-20", 0.4, pool_bytes=None)]


def _lines(svg: str) -> list[int]:
    """How many points each line of data joins."""
    paths = [re.findall("[ML] ", path) for path in re.findall(r'<path d="([^"]+)"[^>]*stroke: #d1601f', svg)]
    return [len(points) for points in paths]


def test_rules_are_not_joined_with_distances() -> None:
    """Else a line between distance 8 and a spread claims accuracies that nobody measured."""
    assert max(_lines(plots.accuracy(ROWS))) == 2
    assert max(_lines(plots.accuracy([_row(str(d), 0.5) for d in range(5)]))) == 5


def test_plots_of_a_training_are_drawn_of_few_and_of_many_classes() -> None:
    """Else a report of a real dataset's hundred classes ends a finished job, or is unreadable."""
    for count in (2, 13, 60):
        names = [f"class {n} $x$" for n in range(count)]
        counts = [[int(a == b) for a in range(count)] for b in range(count)]
        svg = plots.confusion({"classes": names, "counts": counts}, "distance 8")
        assert ("class 1 $x$" in svg) == (count <= plots.MOST_BARS)
        assert (">100<" in svg) == (count <= plots.MOST_CELLS_WRITTEN)
    curves = [{"seed": s, "step": [1.0, 2.0], "loss": [2.0, 1.0 + s]} for s in (0, 1)]
    assert "training loss" in plots.loss([_row("0", 0.5, curves=curves), _row("4", 0.5, curves=curves[:1])])
    assert "cost of the kept images" in plots.accuracy_and_cost([row | {"monthly_cost": 2.3} for row in ROWS])
    tests = [[{"top1": 0.5}, {"top1": 0.4}], [{"top1": 0.6}, {"top1": 0.7}]]
    svg = plots.domain(["0", "8"], ["original", "8"], tests)
    assert all(f">{label}<" in svg for label in ("50.0", "40.0", "60.0", "70.0", "original"))
