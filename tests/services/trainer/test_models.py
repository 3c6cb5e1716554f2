"""Models of torchvision and timm, and their weights from files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model
from torchvision.transforms._presets import ImageClassification

from keepmore.errors import UnknownModel, WeightsUnavailable
from keepmore.spec.training import Tuning
from keepmore_trainer import models, param_groups
from keepmore_trainer.transforms import Transform


def test_weights_from_a_file(tmp_path: Path) -> None:
    """Else a model that was trained elsewhere, for other classes, cannot be used."""
    squeeze = get_model("squeezenet1_1", weights=None)
    torch.save(squeeze.state_dict(), tmp_path / "squeeze.pth")
    torch.manual_seed(1)
    other = get_model("mobilenet_v3_small", weights=None, num_classes=7).eval()
    torch.save(other.state_dict(), tmp_path / "small.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "wrapped.pth")
    save_file(other.state_dict(), tmp_path / "small.safetensors")
    image = torch.rand(1, 3, 64, 64)
    for name in ("small.pth", "wrapped.pth", "small.safetensors"):
        classifier = models.load("mobilenet_v3_small", str(tmp_path / name))
        assert torch.equal(classifier.module.eval().features(image), other.features(image))  # type: ignore[operator]
    with pytest.raises(WeightsUnavailable, match=r"belongs to another architecture \(it lacks features.0.0.weight"):
        models.load("mobilenet_v3_small", str(tmp_path / "squeeze.pth"))
    wide = get_model("mobilenet_v3_small", weights=None, width_mult=2.0)
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(WeightsUnavailable, match=r"another architecture \(.* has the shape"):
        models.load("mobilenet_v3_small", str(tmp_path / "wide.pth"))
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsUnavailable, match="is not a safetensors file"):
        models.load("mobilenet_v3_small", str(tmp_path / "broken.safetensors"))


def test_models_of_timm(tmp_path: Path) -> None:
    """Else the published experiment's own model, a vision transformer of timm's, cannot be trained."""
    torch.manual_seed(3)
    vit = timm.create_model("test_vit", num_classes=11).eval()
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    classifier = models.load("timm:test_vit", str(tmp_path / "vit.safetensors"))
    assert (classifier.head, classifier.width, classifier.is_transformer) == ("head", 64, True)
    assert (classifier.transform.resize, classifier.transform.crop, classifier.transform.interpolation) == (
        168,
        160,
        "bicubic",
    )
    image = torch.rand(1, 3, 160, 160)
    assert torch.equal(classifier.module.eval().forward_features(image), vit.forward_features(image))  # type: ignore[operator]
    published = models.load("timm:vit_base_patch16_224.augreg_in21k", "none")
    assert (published.width, published.transform.mean) == (768, (0.5, 0.5, 0.5))
    with pytest.raises(UnknownModel, match="timm has no model 'vit_huge_fantasy'"):
        models.load("timm:vit_huge_fantasy", "none")
    with pytest.raises(WeightsUnavailable, match="timm has no weights 'BEST'; use default, none, or a file"):
        models.load("timm:test_vit", "BEST")


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an hour of compressing ends in a download error that nobody can act on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    expected = f"put the file resnet18-f37072fd.pth.* into {tmp_path}/hub/checkpoints, then resume the job"
    with pytest.raises(WeightsUnavailable, match=expected):
        models.load("resnet18", "default")
    with pytest.raises(WeightsUnavailable, match="no weights 'BEST'; use IMAGENET1K_V1, IMAGENET1K_V2, none"):
        models.load("mobilenet_v2", "BEST")
    with pytest.raises(WeightsUnavailable, match="there is no file"):
        models.load("mobilenet_v2", str(tmp_path / "none.pth"))
    with pytest.raises(UnknownModel, match="no classifier 'mobile'"):
        models.load("mobile", "default")


def test_weights_of_timm_that_cannot_be_had_say_where_to_put_them(tmp_path: Path) -> None:
    """Else the same for its models."""
    load = "from keepmore_trainer import models as model; model.load('timm:test_vit.r160_in1k', 'default')"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", load], env=offline, capture_output=True, text=True, check=False)
    assert "timm's weights of test_vit.r160_in1k cannot be downloaded" in done.stderr
    assert "put them into the Hugging Face cache ($HF_HOME), then resume the job" in done.stderr


def test_weights_files_run_no_code(tmp_path: Path) -> None:
    """Else a weights file from the web takes over the trainer."""
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(marker),)

    torch.save({"w": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsUnavailable, match="not a PyTorch state dict"):
        models.load("mobilenet_v2", str(tmp_path / "bomb.pth"))
    assert not marker.exists()


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (64, 64), (257, 255)])
def test_images_are_prepared_as_the_weights_expect(size: tuple[int, int], jpeg: bytes) -> None:
    """Else accuracies differ from those that others measure with the same weights."""
    import io

    with Image.open(io.BytesIO(jpeg)) as original:
        image = original.convert("RGB").resize(size)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    ours = Transform(64, 56)
    tensor = ours.tensor([ours.center_crop(ours.decoded(buffer.getvalue()))], torch.device("cpu"))[0]
    theirs = ImageClassification(crop_size=56, resize_size=64)(image)
    assert torch.allclose(tensor, theirs, atol=1e-5)


def test_a_thread_of_pixels_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Else one image of 1 x 60,000 pixels takes eleven gigabytes and the trainer with it."""
    Image.fromarray(np.zeros((60_000, 1, 3), np.uint8)).save(tmp_path / "thread.png")
    assert Transform().decoded((tmp_path / "thread.png").read_bytes()).shape == (1024, 256, 3)


def test_lower_layers_of_a_transformer_learn_slower() -> None:
    """Else the layer-wise rates that transformers are fine-tuned with are not there."""
    for name in ("timm:test_vit", "vit_b_16", "timm:swin_tiny_patch4_window7_224"):
        classifier = models.load(name, "none")
        groups = param_groups.groups(classifier, Tuning(layer_decay=0.5))
        scales = {id(p): group["scale"] for group in groups for p in group["params"]}
        by_name = {name: scales[id(p)] for name, p in classifier.module.named_parameters()}
        head = [scale for name, scale in by_name.items() if name.startswith(f"{classifier.head}.")]
        first = next(iter(by_name.values()))
        assert set(head) == {1.0}
        assert first == min(by_name.values()) < 0.05
        assert all(group["weight_decay"] == 0 for group in groups for p in group["params"] if p.ndim == 1)
    flat = param_groups.groups(models.load("mobilenet_v2", "none"), Tuning())
    assert {group["scale"] for group in flat} == {1.0}
