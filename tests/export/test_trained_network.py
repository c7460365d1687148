"""Networks from outside, exported: what a Scorer computes is what torch does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from lloss.export.fidelity import FidelityLimits
from lloss.export.trained_network import MEASURE, unit_of_run
from onnx import TensorProto
from PIL import Image
from torch import Tensor, nn

import lloss
from lloss.cli.main import main
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet
from lloss.errors import CheckpointError, DivergedError, ParityError, PoolError, SettingsError
from lloss.files import write_json
from lloss.modeling.attached_model import AttachedModel
from lloss.statistics.loss_unit import LossUnit, fit_unit
from lloss.statistics.ranking_metrics import spearman
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint

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
        (lambda: TwoStages(3, lambda logits: {"logits": logits, "scale": logits.abs()}), 16),
        (ViTForImageClassification, 16),
    ],
    ids=["resnet18", "tuple", "dict", "transformer"],
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
    logits = out["logits"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
    p = logits.softmax(1).numpy()
    with lloss.Scorer(tmp_path / "model.onnx", provider="cpu") as scorer:
        scores = scorer.score(images)
    assert scores.loss.min() > 0 and manifest.unit == model.unit and model.unit.name == "nats"
    np.testing.assert_allclose(model.unit.scores(scores.loss), predicted.numpy(), atol=1e-3)
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


class _OneByOne(TwoStages):
    """A graph of it has as many images as it was made with."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([logits * 2 for logits in super().forward(images)])


def test_what_cannot_be_exported_leaves_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, images = tmp_path / "model.onnx", _images(4, 16)
    for network in (_Counting(), _OneByOne()):
        wanted = rf"^{type(network).__name__}: torch cannot export the network \(.+\); its forward"
        with pytest.raises(ParityError, match=wanted) as refused:
            lloss.to_onnx(lloss.attach(network, size=16), path, sample=images)
        assert "\n" not in str(refused.value) and capfd.readouterr().err == ""
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


LOOSE = FidelityLimits(min_spearman=0.9, min_overlap=0.5)


@pytest.fixture(scope="module")
def fitted() -> AttachedModel:
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), size=16)
    lloss.fit_head(model, _images(200, 16), np.arange(200) % 3)
    return model


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("int8", TensorProto.INT8)]
)
def test_an_attached_model_is_exported_in_a_reduced_precision(
    fitted: AttachedModel, precision: str, kind: int, tmp_path: Path
) -> None:
    path, pool, lines = tmp_path / "model.onnx", _images(420, 16), list[str]()
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    options = {"held_out": 200, "limits": LOOSE, "say": lines.append}
    manifest = lloss.to_onnx(fitted, path, precision=precision, pool=pool, **options)
    assert lloss.read_manifest(path) == manifest and manifest.precision == precision
    measured = manifest.fidelity["fp32"]
    assert measured["images"] >= 200 and measured["spearman"] > 0.9
    assert any(f"Spearman {measured['spearman']:.5f}" in line for line in lines)
    weights = onnx.load(str(path)).graph.initializer
    assert kind in {tensor.data_type for tensor in weights if "first.0.weight" in tensor.name}
    assert all(torch.equal(value, before[key]) for key, value in fitted.state_dict().items())
    with lloss.Scorer(path, provider="cpu") as scorer, torch.no_grad():
        _, predicted = fitted.eval()(_normalized(fitted, pool[:50]))
        loss = scorer.score(pool[:50]).loss
        assert spearman(loss, predicted.numpy()) > 0.9
    assert manifest.unit == fitted.unit and fitted.unit.name == "nats"
    np.testing.assert_allclose(loss, fitted.unit.losses(predicted.numpy()), rtol=0.1)
    assert measured["mean_loss"] == pytest.approx(loss.mean(), rel=0.1)


def test_to_onnx_chooses_the_precision_and_says_why(
    fitted: AttachedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, pool = tmp_path / "model.onnx", _images(300, 16)
    manifest = lloss.to_onnx(fitted, path, precision="auto", pool=pool, sample=pool[:8])
    assert manifest.precision == "fp32" and manifest.fidelity["torch_parity"]
    loss, chosen = capsys.readouterr().out.splitlines()
    assert loss == f"loss: {fitted.unit}" and chosen.startswith("precision: fp32; ")
    assert manifest.reference is not None and manifest.reference.images == 300


class _OnlyFloat32(TwoStages):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images.float())


def test_mistakes_with_precisions_are_one_line(fitted: AttachedModel, tmp_path: Path) -> None:
    path, pool = tmp_path / "model.onnx", _images(300, 16)
    with pytest.raises(SettingsError, match="precision = 'int4': choose one of fp32, fp16, int8"):
        lloss.to_onnx(fitted, path, sample=pool, precision="int4")
    with pytest.raises(SettingsError, match="precision = 'int8': .* give some as pool"):
        lloss.to_onnx(fitted, path, sample=pool, precision="int8")
    with pytest.raises(SettingsError, match="sample: give images to check"):
        lloss.to_onnx(fitted, path)
    with pytest.raises(PoolError, match="has 300 images, too few"):
        lloss.to_onnx(fitted, path, sample=pool, precision="int8", pool=pool)
    model = lloss.attach(_OnlyFloat32(), size=16)
    with pytest.raises(
        ParityError, match=r"_OnlyFloat32: .* cannot be computed in float16 \(.*fp32"
    ):
        lloss.to_onnx(model, path, precision="fp16", pool=pool)
    assert list(tmp_path.iterdir()) == []


