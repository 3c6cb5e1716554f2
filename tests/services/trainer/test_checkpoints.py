"""Weights from files that are damaged, or that the machine cannot read."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from keepmore.errors import WeightsUnavailable
from keepmore_trainer import checkpoints


@pytest.mark.filterwarnings("ignore")
def test_every_damaged_file_is_unavailable_weights(tmp_path: Path) -> None:
    """Else a download that was cut ends a job as a fault of Keepmore's, without a word about the file."""
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    files = []
    for new in (True, False):
        torch.save({"state_dict": module.state_dict()}, tmp_path / "whole.pth", _use_new_zipfile_serialization=new)
        assert checkpoints.read_state(tmp_path / "whole.pth", "whole.pth").keys() == module.state_dict().keys()
        files.append((tmp_path / "whole.pth").read_bytes())
    files.append(pickle.dumps({"epoch": 1}))
    chance = random.Random(1)
    reasons = []
    for _ in range(400):
        data = bytearray(chance.choice(files))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice([1, 2, 5, 30])):
                data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / "damaged.pth").write_bytes(data)
        try:
            checkpoints.read_state(tmp_path / "damaged.pth", "damaged.pth")
        except WeightsUnavailable as error:
            reasons.append(str(error))
    assert len(reasons) > 300
    assert all("damaged.pth" in reason for reason in reasons)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """Else whoever names a folder reads that it is no safetensors file."""
    for name in ("folder.pth", "folder.safetensors"):
        (tmp_path / name).mkdir()
        with pytest.raises(WeightsUnavailable, match=rf"{name} cannot be read \("):
            checkpoints.read_state(tmp_path / name, name)
