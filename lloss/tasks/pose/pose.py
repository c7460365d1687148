"""Human pose: heatmaps of a Stacked Hourglass, PCKh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from lloss.annotations import PersonLabel, Problems
from lloss.annotations.lloss_json import write_labels
from lloss.annotations.prediction import Prediction
from lloss.data.labeled_set import LabeledSet
from lloss.data.pose_labels import join_persons, open_persons, read_persons
from lloss.errors import LabelError, SettingsError
from lloss.images.decode import ImageSpec
from lloss.modeling.network_source import is_outside
from lloss.modeling.networks import hourglass
from lloss.modeling.objective import Objective
from lloss.modeling.prediction import prediction_of
from lloss.pools import Item
from lloss.tasks.frozen_heads import HeatmapHead, MapSize
from lloss.tasks.pose.heatmaps import decode, heatmap_loss
from lloss.tasks.pose.joint_targets import PersonTarget, PoseTargets
from lloss.tasks.pose.pck import LEFT_OUT, Pck, annotated_names, group_of, heads_known
from lloss.tasks.pose.person_examples import read_person
from lloss.tasks.pose.pose_augmentation import STORED_SCALE, View, draw_views, show
from lloss.tasks.recipes import BUDGET
from lloss.tasks.task import Share, Task
from lloss.tasks.train_settings import STATE_DICT, TrainSettings

NARROW = "-narrow"  # End of the names of networks for a CPU
ENERGY = math.pi  # Sum of the squares of a Gaussian of height 1 and sigma 1


class PoseObjective(Objective):
    """Heatmaps, float [N, stacks, J, S/4, S/4], against :class:`.PoseTargets`."""

    loss_unit = "squared heatmap error"

    def __init__(self, settings: TrainSettings, classes: Sequence[str]) -> None:
        self.joints = tuple(classes)
        self.summary_size = 2 * len(self.joints) + 1

    def loss_per_image(self, output: Tensor, targets: PoseTargets) -> Tensor:
        return heatmap_loss(output, targets.on(output), targets.annotated)

    def summary(self, output: Tensor) -> Tensor:
        """Peaks and energies of the last stack's heatmaps, and how much the stacks differ.

        If a heatmap ``h`` is the mean of the Gaussians ``g`` that the image allows, its expected
        squared error is the energy of a Gaussian less its own, ``E[Σ(g - h)²] = Σg² - Σh²``.
        """
        heatmaps = output.detach().float()
        last = heatmaps[:, -1].flatten(2)
        energy = last.square().sum(2) / ENERGY
        moved = (heatmaps[:, -1] - heatmaps[:, 0]).square().sum((2, 3)).mean(1, keepdim=True)
        return torch.cat([last.amax(2), energy, moved / ENERGY], 1)

    def outputs(self, output: Tensor) -> dict[str, Tensor]:
        """Mean ``entropy`` (softmax over pixels, nats) and ``confidence`` (peak) of the joints."""
        last = output[:, -1].float().flatten(2)
        log_probabilities = last.log_softmax(2)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(2)
        return {"entropy": entropy.mean(1), "confidence": last.amax(2).mean(1)}

    def meter(self, labels: Sequence[PersonLabel]) -> Pck:
        """PCKh@0.5, if every person with a joint that counts has a head size."""
        counted = {name for name in self.joints if group_of(name) not in LEFT_OUT}
        judged = [label for label in labels if counted & annotated_names(label)]
        unknown = [annotated_names(label) - set(self.joints) for label in labels]
        return Pck(self.joints, heads_known(judged), unknown)

    def predictions(self, output: Tensor) -> list[Prediction]:
        """Each joint at its heatmap's peak, whose height is the score."""
        height, width = output.shape[-2:]
        places, peaks = decode(output[:, -1].detach().float().cpu())
        shares = (places / torch.tensor([width, height])).numpy()
        every = np.ones(len(self.joints), np.bool_)
        return [
            Prediction(PersonLabel("", None, self.joints, joints, every), scores)
            for joints, scores in zip(shares, peaks.numpy())
        ]


