"""Lift: how much more loss picked images have than random ones, under the model that picked them.

NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lloss.statistics.confidence_intervals import Floats, Interval, Z

LEAST = 10
"""Images, at least, of which a mean loss is compared."""


@dataclass(frozen=True)
class Lift:
    """Mean true loss of picks over that of random images.

    Attributes:
        value: the ratio; above 1 the picks were harder.
        interval: its 95 % interval; None if it is unknown.
    """

    value: float
    interval: Interval | None


def lift_of(losses: Floats, random_loss: float, random_error: float) -> Lift | None:
    """Compare the true losses of picks, [N], with those of random images.

    The interval is that of the logarithm of a ratio of two means, by the delta method.

    Args:
        losses: of the picks.
        random_loss: the mean of the random images.
        random_error: its standard error; NaN where it is unknown.

    Returns:
        None for fewer picks than :data:`LEAST`, and for a mean that is not positive and finite.
    """
    mean = float(losses.mean()) if len(losses) >= LEAST else math.nan
    if not (0 < mean < math.inf and 0 < random_loss < math.inf):
        return None
    deviation = math.hypot(standard_error(losses) / mean, random_error / random_loss)
    reach = math.exp(Z * deviation) if math.isfinite(deviation) else math.nan
    value = mean / random_loss
    return Lift(value, (value / reach, value * reach) if math.isfinite(reach) else None)


def standard_error(losses: Floats) -> float:
    """Return the standard error of the mean of losses [N]; NaN for fewer than two."""
    if len(losses) < 2:
        return math.nan
    return float(losses.std(ddof=1, dtype="float64")) / math.sqrt(len(losses))
