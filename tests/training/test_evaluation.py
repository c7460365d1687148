from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lloss.annotations import ObjectLabel, Problems
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, SettingsError
from lloss.images.decode import Frame, ImageSpec, decode_whole
from lloss.modeling.network import TappedNetwork
from lloss.modeling.networks.ssd import SsdOutput
from lloss.modeling.taps import Tap
from lloss.tasks import get_task
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.presets import resolve_settings
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.evaluation import Evaluation, evaluate_checkpoint, measure
from lloss.training.trainer import predict
from lloss.training.training_data import TrainingData

DETECTION = get_task("detection")


@pytest.fixture
def checkpoint(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture
def labeled(photos: Path) -> LabeledSet:
    return open_labeled(str(photos))


def test_the_figures_are_those_of_the_network(checkpoint: Checkpoint, labeled: LabeledSet) -> None:
    found = evaluate_checkpoint(checkpoint, labeled)
    images = np.stack([decode_whole(item.read()) for item in labeled.items])
    logits = torch.cat(
        [f.output for _, f in predict(checkpoint.network(), checkpoint.settings, images)]
    )
    targets = torch.tensor([checkpoint.classes.index(label) for label in labeled.labels])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert found.metric == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    assert np.allclose(found.true_loss, losses.numpy(), atol=1e-5)
    assert found.images == len(labeled) and found.unseen == 0


def test_images_of_unknown_classes_are_misses_without_a_rank(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    plain = evaluate_checkpoint(checkpoint, labeled)
    labels = ["never seen" if row < 10 else label for row, label in enumerate(labeled.labels)]
    found = evaluate_checkpoint(checkpoint, replace(labeled, labels=labels))
    assert (found.images, found.unseen) == (plain.images, 10)
    assert len(found.true_loss) == plain.images - 10
    assert np.array_equal(found.true_loss, plain.true_loss[10:])
    assert found.metric <= plain.metric


def test_names_that_are_nearly_the_networks_are_named(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    labels = ["Red " if row < 10 else label for row, label in enumerate(labeled.labels)]
    problems = Problems()
    evaluate_checkpoint(checkpoint, replace(labeled, labels=labels), problems)
    note = problems.notes[-1]
    assert note.startswith("the classes of the network and of the labels 'red' (")
    assert "and 'Red ' (10) differ only in case" in note
    other = LabeledSet(labeled.items, ["RED"] * len(labeled), "labels.csv")
    with pytest.raises(LabelError, match=r"none of the 60 .*'red' \(0\) and 'RED' \(60\) differ"):
        evaluate_checkpoint(checkpoint, other)


def test_the_device_is_the_one_that_is_asked_for(
    checkpoint: Checkpoint, labeled: LabeledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked, there, used in (("", True, "cuda"), ("", False, "cpu"), ("cpu", True, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        moved: list[str] = []
        monkeypatch.setattr(
            TappedNetwork,
            "to",
            lambda self, device, moved=moved: (moved.append(str(device)), self)[1],
        )
        evaluate_checkpoint(checkpoint, labeled, device=asked)
        assert moved == [used]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wrong, reported in (("cuda", "no GPU"), ("tpu", "choose cpu or cuda")):
        with pytest.raises(SettingsError, match=reported):
            evaluate_checkpoint(checkpoint, labeled, device=wrong)


def test_a_metric_that_is_no_number_is_null_in_json(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    found = evaluate_checkpoint(checkpoint, labeled)
    broken = replace(found, metric=math.nan, mean_loss=math.nan)
    figures = json.loads(json.dumps(broken.as_dict(), allow_nan=False))
    assert figures["accuracy"] is None and figures["mean_loss"] is None


class _Finder(torch.nn.Module):
    """Finds an object of class 1 in the first anchor of every image, and nothing else."""

    def __init__(self, anchors: torch.Tensor) -> None:
        super().__init__()
        self.anchors = torch.nn.Parameter(anchors, requires_grad=False)
        self.maps = torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> SsdOutput:
        self.maps(images)
        logits = torch.zeros(len(images), len(self.anchors), 2)
        logits[:, :, 0], logits[:, 0] = 20.0, torch.tensor([0.0, 20.0])
        return SsdOutput(logits, torch.zeros(len(images), len(self.anchors), 4), self.anchors)


def _label(name: str) -> ObjectLabel:
    box = np.array([[100, 100, 200, 200]], np.float32)
    return ObjectLabel((name,), box, np.zeros(1, bool), np.zeros(1, bool))


def _measured(*labels: ObjectLabel) -> Evaluation:
    settings = resolve_settings("default", task="detection")
    objective = DETECTION.objective(settings, ("cell",))
    anchors = torch.tensor([[100.0, 100, 200, 200], [0, 0, 50, 50]])
    model = TappedNetwork(_Finder(anchors), objective, (Tap("maps", "NCHW", 3),), None)
    frame = Frame.of((320, 320), ImageSpec(320, 320, "stretch"))
    targets = [Objects.of(label, ("cell",), frame, 320, 320) for label in labels]
    images = np.zeros((len(labels), 320, 320, 3), np.uint8)
    data = TrainingData(images, targets, ("cell",))
    return measure(model, settings, data, labels)


def test_detections_in_images_of_unknown_classes_are_false() -> None:
    one, other = _label("cell"), _label("dust")
    assert DETECTION.has_loss(one, ("cell",)) and not DETECTION.has_loss(other, ("cell",))
    alone = _measured(one)
    assert alone.metric == pytest.approx(1)
    # The detection in the first image is a false positive, and dust is never found.
    both = _measured(other, one)
    assert both.figures["AP cell"] == pytest.approx(0.5)
    assert both.metric == pytest.approx(0.25)
    assert both.unseen == 1 and len(both.true_loss) == 1
