"""How classification networks are trained where nothing else is asked for, by family.

Rates are the usual ones of each family; ``benchmarks/pretrained.py`` compares ways to start.
"""

from __future__ import annotations

import re
from typing import Any

Recipe = dict[str, Any]

BUDGET: Recipe = {"batch_size": 64, "steps": 1000, "least_epochs": 30, "fresh_lr": 1.0}
"""How much training is enough from random weights."""

SGD: Recipe = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 5e-4, "clip": 0.0}
CIFAR: Recipe = {**SGD, "lr": 0.1}
ADAMW: Recipe = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "clip": 1.0}
TRANSFORMER: Recipe = {**ADAMW, "lr": 3e-4}

FAMILIES: tuple[tuple[str, Recipe], ...] = (
    (r"resnet\d+.*-cifar", CIFAR),
    # Convolution with attention: as convolution.
    (r"(efficient|mobile|max)x?vit|coatnet|levit", ADAMW),
    (
        r"vit|deit|beit|swin|eva\d|cait|xcit|twins|pvt|\bnest|coat_|hiera|former|mixer|resmlp",
        TRANSFORMER,
    ),
    (
        r"resne[xs]?t|vgg|alexnet|densenet|googlenet|inception|squeezenet|regnet|mobilenet|shufflenet",
        SGD,
    ),
)
"""Patterns of names, of which the first that is found decides. All others, as EfficientNet, MNASNet
and ConvNeXt, are :data:`ADAMW`'s."""

BY_OPTIMIZER: dict[str, Recipe] = {
    "sgd": SGD,
    "rmsprop": {"lr": 3e-4, "weight_decay": 0.0, "clip": 0.0},
    "adam": {"lr": 1e-3, "weight_decay": 0.0, "clip": 0.0},
    "adamw": ADAMW,
}
"""Where another optimizer is asked for than the family's."""

FINE_TUNING = 0.3
"""Times the rate of random weights: trained ones are to be kept."""

FRESH = 3.0
"""Times that again, for layers that start fresh."""


def recipe_of(model: str, optimizer: str, pretrained: bool) -> Recipe:
    """Return settings for a network of classification, and ``steps``, the budget of batches.

    ``optimizer`` is the one that is asked for, or ``auto``; ``pretrained`` is whether the network
    starts from trained weights.
    """
    recipe = _family(model)
    if pretrained and recipe is not TRANSFORMER:
        recipe = ADAMW
    if optimizer not in ("auto", recipe["optimizer"]):
        recipe = {"optimizer": optimizer, **BY_OPTIMIZER[optimizer]}
    return fine_tuning({**BUDGET, **recipe}, steps=400) if pretrained else {**BUDGET, **recipe}


def fine_tuning(recipe: Recipe, **budget: int) -> Recipe:
    """Lower a recipe's rate, and the fewest epochs, for weights that are trained."""
    return {
        **recipe,
        **budget,
        "least_epochs": 10,
        "lr": round(recipe["lr"] * FINE_TUNING, 6),
        "fresh_lr": FRESH,
    }


def _family(model: str) -> Recipe:
    name = model.removeprefix("timm:")
    if ":" in name:
        return TRANSFORMER  # a network of the user's: the smallest steps suit most
    return next((recipe for pattern, recipe in FAMILIES if re.search(pattern, name)), ADAMW)
