"""A fine-tuning in trouble: too little memory or disk, a loss that is NaN."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from keepmore.errors import NotTrainable
from keepmore.spec.training import Training, Tuning
from keepmore_trainer import models
from keepmore_trainer.train_loop import fit
from tests.services.trainer.conftest import Pictures, Workplace
from tests.services.trainer.plans import ALONE, QUICK, fine_tune, never, outputs, plan_of

# A rank of a fine-tuning that may take so many bytes more than PyTorch did.
SHORT_OF_MEMORY = """
import os, resource, sys, torch
from keepmore_trainer import torchrun as ranks
torch.set_num_threads(1)
torch.randn(64, 64) @ torch.randn(64, 64)
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + {bytes_}
if {when}:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
ranks.main(sys.argv[1])
"""


def test_one_process_without_memory_says_so(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else a user of several GPUs reads a traceback of another process, and not what to lower."""
    training = Training("mobilenet_v2", "none", "finetune", tuning=Tuning(batch=32, image_size=224, head="new"))
    plan = plan_of(tmp_path / "plan", pictures, sample, workplace, training)
    plan.write()
    script = tmp_path / "rank.py"
    script.write_text(SHORT_OF_MEMORY.format(when="os.environ['RANK'] == '1'", bytes_=400_000_000))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, plan.folder], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    (answer,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"error"')]
    assert answer["error"]["code"] == "not_trainable"
    assert "out of memory with 32 images at once; set tuning.micro_batch" in answer["error"]["message"]


def test_out_of_memory_halves_what_goes_through_at_once(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else a batch that is too large ends an hour of work, or trains something else than was asked for in silence."""
    training = Training(
        "mobilenet_v2", "none", "finetune", steps=2, tuning=Tuning(batch=32, image_size=224, head="new")
    )
    plan = plan_of(tmp_path / "plan", pictures, sample, workplace, training)
    plan.write()
    script = SHORT_OF_MEMORY.format(when="True", bytes_=1_350_000_000)
    done = subprocess.run([sys.executable, "-c", script, plan.folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = outputs(plan)[2]
    assert outcome.notes[0].startswith("out of memory with 32 images at once: 16 from step 1 on; a step still takes 32")
    assert len(outcome.losses) == 2


def test_a_loss_of_nan_ends_the_run(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else weights of NaN are kept, and their accuracy is taken for a finding about the images."""
    training = Training(
        "mobilenet_v2", "none", "finetune", steps=30, tuning=replace(QUICK, learning_rate=10, head="new")
    )
    weights = models.load("mobilenet_v2", "none").module.state_dict()
    weights["features.0.0.weight"][:] = torch.inf
    train = pictures(sample / "train")
    save_file(weights, workplace.scratch.root / "inf.safetensors")
    broken = replace(training, weights=str(workplace.scratch.root / "inf.safetensors"))
    with pytest.raises(NotTrainable, match=r"the loss is nan at step 1 of 30; lower tuning.learning_rate, now 10"):
        fine_tune(broken, train, train, workplace)


def test_images_that_do_not_fit_the_disk_are_decoded_each_time(
    sample: Path, pictures: Pictures, workplace: Workplace
) -> None:
    """Else a full disk ends the training, or the limit that somebody set is not kept."""
    training = Training("mobilenet_v2", "none", "finetune", steps=3, tuning=replace(QUICK, head="new"))
    train, test = pictures(sample / "train"), pictures(sample / "test", "evaluation")
    whole = fine_tune(training, train, test, workplace)
    assert whole.notes == []
    files = sum(train.table["bytes"].to_pylist())
    small = replace(
        workplace, scratch=replace(workplace.scratch, folder=f"{workplace.scratch.root}-2", max_bytes=files + 400_000)
    )
    tight = fine_tune(training, train, test, small)
    assert "images are decoded again every time: the scratch disk holds no more" in tight.notes[0]
    assert np.array_equal(tight.top_classes[""], whole.top_classes[""])
    used_bytes = sum(file.stat().st_size for file in small.scratch.root.rglob("*") if file.is_file())
    assert used_bytes < files + 500_000
    larger = replace(small, scratch=replace(small.scratch, max_bytes=None))
    assert fine_tune(training, train, test, larger).notes == [], "more room is used as soon as it is there"


def test_steps_that_half_precision_cannot_do_are_skipped(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else gradients that are too large for float16 end the run, or its weights are NaN from then on."""
    tuning = Tuning(batch=4, image_size=32, head="new", precision="float16")
    training = Training("mobilenet_v2", "none", "finetune", steps=2, tuning=tuning)
    plan = plan_of(tmp_path / "plan", pictures, sample, workplace, training)
    fit(plan, ALONE, never)
    weights, _, outcome = outputs(plan)
    assert outcome.skipped_steps == 2
    head = models.new_head(1280, 8, 0)
    assert torch.equal(weights["classifier.1.weight"], head.weight), "nothing was learned"
