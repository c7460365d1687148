"""Object detection: SSD's loss, mean average precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lloss.annotations import ObjectLabel, Problems
from lloss.annotations.lloss_json import write_labels
from lloss.annotations.prediction import Prediction, found_objects
from lloss.data.annotation_folders import OBJECT_FILES
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.data.object_labels import join_objects, open_objects, read_objects
from lloss.errors import LabelError
from lloss.images.decode import Frame, ImageSpec, Pixels, decode_into, size_of
from lloss.modeling.network_source import is_outside
from lloss.modeling.networks.ssd import (
    MODELS,
    SOURCES,
    SsdOutput,
    anchors_of,
    build_detector,
    is_class_layer,
    own_size,
    published,
    reference,
)
from lloss.modeling.objective import Objective
from lloss.modeling.published_weights import Published
from lloss.pools import Item
from lloss.tasks.detection import image_scores
from lloss.tasks.detection.anchor_head import AnchorHead
from lloss.tasks.detection.average_precision import DetectionMeter, detect
from lloss.tasks.detection.box_augmentation import KINDS, STORED_SCALE, augment_boxes
from lloss.tasks.detection.box_targets import ObjectBatch, Objects
from lloss.tasks.detection.multibox_loss import multibox_loss
from lloss.tasks.frozen_heads import MapSize
from lloss.tasks.recipes import BUDGET, fine_tuning
from lloss.tasks.task import Decoding, Task
from lloss.tasks.train_settings import NAMED_WEIGHTS, STATE_DICT, TrainSettings

RECIPES: dict[str, dict[str, Any]] = {
    "ssdlite320_mobilenet_v3_large": {
        "optimizer": "adam",
        "lr": 2e-3,
        "weight_decay": 0.0,
        "batch_size": 16,
        "steps": 1000,
    },
    "ssd300_vgg16": {
        "optimizer": "sgd",
        "lr": 1e-3,
        "weight_decay": 5e-4,
        "batch_size": 32,
        "steps": 1200,
    },
}
"""How each is trained where nothing else is asked for."""

# As torchvision trains them, but SSDLite's smallest anchor is a fifth of the image: no zooming out.
AUGMENT = {"ssdlite320_mobilenet_v3_large": "flip-crop", "ssd300_vgg16": "ssd"}


class DetectionObjective(Objective):
    """SSD's loss of a :class:`.SsdOutput` against an :class:`.ObjectBatch`."""

    summary_size = image_scores.SUMMARY_SIZE

    def __init__(self, settings: TrainSettings, classes: Sequence[str]) -> None:
        self.model, self.size, self.classes = settings.model, settings.size, tuple(classes)
        self.divided = settings.loss_norm == "positives"
        self.loss_unit = "SSD's multibox loss" + " per positive anchor" * self.divided

    def loss_per_image(self, output: SsdOutput, targets: ObjectBatch) -> Tensor:
        return multibox_loss(output, targets, reference(self.model), self.divided)

    def summary(self, output: SsdOutput) -> Tensor:
        return image_scores.summary(image_scores.of_softmax(output.logits))

    def outputs(self, output: SsdOutput) -> dict[str, Tensor]:
        return image_scores.scores(image_scores.of_softmax(output.logits))

    def meter(self, labels: Sequence[ObjectLabel]) -> DetectionMeter:
        return DetectionMeter(labels, self.classes, self.model, self.size)

    def predictions(self, output: SsdOutput) -> list[Prediction]:
        """Boxes after non-maximum suppression, the surest first."""
        found = detect(output, self.model, self.size)
        return [_prediction(each, self.classes, self.size) for each in found]


