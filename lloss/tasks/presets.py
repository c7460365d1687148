"""The settings of a run: a task's defaults, a named preset over them, and what a user gives."""

from __future__ import annotations

from typing import Any

from lloss.errors import SettingsError
from lloss.tasks import get_task
from lloss.tasks.train_settings import PLAIN, TrainSettings

_PAPER = {
    "head_loss": "margin",
    "head_summary": False,
    "hidden": 128,
    "xi": 1.0,
    "schedule": "step",
    "clip": 0.0,
    "fresh_lr": 1.0,
    **PLAIN,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Yoo & Kweon 2019, section 4.1: ResNet-18 with a 3×3 stem, 200 epochs, gradient stop at 120.
    "paper-cifar10": {
        **_PAPER,
        "task": "classification",
        "model": "resnet18-cifar",
        "weights": "none",
        "size": 32,
        "head_weight": 1.0,
        "gradient_stop": 120,
        "epochs": 200,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [160],
        "augment": "flip-crop",
        "crop_padding": 4,
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2023, 0.1994, 0.2010],
    },
    # Section 4.2: SSD300 on PASCAL VOC 2007 and 2012; normalised as torchvision's VGG-16 features.
    "paper-voc": {
        **_PAPER,
        "task": "detection",
        "model": "ssd300_vgg16",
        "weights": "imagenet",
        "size": 300,
        "fit": "stretch",
        "taps": [f"sources.{number}" for number in range(6)],
        "head_weight": 1.0,
        "gradient_stop": 240,
        "epochs": 300,
        "batch_size": 32,
        "optimizer": "sgd",
        "lr": 0.001,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [240],
        "augment": "ssd",
        "loss_norm": "positives",
        "mean": [0.48235, 0.45882, 0.40784],
        "std": [1 / 255, 1 / 255, 1 / 255],
    },
    # Section 4.3: Stacked Hourglass with two stacks on MPII.
    "paper-mpii": {
        **_PAPER,
        "task": "pose",
        "model": "hourglass2",
        "weights": "none",
        "size": 256,
        "fit": "pad",
        "taps": ["maps.0", "maps.1"],
        "head_weight": 0.0001,
        "gradient_stop": 75,
        "epochs": 125,
        "batch_size": 6,
        "optimizer": "rmsprop",
        "lr": 0.00025,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "milestones": [100],
        "augment": "pose",
    },
}
"""Named settings; options given with ``--preset`` win over its values."""


def resolve_settings(preset: str, where: str = "settings", **given: Any) -> TrainSettings:
    """Return the task's defaults, a preset's settings over them, and over both what is given.

    Automatic values stay so, see :data:`.AUTOMATIC`. None counts as not given; ``where`` names the
    source of what is given in messages. Raises ``SettingsError`` for an unknown preset or task, a
    preset of another task or (where it has taps) another model, a mean of images in 0..255, or a
    value that the task cannot use.
    """
    if preset not in PRESETS:
        raise SettingsError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
    named = PRESETS[preset]
    given = {name: value for name, value in given.items() if value is not None}
    values = {**named, **given}
    for name in ("task", "model") if "taps" in named else ("task",):
        if name in named and named[name] != values[name]:
            raise SettingsError(
                f"preset {preset!r}: is of {name} {named[name]!r}, not of {values[name]!r}; "
                f"leave the {name} out, or the preset"
            )
    task = get_task(values.get("task", TrainSettings.task))
    model, args = values.get("model", ""), values.get("model_args", ())
    defaults = task.networks(model, args).defaults(model)
    settings = TrainSettings.from_dict({**defaults, **values}, where)
    if "mean" in given:
        _refuse_bytes(settings.mean, where)
    task.check_settings(settings)
    return settings


def _refuse_bytes(mean: tuple[float, ...], where: str) -> None:
    """Refuse a given mean of images in 0..255; :class:`.TrainSettings` reads it in old runs."""
    if max(map(abs, mean)) > 10:
        scaled = ",".join(f"{value / 255:.3g}" for value in mean)
        raise SettingsError(
            f"{where}: mean = {mean}: is of images in 0..255, and lloss reads them in 0..1; "
            f"divide mean and std by 255 (mean {scaled})"
        )