class _Pose(Task):
    """A label is a :class:`.PersonLabel`, a target a :class:`.PersonTarget`; classes are joints.

    The metric is ``pck``; where all head sizes are known the figures have it as ``pckh`` too.
    """

    name = "pose"
    metric = "pck"
    metric_title = "PCK"
    predicts_class = False
    counted = "Persons on whom each joint is labeled"
    unit = "joints"
    names_are_free = False
    augments = ("none", "pose")
    # With 100 to 400 labels picks of high loss and picks that represent the pool were both worse
    # than random ones (benchmarks/RESULTS.md); the paper's trials on MPII, where picks of high loss
    # were better, begin at 1,000
    chooses_from = 1000
    weights = ("none", STATE_DICT)
    read_labels = staticmethod(read_persons)
    write_labels = staticmethod(write_labels)
    join = staticmethod(join_persons)
    names = staticmethod(annotated_names)
    objective = staticmethod(PoseObjective)
    example = staticmethod(read_person)
    collate = staticmethod(PoseTargets.of)

    def defaults(self, model: str) -> dict[str, Any]:
        """How persons are cut out and augmented."""
        model = model or "hourglass2"
        hourglass.stacks_of(model)
        return {"model": model, "fit": "pad", "augment": "pose", "momentum": 0.0}

    def recipe(self, settings: TrainSettings, pretrained: bool) -> dict[str, Any]:
        """What learns from few persons."""
        optimizer = "rmsprop" if settings.model.endswith(NARROW) else "adam"
        own = {"optimizer": optimizer, "lr": 1e-3, "weight_decay": 0.0, "clip": 0.0}
        return {**BUDGET, **own, "batch_size": 8, "steps": 1500}

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        """A narrow network learns from images of half the size."""
        size = 128 if settings.model.endswith(NARROW) else 256
        return size, size

    def check_settings(self, settings: TrainSettings) -> None:
        super().check_settings(settings)
        if settings.white:  # persons are cut out of images that are decoded before
            raise SettingsError(f"white = {settings.white}: pose has no such option; leave it out")
        if settings.size and not is_outside(settings.model):
            hourglass.check_size(settings.size)

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        return hourglass.build_hourglass(settings.model, len(classes))

    def frozen_head(
        self, maps: Sequence[MapSize], classes: Sequence[str], settings: TrainSettings
    ) -> nn.Module:
        return HeatmapHead(maps, len(classes), gain=0.1)

    def taps(self, settings: TrainSettings) -> tuple[str, ...]:
        return tuple(f"maps.{number}" for number in range(hourglass.stacks_of(settings.model)))

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name.startswith(("heatmaps.", "heatmap_remaps.")))

    def prediction(self, output: Any, images: Tensor) -> Any:
        return prediction_of(output)

    def open_labeled(self, data: str, data_root: Path, problems: Problems) -> LabeledSet:
        return open_persons(data, problems)

    def classes(self, labels: Sequence[PersonLabel]) -> tuple[str, ...]:
        """Joints annotated on a person, in the labels' order; of others heatmaps are noise."""
        return tuple(self.summarize(labels))

    def summarize(self, labels: Sequence[PersonLabel]) -> dict[str, int]:
        """Persons on whom each joint is annotated, without joints that are on none."""
        counts: dict[str, int] = {}
        for label in labels:
            for name, annotated in zip(label.names, label.annotated.tolist()):
                counts[name] = counts.get(name, 0) + annotated
        return {name: count for name, count in counts.items() if count}

    def check(self, labels: Sequence[PersonLabel], classes: Sequence[str]) -> None:
        if not any(self.has_loss(label, classes) for label in labels):
            raise LabelError(
                f"{len(labels)} labeled persons without an annotated joint: annotate some first"
            )

    def image_of(self, item: Item, label: PersonLabel) -> str:
        """The image that the person is on: others on it are seen in training."""
        return label.image

    def training_spec(self, settings: TrainSettings) -> ImageSpec:
        return settings.image_spec(round(settings.size * STORED_SCALE))

    def augment(
        self,
        images: Tensor,
        targets: list[PersonTarget],
        settings: TrainSettings,
        generator: Generator,
        share: Share | None = None,
    ) -> tuple[Tensor, list[PersonTarget]]:
        drawn, own = (share.of, share.rows) if share else (len(images), slice(None))
        views = draw_views(drawn, generator) if settings.augment == "pose" else [View()] * drawn
        return show(images, targets, views[own], settings.size)


TASK: Task = _Pose()
