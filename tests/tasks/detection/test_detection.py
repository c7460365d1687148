from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lloss.annotations import ObjectLabel
from lloss.errors import LabelError
from lloss.images.decode import ImageSpec
from lloss.modeling.networks.ssd import MODELS, SsdOutput, anchors_of, reference
from lloss.pools import ArrayPool
from lloss.tasks import get_task
from lloss.tasks.detection.box_targets import ObjectBatch, Objects
from lloss.tasks.detection.multibox_loss import match
from lloss.tasks.presets import resolve_settings
from lloss.tasks.task import Decoding

TASK = get_task("detection")
CLASSES = ("cat", "dog")
SIDE = 96


SETTINGS = resolve_settings("default", task="detection", size=SIDE, hidden=8, amp="off")
OBJECTIVE = TASK.objective(SETTINGS, CLASSES)


def _label(
    names: tuple[str, ...] = (), boxes: Any = (), difficult: Any = None, crowd: Any = None,
    size: tuple[int, int] | None = None,
) -> ObjectLabel:  # fmt: skip
    no = np.zeros(len(names), np.bool_)
    return ObjectLabel(
        names,
        np.array(boxes, np.float32).reshape(-1, 4),
        no if difficult is None else np.array(difficult),
        no if crowd is None else np.array(crowd),
        size,
    )


def _example(
    label: ObjectLabel, spec: ImageSpec, height: int = 60, width: int = 120
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Objects]:
    images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    (item,) = ArrayPool(images, "made up")
    objects = TASK.example(item, label, Decoding(CLASSES, spec), out)
    return out, objects


def _perfect(targets: list[Objects], certainty: float = 20.0) -> SsdOutput:
    """The output of a network that finds just these objects."""
    anchors, ssd = anchors_of(MODELS[0], SIDE), reference(MODELS[0])
    logits = torch.zeros(len(targets), len(anchors), len(CLASSES) + 1)
    logits[:, :, 0] = certainty
    offsets = torch.zeros(len(targets), len(anchors), 4)
    for row, matched in enumerate(match(anchors, ObjectBatch.of(targets), ssd)):
        for at in (matched >= 0).nonzero()[:, 0].tolist():
            found = int(matched[at])
            logits[row, at] = 0
            logits[row, at, targets[row].labels[found]] = certainty
            offsets[row, at] = ssd.box_coder.encode_single(
                targets[row].boxes[found][None], anchors[at][None]
            )[0]
    return SsdOutput(logits, offsets, anchors)


TWO = _label(("dog", "cat"), [[10, 5, 60, 50], [70, 10, 110, 55]])


def test_a_network_with_a_head_taps_the_six_source_maps() -> None:
    model = TASK.network(SETTINGS, CLASSES).eval()
    assert [tap.module for tap in model.taps] == [f"sources.{n}" for n in range(6)]
    assert [tap.channels for tap in model.taps] == [672, 480, 512, 256, 256, 128]
    assert {tap.layout for tap in model.taps} == {"NCHW"}
    with torch.no_grad():
        forward = model(torch.zeros(2, 3, SIDE, SIDE))
    assert forward.loss is not None and forward.loss.shape == (2,)
    assert forward.embedding.shape == (2, 128)
    layers = TASK.class_layers(list(model.network.state_dict()))
    assert len(layers) == 12
    assert all("classification_head" in name for name in layers)


def test_images_are_kept_with_margin_and_aspect_where_they_are_cropped() -> None:
    assert TASK.training_spec(replace(SETTINGS, augment="ssd")) == ImageSpec(163, 163, "pad")
    assert TASK.training_spec(replace(SETTINGS, augment="flip")) == ImageSpec(SIDE, SIDE, "stretch")


def test_boxes_are_in_pixels_of_the_decoded_image() -> None:
    _, stretched = _example(TWO, ImageSpec(100, 100, "stretch"))
    assert stretched.labels.tolist() == [2, 1]
    assert stretched.boxes[0].tolist() == pytest.approx([10 / 1.2, 5 / 0.6, 50, 50 / 0.6], abs=1e-3)
    assert stretched.frame == (0, 0, 100, 100)
    image, padded = _example(TWO, ImageSpec(240, 240, "pad"))
    assert padded.boxes[0].tolist() == [20, 60 + 10, 120, 60 + 100]
    assert padded.frame == (0, 60, 240, 180)
    assert not image[:60].any() and image[60:180].any()


def test_boxes_drawn_on_another_size_are_refused() -> None:
    _example(_label(("dog",), [[0, 0, 9, 9]], size=(60, 120)), ImageSpec(60, 60))
    with pytest.raises(LabelError, match=r"120×60 pixels, its boxes were drawn on 240×120"):
        _example(_label(("dog",), [[0, 0, 9, 9]], size=(120, 240)), ImageSpec(60, 60))


