"""What a head on a frozen network learns from: measured on images held out.

A head that sees a summary of the network's output can do without the feature maps. With few labels
the maps' hundreds of channels are mostly noise, and a head ranks the losses of other images better
without them, by far in classification and pose; of a detector trained on 40 images it ranks by far
better with them (``benchmarks/LOG.md``). So both are trained, and the one stays that orders more
held-out pairs right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HeadLoss
from lloss.statistics.ranking_metrics import ranking_figures
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_stack import is_constant
from lloss.training.head_training import (
    HeldOut,
    held_out_predictions,
    train_head,
)


@dataclass(frozen=True)
class HeadChoice:
    """Heads of one shape, with the feature maps and without, on images of a cache.

    ``folds`` are the numbers of the images' folds; those of -1 are never held out.
    """

    head: LossPredictionHead
    every: FeatureCache
    compare: HeadLoss
    seed: int
    folds: NDArray[np.int64]

    @cached_property
    def shares(self) -> tuple[float, float] | None:
        """Held-out pairs ordered right with the maps and without; None without a choice."""
        if self._alone is None:
            return None
        return self._right(self._with_maps), self._right(self._alone)

    @property
    def reads_maps(self) -> bool:
        """Whether the head learns from the feature maps: not where it ranks as well without."""
        return self.shares is None or self.shares[0] > self.shares[1]

    @cached_property
    def cache(self) -> FeatureCache:
        """What it learns of; maps that it does not read are 0."""
        return self.every if self.reads_maps else self.every.without_maps()

    @property
    def held_out(self) -> HeldOut:
        """Predictions of held-out images. Being the better of two, they look a little too good."""
        return self._with_maps if self._alone is None or self.reads_maps else self._alone

    @property
    def note(self) -> str:
        """A line on what was chosen; "" without a choice."""
        if self.shares is None:
            return ""
        with_maps, alone = (f"{share:.1%}" for share in self.shares)
        if self.reads_maps:
            return (
                "the head reads the feature maps and the network's output: with the output alone "
                f"it orders {alone} of the held-out pairs right, with both {with_maps}"
            )
        return (
            "the head reads the network's output and no feature maps: with them it orders "
            f"{with_maps} of the held-out pairs right, without {alone}"
        )

    def trained(self) -> LossPredictionHead:
        """Train a head on all images."""
        every = torch.arange(len(self.every.losses))
        return train_head(self.head, self.cache, every, self.compare, self.seed)

    @cached_property
    def _with_maps(self) -> HeldOut:
        return self._predictions(self.every)

    @cached_property
    def _alone(self) -> HeldOut | None:
        maps = len(self.every.inputs) - 1
        if not self.head.summary or not maps or is_constant(self.every.inputs[-1]):
            return None
        return self._predictions(self.every.without_maps())

    def _predictions(self, cache: FeatureCache) -> HeldOut:
        return held_out_predictions(self.head, cache, self.compare, self.seed, self.folds)

    def _right(self, found: HeldOut) -> float:
        held = self.folds >= 0
        some = found.predicted[held], self.every.image_losses[held]
        share = ranking_figures(*some, folds=self.folds[held]).ranking_accuracy
        return float(np.nan_to_num(share, nan=0.5))  # of losses that are all equal
