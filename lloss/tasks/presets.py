"""Settings by a name: those of the paper's experiments, each value written out."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Yoo & Kweon 2019, section 4.1: ResNet-18 with a 3×3 stem, 200 epochs, gradient stop at 120.
    "paper-cifar10": {
        "task": "classification",
        "model": "resnet18-cifar",
        "size": 32,
        "head_loss": "margin",
        "head_summary": False,
        "hidden": 128,
        "xi": 1.0,
        "head_weight": 1.0,
        "gradient_stop": 120,
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [160],
        "augment": "flip-crop",
        "crop_padding": 4,
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2023, 0.1994, 0.2010],
    },
    # Section 4.2: SSD300 on PASCAL VOC 2007 and 2012; normalised as torchvision's VGG-16 features.
    "paper-voc": {
        "task": "detection",
        "model": "ssd300_vgg16",
        "weights": "imagenet",
        "size": 300,
        "fit": "stretch",
        "taps": [f"sources.{number}" for number in range(6)],
        "head_loss": "margin",
        "head_summary": False,
        "hidden": 128,
        "xi": 1.0,
        "head_weight": 1.0,
        "gradient_stop": 240,
        "epochs": 300,
        "batch_size": 32,
        "optimizer": "sgd",
        "lr": 0.001,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [240],
        "augment": "ssd",
        "loss_norm": "positives",
        "mean": [0.48235, 0.45882, 0.40784],
        "std": [1 / 255, 1 / 255, 1 / 255],
    },
    # Section 4.3: Stacked Hourglass with two stacks on MPII.
    "paper-mpii": {
        "task": "pose",
        "model": "hourglass2",
        "weights": "none",
        "size": 256,
        "fit": "pad",
        "taps": ["maps.0", "maps.1"],
        "head_loss": "margin",
        "head_summary": False,
        "hidden": 128,
        "xi": 1.0,
        "head_weight": 0.0001,
        "gradient_stop": 75,
        "epochs": 125,
        "batch_size": 6,
        "optimizer": "rmsprop",
        "lr": 0.00025,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "step",
        "milestones": [100],
        "augment": "pose",
        "flip_test": False,
    },
}
"""Named settings; options given beside ``--preset`` win over its values."""

OF_THE_MODEL: dict[str, tuple[str, ...]] = {
    "paper-voc": ("weights", "size", "taps", "mean", "std"),
    "paper-mpii": ("weights", "size", "taps"),
}
"""What of a preset is of its model alone: another one takes the task's defaults for it. (The size
and the normalisation of ``paper-cifar10`` are its images'.)"""

EXPERIMENTS: dict[str, dict[str, int]] = {
    "paper-cifar10": {"initial": 1000, "k": 1000, "cycles": 10, "subset": 10000, "trials": 5},
    "paper-voc": {"initial": 1000, "k": 1000, "cycles": 10, "subset": 0, "trials": 3},
    "paper-mpii": {"initial": 1000, "k": 1000, "cycles": 10, "subset": 5000, "trials": 3},
}
"""How the paper used each: first labeled images, images added a cycle, trainings, size of the
random sub-pool that each cycle chooses from (0: the whole pool), repetitions."""

_BY_ADAM = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "resnet18-cifar": {"lr": 0.1},
    "resnet10-cifar-narrow": {"lr": 0.1},
    "convnext": _BY_ADAM,
    "maxvit": _BY_ADAM,
    "swin": {**_BY_ADAM, "lr": 3e-4},
    "vit": {**_BY_ADAM, "lr": 3e-4},
}
"""How a classification network is trained where nothing else is asked for, by the start of its
name; the others by the defaults of the settings. The CIFAR networks bear a rate of 0.1, by which
most others diverge in their first steps."""


def recipe_of(model: str) -> dict[str, Any]:
    """The settings of :data:`RECIPES` for a classification network of this name."""
    return next((recipe for start, recipe in RECIPES.items() if model.startswith(start)), {})