def test_features_of_before_training_are_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), size=16, keep_embedding="pretrained").eval()
    images, lines = _images(40, 16), list[str]()
    with torch.no_grad():
        maps = model.network.get_submodule("first")(_normalized(model, images))
        wanted = model.network.get_submodule("second")(maps).mean((2, 3)).numpy()
        for parameter in model.network.parameters():
            parameter.add_(0.05)  # as training does
    manifest = lloss.to_onnx(model, tmp_path / "m.onnx", sample=images, say=lines.append)
    assert list(manifest.outputs)[-2:] == ["embedding", "pretrained_embedding"]
    with lloss.Scorer(tmp_path / "m.onnx", provider="cpu") as scorer:
        columns = scorer.score(images).columns
    np.testing.assert_allclose(columns["pretrained_embedding"], wanted, atol=1e-4)
    assert np.abs(columns["embedding"] - wanted).max() > 0.01
    loss, line = lines
    assert loss.startswith("loss: in no unit (only fit_head fits one, or pass that of")
    assert line.startswith("pretrained_embedding: without it scoring on this CPU is ")
    names = {tensor.name for tensor in onnx.load(str(tmp_path / "m.onnx")).graph.initializer}
    assert not any("pretrained" in name and "last" in name for name in names), "no dead weights"


def test_a_model_is_exported_with_a_reference_and_described(
    fitted: AttachedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = _images(250, 16)
    manifest = lloss.to_onnx(fitted, tmp_path / "m.onnx", sample=pool[:8], reference=pool)
    assert manifest.reference is not None and manifest.reference.images == 250
    main(["info", str(tmp_path / "m.onnx")])
    shown = capsys.readouterr().out
    assert "unknown: a network from outside; its head reads first, second\n" in shown
    assert str(manifest.reference) in shown and "None" not in shown


EARLIER = ", or of an earlier version"


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Checkpoint:
    return load_checkpoint(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def unseen(tmp_path: Path) -> LabeledSet:
    """30 images of noise, of the classes of ``trained``."""
    random = np.random.default_rng(1)
    for number in range(30):
        folder = tmp_path / "unseen" / ("bright", "dark", "red")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_labeled(str(tmp_path / "unseen"))


def _measured(checkpoint: Checkpoint, images: LabeledSet) -> Path:
    assert checkpoint.path is not None
    path = checkpoint.path.parent / "evaluation.json"
    write_json(path, evaluate_checkpoint(checkpoint, images).as_dict())
    return path


def test_it_is_fitted_on_the_images_that_were_measured(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    _measured(checkpoint, unseen)
    found = evaluate_checkpoint(checkpoint, unseen)
    assert found.predicted_loss is not None
    wanted = fit_unit(found.predicted_loss, found.true_loss, "nats")
    assert unit_of_run(checkpoint) == wanted
    assert (wanted.name, wanted.images, len(wanted.calibration)) == ("nats", 30, 6)


def test_images_of_training_are_left_out(
    checkpoint: Checkpoint, unseen: LabeledSet, photos: Path
) -> None:
    seen = open_labeled(str(photos))
    both = LabeledSet([*seen.items, *unseen.items], [*seen.labels, *unseen.labels], "both")
    mixed, alone = (evaluate_checkpoint(checkpoint, images).unit for images in (both, unseen))
    assert mixed and alone and mixed.images == 30
    assert (mixed.a, mixed.b) == pytest.approx((alone.a, alone.b), rel=1e-4)
    _measured(checkpoint, seen)
    found = unit_of_run(checkpoint)
    assert found.name == "" and found.note.startswith("0 losses of unseen images are too few")


def test_a_run_that_was_not_measured_has_none(checkpoint: Checkpoint) -> None:
    note = f"the losses of no unseen image were measured; {MEASURE}"
    assert unit_of_run(checkpoint) == LossUnit(note=note)
    assert unit_of_run(dataclasses.replace(checkpoint, path=None)).note == note


def test_the_figures_of_another_training_are_not_taken(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    changed = dataclasses.replace(checkpoint, labeled=61)
    assert checkpoint.path is not None
    changed.save(checkpoint.path)
    found = unit_of_run(load_checkpoint(checkpoint.path))
    assert found == LossUnit(
        note=f"{path} is of another training, or of an earlier version; {MEASURE}"
    )


def test_a_frozen_network_has_that_of_its_head(checkpoint: Checkpoint, unseen: LabeledSet) -> None:
    own = LossUnit(name="nats", a=0.5, b=0.1, images=60, source="images")
    assert checkpoint.path is not None
    dataclasses.replace(checkpoint, unit=own).save(checkpoint.path)
    loaded = load_checkpoint(checkpoint.path)
    assert loaded.unit == own and unit_of_run(loaded) == own
    _measured(loaded, unseen.take(range(10)))  # too few: the head's own is better than none
    assert unit_of_run(loaded) == own
    _measured(loaded, unseen)
    assert unit_of_run(loaded).images == 30


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "unit": {"a": "x"}}),
    ],
)
def test_a_damaged_file_is_refused(
    change: Callable[[str], str], checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=r"evaluation\.json: is damaged; remove it, or run"):
        unit_of_run(checkpoint)


def test_the_figures_of_earlier_versions_have_none(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    figures = json.loads(path.read_text())
    del figures["unit"], figures["checkpoint_sha256"]
    path.write_text(json.dumps(figures))
    assert (
        unit_of_run(checkpoint).note
        == f"{path} is of another training, or of an earlier version; {MEASURE}"
    )
