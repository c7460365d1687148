"""The data side of a task: its labels, its training images, and the networks that learn it.

The model side is :mod:`lloss.modeling.objective`; ``lloss/tasks/__init__.py`` lists all tasks.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn

from lloss.annotations import Problems
from lloss.data.annotation_folders import file_among
from lloss.data.label_joining import labeled_pool, match_labels, refuse_own
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.errors import LabelError, SettingsError
from lloss.images.cropped_share import CroppedShare
from lloss.images.decode import ImageSpec, Pixels
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_factory import read_arguments
from lloss.modeling.network_source import is_outside
from lloss.modeling.objective import Objective
from lloss.modeling.taps import find_taps
from lloss.pools import Item, Pool
from lloss.pools.uri import is_fiftyone
from lloss.tasks.frozen_heads import MapSize
from lloss.tasks.networks import Networks
from lloss.tasks.outside_networks import OutsideNetworks
from lloss.tasks.train_settings import AUTOMATIC, NAMED_WEIGHTS, STATE_DICT, TrainSettings
from lloss.text.similar_names import lone_classes, similar_note


@dataclass(frozen=True)
class Decoding:
    """How labeled images are decoded."""

    classes: Sequence[str]  # the network's; others are left out if the task can
    spec: ImageSpec  # a scorer's, or `Task.training_spec`
    for_training: bool = False  # whether `spec` is `Task.training_spec`
    cut: CroppedShare | None = None  # counts what the network's input cuts off


@dataclass(frozen=True)
class Share:
    """The images of a batch that one of several processes takes.

    Draws are made for all images of the batch, so that each image gets what it gets in one process.
    """

    rows: slice  # of the batch
    of: int  # images in the batch


class Task(Networks):
    """What differs from task to task, except the loss of the output: see :class:`.Objective`.

    A *label* is what a person gave an image (a class name, boxes, joints); a *target* is what
    training makes of it, in pixels of the input.
    """

    name: str  # of the task
    metric: str  # first figure of `Meter.figures`; higher is better
    metric_title: str  # its name in a report
    labels_file: str = "labels.json"  # file name of a copy of the labels
    counted: str = "Labeled images per class"  # heading of `summarize`
    # What is labeled on an image, in the plural; "" where it is the image as a whole
    unit: str = ""
    cut_effect: str = "counts as missed"  # what the metric does with what the input cuts off
    # Choices of the setting `augment`
    augments: tuple[str, ...] = ("none", "flip", "crop", "flip-crop")
    # What the network can start from; `STATE_DICT` stands for any path
    weights: tuple[str, ...] = ("none", "imagenet", STATE_DICT)
    files_among_images: tuple[str, ...] = ()  # names of annotation files among images
    # Whether labels are image files themselves, of their `path`: then the suffix of a label's name
    # is not its image's
    masks: bool = False
    # Whether the network gives an image one class; None is not known before its first scores
    predicts_class: bool | None = None
    # Whether `entropy` is that of what the network gives, so that images can be chosen by it
    has_entropy: bool = False
    # Labels from which on an automatic choice may be other than random
    chooses_from: int = 0
    loss_norms: bool = False  # whether the setting `loss_norm` has an effect
    keeps_pretrained: bool = False  # whether the setting `keep_embedding` has a choice
    names_are_free: bool = True  # whether class names are the user's, and may be misspelled
    may_be_empty: bool = False  # whether a label may show nothing, see `lloss.data.labeled_set`

    # Networks

    def networks(self, model: str, args: Sequence[str] = ()) -> Networks:
        """Return what knows a network of this name: the task, or :class:`.OutsideNetworks`."""
        return OutsideNetworks(self, model, args) if is_outside(model) else self

    def prediction(self, output: Any, images: Tensor) -> Any:
        """Return what the objective takes of what a network from outside returns for images."""
        return output

    def prediction_shape(
        self, settings: TrainSettings, classes: Sequence[str]
    ) -> tuple[int, ...] | None:
        """Return the shape after N of what the objective takes; None where it is not one tensor."""
        return None

    def check_settings(self, settings: TrainSettings) -> None:
        """Refuse settings that training would ignore or fail at, with a ``SettingsError``."""
        augment, start = settings.augment, settings.weights
        if read_arguments(settings.model_args) and not is_outside(settings.model):
            raise SettingsError(
                f"model_args: {settings.model} takes none; they are for timm:NAME and factories"
            )
        if settings.head_loss not in HEAD_LOSSES:
            choices = ", ".join(HEAD_LOSSES)
            raise SettingsError(f"head_loss = {settings.head_loss!r}: choose one of {choices}")
        if settings.freeze and not settings.head:
            raise SettingsError("freeze = True: trains the head alone; leave head = False out")
        if augment not in self.augments:
            raise SettingsError(
                f"augment = {augment!r}: {self.name} has {', '.join(self.augments)}"
            )
        known = start in ("auto", *self.weights)
        if not known and (start in NAMED_WEIGHTS or STATE_DICT not in self.weights):
            choices = " or ".join(self.weights)
            raise SettingsError(f"weights {start!r}: {self.name} starts from {choices}")
        if settings.keep_embedding == "pretrained":
            self._check_pretrained(settings)
        if settings.loss_norm != TrainSettings.loss_norm and not self.loss_norms:
            raise SettingsError(
                f"loss_norm = {settings.loss_norm!r}: {self.name} has no such choice; leave it out"
            )

    def _check_pretrained(self, settings: TrainSettings) -> None:
        if not self.keeps_pretrained:
            raise SettingsError(
                f"keep_embedding = 'pretrained': {self.name} has no such choice; leave it out"
            )
        if settings.freeze:
            raise SettingsError(
                "keep_embedding = 'pretrained': freeze leaves the network, and its embedding, as "
                "they were; leave one of the two out"
            )
        if settings.weights == "none":
            raise SettingsError(
                "keep_embedding = 'pretrained': weights = 'none' are random, and so would the "
                "embeddings be; choose weights imagenet or a state dict's path, or leave it out"
            )

    def frozen_head(
        self, maps: Sequence[MapSize], classes: Sequence[str], settings: TrainSettings
    ) -> nn.Module:
        """Make a small head on the feature maps of a frozen classifier, for simulations.

        It takes float [N, C_k, H_k, W_k] of each of ``maps`` and returns what the objective takes.
        Raises ``SettingsError`` for a task without such a head.
        """
        raise SettingsError(
            f"--frozen: there is no head for {self.name} on a frozen network; choose --full"
        )

    @abstractmethod
    def objective(self, settings: TrainSettings, classes: Sequence[str]) -> Objective:
        """Make the model side for a network of these classes."""

    def network_objective(self, settings: TrainSettings, classes: Sequence[str]) -> Objective:
        """Make the model side of the settings' network, also of one from outside."""
        made = self.networks(settings.model, settings.model_args)
        return self.objective(made.objective_settings(settings), classes)

    def network(self, settings: TrainSettings, classes: Sequence[str]) -> TappedNetwork:
        """Build a fresh network with head, for settings whose ``size`` is not 0.

        The network's weights are drawn before the head's: without one it starts as the same.
        Undecided weights are random ones.
        """
        if settings.weights == AUTOMATIC["weights"]:
            settings = dataclasses.replace(settings, weights="none")
        self.check_settings(settings)
        return self.unchecked_network(settings, classes)

    def unchecked_network(self, settings: TrainSettings, classes: Sequence[str]) -> TappedNetwork:
        """Build it for settings that may be those of an earlier version."""
        made = self.networks(settings.model, settings.model_args)
        network = made.build(settings, classes)
        objective = self.network_objective(settings, classes)
        start = made.start(network, settings, classes)
        keeps = settings.keep_embedding == "pretrained"
        pretrained = copy.deepcopy(network) if keeps else None
        image = settings.size, settings.size
        taps = find_taps(network, image, settings.taps or made.taps(settings))
        head = None
        if settings.head:
            summary = objective.summary_size if settings.head_summary else 0
            head = LossPredictionHead([tap.channels for tap in taps], summary, settings.hidden)
        tapped = TappedNetwork(network, objective, taps, head, pretrained)
        tapped.start = start
        made.check_output(tapped, settings, classes)
        return tapped

    # Labels

    def open(
        self, data: str, labels: Path | None, data_root: Path, problems: Problems
    ) -> LabeledSet:
        """Open labeled data; ``labels`` where ``data`` is a pool that has none in it.

        Raises ``LabelError`` for missing or broken labels, ``PoolError`` for missing images.
        """
        if labels is None:
            within = Path(data) if is_fiftyone(data) else None
            labels = within or file_among(Path(data), self.files_among_images)
        if labels is None:
            return self.open_labeled(data, data_root, problems)
        found = self.read_labels(labels, problems)
        return self.join(labeled_pool(data, [labels], problems), found, str(labels), problems)

    def open_labeled(self, data: str, data_root: Path, problems: Problems) -> LabeledSet:
        """Open data that carries its own labels; ``data_root`` is for downloaded data sets."""
        raise LabelError(f"{data}: carries no labels of its own; add --labels")

    @abstractmethod
    def read_labels(self, path: Path, problems: Problems) -> dict[str, Any]:
        """Read labels by id, of a file or folder that grows from cycle to cycle."""

    @abstractmethod
    def write_labels(self, labels: Mapping[str, Any], path: Path) -> None:
        """Write a copy of labels that :meth:`read_labels` reads."""

    def join(
        self, pool: Pool, labels: Mapping[str, Any], origin: str, problems: Problems
    ) -> LabeledSet:
        """Find the pool's items that labels are of, by :mod:`lloss.data.id_matching`.

        Raises ``LabelError`` where none is, or two match one image.
        """
        if not labels and not problems.broken:
            raise LabelError(f"{origin}: holds no label yet; label some images first")
        found = match_labels(pool, labels, origin, problems, own_suffix=not self.masks)
        if not found:
            raise LabelError(f"{origin}: no label is of an image of the pool {pool.uri}")
        items = pool.find(found.values())
        if self.masks:
            refuse_own(((i, Path(labels[key].path)) for i, key in zip(items, found)), origin)
        return LabeledSet(items, [labels[key] for key in found], origin)

    @abstractmethod
    def names(self, label: Any) -> Iterable[str]:
        """Return the class names on one label, each as often as it occurs."""

    def classes(self, labels: Sequence[Any]) -> tuple[str, ...]:
        """Return the class names to train on, in the order of the network's outputs."""
        return class_names(name for label in labels for name in self.names(label))

    def summarize(self, labels: Sequence[Any]) -> dict[str, int]:
        """Count what is labeled of each class."""
        return dict(Counter(sorted(name for label in labels for name in self.names(label))))

    @abstractmethod
    def check(self, labels: Sequence[Any], classes: Sequence[str]) -> None:
        """Refuse labels that nothing can be learned from, with a ``LabelError``."""

    def has_loss(self, label: Any, classes: Sequence[str]) -> bool:
        """Return whether a network of these classes has a loss on an image of this label."""
        return any(name in classes for name in self.names(label))

    def stratum(self, label: Any) -> str:
        """Return the group that the hold-out takes its share of."""
        return ""

    def image_of(self, item: Item, label: Any) -> str:
        """Return the key of items that are held out together."""
        return item.id

    def note_classes(
        self, labels: Sequence[Any], problems: Problems, known: Collection[str] = ()
    ) -> None:
        """Note classes that may be misspelled: similar ones, and new ones of one image."""
        problems.note(similar_note(self.summarize(labels)))
        if self.names_are_free:
            images = Counter(name for label in labels for name in set(self.classes([label])))
            problems.note(lone_classes(images, known))

    def check_empty(self, empty: str) -> None:
        """Refuse the option ``empty`` where labels always show something."""
        if empty and not self.may_be_empty:
            raise SettingsError(
                f"empty = {empty!r}: {self.name} has no labels that show nothing; leave it out"
            )

    # Training images

    def training_spec(self, settings: TrainSettings) -> ImageSpec:
        """Return how training keeps images for :meth:`augment`; may be larger than the input."""
        return settings.image_spec()

    @abstractmethod
    def example(self, item: Item, label: Any, how: Decoding, out: Pixels) -> Any:
        """Decode a labeled image into ``out`` and make its target; called from several threads.

        Raises ``ImageError``, or ``LabelError`` where the label does not fit the image.
        """

    @abstractmethod
    def augment(
        self,
        images: Tensor,
        targets: list[Any],
        settings: TrainSettings,
        generator: Generator,
        share: Share | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """Change a batch of :meth:`training_spec`, uint8 [N, h, w, 3], and its targets at random.

        They are all of the batch, or the ``share`` of one process; a task without this argument is
        given whole batches in each process. Returns images of the input's size, and targets in its
        pixels.
        """

    @abstractmethod
    def collate(self, targets: Sequence[Any]) -> Any:
        """Return what :meth:`.Objective.loss_per_image` takes, with a method ``to(device)``."""
