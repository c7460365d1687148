"""Train a network from outside together with its head, by the trainer of ``lloss train``."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lloss.annotations import Problems
from lloss.data.image_overlap import traces
from lloss.data.labeled_set import LabeledSet
from lloss.errors import SettingsError
from lloss.modeling.attached_model import AttachedModel, refuse_unattached
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.network_checks import check_trainable
from lloss.runtime.torchrun_process import refuse_several
from lloss.tasks import get_task, task_names
from lloss.tasks.recipes import BY_OPTIMIZER, recipe_of
from lloss.tasks.train_settings import AUTOMATIC, TrainSettings
from lloss.training.attached_evaluation import ModelEvaluation, measure_model
from lloss.training.checkpoint import Checkpoint
from lloss.training.decisions import epochs_of
from lloss.training.divergence import few_steps_note
from lloss.training.labeled_batches import LabeledImages
from lloss.training.run_folder import (
    METRICS,
    continue_run,
    earlier_run,
    refuse_other_images,
    train_epochs,
    training_folder,
)
from lloss.training.trainer import Trainer

OWN = ":"
"""Stands for a network of one's own in :mod:`lloss.tasks.recipes`."""

OF_MODEL = ("task", "model", "model_args", "weights", "size", "fit", "share", "resample",
            "mean", "std", "taps", "head", "hidden", "head_summary", "white", "freeze",
            "keep_embedding", "loss_norm")  # fmt: skip
"""Settings that ``attach`` has decided."""

SQUARE = ("detection", "pose")
"""Tasks that augment to a square."""


