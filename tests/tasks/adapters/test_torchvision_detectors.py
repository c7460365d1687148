"""Detectors of torchvision, compared with their own forward in train mode on one image."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

import lloss
from lloss.annotations import ObjectLabel
from lloss.errors import LabelError, SettingsError
from lloss.tasks.detection.box_targets import ObjectBatch

SIDE, NAMES = 64, ("cell", "platelet")
KINDS = ("retinanet", "fcos", "ssd", "fasterrcnn")


class Backbone(nn.Module):
    """Maps of strides 8, 16 and 32."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 1), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()) for _ in range(3)
        )

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps, found = OrderedDict[str, Tensor](), self.stem(images)
        for number, stage in enumerate(self.stages):
            maps[str(number)] = found = stage(found)
        return maps


def detector(kind: str, classes: int = 3) -> Any:
    """A small one, which does not resize images of 64×64."""
    torch.manual_seed(0)
    sizes, ratios = ((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3
    scaled: dict[str, Any] = {"min_size": SIDE, "max_size": SIDE}
    match kind:
        case "retinanet":
            anchors = AnchorGenerator(sizes, ratios)
            return RetinaNet(Backbone(), classes, anchor_generator=anchors, **scaled)
        case "fcos":
            return FCOS(
                Backbone(), classes, anchor_generator=AnchorGenerator(sizes, ((1.0,),) * 3),
                **scaled,
            )  # fmt: skip
        case "ssd":
            backbone: Any = Backbone()
            backbone.out_channels = [32, 32, 32]
            return SSD(backbone, DefaultBoxGenerator([[2], [2], [2]]), (SIDE, SIDE), classes)
    return FasterRCNN(
        Backbone(), classes, rpn_anchor_generator=AnchorGenerator(sizes, ratios),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 5, 2), **scaled,
    )  # fmt: skip


def _targets() -> list[dict[str, Tensor]]:
    boxes = [[[4, 6, 30, 28], [20, 22, 60, 62]], [], [[0, 0, 12, 13]]]
    labels = [[1, 2], [], [2]]
    return [
        {"boxes": torch.tensor(b).float().reshape(-1, 4), "labels": torch.tensor(n).long()}
        for b, n in zip(boxes, labels)
    ]


def _batch() -> ObjectBatch:
    boxes, labels = torch.zeros(3, 2, 4), torch.zeros(3, 2, dtype=torch.int64)
    for row, target in enumerate(_targets()):
        boxes[row, : len(target["boxes"])] = target["boxes"]
        labels[row, : len(target["labels"])] = target["labels"]
    return ObjectBatch(boxes, labels, (2, 0, 1))


def _images() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _normalized(images: Tensor, model: lloss.AttachedModel) -> Tensor:
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.preparation.mean, model.preparation.std)
    )
    return (images - mean) / std


