"""What a network from outside computed of two images, by which changed code is noticed.

Its weights are in the checkpoint, its code is not: another activation fits the same weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_source import is_outside
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import predict

IMAGES = 2

TOLERANCE = 0.05
"""Allowed difference, as a share of the largest value. Two devices differ by far less, TF32 too."""

REPEATED = 1e-4  # The same of one network run twice, by which one that draws at random is noticed

LEAST = {"embedding": 0.0, "entropy": 1.0}
"""What the largest value counts as at least: the entropy of a sure network amplifies rounding."""

Probe = dict[str, Tensor]


def probe(model: TappedNetwork, settings: TrainSettings, images: NDArray[np.uint8]) -> Probe | None:
    """Run a network from outside, in eval mode, on the first two of uint8 [S, H, W, 3].

    Returns embedding and entropy, float [2, ...]; None for a network of lloss, and for one that
    draws its output at random.
    """
    if not is_outside(settings.model):
        return None
    once, again = (_values(model, settings, images[:IMAGES]) for _ in range(2))
    return once if same(once, again, REPEATED) else None


def same(one: Probe, other: Probe, tolerance: float = TOLERANCE) -> bool:
    """Return whether two probes are of networks that compute the same."""
    return one.keys() == other.keys() and all(
        values.shape == other[name].shape
        and float((values - other[name]).abs().max())
        <= tolerance * max(LEAST[name], float(values.abs().max()))
        for name, values in one.items()
    )


def _values(model: TappedNetwork, settings: TrainSettings, images: NDArray[np.uint8]) -> Probe:
    ((_, forward),) = predict(model, settings, images, IMAGES)
    found = {"embedding": forward.embedding, **model.objective.outputs(forward.output)}
    return {n: v.detach().float().cpu() for n, v in found.items() if n in LEAST}