def test_the_loss_is_divided_by_the_positives_unless_asked_not_to() -> None:
    spec = ImageSpec(SIDE, SIDE, "stretch")
    targets = [_example(label, spec)[1] for label in (TWO, _label(), TWO)]
    batch = TASK.collate(targets).to("cpu")
    output = _perfect(targets, certainty=1.0)
    divided = OBJECTIVE.loss_per_image(output, batch)
    undivided = TASK.objective(replace(SETTINGS, loss_norm="none"), CLASSES)
    whole = undivided.loss_per_image(output, batch)
    positives = (match(output.anchors, batch, reference(MODELS[0])) >= 0).sum(1)
    assert positives[0] > 1
    assert divided.shape == (3,) and divided[1] == 0
    assert torch.allclose(divided * positives.clamp(min=1), whole)


def test_a_class_that_the_network_does_not_have_counts_as_missed() -> None:
    label = _label(
        ("dog", "cow", "hen"), [[10, 5, 60, 50], [70, 10, 110, 55], [0, 0, 9, 9]],
        difficult=[False, False, True],
    )  # fmt: skip
    targets = [_example(label, ImageSpec(SIDE, SIDE, "stretch"))[1]]
    meter = OBJECTIVE.meter([label])
    meter.update(_perfect(targets), targets)
    figures = meter.figures()
    assert next(iter(figures)) == TASK.metric and "IoU > 0.5" in meter.notes()[0]
    assert figures["map"] == figures["map_11point"] == 0.5
    assert (figures["AP dog"], figures["AP cow"]) == (1, 0)
    assert figures.keys() == {"map", "map_11point", "AP dog", "AP cow"}  # no cat, no hen


def test_objects_that_the_crop_cuts_off_are_missed() -> None:
    """An image of 3:1 with an object in each third: the network finds the one it sees."""
    boxes = [[10 + 60 * n, 10, 50 + 60 * n, 50] for n in range(3)]
    counted = _label(("dog", "dog", "dog"), boxes)
    others = replace(counted, difficult=np.array([True, False, False]), crowd=np.arange(3) == 2)
    for label, fit, expected in (
        (counted, "crop", 1 / 3), (counted, "pad", 1), (counted, "stretch", 1),
        (others, "crop", 1),  # crowds and difficult objects do not count
    ):  # fmt: skip
        spec = ImageSpec(SIDE, SIDE, fit)  # type: ignore[arg-type]
        target = _example(label, spec, 60, 180)[1]
        assert len(target) == (1 if fit == "crop" else 3)
        meter = OBJECTIVE.meter([label])
        meter.update(_perfect([target]), [target])
        assert meter.figures()["map"] == pytest.approx(expected)


def test_objects_are_found_after_suppression_in_shares_of_the_input() -> None:
    label = _label(("dog", "cat", "dog"), [[0, 0, 40, 30], [50, 0, 90, 30], [60, 32, 119, 59]])
    targets = [_example(each, ImageSpec(SIDE, SIDE, "stretch"))[1] for each in (label, _label())]
    found = OBJECTIVE.predictions(_perfect(targets))
    assert found is not None
    full, empty = (each.at_least() for each in found)
    assert full.words == "2 dog, 1 cat"
    assert full.confidence == pytest.approx(1)
    assert isinstance(full.label, ObjectLabel) and sorted(full.label.names) == ["cat", "dog", "dog"]
    cat = full.label.boxes[full.label.names.index("cat")]
    assert cat.tolist() == pytest.approx((50 / 120, 0, 90 / 120, 30 / 60), abs=1e-3)
    assert empty.words == "nothing" and found[1].confidence < 0.01


def test_classes_strata_and_what_can_be_learned() -> None:
    box = [[0, 0, 9, 9]]
    crowd = _label(("dog", "people"), box * 2, crowd=[False, True])
    difficult = _label(("10",), box, difficult=[True])
    assert TASK.classes([crowd, difficult, _label(("9",), box)]) == ("9", "10", "dog")
    assert TASK.stratum(_label(("dog", "cat", "dog"), box * 3)) == "dog"
    assert TASK.stratum(_label(("dog", "cat"), box * 2)) == "cat"
    assert TASK.stratum(_label()) == ""
    TASK.check([TWO, _label()], CLASSES)
    with pytest.raises(LabelError, match="the 2 labeled images show no object"):
        TASK.check([_label(), _label(("x",), box, crowd=[True])], CLASSES)
    assert TASK.has_loss(TWO, ("dog",)) and not TASK.has_loss(TWO, ("cow",))
    assert TASK.has_loss(_label(), CLASSES)


def test_objects_that_are_cut_off_or_unknown_are_left_out() -> None:
    names = ("dog", "cat", "dog", "cow")
    boxes = [[0, 0, 40, 60], [40, 0, 80, 60], [20, 0, 50, 60], [40, 0, 80, 60]]
    label = _label(names, boxes, difficult=[False, True, False, False])
    _, objects = _example(label, ImageSpec(60, 60, "crop"))  # columns 30 to 90 are left
    assert objects.boxes.tolist() == [[10, 0, 50, 60], [0, 0, 20, 60]]
    assert objects.labels.tolist() == [1, 2]
    assert objects.difficult.tolist() == [True, False]
