"""Image classification: cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text
from lloss.annotations.prediction import Prediction
from lloss.data.annotation_folders import CLASS_FILES
from lloss.data.class_labels import open_labeled, read_class_labels
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError
from lloss.files import write_text
from lloss.images.decode import Pixels, decode_into, size_of
from lloss.modeling.classifiers import OWN, build_classifier, preparation, published
from lloss.modeling.head import LOG_FLOOR
from lloss.modeling.objective import Meter, Objective
from lloss.modeling.prediction import prediction_of
from lloss.modeling.published_weights import Published
from lloss.pools import Item
from lloss.statistics.clusters import share_interval
from lloss.statistics.confidence_intervals import Clusters, Floats, Interval
from lloss.tasks.task import Decoding, Share, Task
from lloss.tasks.train_settings import TrainSettings

SUMMARY_CLASSES = 10
"""The head sees at most so many of the sorted log-probabilities: the rest decides little."""

FIXED = ("vit_", "maxvit_")
"""Starts of names of networks that take one size only."""

LEAST = {**dict.fromkeys(OWN, 8), "inception_v3": 96}
"""The smallest sides in pixels of networks that do not take 32, or less."""


class ClassificationObjective(Objective):
    """Cross entropy of logits, float [N, classes], against class indices, int64 [N]."""

    loss_unit = "nats"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.summary_size = min(len(self.classes), SUMMARY_CLASSES)

    def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats, float [N]; 0 for a class that the network does not have."""
        return F.cross_entropy(output.float(), targets, ignore_index=-1, reduction="none")

    def summary(self, output: Tensor) -> Tensor:
        """Sort the largest log-probabilities in falling order, detached."""
        log_probabilities = F.log_softmax(output.detach().float(), 1).clamp(min=LOG_FLOOR)
        return log_probabilities.topk(min(output.shape[1], SUMMARY_CLASSES), 1).values

    def outputs(self, output: Tensor) -> dict[str, Tensor]:
        """``entropy`` in nats, ``margin`` and ``confidence`` in 0..1, ``prediction`` an index."""
        log_probabilities = F.log_softmax(output.float(), 1)
        probabilities = log_probabilities.exp()
        top = probabilities.topk(min(output.shape[1], 2), 1).values
        return {
            "entropy": -(probabilities * log_probabilities).sum(1),
            "margin": top[:, 0] - top[:, -1],
            "confidence": top[:, 0],
            "prediction": output.argmax(1).float(),
        }

    def metric(self, output: Tensor, targets: Tensor) -> Tensor:
        """1 where the largest logit is the target's, 0 elsewhere."""
        return (output.argmax(1) == targets).float()

    def predictions(self, output: Tensor) -> list[Prediction]:
        """The most probable class; its score is the probability."""
        best, numbers = output.detach().float().softmax(1).cpu().max(1)
        return [
            Prediction(self.classes[number], np.array([score], np.float32))
            for number, score in zip(numbers.tolist(), best.tolist())
        ]

    def meter(self, labels: Sequence[str]) -> Accuracy:
        """Images of classes that the network does not have are misses."""
        return Accuracy()


class Accuracy(Meter):
    """Share of the images whose largest logit is the target's, with Wilson's interval."""

    def __init__(self) -> None:
        self.right: list[bool] = []

    def update(self, output: Tensor, targets: Sequence[int]) -> None:
        self.images += len(targets)
        self.right += (output.argmax(1).cpu() == torch.as_tensor(targets)).tolist()

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        return {"accuracy": weights @ np.array(self.right, np.float64) / max(self.images, 1)}

    def intervals(self, clusters: Clusters = None) -> dict[str, Interval]:
        right = np.array(self.right, np.float64)
        return {"accuracy": share_interval(sum(self.right), right, clusters)}


class _Classification(Task):
    """A label is a class name, a target its index; -1 for a class that the network lacks."""

    name = "classification"
    metric = "accuracy"
    metric_title = "Accuracy"
    predicts_class = True
    labels_file = "labels.csv"
    files_among_images = CLASS_FILES
    cut_effect = "is not looked at"
    keeps_pretrained = True
    has_entropy = True

    def defaults(self, model: str) -> dict[str, Any]:
        """How images were prepared for the network's ImageNet weights."""
        model = model or TrainSettings.model
        found = preparation(model)
        del found["size"]
        return {"model": model, **found}

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        own = preparation(settings.model)["size"]
        return own if settings.model.startswith(FIXED) else LEAST.get(settings.model, 32), own

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        return build_classifier(settings.model, len(classes))

    def published(self, settings: TrainSettings, weights: str) -> Published | None:
        return published(settings.model)

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        last = names[-1].rpartition(".")[0] + "."
        return tuple(name for name in names if name.startswith(last))

    def prediction(self, output: Any, images: Tensor) -> Any:
        return prediction_of(output)

    def prediction_shape(self, settings: TrainSettings, classes: Sequence[str]) -> tuple[int, ...]:
        return (len(classes),)

    def objective(self, settings: TrainSettings, classes: Sequence[str]) -> Objective:
        return ClassificationObjective(classes)

    def open_labeled(self, data: str, data_root: Path, problems: Problems) -> LabeledSet:
        return open_labeled(data, data_root, problems)

    def read_labels(self, path: Path, problems: Problems) -> dict[str, str]:
        return read_class_labels(path, problems)

    def write_labels(self, labels: Mapping[str, str], path: Path) -> None:
        write_text(path, labels_text(labels))

    def names(self, label: str) -> Sequence[str]:
        return (label,)

    def stratum(self, label: str) -> str:
        return label

    def check(self, labels: Sequence[str], classes: Sequence[str]) -> None:
        if len(set(labels)) < 2:
            many = f"all {len(labels)} labels are" if len(labels) != 1 else "the only label is"
            only = repr(labels[0]) if labels else "none"
            raise LabelError(f"{many} {only}: label a second class first")

    def example(self, item: Item, label: str, how: Decoding, out: Pixels) -> int:
        raw = item.read()
        decode_into(raw, how.spec, out)
        if how.cut and how.spec.fit == "crop":
            how.cut.add(size_of(raw))
        return list(how.classes).index(label) if label in how.classes else -1

    def augment(
        self,
        images: Tensor,
        targets: list[int],
        settings: TrainSettings,
        generator: Generator,
        share: Share | None = None,
    ) -> tuple[Tensor, list[int]]:
        return flip_crop(images, settings, generator, share), targets

    def collate(self, targets: Sequence[int]) -> Tensor:
        return torch.as_tensor(targets, dtype=torch.int64)


def flip_crop(
    images: Tensor, settings: TrainSettings, generator: Generator, share: Share | None = None
) -> Tensor:
    """Mirror half of the images uint8 [N, H, W, C], and cut windows out of zero-padded ones.

    All images at once: torchvision's transforms, image by image, take four times as long.
    """
    count, height, width, _ = images.shape
    drawn, own = (share.of, share.rows) if share else (count, slice(None))
    if "crop" in settings.augment and (pad := settings.padding):
        padded = F.pad(images, (0, 0, pad, pad, pad, pad))
        corner = torch.randint(2 * pad + 1, (2, drawn, 1), generator=generator)[:, own]
        rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
        images = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if "flip" in settings.augment:
        flipped = torch.rand(drawn, generator=generator)[own] < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(2), images)
    return images


TASK: Task = _Classification()
