"""The command line that repeats a job."""

from __future__ import annotations

import shlex

from keepmore.spec import variants as variant_specs
from keepmore.spec.budget import BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.distance import text
from keepmore.spec.job import Request
from keepmore.spec.training import Training, tuning_words


def command(request: Request) -> str:
    """The command line that repeats `request`."""
    words = ["keepmore", "run", request.dataset, "--distances", variant_specs.unparse(request.distances, request.rules)]
    words += ["--effort", str(request.effort)]
    if request.budget:
        words += ["--budget", _budget_word(request.budget)]
    words += ["--order", request.selection.order, "--seed", str(request.selection.seed)]
    if request.selection.balance is not None:
        words.append("--balance" if request.selection.balance else "--no-balance")
    if request.evaluation:
        held_out = request.evaluation.holdout
        words += ["--evaluate", request.evaluation.dataset or ""] if held_out is None else ["--holdout", str(held_out)]
    if request.training:
        words += _training_words(request.training)
    words += ["--max-pixels", str(request.limits.max_pixels), "--max-bytes", str(request.limits.max_bytes)]
    return shlex.join(words)


def _training_words(training: Training) -> list[str]:
    words = ["--train", training.model, "--weights", training.weights, "--method", training.method]
    words += ["--steps", str(training.steps), "--seeds", str(training.seeds)]
    if training.epochs is not None:
        words += ["--epochs", str(training.epochs)]
    if training.test_distances:
        words += ["--test-distances", ",".join(map(text, training.test_distances))]
    for word in tuning_words(training.tuning) if training.tuning else ():
        words += ["--tune", word]
    return words


def _budget_word(budget: BytesBudget | DistanceBudget | MoneyBudget) -> str:
    match budget:
        case BytesBudget(size):
            return str(size)
        case DistanceBudget(distance, fraction):
            return f"as:{text(distance)}*{fraction}"
        case MoneyBudget(cost, price):
            return f"cost:{cost}@{price}"
