"""Train a network from outside together with its head, by the trainer of ``lloss train``."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.tasks import TASKS, get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.labeled_batches import refuse_without_loss
from lloss.training.trainer import Trainer
from lloss.training.training_data import load_examples

RECIPE: dict[str, Any] = {"optimizer": "adam", "lr": 3e-4, "weight_decay": 0.0}
"""What most networks train with, transformers among them."""

BATCH = 64

OF_MODEL = ("task", "model", "weights", "size", "fit", "mean", "std", "taps", "head", "hidden",
            "head_summary", "white")  # fmt: skip
"""Settings that ``attach`` has decided."""


def fit(
    model: AttachedModel,
    labeled: LabeledSet,
    *,
    problems: Problems | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Train network and head in place, on the model's device, and return each epoch's figures.

    Args:
        model: from :func:`lloss.attach`, of a task of lloss and with a square input.
        labeled: see :func:`lloss.open_labeled`; the labels are of the model's classes.
        problems: receives notes on the images.
        settings: those of ``lloss train``, such as ``epochs``, ``lr`` and ``augment``; by default
            Adam at 0.0003 and batches of 64 images, or all where there are fewer.

    Raises:
        LabelError: an image or label cannot be used.
        DivergedError: the loss or a weight became infinite or NaN.
        SettingsError: an unknown setting, one that ``attach`` decides, or a task of one's own.
    """
    wanted = _settings(model, len(labeled), settings)
    task, problems = get_task(wanted.task), problems or Problems()
    task.check_settings(wanted)
    task.check(labeled.labels, model.classes)
    refuse_without_loss(task, labeled, model.classes)
    data, _ = load_examples(labeled.ordered(), model.classes, wanted, problems, for_training=True)
    device = next(model.parameters()).device.type
    modes = [(module, module.training) for module in model.modules()]
    trainer = Trainer(wanted, data, device, model.tapped)
    epochs = []
    with tqdm(total=wanted.epochs, unit="epoch", disable=None, desc="train") as bar:
        while not trainer.finished:
            figures = trainer.advance()
            if figures is not None:
                epochs.append(figures)
                bar.set_postfix({"loss": figures["loss"]}, refresh=False)
                bar.update()
    for module, training in modes:
        module.training = training
    return epochs


def _settings(model: AttachedModel, images: int, given: dict[str, Any]) -> TrainSettings:
    if model.task not in TASKS:
        raise SettingsError(
            f"task {model.task!r}: fit trains a task of lloss; write the loop for your own, with "
            "model.loss_per_image and lloss.losses"
        )
    if trainer := model.objective.own_trainer:
        raise SettingsError(
            f"a {type(model.network).__name__}: fit does not train it; train it with {trainer}, "
            "attach again, and then use fit_head"
        )
    if decided := sorted(given.keys() & OF_MODEL):
        raise SettingsError(f"{decided[0]}: attach decides it; leave it out here")
    spec = model.preparation.image
    if spec.height != spec.width:
        raise SettingsError(f"an input of {spec.height}×{spec.width}: fit takes a square one")
    known = get_task(model.task)
    defaults = {"model": known.defaults("")["model"], "batch_size": max(2, min(BATCH, images))}
    values = {
        **defaults, **RECIPE, **given,
        "task": model.task, "size": spec.height, "fit": spec.fit,
        "mean": list(model.preparation.mean), "std": list(model.preparation.std),
    }  # fmt: skip
    return TrainSettings.from_dict(values, "fit")
