"""The export writes one checked file, or none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lloss.export import export_model
from lloss.export.export_model import export_onnx
from lloss.export.graph import ScoringGraph
from torch.nn import functional as F

from lloss.data.class_labels import open_labeled
from lloss.errors import CheckpointError, ParityError
from lloss.manifest import read_manifest
from lloss.modeling.network import Normalize
from lloss.runtime.int8_support import open_cpu_session
from lloss.statistics.loss_unit import LossUnit
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.run import train
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

from .changed_weights import changed_graph


def run(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = open_cpu_session(str(path))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images})))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 64])
def test_the_graph_computes_what_the_formulas_say(
    onnx_file: Path, trained: Path, batch: int
) -> None:
    checkpoint = load_checkpoint(trained)
    images = np.resize(checkpoint.sample, (batch, 8, 8, 3))
    found = run(onnx_file, images)
    model = checkpoint.network()
    normalize = Normalize(checkpoint.settings.mean, checkpoint.settings.std)
    with torch.no_grad():
        forward = model(normalize(torch.from_numpy(images)))
        p = F.softmax(forward.output, 1).numpy()
    top = np.sort(p, 1)[:, ::-1]
    assert all(value.dtype == np.float32 and len(value) == batch for value in found.values())
    np.testing.assert_allclose(found["loss"], np.exp(forward.loss.numpy()), rtol=1e-4)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(1), atol=1e-4)
    np.testing.assert_allclose(found["margin"], top[:, 0] - top[:, 1], atol=1e-4)
    np.testing.assert_allclose(found["confidence"], top[:, 0], atol=1e-4)
    assert np.array_equal(found["prediction"], p.argmax(1))
    np.testing.assert_allclose(found["embedding"], forward.embedding.numpy(), atol=1e-3)


def test_normalisation_inside_is_the_textbooks(tiny: TrainSettings) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    found = Normalize(tiny.mean, tiny.std)(torch.from_numpy(images)).numpy()
    wanted = (images / 255 - np.array(tiny.mean)) / np.array(tiny.std)
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), atol=1e-5)


def test_the_file_is_one_and_carries_its_manifest(onnx_file: Path, trained: Path) -> None:
    assert [p.name for p in onnx_file.parent.iterdir()] == ["model.onnx"]
    manifest = read_manifest(onnx_file)
    checkpoint = load_checkpoint(trained)
    assert manifest.classes == ("bright", "dark", "red")
    assert manifest.outputs["embedding"] == (128,)
    assert next(iter(manifest.outputs)) == "loss"
    assert manifest.provenance["checkpoint_sha256"] == checkpoint.sha256
    assert manifest.provenance["epochs"] == "2/2"
    assert manifest.fidelity["torch_parity"]["batches"] == [1, 2, 3, 64]
    onnx.checker.check_model(str(onnx_file), full_check=True)
    (images,) = open_cpu_session(str(onnx_file)).get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape[1:] == [8, 8, 3] and isinstance(images.shape[0], str)


def test_a_wrong_graph_leaves_no_file_and_says_where_it_differs(
    onnx_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(graph: object, manifest: object, path: Path) -> None:
        changed_graph(onnx_file, path, "head.output.bias", 0, 0.5)

    monkeypatch.setattr(export_model, "write_onnx", spoiled)
    with pytest.raises(ParityError, match="output '.*' by .* at batch .*nothing was written"):
        export_onnx(load_checkpoint(trained), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_has_no_loss_to_export(
    photos: Path, tiny: TrainSettings, tmp_path: Path
) -> None:
    plain = dataclasses.replace(tiny, head=False, epochs=1)
    checkpoint = train(open_labeled(str(photos)), plain, tmp_path / "run")
    with pytest.raises(CheckpointError, match="without a head"):
        export_onnx(checkpoint, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_network_of_torchvision_passes_the_check(tiny: TrainSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny, model="resnet18", size=32)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    trainer = Trainer(settings, TrainingData(images, np.arange(8) % 2, ("a", "b")), "cpu")
    taps = tuple(tap.module for tap in trainer.model.taps)
    settings = dataclasses.replace(settings, taps=taps)
    path = tmp_path / "checkpoint.pt"
    none = np.empty(0, np.int64)
    Checkpoint(settings, ("a", "b"), 8, "", images, "", "", none, trainer.state()).save(path)
    manifest = export_onnx(load_checkpoint(path), tmp_path / "model.onnx")
    assert manifest.model == "resnet18" and len(settings.taps) == 4


@pytest.mark.parametrize("unit", [LossUnit(), LossUnit(a=0.01, b=-3.0), LossUnit(a=40.0, b=-103.0)])
def test_losses_are_positive_and_in_the_order_of_the_scores(unit: LossUnit, trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    mean, std = checkpoint.settings.mean, checkpoint.settings.std
    graph = ScoringGraph(checkpoint.network(), mean, std, unit=unit)
    around = unit.scores(np.array([0.01, 1, 20]))
    scores = np.sort(np.r_[np.linspace(around[0], around[2], 1001), -1e4, -100, 100, 1e4])
    found = graph._in_unit(torch.from_numpy(scores.astype(np.float32))).numpy()
    assert found.dtype == np.float32 and np.isfinite(found).all() and found.min() > 0
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, unit.losses(scores.astype(np.float32)), rtol=1e-4)
