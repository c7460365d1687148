"""Tasks: what a network is trained for. One object answers all that the rest needs to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from lloss.annotations import Problems
from lloss.data.label_joining import images_of, labeled_pool, refuse_own
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, SettingsError
from lloss.images.cut_off import CutOff
from lloss.images.decode import ImageSpec, Pixels
from lloss.images.drawing import Drawing
from lloss.pools import Item, Pool
from lloss.statistics.confidence_intervals import Interval
from lloss.tasks.train_settings import AUGMENTS, WEIGHTS, TrainSettings, check_choices
from lloss.text.similar_names import class_notes, lone_classes


class Meter(Protocol):
    """Gathers what a metric needs, batch by batch.

    Attributes:
        mirrored: whether :meth:`update` also wants the output for the mirrored images.
    """

    mirrored: bool = False

    def update(self, output: Any, targets: Sequence[Any], mirror: Any = None) -> None:
        """Take in a batch: the network's output, and the targets as ``Task.example`` gave them."""

    def figures(self) -> dict[str, float]:
        """The task's metric first, 0 to 1, then what else there is to say."""

    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of figures, by their names; none by default."""
        return {}

    def notes(self) -> list[str]:
        """Conditions that a printed result must name, such as flip averaging; none by default."""
        return []

    def missed(self) -> list[str]:
        """What of the labels counts as missed whatever the network answers, in lines."""
        return []


def note_classes(
    task: Task, labels: Sequence[Any], problems: Problems, known: Collection[str] = ()
) -> None:
    """Note classes that may be misspelled: similar ones, and new ones of one image.

    Args:
        task: of the labels.
        labels: all of them.
        problems: keeps the lines.
        known: classes that the labels had before.
    """
    for line in class_notes(task.summarize(labels)):
        problems.note(line)
    if task.unit != "joints":  # a label format has its own names of those
        images = Counter(name for label in labels for name in set(task.classes([label])))
        problems.note(lone_classes(images, known))


def of_unknown_classes(
    unknown: Sequence[str], classes: Sequence[str], effect: str, what: str = "classes"
) -> list[str]:
    """A line on classes of the labels that the network does not have; none without any."""
    if not unknown:
        return []
    some = ", ".join(unknown[:8]) + (", …" if len(unknown) > 8 else "")
    of = len(unknown) + len(classes)
    return [f"the network does not know {len(unknown)} of the {of} {what} ({some}): {effect}"]


class Task(Protocol):
    """What is different from task to task.

    A *label* is what a person gave an image (a class name, boxes, joints); a *target* is what
    training makes of it, in pixels of the input. The network's output is the task's own affair.
    Tasks are subclasses: some methods do what most of them need.

    Attributes:
        name: of the task.
        metric: what :meth:`Meter.figures` gives first; higher is better.
        loss_unit: of the loss, for an axis; "" if it has none.
        labels_file: what a copy of the labels is called.
        counted: heading of what :meth:`summarize` counts.
        unit: what is labeled on an image, in the plural; "" where it is the image as a whole.
        cut_effect: of being cut off by the input, on the metric.
        augments: what the setting ``augment`` may be.
        weights: what the network can start from; see :func:`.check_choices`.
        masks: whether labels are image files themselves, of their ``path``: then the suffix of a
            label's name is not its image's.
        may_be_empty: whether a label may show nothing, see :mod:`lloss.data.empty_labels`.
    """

    name: str
    metric: str
    loss_unit: str
    labels_file: str
    counted: str = "Labeled images per class"
    unit: str = ""
    cut_effect: str = "counts as missed"
    augments: tuple[str, ...] = AUGMENTS
    weights: tuple[str, ...] = WEIGHTS
    masks: bool = False
    may_be_empty: bool = False

    def check_empty(self, empty: str) -> None:
        """Refuse to say what labels that show nothing mean, where there are none.

        Raises:
            SettingsError: with what the task does instead.
        """
        if empty and not self.may_be_empty:
            raise SettingsError(
                f"empty = {empty!r}: is for detection and segmentation; {self.name} has no labels "
                "that show nothing, so leave it out"
            )

    def defaults(self, model: str) -> dict[str, Any]:
        """Settings that differ from those of :class:`TrainSettings`.

        Args:
            model: that was asked for; "" for the task's usual one, which is among the answers.

        Raises:
            SettingsError: there is no such model.
        """

    def check_settings(self, settings: TrainSettings) -> None:
        """Refuse settings that training would ignore or fail at.

        Raises:
            SettingsError: naming the value and what is possible.
        """
        check_choices(settings, self.augments, self.weights)

    def notes(self, settings: TrainSettings) -> list[str]:
        """Lines on settings that can be trained with, but hardly are meant; by default none."""
        return []

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """The network: float [N, 3, H, W] to its output."""

    def taps(self, settings: TrainSettings) -> tuple[str, ...]:
        """Modules that the head reads; none, as by default, to have them found."""
        return ()

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the network's parameters and buffers that speak of the classes."""

    def open(
        self, data: str, labels: Path | None, data_root: Path, problems: Problems
    ) -> LabeledSet:
        """Open labeled data; ``labels`` where ``data`` is a pool.

        Raises:
            LabelError: the labels are missing or broken.
            PoolError: the images cannot be found.
        """
        if labels is None:
            raise LabelError(f"{data}: carries no labels of its own; add --labels")
        found = self.read_labels(labels, problems)
        return self.join(labeled_pool(data, [labels], problems), found, str(labels), problems)

    def read_labels(self, path: Path, problems: Problems) -> dict[str, Any]:
        """Labels by id, of a file or folder that grows from cycle to cycle."""

    def write_labels(self, labels: Mapping[str, Any], path: Path) -> None:
        """A copy of labels that :meth:`read_labels` reads."""

    def join(
        self, pool: Pool, labels: Mapping[str, Any], origin: str, problems: Problems
    ) -> LabeledSet:
        """Labels with the items of a pool that they are of.

        By default a label is of the image that it stands under; see
        :mod:`lloss.data.id_matching`.

        Raises:
            LabelError: there is no label, or one means no image, or two mean the same one.
        """
        if not labels and not problems.found:
            raise LabelError(f"{origin}: holds no label yet; label some images first")
        names = {key: (key,) for key in labels}
        found = images_of(pool, names, origin, problems, own_suffix=not self.masks)
        if not found:
            raise LabelError(f"{origin}: no label is of an image of the pool {pool.uri}")
        items = pool.find(found.values())
        if self.masks:
            refuse_own(((i, Path(labels[key].path)) for i, key in zip(items, found)), origin)
        return LabeledSet(items, [labels[key] for key in found], origin)

    def classes(self, labels: Sequence[Any]) -> tuple[str, ...]:
        """The class names that occur in labels, in the order of the network's outputs."""

    def stratum(self, label: Any) -> str:
        """The hold-out takes its share of each; by default there is one."""
        return ""

    def image_of(self, item: Item, label: Any) -> str:
        """What is held out together: by default each item by itself."""
        return item.id

    def summarize(self, labels: Sequence[Any]) -> dict[str, int]:
        """How much is labeled of each class."""

    def check(self, labels: Sequence[Any], classes: Sequence[str]) -> None:
        """Refuse labels that nothing can be learned from.

        Raises:
            LabelError: with what to label first.
        """

    def known(self, label: Any, classes: Sequence[str]) -> bool:
        """Whether a network of these classes has a loss on an image of this label."""
        return True

    def stored(self, settings: TrainSettings) -> ImageSpec:
        """How training keeps images for :meth:`augment`; may be larger than the input."""
        return settings.image_spec()

    def example(
        self,
        item: Item,
        label: Any,
        classes: Sequence[str],
        spec: ImageSpec,
        room: bool,
        out: Pixels,
        cut: CutOff | None = None,
    ) -> Any:
        """Decode a labeled image and make its target; called from several threads.

        Args:
            item: of the pool.
            label: its label.
            classes: of the network; a class that is none of them is left out where that can be.
            spec: of ``out``.
            room: ``spec`` is :meth:`stored`'s; otherwise the pixels are what a scorer decodes.
            out: uint8 [spec.height, spec.width, 3].
            cut: counts what the network's input cuts off.

        Raises:
            ImageError: the image cannot be decoded.
            LabelError: the label does not fit it.
        """

    def augment(
        self,
        images: Tensor,
        targets: list[Any],
        settings: TrainSettings,
        generator: Generator,
    ) -> tuple[Tensor, list[Any]]:
        """A random change of a batch as :meth:`stored`, uint8 [N, h, w, 3], and of its targets.

        Draws come from ``generator``, or from torch's global one, which is seeded for the step.

        Returns:
            uint8 [N, H, W, 3] of the input's size, and targets in its pixels.
        """

    def collate(self, targets: Sequence[Any], settings: TrainSettings) -> Any:
        """What :meth:`loss_per_image` takes, with a method ``to(device)``."""

    def loss_per_image(self, output: Any, targets: Any, settings: TrainSettings) -> Tensor:
        """The target network's loss on each image, float [N]."""

    def hits(self, output: Any, targets: Any) -> Tensor | None:
        """Each image's part in the metric, float [N], where that is quick to tell."""
        return None

    def summary_size(self, classes: Sequence[str]) -> int:
        """The length of :meth:`summary`."""

    def summary(self, output: Any) -> Tensor:
        """What the head may know of the network's own output, detached, float [N, S]."""

    def outputs(self, output: Any) -> dict[str, Tensor]:
        """What the exported graph adds to ``loss`` at no cost, each float [N, ...].

        ``entropy`` is among them: the usual acquisition to compare with.
        """

    def meter(
        self, labels: Sequence[Any], classes: Sequence[str], settings: TrainSettings
    ) -> Meter:
        """An empty meter for images of these labels, those that are not :meth:`known` included."""

    def draw(
        self, output: Any, classes: Sequence[str], settings: TrainSettings
    ) -> list[Drawing] | None:
        """What the network found on each image; None where a class name says it all."""
        return None
