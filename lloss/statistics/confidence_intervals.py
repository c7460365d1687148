"""95 % intervals of measured figures. NumPy only.

A share of images gets Wilson's interval, every other figure that is a mean over images the
bootstrap's: the figure is computed again on images drawn with replacement, always by the same seed.
Images of one scene are drawn together, see :mod:`.clusters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Interval: TypeAlias = tuple[float, float]
Resampled: TypeAlias = Callable[[Floats], Mapping[str, Floats]]
"""Figures, each float [R], of R draws of the N images: weights float64 [R, N], how often an image
was drawn; N times in all, or about that where clusters are drawn."""

Clusters: TypeAlias = NDArray[np.int64] | None
"""The number of each image's cluster, int64 [N] from 0 on; None where each is one of its own."""

CONFIDENCE = 0.95

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors that a 95 % interval reaches to either side."""

_DRAWS, _FEWEST_DRAWS = 1000, 200
_LARGE = 500_000  # Draws times images: large sets, of narrow intervals, get fewer draws
_AT_A_TIME = 20_000  # Images that are drawn at a time; figures may need 200 numbers for each

_ROUNDING = 1e-9  # Draws that differ by less are the same


def wilson(hits: float, count: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); 0 to 1 where nothing was counted."""
    if not count > 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = hits / count, 1 + z**2 / count
    middle = share + z**2 / (2 * count)
    reach = z * math.sqrt(max(share * (1 - share), 0.0) / count + z**2 / (4 * count**2))
    return max((middle - reach) / shrink, 0.0), min((middle + reach) / shrink, 1.0)


def bootstrap(count: int, figures: Resampled, clusters: Clusters = None) -> dict[str, Interval]:
    """Compute percentile intervals of the figures of N images.

    Clusters of images are drawn whole, as many as there are (Davison and Hinkley 1997, "Bootstrap
    Methods and their Application", section 3.8; Field and Welsh 2007, "Bootstrapping clustered
    data").

    NaN, NaN for a figure that no draw has, or that is the same in all: that none of few images
    differs is not a certainty.
    """
    drawn: dict[str, list[Floats]] = {}
    units = count if clusters is None else int(clusters.max()) + 1
    random = np.random.default_rng([units, 95])
    left = min(_DRAWS, max(_FEWEST_DRAWS, _LARGE // count)) if count else 0
    while left > 0:
        some = min(left, max(1, _AT_A_TIME // count))
        rows = random.integers(units, size=(some, units)) + units * np.arange(some)[:, None]
        weights = np.bincount(rows.ravel(), minlength=some * units).reshape(some, units)
        drawn_images = weights if clusters is None else weights[:, clusters]
        for name, values in figures(drawn_images.astype(np.float64)).items():
            drawn.setdefault(name, []).append(values)
        left -= some
    return {name: _percentiles(np.concatenate(parts)) for name, parts in drawn.items()}


def _percentiles(values: Floats) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known) or np.ptp(known) < _ROUNDING:
        return math.nan, math.nan
    low, high = np.quantile(known, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def decimals(interval: Interval | None) -> int:
    """Decimals that a figure with this interval is worth."""
    width = interval[1] - interval[0] if interval else math.nan
    if not 0 < width < math.inf:
        return 3
    return max(0, min(1 - math.floor(math.log10(width)), 4))


def in_words(value: float | None, interval: Interval | None, count: int = 0) -> str:
    """Format a figure as ``0.50 (95 % interval 0.19 to 0.81, 6 images)``."""
    if value is None or math.isnan(value):
        return "unknown"
    if interval is None or not usable(interval):
        return f"{value:.3f}"
    places = decimals(interval)
    many = f", {count:,} images" if count else ""
    return f"{value:.{places}f} ({_range(interval, places)}{many})"


def in_percent(value: float | None, interval: Interval | None) -> str:
    """Format a share as ``50%``, with the digits that its interval allows; – if undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{max(decimals(interval) - 2, 0) if usable(interval) else 1}%}"


def in_points(difference: float, places: int = 1) -> str:
    """Format a difference of shares as ``+10.1`` or ``−0.4``; without a sign where it is near 0."""
    number = f"{100 * difference:+z.{places}f}"
    return (number if number.strip("+0.") else number[1:]).replace("-", "−")


def range_in_percent(interval: Interval | None) -> str:
    """Format an interval as ``19% to 81%``; "" without one."""
    if interval is None or not usable(interval):
        return ""
    low, high = (in_percent(end, interval) for end in interval)
    return f"{low} to {high}"


def usable(interval: Interval | None) -> bool:
    """Whether there is an interval, with two ends."""
    return interval is not None and all(end is not None and math.isfinite(end) for end in interval)


def _range(interval: Interval, places: int) -> str:
    low, high = interval
    return f"95 % interval {low:.{places}f} to {high:.{places}f}"
