"""How predicted loss was distributed at export: what drift of live traffic is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import PoolError

MIN_IMAGES = 200
"""With fewer, chance alone moves the population stability index beyond .1 again and again."""

_PARTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReference:
    """Quantiles of what an exported graph predicts for images of a pool.

    Attributes:
        pool: its URI, without credentials.
        images: that were scored.
        quantiles: of their predicted losses, float [101]: the smallest, the percentiles, the
            largest. Each is the loss of some image, so that a loss of many images stands there
            many times.

    Raises:
        ValueError: it is none: not finite, descending, or of another length.
    """

    pool: str
    images: int
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.quantiles, np.float64)
        if values.shape != (_PARTS + 1,) or not np.isfinite(values).all():
            raise ValueError("quantiles: 101 finite numbers are needed")
        if (np.diff(values) < 0).any() or self.images < 1:
            raise ValueError("quantiles: they must ascend, and be of some images")

    @classmethod
    def of(cls, losses: NDArray[np.float32], pool: str) -> LossReference:
        """Measure it.

        Args:
            losses: predicted by the exported graph, float32 [N]; what is not finite is left out.
            pool: that they are of.

        Raises:
            PoolError: fewer than :data:`MIN_IMAGES` are finite.
        """
        finite = np.sort(losses[np.isfinite(losses)].astype(np.float64))
        if len(finite) < MIN_IMAGES:
            raise PoolError(
                f"{pool}: only {len(finite)} of its images have a predicted loss; a reference "
                f"needs {MIN_IMAGES}: give a larger pool, or none"
            )
        # The smallest value that so many percent are at or below; in integers, for 0.29 is none.
        places = -(-len(finite) * np.arange(_PARTS + 1) // _PARTS) - 1
        quantiles = tuple(finite[places.clip(0)].tolist())
        return cls(pool=pool, images=len(finite), quantiles=quantiles)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LossReference:
        """The reverse of :meth:`as_dict`.

        Raises ``KeyError``, ``TypeError``, ``ValueError``, or ``OverflowError`` of an infinite
        count.
        """
        quantiles = tuple(float(value) for value in fields["quantiles"])
        return cls(pool=str(fields["pool"]), images=int(fields["images"]), quantiles=quantiles)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {"pool": self.pool, "images": self.images, "quantiles": list(self.quantiles)}

    def __str__(self) -> str:
        low, middle, high = (self.quantiles[percent] for percent in (10, 50, 90))
        return (
            f"predicted loss {middle:.4g} (80% within {low:.4g} to {high:.4g}) on "
            f"{self.images} images of {self.pool}"
        )
