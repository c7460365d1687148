"""Networks from outside, exported: what a Scorer computes is what torch does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import lloss
from lloss.errors import DivergedError, ParityError, PoolError, SettingsError
from lloss.modeling.attached_model import AttachedModel

from ..outside_networks import DepthLoss, DepthNet, TwoStages, ViTForImageClassification


def _images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _normalized(model: AttachedModel, images: np.ndarray) -> Tensor:
    mean, std = model.preparation.mean, model.preparation.std
    scaled = (torch.from_numpy(images).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return scaled.permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (lambda: torchvision.models.resnet18(num_classes=3), 32),
        (lambda: TwoStages(3, lambda logits: (logits, logits.sum())), 16),
        (ViTForImageClassification, 16),
    ],
    ids=["resnet18", "own", "transformer"],
)
def test_a_scorer_computes_what_the_model_does(network: Any, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lloss.attach(network(), classes=["ant", "bee", "cow"], size=size)
    images = _images(40, size)
    lloss.fit_head(model, images, np.arange(40) % 3)
    model.eval()
    manifest = lloss.to_onnx(model, tmp_path / "model.onnx", sample=images)
    assert lloss.read_manifest(tmp_path / "model.onnx") == manifest
    assert manifest.model == type(model.network).__name__ and manifest.task == "classification"
    assert manifest.classes == ("ant", "bee", "cow")
    assert manifest.fidelity["torch_parity"]["max_abs_difference"]["loss"] < 1e-3
    with torch.no_grad():
        out, predicted = model(_normalized(model, images))
    logits = out[0] if isinstance(out, tuple) else getattr(out, "logits", out)
    p = logits.softmax(1).numpy()
    with lloss.Scorer(tmp_path / "model.onnx", provider="cpu") as scorer:
        scores = scorer.score(images)
    np.testing.assert_allclose(scores.loss, predicted.numpy(), atol=1e-3)
    np.testing.assert_allclose(scores.columns["entropy"], -(p * np.log(p)).sum(1), atol=1e-3)
    assert scores.columns["embedding"].shape == (40, model.taps[-1].channels)


def test_a_task_of_ones_own_exports_its_outputs_and_leaves_the_model_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lloss.attach(DepthNet(), task=DepthLoss(), size=(8, 16)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3), np.uint8)
    model(_normalized(model, images))  # leaves no graph behind that cannot be copied
    model.network(_normalized(model, images))
    manifest = lloss.to_onnx(model, tmp_path / "model.onnx", sample=images)
    assert list(manifest.outputs) == ["loss", "mean_depth", "embedding"]
    assert manifest.image == lloss.ImageSpec(8, 16) and manifest.task == "DepthLoss"
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    digest = hashlib.sha256()
    for name, value in sorted(model.tapped.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    assert manifest.provenance["checkpoint_sha256"] == digest.hexdigest()
    with lloss.Scorer(tmp_path / "model.onnx", provider="cpu") as scorer:
        scores = scorer.score(images)
    with torch.no_grad():
        out, _ = model.eval()(_normalized(model, images))
    np.testing.assert_allclose(
        scores.columns["mean_depth"], out["depth"].mean((1, 2)).numpy(), atol=1e-3
    )


class _Counting(nn.Module):
    """Its forward depends on the values of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TwoStages()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits if float(images.mean()) > 100 else logits * 2


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    path, images = tmp_path / "model.onnx", _images(4, 16)
    with pytest.raises(ParityError, match="_Counting: torch cannot export the network"):
        lloss.to_onnx(lloss.attach(_Counting(), size=16), path, sample=images)
    broken = lloss.attach(TwoStages(), size=16)
    with torch.no_grad():
        broken.network.get_submodule("last").weight.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(DivergedError, match=r"TwoStages: .*last\.weight.*infinite or NaN"):
        lloss.to_onnx(broken, path, sample=images)
    with pytest.raises(PoolError, match="no image can be read"):
        lloss.to_onnx(lloss.attach(TwoStages(), size=16), path, sample=[b"broken"])
    with pytest.raises(SettingsError, match=r"a TwoStages: give a model from lloss\.attach"):
        lloss.to_onnx(TwoStages(), path, sample=images)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
