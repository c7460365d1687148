"""YOLO of Ultralytics: a network of the same shape, and the real one where it is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lloss
from lloss.annotations import ObjectLabel
from lloss.errors import LabelError, SettingsError
from lloss.tasks.detection.box_targets import ObjectBatch

from ...outside_yolo import INSTALLED, YOLO, DetectionModel, SegmentationModel, without_the_package

SIDE = 64


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_package(monkeypatch)


def _batch() -> dict[str, Tensor]:
    return {
        "batch_idx": torch.tensor([0, 0, 2]),
        "cls": torch.tensor([[0.0], [1], [1]]),
        "bboxes": torch.tensor(
            [[0.5, 0.5, 0.25, 0.5], [0.3, 0.4, 0.2, 0.2], [0.5, 0.6, 0.5, 0.25]]
        ),
    }


def _objects(batch: dict[str, Tensor], side: int = SIDE) -> ObjectBatch:
    """The same boxes as lloss has them."""
    x, y, w, h = (batch["bboxes"] * side).unbind(1)
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    padded, labels = torch.zeros(3, 2, 4), torch.zeros(3, 2, dtype=torch.int64)
    padded[0], padded[2, 0] = boxes[:2], boxes[2]
    labels[0], labels[2, 0] = torch.tensor([1, 2]), 2
    return ObjectBatch(padded, labels, (2, 0, 1))


def _alone(network: Any, images: Tensor, batch: dict[str, Tensor], gains: Any) -> list[float]:
    """Its criterion on batches of one image, of its own raw output in train mode."""
    kept, network.args = getattr(network, "args", {}), gains
    network.model[-1].training = True
    losses = []
    for row in range(len(images)):
        mine = batch["batch_idx"] == row
        only = {key: value[mine] for key, value in batch.items()}
        only["batch_idx"] = torch.zeros_like(only["batch_idx"])
        with torch.no_grad():
            loss, _ = network.init_criterion()(network(images[row : row + 1]), only)
        losses.append(float(loss.sum()))
    network.args, network.model[-1].training = kept, False
    return losses


@pytest.mark.parametrize("head", [{}, {"older": True}, {"twice": True}])
def test_the_loss_of_each_image_is_the_criterions_on_it_alone(head: dict[str, bool]) -> None:
    network = DetectionModel(**head).eval()
    images = torch.rand(3, 3, SIDE, SIDE)
    expected = _alone(network, images, _batch(), SimpleNamespace(box=7.5))
    model = lloss.attach(network, task="detection", size=SIDE)
    with torch.no_grad():
        out, predicted = model(images)
    assert predicted.shape == (3,) and not network.model[2].training
    for targets in (_batch(), _objects(_batch())):
        assert model.loss_per_image(out, targets).tolist() == pytest.approx(expected, rel=1e-4)
    assert network.args == {"imgsz": 96}


def test_names_input_and_taps_are_the_networks_own() -> None:
    network = DetectionModel()
    model = lloss.attach(YOLO(network), task="detection")
    assert model.network is network and model.classes == ("cell", "platelet")
    assert model.preparation.image == lloss.ImageSpec(96, 96, "pad", fill=114)
    assert (model.preparation.mean, model.preparation.std) == ((0, 0, 0), (1, 1, 1))
    assert [(tap.module, tap.channels) for tap in model.taps] == [("model.0", 8), ("model.1", 8)]
    renamed = lloss.attach(network, task="detection", classes=("a", "b"), taps=["model.1"])
    assert renamed.classes == ("a", "b") and len(renamed.taps) == 1


@pytest.mark.parametrize(("head", "times"), [({}, 1), ({"older": True}, 1), ({"twice": True}, 2)])
def test_scores_are_of_the_logits_that_detections_come_from(
    head: dict[str, bool], times: int
) -> None:
    network = DetectionModel(**head).eval()
    model = lloss.attach(network, task="detection", size=SIDE)
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        out, _ = model(images)
        first = network.model[0](images)
        maps = [first, network.model[1](first)]
        logits = [layer(found).flatten(2) for layer, found in zip(network.model[2].cv3, maps)]
    best = (times * torch.cat(logits, 2)).sigmoid().amax((1, 2))
    assert torch.allclose(model.objective.outputs(out)["confidence"], best, atol=1e-5)


def test_the_graph_scores_as_torch_does(tmp_path: Path) -> None:
    model = lloss.attach(DetectionModel(), task="detection", size=SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
    lloss.to_onnx(model, tmp_path / "model.onnx", sample=pixels)
    with lloss.Scorer(tmp_path / "model.onnx", provider="cpu") as scorer:
        scores = scorer.score(pixels[:3])
    with torch.no_grad():
        out, predicted = model.eval()(torch.from_numpy(pixels[:3]).permute(0, 3, 1, 2) / 255)
    assert np.allclose(scores.loss, predicted.exp(), atol=1e-3)
    assert set(model.objective.outputs(out)) == {"entropy", "confidence"}


def _fused() -> Any:
    network = DetectionModel()
    network.model[2].cv2 = None  # type: ignore[assignment]
    return network


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (DetectionModel(), {"size": 60}, "size = 60: .* takes multiples of 16, such as 48 or 64"),
        (DetectionModel(), {"classes": "abc"}, "3 names for a network of 2 outputs; leave classes"),
        (DetectionModel().half(), {}, r"weights are float16; call network.float\(\) first"),
        (SegmentationModel(), {}, "SegmentationModel: only its DetectionModel"),
        (YOLO("yolo.onnx"), {}, "YOLO of 'yolo.onnx': an exported file has no network"),
        (_fused(), {}, "it was fused for inference.*load it again"),
        (DetectionModel(), {"task": "classification"}, 'pass task="detection"'),
        (nn.DataParallel(DetectionModel()), {}, "in a DataParallel: attach to its .module"),
    ],
)
def test_what_cannot_be_attached_is_one_line(
    network: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        lloss.attach(network, **{"task": "detection", "size": SIDE, **options})
    assert "\n" not in str(caught.value)


def test_other_targets_and_training_by_lloss_are_refused() -> None:
    model = lloss.attach(DetectionModel(), task="detection", size=SIDE)
    out, _ = model(torch.rand(3, 3, SIDE, SIDE))
    with pytest.raises(LabelError, match="takes a list with a dict .* or a dict of 'batch_idx'"):
        model.loss_per_image(out, {"boxes": torch.zeros(0, 4)})
    with pytest.raises(LabelError, match="a box of class 2; the network has 0 to 1"):
        model.loss_per_image(out, {**_batch(), "cls": torch.tensor([[0.0], [1], [2]])})
    labeled: Any = [None] * 4
    with pytest.raises(SettingsError, match=r"fit does not train it; train it with YOLO\(...\)"):
        lloss.fit(model, labeled)


@pytest.mark.skipif(not INSTALLED, reason="pip install ultralytics (AGPL-3.0)")
@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_the_real_package(name: str, tmp_path: Path) -> None:
    tasks = importlib.import_module("ultralytics.nn.tasks")
    try:
        network = tasks.DetectionModel(name, nc=2, verbose=False).eval()
    except FileNotFoundError:
        pytest.skip(f"this version of Ultralytics has no {name}")
    gains = SimpleNamespace(**importlib.import_module("ultralytics.utils").DEFAULT_CFG_DICT)
    images = torch.rand(3, 3, 96, 96)
    expected = _alone(network, images, _batch(), gains)
    model = lloss.attach(network, task="detection", classes=("cell", "platelet"), size=96)
    with torch.no_grad():
        out, _ = model(images)
    for targets in (_batch(), _objects(_batch(), 96)):
        assert model.loss_per_image(out, targets).tolist() == pytest.approx(expected, rel=1e-3)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    manifest = lloss.to_onnx(model, tmp_path / "model.onnx", sample=pixels)
    assert manifest.fidelity["torch_parity"]["max_abs_difference"]["loss"] < 1e-3


@pytest.mark.skipif(not INSTALLED, reason="pip install ultralytics (AGPL-3.0)")
@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
def test_predictions_are_what_the_real_package_finds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = importlib.import_module("ultralytics.nn.tasks")
    nms = pytest.importorskip("ultralytics.utils.nms", reason="its suppression")
    torch.manual_seed(0)
    network = tasks.DetectionModel(name, nc=2, verbose=False).eval()
    monkeypatch.setattr("lloss.tasks.adapters.ultralytics.LEAST", 1e-6)
    model = lloss.attach(network, task="detection", classes=("cell", "platelet"), size=96)
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        out, _ = model(images)
        decoded = network(images)
    expected = nms.non_max_suppression(
        decoded, 1e-6, 0.7, nc=2, end2end=bool(getattr(network.model[-1], "end2end", False))
    )
    predictions = model.objective.predictions(out)
    assert predictions is not None
    for found, own in zip(predictions, expected, strict=True):
        assert isinstance(found.label, ObjectLabel) and len(own) > 5
        shown = np.column_stack([found.label.boxes * 96, found.scores])
        wanted = own[:, :5].numpy()
        apart = np.abs(shown[:, None] - wanted[None]).max(2)  # of each pair of boxes
        assert len(shown) == len(wanted)
        assert max(apart.min(0).max(), apart.min(1).max()) < 0.02