class _Detection(Task):
    """A label is an :class:`lloss.annotations.ObjectLabel`, a target :class:`.Objects`."""

    name = "detection"
    metric = "map"
    metric_title = "mAP"
    predicts_class = False
    counted = "Labeled objects per class"
    unit = "objects"
    loss_norms = True
    may_be_empty = True
    augments = KINDS
    weights = (*NAMED_WEIGHTS, STATE_DICT)
    pretrained = "coco"
    part = "ssd"
    files_among_images = OBJECT_FILES
    read_labels = staticmethod(read_objects)
    write_labels = staticmethod(write_labels)
    join = staticmethod(join_objects)
    objective = staticmethod(DetectionObjective)
    augment = staticmethod(augment_boxes)
    collate = staticmethod(ObjectBatch.of)

    def defaults(self, model: str) -> dict[str, Any]:
        """Normalisation of torchvision's detector, and how it is usually augmented."""
        model = model or MODELS[0]
        normalize = reference(model).transform
        return {
            "model": model,
            "fit": "stretch",
            "augment": AUGMENT[model],
            "mean": list(normalize.image_mean),
            "std": list(normalize.image_std),
        }

    def recipe(self, settings: TrainSettings, pretrained: bool) -> dict[str, Any]:
        recipe = {**BUDGET, **RECIPES[settings.model], "clip": 0.0}
        # SSD300's is of a trained backbone already.
        lower = pretrained and recipe["optimizer"] == "adam"
        return fine_tuning(recipe) if lower else recipe

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        """Its own alone: objects are smaller than images, and anchors fit one size."""
        return own_size(settings.model), own_size(settings.model)

    def open_labeled(self, data: str, data_root: Path, problems: Problems) -> LabeledSet:
        return open_objects(data, problems)

    def check_settings(self, settings: TrainSettings) -> None:
        super().check_settings(settings)
        if not is_outside(settings.model):
            anchors_of(settings.model, settings.size or own_size(settings.model))

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        return build_detector(settings.model, len(classes), settings.size)

    def frozen_head(
        self, maps: Sequence[MapSize], classes: Sequence[str], settings: TrainSettings
    ) -> nn.Module:
        return AnchorHead(maps, len(classes), settings.size)

    def published(self, settings: TrainSettings, weights: str) -> Published:
        return published(settings.model, weights)

    def taps(self, settings: TrainSettings) -> tuple[str, ...]:
        return tuple(f"sources.{number}" for number in range(SOURCES))

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(filter(is_class_layer, names))

    def names(self, label: ObjectLabel) -> Iterable[str]:
        return label.names

    def classes(self, labels: Sequence[ObjectLabel]) -> tuple[str, ...]:
        """Those of the objects that are trained on, without the background."""
        return class_names(name for label in labels for name in _trained(label))

    def stratum(self, label: ObjectLabel) -> str:
        counts = Counter(sorted(label.names))
        return counts.most_common(1)[0][0] if counts else ""

    def check(self, labels: Sequence[ObjectLabel], classes: Sequence[str]) -> None:
        if not any(name in classes for label in labels for name in _trained(label)):
            raise LabelError(
                f"the {len(labels)} labeled images show no object to learn from: label some that do"
            )

    def has_loss(self, label: ObjectLabel, classes: Sequence[str]) -> bool:
        """All images except those that show only unknown classes."""
        return not label.names or super().has_loss(label, classes)

    def training_spec(self, settings: TrainSettings) -> ImageSpec:
        """Keep the whole image and its aspect if crops follow; otherwise as the input."""
        if settings.augment in ("none", "flip"):
            return settings.image_spec()
        return settings.image_spec(round(settings.size * STORED_SCALE), "pad")

    def example(self, item: Item, label: ObjectLabel, how: Decoding, out: Pixels) -> Objects:
        """Objects of unknown classes are left out; what the fit cuts off is measured alone."""
        raw = item.read()
        size = size_of(raw)
        if label.size is not None and label.size != size:
            (height, width), (rows, columns) = size, label.size
            raise LabelError(
                f"the image is {width}×{height} pixels, its boxes were drawn on "
                f"{columns}×{rows}; label it as it is"
            )
        decode_into(raw, how.spec, out)
        if how.cut:
            counts = label.boxes[~(label.difficult | label.crowd)]
            how.cut.add(size, (counts[:, :2] + counts[:, 2:]) / 2)
        frame = Frame.of(size, how.spec)
        return Objects.of(label, how.classes, frame, how.spec.height, how.spec.width)


def _trained(label: ObjectLabel) -> list[str]:
    return [name for name, crowd in zip(label.names, label.crowd) if not crowd]


def _prediction(found: dict[str, Tensor], classes: Sequence[str], size: int) -> Prediction:
    names = [classes[label - 1] for label in found["labels"].tolist()]
    boxes = (found["boxes"] / size).cpu().numpy()
    return Prediction(found_objects(names, boxes, shares=True), found["scores"].cpu().numpy())


TASK: Task = _Detection()
