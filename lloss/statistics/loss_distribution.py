"""The distribution of predicted losses at export, to measure drift of live traffic against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.text.counts import counted

MIN_IMAGES = 200
"""With fewer, chance alone moves the population stability index beyond .1 again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReference:
    """Quantiles of what an exported graph predicts for images of a pool.

    Raises:
        ValueError: quantiles not finite, descending, or of another length.
    """

    pool: str  # its URI, without credentials
    images: int  # that were scored
    # Of their predicted losses, float [101]: the smallest, the percentiles, the largest. Each is
    # the loss of some image; a loss of many images occurs many times
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.quantiles, np.float64)
        if values.shape != (101,) or not np.isfinite(values).all():
            raise ValueError("quantiles: 101 finite numbers are needed")
        if (np.diff(values) < 0).any() or self.images < 1:
            raise ValueError("quantiles: they must ascend, and be of some images")

    @classmethod
    def of(cls, losses: NDArray[np.float32], pool: str) -> LossReference:
        """Measure losses, float32 [N]; fewer finite than MIN_IMAGES are a ``PoolError``."""
        finite = np.sort(losses[np.isfinite(losses)].astype(np.float64))
        if len(finite) < MIN_IMAGES:
            raise PoolError(
                f"{pool}: only {len(finite)} of its images have a predicted loss; a reference "
                f"needs {MIN_IMAGES}: give a larger pool, or none"
            )
        # The smallest value that so many percent are at or below; in integers: 0.29 is inexact.
        places = -(-len(finite) * np.arange(101) // 100) - 1
        quantiles = tuple(finite[places.clip(0)].tolist())
        return cls(pool=pool, images=len(finite), quantiles=quantiles)

    def __str__(self) -> str:
        low, middle, high = (self.quantiles[percent] for percent in (10, 50, 90))
        return (
            f"predicted loss {middle:.4g} (80% within {low:.4g} to {high:.4g}) on "
            f"{counted(self.images, 'image')} of {self.pool}"
        )