def _own_losses(network: Any) -> list[float]:
    """What torchvision gives for batches of one image."""
    network.train()
    # Before the anchors and proposals that Faster R-CNN draws.
    seed = network.transform.register_forward_hook(lambda *_: torch.manual_seed(0) and None)
    losses = []
    for image, target in zip(_images(), _targets()):
        losses.append(float(sum(network([image], [target]).values()).detach()))
    network.eval()
    seed.remove()
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_each_image_is_torchvisions_on_it_alone(kind: str) -> None:
    network = detector(kind).eval()
    expected = _own_losses(network)
    model = lloss.attach(network, task="detection", classes=NAMES, size=SIDE)
    with torch.no_grad():
        out, predicted = model(_normalized(_images(), model))
    assert predicted.shape == (3,) and model.network is network and not network.training
    for targets in (_targets(), _batch()):
        losses = model.loss_per_image(out, targets)
        assert losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert len({round(loss, 3) for loss in expected}) == 3
    assert set(model.objective.outputs(out)) == {"entropy", "confidence"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_that_the_heads_read_are_tapped(kind: str) -> None:
    model = lloss.attach(detector(kind), task="detection", classes=NAMES, size=SIDE)
    assert [tap.module for tap in model.taps] == [f"backbone.stages.{n}" for n in range(3)]


def test_an_ssdlite_is_tapped_as_the_one_of_lloss() -> None:
    large = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    taps = lloss.attach(large, task="detection", classes=NAMES).taps
    assert [tap.channels for tap in taps] == [672, 480, 512, 256, 256, 128]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_of_ones_own_trains_the_whole_detector(kind: str) -> None:
    model = lloss.attach(detector(kind), task="detection", classes=NAMES, size=SIDE)
    model.train()
    out, predicted = model(_normalized(_images(), model))
    losses = model.loss_per_image(out, _targets())
    (losses.mean() + lloss.losses.soft_pairs(predicted, losses)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.network.parameters())
    assert all(module.training for module in model.network.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_of_any_batch_size_and_scores_as_torch_does(kind: str, tmp_path: Path) -> None:
    model = lloss.attach(detector(kind), task="detection", classes=NAMES, size=SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    manifest = lloss.to_onnx(model, tmp_path / "model.onnx", sample=pixels)
    assert set(manifest.outputs) == {"loss", "entropy", "confidence", "embedding"}
    with lloss.Scorer(tmp_path / "model.onnx", provider="cpu") as scorer:
        scores = scorer.score(pixels[:5])
    model.eval()
    with torch.no_grad():
        images = torch.from_numpy(pixels[:5]).permute(0, 3, 1, 2) / 255
        out, predicted = model(_normalized(images, model))
        entropy = model.objective.outputs(out)["entropy"]
    assert np.allclose(scores.loss, predicted.exp(), atol=1e-3)
    assert np.allclose(scores.columns["entropy"], entropy, atol=1e-3)


def test_the_entropy_of_fcos_is_of_its_classes_where_a_box_is_likeliest() -> None:
    model = lloss.attach(detector("fcos").eval(), task="detection", classes=NAMES, size=SIDE)
    with torch.no_grad():
        out, _ = model(_normalized(_images(), model))
    found = model.objective.outputs(out)
    classes = out.predictions["cls_logits"][:, :, 1:].double().sigmoid()
    certainty = (classes.amax(2) * out.predictions["bbox_ctrness"][:, :, 0].sigmoid()).sqrt()
    entropy = -(classes * classes.log() + (1 - classes) * (1 - classes).log()).sum(2)
    for row in range(3):
        kept = certainty[row] >= min(0.3, float(certainty[row].max()))
        assert float(found["entropy"][row]) == pytest.approx(
            float(entropy[row][kept].max()), abs=1e-5
        )
        assert float(found["confidence"][row]) == pytest.approx(
            float(certainty[row].max()), abs=1e-5
        )


def test_the_head_is_fitted_on_images_and_dicts_of_boxes() -> None:
    model = lloss.attach(detector("retinanet"), task="detection", classes=NAMES, size=SIDE)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    targets = [
        {"boxes": torch.tensor([[2.0, 3, 2 + side, 3 + side]]), "labels": torch.tensor([1])}
        for side in random.integers(4, 50, 24).tolist()
    ]
    found = lloss.fit_head(model, pixels, targets)
    assert found.images == 24 and found.mean_loss > 0 and found.metric is None


def test_the_input_is_as_torchvision_prepares_it() -> None:
    spec = lloss.attach(detector("fcos"), task="detection", classes=NAMES).preparation
    assert spec.image == lloss.ImageSpec(SIDE, SIDE, "pad", fill=114)
    assert spec.mean == (0.485, 0.456, 0.406)
    spec = lloss.attach(detector("ssd"), task="detection", classes=NAMES).preparation
    assert spec.image == lloss.ImageSpec(SIDE, SIDE, "stretch")


def test_torchvisions_own_list_of_names_is_understood() -> None:
    names = ["__background__", "cell", "N/A", "platelet", "N/A"]
    model = lloss.attach(detector("ssd", 5), task="detection", classes=names, size=SIDE)
    assert model.classes == ("cell", "N/A 0", "platelet", "N/A 1")
    weights = torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1
    model = lloss.attach(
        detector("retinanet", 91), task="detection", classes=weights.meta["categories"], size=SIDE
    )
    assert (len(model.classes), model.classes[0]) == (90, "person")


def test_classes_without_background_are_numbered_from_0() -> None:
    network = detector("retinanet").eval()
    names = ("a", "b", "c")
    model = lloss.attach(network, task="detection", classes=names, size=SIDE)
    expected = _own_losses(network)
    out, _ = model(_normalized(_images(), model))
    batch = _batch()
    shifted = ObjectBatch(batch.boxes, batch.labels + 1, batch.counts)  # b and c are 1 and 2
    assert model.loss_per_image(out, shifted).tolist() == pytest.approx(expected, rel=1e-4)


def _named(kind: str, names: Any, **options: Any) -> Any:
    return lambda: lloss.attach(detector(kind), task="detection", classes=names, **options)


@pytest.mark.parametrize(
    ("attach", "message"),
    [
        (_named("fcos", ()), "FCOS: name its classes in the order of its outputs; it has 3"),
        (_named("fcos", "abcd"), "4 names for a network of 3 outputs.*give 2 or 3"),
        (_named("ssd", "abc"), "3 names for a network of 3 outputs.*give 2$"),
        (_named("fasterrcnn", "aa"), "'a' is named twice"),
        (_named("retinanet", "ab", size=(64, 50)), "size = 50: .*of 32, such as 32 or 64"),
        (lambda: lloss.attach(detector("fcos"), classes="ab"), 'pass task="detection"'),
        (
            lambda: lloss.attach(detector("fcos").half(), task="detection", classes="ab"),
            r"weights are float16; call network.float\(\) first",
        ),
        (
            lambda: lloss.attach(
                nn.DataParallel(detector("fcos")), task="detection", classes="ab"
            ),
            "a FCOS in a DataParallel: attach to its .module",
        ),
        (
            lambda: lloss.attach(
                MaskRCNN(Backbone(), 3), task="detection", classes="ab", size=SIDE
            ),
            "MaskRCNN: its loss needs more than boxes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_attached_is_one_line(attach: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        attach()
    assert "\n" not in str(caught.value)


def test_an_ssd_of_one_size_refuses_others() -> None:
    network = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=3
    )
    with pytest.raises(SettingsError, match="the anchors of this SSD fit 300 alone"):
        lloss.attach(network, task="detection", classes=NAMES, size=320)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(3), "takes a list with a dict of 'boxes'"),
        ([{"boxes": torch.zeros(0, 4)}] * 3, "takes a list with a dict of 'boxes'"),
        (
            [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([0])}] * 3,
            "image 0 of the batch: a box of class 0; the network has 1 to 2",
        ),
        ([_targets()[0]] * 2, "2 targets for 3 images: give one per image"),
        (
            [{"boxes": torch.tensor([[5.0, 5, 5, 9]]), "labels": torch.tensor([1])}] * 3,
            r"the box \[5.0, 5.0, 5.0, 9.0\] has no area",
        ),
    ],
)
def test_targets_that_do_not_fit_are_named(targets: Any, message: str) -> None:
    model = lloss.attach(detector("retinanet"), task="detection", classes=NAMES, size=SIDE)
    out, _ = model(_normalized(_images(), model))
    with pytest.raises(LabelError, match=message):
        model.loss_per_image(out, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_what_the_detectors_own_forward_finds(kind: str) -> None:
    network = detector(kind).eval()
    model = lloss.attach(network, task="detection", classes=NAMES, size=SIDE)
    (network.roi_heads if kind == "fasterrcnn" else network).score_thresh = 0.0
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    of_channels = network.transform.image_mean, network.transform.image_std
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in of_channels)
    with torch.no_grad():
        out, _ = model((images - mean) / std)
        expected = network(list(images))
    predictions = model.objective.predictions(out)
    assert predictions is not None and len(predictions) == 2
    for found, own in zip(predictions, expected, strict=True):
        kept = own["labels"] > 0
        assert kept.sum() > 5 and isinstance(found.label, ObjectLabel)
        assert found.label.names == tuple(NAMES[label - 1] for label in own["labels"][kept])
        assert found.label.boxes * SIDE == pytest.approx(own["boxes"][kept].numpy(), abs=1e-3)
        assert found.scores == pytest.approx(own["scores"][kept].numpy(), abs=1e-5)
