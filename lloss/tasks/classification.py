"""Image classification: cross entropy, accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text, read_labels
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.errors import LabelError
from lloss.files import write_text
from lloss.images.cut_off import CutOff
from lloss.images.decode import ImageSpec, Pixels, decode_into, size_of
from lloss.modeling.head import LOG_FLOOR
from lloss.modeling.registry import build_classifier, default_size, weights_notes
from lloss.pools import Item
from lloss.statistics.confidence_intervals import Interval, wilson
from lloss.tasks.task import Meter, Task, of_unknown_classes
from lloss.tasks.train_settings import TrainSettings

SUMMARY_CLASSES = 10
"""The head sees at most so many of the sorted log-probabilities: the rest decides little."""


class Classification(Task):
    """See :class:`lloss.tasks.task.Task`; the network's output is logits, float [N, classes]."""

    name = "classification"
    metric = "accuracy"
    loss_unit = "nats"
    labels_file = "labels.csv"
    cut_effect = "is not looked at"

    def defaults(self, model: str) -> dict[str, Any]:
        """The input's size that the network is usually trained at."""
        model = model or TrainSettings.model
        return {"model": model, "size": default_size(model)}

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """A network of :mod:`lloss.modeling.registry`."""
        self.check_settings(settings)
        return build_classifier(settings.model, len(classes), settings.weights, settings.size)

    def notes(self, settings: TrainSettings) -> list[str]:
        """What ImageNet weights want otherwise."""
        if settings.weights != "imagenet":
            return []
        return weights_notes(settings.model, settings.size, settings.mean, settings.std)

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        """The last layer's."""
        last = names[-1].rpartition(".")[0] + "."
        return tuple(name for name in names if name.startswith(last))

    def open(
        self, data: str, labels: Path | None, data_root: Path, problems: Problems
    ) -> LabeledSet:
        """See :func:`lloss.data.class_labels.open_labeled`."""
        if labels is not None:
            return super().open(data, labels, data_root, problems)
        return open_labeled(data, data_root, problems)

    def read_labels(self, path: Path, problems: Problems) -> dict[str, str]:
        """A CSV with the columns ``id`` and ``label``."""
        return read_labels(path, problems=problems)

    def write_labels(self, labels: Mapping[str, str], path: Path) -> None:
        """Likewise."""
        write_text(path, labels_text(labels))

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """See :func:`lloss.data.labeled_set.class_names`."""
        return class_names(labels)

    def stratum(self, label: str) -> str:
        """The class."""
        return label

    def summarize(self, labels: Sequence[str]) -> dict[str, int]:
        """Images of each class."""
        return dict(Counter(sorted(labels)))

    def check(self, labels: Sequence[str], classes: Sequence[str]) -> None:
        """There are at least two classes."""
        if len(set(labels)) < 2:
            only = repr(labels[0]) if labels else "none"
            raise LabelError(f"all {len(labels)} labels are {only}: label a second class first")

    def known(self, label: str, classes: Sequence[str]) -> bool:
        """Whether it is one of the classes."""
        return label in classes

    def example(
        self,
        item: Item,
        label: str,
        classes: Sequence[str],
        spec: ImageSpec,
        room: bool,
        out: Pixels,
        cut: CutOff | None = None,
    ) -> int:
        """The target is the class's index; -1 for a class that is none of them."""
        raw = item.read()
        decode_into(raw, spec, out)
        if cut and spec.fit == "crop":
            cut.add(size_of(raw))
        return list(classes).index(label) if label in classes else -1

    def augment(
        self, images: Tensor, targets: list[int], settings: TrainSettings, generator: Generator
    ) -> tuple[Tensor, list[int]]:
        """Flip and crop, each image by its own draw."""
        if "crop" in settings.augment and settings.padding:
            images = _random_crop(images, settings.padding, generator)
        if "flip" in settings.augment:
            flipped = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(2), images)
        return images, targets

    def collate(self, targets: Sequence[int], settings: TrainSettings) -> Tensor:
        """int64 [N]."""
        return torch.as_tensor(targets, dtype=torch.int64)

    def loss_per_image(self, output: Tensor, targets: Tensor, settings: TrainSettings) -> Tensor:
        """Cross entropy in nats, float [N]; 0 for a class that the network does not have."""
        return F.cross_entropy(output.float(), targets, ignore_index=-1, reduction="none")

    def summary_size(self, classes: Sequence[str]) -> int:
        """As many as there are classes, at most ten."""
        return min(len(classes), SUMMARY_CLASSES)

    def summary(self, output: Tensor) -> Tensor:
        """The largest log-probabilities in falling order, detached."""
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

    def hits(self, output: Tensor, targets: Tensor) -> Tensor:
        """1 where the largest logit is the target's."""
        return (output.argmax(1) == targets).float()

    def meter(
        self, labels: Sequence[str], classes: Sequence[str], settings: TrainSettings
    ) -> _Accuracy:
        """Images of classes that the network does not have are misses."""
        unknown = Counter(label for label in labels if label not in set(classes))
        return _Accuracy(tuple(classes), unknown)


class _Accuracy(Meter):
    """Share of the images whose largest logit is the target's."""

    def __init__(self, classes: tuple[str, ...], unknown: Mapping[str, int]) -> None:
        self.classes, self.unknown = classes, unknown
        self.seen, self.hits = 0, 0

    def update(self, output: Tensor, targets: Sequence[int], mirror: Any = None) -> None:
        """Count the hits."""
        self.seen += len(targets)
        self.hits += int((output.argmax(1).cpu() == torch.as_tensor(targets)).sum())

    def figures(self) -> dict[str, float]:
        """``accuracy``."""
        return {"accuracy": self.hits / max(self.seen, 1)}

    def intervals(self) -> dict[str, Interval]:
        """Wilson's."""
        return {"accuracy": wilson(self.hits, self.seen)}

    def missed(self) -> list[str]:
        """Images of classes that the network does not have."""
        count = sum(self.unknown.values())
        effect = f"their {count:,} images count as wrong"
        return of_unknown_classes(sorted(self.unknown), self.classes, effect)


def _random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Windows of the old size out of zero-padded images, uint8 [N, H, W, 3]."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    corner = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


TASK = Classification()