def fit(
    model: AttachedModel,
    data: Any,
    targets: Any = None,
    *,
    validation: Any = None,
    run: str | Path | None = None,
    resume: bool = False,
    problems: Problems | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Train network and head in place, on the model's device, and return each epoch's figures.

    A labeled set, and images uint8 of a classification, are augmented as by ``lloss train``; images
    uint8 of a task of one's own by its ``augment(images, targets, generator) -> (images, targets)``
    of images uint8 [B, H, W, 3], where it has one. Datasets and loaders augment by themselves.

    Args:
        model: from :func:`lloss.attach`.
        data: a labeled set (see :func:`lloss.open_labeled`), whose labels are of the model's
            classes; images as :meth:`lloss.Scorer.score` takes them, with ``targets``; a tensor
            float [N, 3, H, W], normalized already, with ``targets``; a dataset of pairs (image
            float [3, H, W], target); or batches (images float [B, 3, H, W], targets), such as a
            DataLoader's.
        targets: one per image: what ``loss_per_image`` takes, or class names or numbers.
        validation: data like ``data``, or a pair (images, targets), that is measured at the end of
            each epoch: ``validation_loss``, ``validation_ranking_accuracy``, and where the task
            has a metric ``validation_accuracy`` (classification) or ``validation_metric``.
        run: a folder that receives ``checkpoint.pt``, each minute and on Ctrl-C, and
            ``metrics.jsonl``.
        resume: continue the run in the folder, which may be finished, or not begun; the model gets
            its weights. Of a dataset or a loader only the number of images is compared.
        problems: receives notes on the images, and on few steps.
        settings: those of ``lloss train``, such as ``epochs``, ``lr``, ``gradient_stop`` and
            ``augment``; by default AdamW at 0.0003, batches of 64 images at most, and epochs of
            1,000 steps in all, but at least 30.

    Raises:
        LabelError: an image or label cannot be used.
        DivergedError: the loss or a weight became infinite or NaN.
        SettingsError: an unknown setting, or one that ``attach`` or the data decides.
        CheckpointError: the folder holds a run without ``resume``, or one of other settings, data
            or another network.
        InterruptedRunError: Ctrl-C; the run's folder holds the state.
    """
    refuse_unattached(model)
    refuse_several("lloss.fit", "start it without torchrun, or train with torchrun -m lloss train")
    if resume and run is None:
        raise SettingsError("resume: give the run's folder as run=")
    wanted = _settings(model, settings)
    if isinstance(data, LabeledSet) and model.task in task_names():
        get_task(model.task).check(data.labels, model.classes)
    labeled = LabeledImages.of(model, data, targets, wanted, problems)
    _refuse_ignored(labeled, settings)
    wanted = _with_epochs(wanted, labeled)
    source = labeled.source(wanted)
    if problems is not None:
        problems.note(few_steps_note(model, wanted.epochs * source.steps))
    measured = None if validation is None else _opened(model, validation)

    def observe() -> dict[str, float]:
        return {} if measured is None else _figures(measure_model(model, measured))

    def trainer() -> Trainer:
        return Trainer(wanted, source, next(model.parameters()).device.type, model.tapped)

    with _modes_kept(model), torch.enable_grad():
        if run is None:
            return train_epochs(trainer(), observe)
        with training_folder(Path(run)):
            checkpoint = _checkpoint(model, wanted, source.images, data, targets)
            checkpoint = dataclasses.replace(checkpoint, images_sha256=labeled.images_sha256)
            return _in_folder(Path(run), trainer(), checkpoint, observe, resume)


def _in_folder(
    run: Path, trainer: Trainer, checkpoint: Checkpoint, observe: Any, resume: bool
) -> list[dict[str, float]]:
    before = earlier_run(
        run, checkpoint.settings, checkpoint.labels_sha256, checkpoint.labeled, "", resume
    )
    if before is not None:
        refuse_other_images(run, before, checkpoint.images_sha256)
        trainer.load_state(before.state)
    if before is None or not before.finished:
        continue_run(run, trainer, checkpoint, observe)
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _refuse(model: AttachedModel, given: dict[str, Any]) -> None:
    """Refuse models that are not trained here, and settings that are not the user's."""
    if trainer := model.objective.own_trainer:
        raise SettingsError(
            f"a {type(model.network).__name__}: fit does not train it; train it with {trainer}, "
            "attach again, and then use fit_head"
        )
    check_trainable(model.network, f"a {type(model.network).__name__}", "use lloss.fit_head")
    if given.get("freeze"):
        raise SettingsError("freeze: use lloss.fit_head, which trains the head alone")
    if given.get("folds", -1) >= 0:
        raise SettingsError("folds: lloss train and lloss next cross-validate; give validation=")
    if given.get("fresh_lr", 0) not in (0, 1):
        raise SettingsError(
            "fresh_lr: fit does not know which layers start fresh, and trains all at lr; leave it "
            "out"
        )
    if decided := sorted(given.keys() & set(OF_MODEL)):
        raise SettingsError(f"{decided[0]}: attach decides it; leave it out here")
    spec = model.preparation.image
    if spec.height != spec.width and model.task in SQUARE:
        raise SettingsError(
            f"an input of {spec.height}×{spec.width}: fit trains {model.task} on square inputs"
        )


def _settings(model: AttachedModel, given: dict[str, Any]) -> TrainSettings:
    _refuse(model, given)
    given = {name: value for name, value in given.items() if value != AUTOMATIC.get(name, ...)}
    spec, known = model.preparation.image, None
    optimizer = given.get("optimizer")  # TrainSettings refuses an unknown one
    defaults = recipe_of(OWN, optimizer if optimizer in BY_OPTIMIZER else "auto", pretrained=False)
    del defaults["steps"], defaults["least_epochs"]
    if model.task in task_names():
        known = get_task(model.task)
        theirs = known.defaults("")
        defaults |= {name: theirs[name] for name in ("model", "augment") if name in theirs}
        defaults.setdefault("augment", "flip-crop" if "flip-crop" in known.augments else "none")
    values = {
        "augment": "none", **defaults, **given, "weights": "none",
        "task": model.task, "size": min(spec.height, spec.width), "fit": spec.fit,
        "white": spec.white, "share": spec.share, "resample": spec.resample,
        "taps": [tap.module for tap in model.taps],
        "mean": list(model.preparation.mean), "std": list(model.preparation.std),
    }  # fmt: skip
    settings = TrainSettings.from_dict(values, "fit")
    if known is not None:
        known.check_settings(settings)
    elif settings.head_loss not in HEAD_LOSSES:
        choices = ", ".join(HEAD_LOSSES)
        raise SettingsError(f"head_loss = {settings.head_loss!r}: choose one of {choices}")
    return settings


def _with_epochs(settings: TrainSettings, labeled: LabeledImages) -> TrainSettings:
    """Choose the epochs by the recipe's budget of steps, where they are not given."""
    if settings.epochs:
        return settings
    recipe = recipe_of(OWN, settings.optimizer, pretrained=False)
    steps = labeled.source(settings).steps
    epochs, _ = epochs_of(recipe["steps"], steps, recipe["least_epochs"])
    return dataclasses.replace(settings, epochs=epochs)


def _refuse_ignored(labeled: LabeledImages, given: dict[str, Any]) -> None:
    """Refuse settings that the data decides."""
    if given.get("augment", "none") != "none" and not labeled.augmented:
        raise SettingsError(
            f"augment = {given['augment']!r}: lloss augments labeled sets and images uint8 of its "
            "own tasks only; give the task an augment(images, targets, generator), or augment in "
            "a dataset"
        )
    if "batch_size" in given and labeled.examples is None:
        raise SettingsError("batch_size: the loader decides it; leave it out here")


def _opened(model: AttachedModel, validation: Any) -> LabeledImages:
    if isinstance(validation, tuple) and len(validation) == 2:
        return LabeledImages.of(model, *validation)
    return LabeledImages.of(model, validation)


def _figures(found: ModelEvaluation) -> dict[str, float]:
    figures = {
        "validation_loss": found.mean_loss,
        "validation_ranking_accuracy": found.ranking.ranking_accuracy,
        f"validation_{found.metric_name}": math.nan if found.metric is None else found.metric,
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


@contextlib.contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _checkpoint(
    model: AttachedModel, settings: TrainSettings, images: int, data: Any, targets: Any
) -> Checkpoint:
    """Return what the run's checkpoint holds besides the trainer's state."""
    spec, named = model.preparation.image, isinstance(data, LabeledSet)
    return Checkpoint(
        dataclasses.replace(settings, model=type(model.network).__name__),
        model.classes,
        images,
        data.sha256 if named else _digest(targets if targets is not None else [images]),
        np.zeros((0, spec.height, spec.width, 3), np.uint8),
        "",
        "",
        traces(data.items) if named else np.zeros(0, np.int64),
        {},
        outside=True,
    )


def _digest(targets: Iterable[Any]) -> str:
    """Identify targets of any kind: a resumed run is refused for others."""
    digest = hashlib.sha256()
    for target in targets:
        array = target.cpu().numpy() if isinstance(target, torch.Tensor) else target
        digest.update(array.tobytes() if isinstance(array, np.ndarray) else repr(array).encode())
    return digest.hexdigest()
