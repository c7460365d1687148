"""A trained network with its head, whichever way it was trained: what an export starts from."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from lloss.export.graph import ScoringGraph, outputs_of
from numpy.typing import NDArray

from lloss.errors import CheckpointError
from lloss.manifest import Manifest
from lloss.modeling.attached_model import AttachedModel, Preparation, state_sha256
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_source import package_versions
from lloss.statistics.loss_unit import IN_NO_UNIT, LossUnit
from lloss.training.checkpoint import Checkpoint
from lloss.training.divergence import remedy


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network and what its manifest says about it.

    Attributes:
        build: makes a float32 copy on the CPU in eval mode, which may be changed in place.
        task: the task's name.
        model: the network's name.
        classes: the class names, in the order of the outputs.
        preparation: how images become the network's input.
        sample: real images to check an export on, uint8 [S, H, W, 3].
        where: names the network in messages.
        remedy: what to change if its training diverged, for messages.
        provenance: of the manifest.
        unit: how what the head gives becomes the output ``loss``.
    """

    build: Callable[[], TappedNetwork]
    task: str
    model: str
    classes: tuple[str, ...]
    preparation: Preparation
    sample: NDArray[np.uint8]
    where: str
    remedy: str
    provenance: Mapping[str, Any]
    unit: LossUnit = IN_NO_UNIT

    def graph(self, half: bool = False) -> ScoringGraph:
        """Build the module to export; ``half`` computes the network in float16."""
        mean, std = self.preparation.mean, self.preparation.std
        return ScoringGraph(self.build(), mean, std, half, self.unit).eval()

    def manifest(self, graph: ScoringGraph) -> Manifest:
        """Describe its fp32 graph, before any measurement."""
        preparation = self.preparation
        return Manifest(
            task=self.task,
            model=self.model,
            classes=self.classes,
            image=preparation.image,
            mean=preparation.mean,
            std=preparation.std,
            outputs=outputs_of(graph, (preparation.image.height, preparation.image.width)),
            provenance=self.provenance,
            unit=self.unit,
        )


def of_checkpoint(checkpoint: Checkpoint) -> TrainedNetwork:
    """Export the network of a run, which is checked on its sample images."""
    settings = checkpoint.settings
    return TrainedNetwork(
        build=checkpoint.network,
        task=settings.task,
        model=settings.model,
        classes=checkpoint.classes,
        preparation=Preparation(image=settings.image_spec(), mean=settings.mean, std=settings.std),
        sample=checkpoint.sample,
        where=str(checkpoint.path),
        remedy=remedy(settings),
        provenance={
            "checkpoint_sha256": checkpoint.sha256,
            "labeled_images": checkpoint.labeled,
            "labels_sha256": checkpoint.labels_sha256,
            "epochs": f"{checkpoint.epoch}/{settings.epochs}",
            "settings": settings.as_dict(),
            "versions": versions() | package_versions(settings.model),
        },
        unit=unit_of_run(checkpoint),
    )


def of_model(
    model: AttachedModel, sample: NDArray[np.uint8], unit: LossUnit | None = None
) -> TrainedNetwork:
    """Export an attached model, which itself stays as it is; ``sample`` is uint8 [S, H, W, 3].

    ``unit`` is by default the model's own.
    """
    name = type(model.network).__name__

    def build() -> TappedNetwork:
        # The objective may hold anything of the user's.
        copied = copy.deepcopy(model, {id(model.objective): model.objective})
        return copied.cpu().float().eval().requires_grad_(False).tapped

    return TrainedNetwork(
        build=build,
        task=model.task,
        model=name,
        classes=model.classes,
        preparation=model.preparation,
        sample=sample,
        where=name,
        remedy="with a lower learning rate",
        provenance={
            "checkpoint_sha256": state_sha256(model.tapped),
            "taps": [tap.module for tap in model.taps],
            "versions": versions(),
        },
        unit=unit or model.unit,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that an export depends on."""
    names = ("lloss", "torch", "torchvision", "onnx", "onnxscript")
    return {name: importlib.metadata.version(name) for name in names}


EVALUATION = "evaluation.json"
"""File name of the figures in a run's folder, see :meth:`.Evaluation.as_dict`."""

MEASURE = "run lloss evaluate RUN DATA on images that it was not trained on, then export"
"""What to do about a run without a unit."""


def unit_of_run(checkpoint: Checkpoint) -> LossUnit:
    """Return the unit of ``evaluation.json`` beside the checkpoint's file, if it is of that file.

    Otherwise that of the training's own cross-validation; or one in no unit whose note says what is
    missing. Raises ``CheckpointError`` for a damaged ``evaluation.json``.
    """
    unit, why = None, "the losses of no unseen image were measured"
    path = checkpoint.path.parent / EVALUATION if checkpoint.path else None
    if path is not None and path.exists():
        figures = _read(path)
        if figures.get("checkpoint_sha256") == checkpoint.sha256:
            unit = _parsed(figures.get("unit"), path)
        else:
            why = f"{path} is of another training, or of an earlier version"
    if unit is not None and unit.name:
        return unit
    if checkpoint.unit is not None:
        return checkpoint.unit
    return unit or LossUnit(note=f"{why}; {MEASURE}")


def _read(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(figures, dict):
        raise _damaged(path)
    return figures


def _parsed(unit: Any, path: Path) -> LossUnit | None:
    try:
        return msgspec.convert(unit, LossUnit | None)
    except msgspec.ValidationError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is damaged; remove it, or run lloss evaluate again")
