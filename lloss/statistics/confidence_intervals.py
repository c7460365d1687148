"""95 % intervals of measured figures. NumPy only.

A share of images gets Wilson's interval, every other figure that is a mean over images the
bootstrap's: the figure is computed again on images drawn with replacement, always by the same seed.
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
was drawn."""

CONFIDENCE = 0.95

_NORMAL = NormalDist()
Z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)

_DRAWS, _FEWEST_DRAWS = 1000, 200
_WORK = 50_000_000
"""Numbers that one bootstrap computes with: large sets, of narrow intervals, get fewer draws."""

_ROUNDING = 1e-9  # Draws of a share that differ by less are the same
_IN_MEMORY = 4_000_000  # Numbers in memory at a time


def wilson(hits: float, count: float) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); 0 to 1 where nothing was counted."""
    if not count > 0:
        return 0.0, 1.0
    if math.isinf(count):
        return hits, hits
    share, shrink = hits / count, 1 + Z**2 / count
    middle = share + Z**2 / (2 * count)
    reach = Z * math.sqrt(max(share * (1 - share), 0.0) / count + Z**2 / (4 * count**2))
    return max((middle - reach) / shrink, 0.0), min((middle + reach) / shrink, 1.0)


def fisher(correlation: float, count: int) -> Interval:
    """Of Spearman's rank correlation, by Fisher's z with the variance of Bonett & Wright (2000).

    A correlation of 1 is taken as half a step below it: on few images it happens by chance.
    """
    if math.isnan(correlation) or count < 4:
        return -1.0, 1.0
    most = 1 - 6 / (count * (count**2 - 1))
    inner = max(-most, min(correlation, most))
    reach = Z * math.sqrt((1 + inner**2 / 2) / (count - 3))
    z = math.atanh(inner)
    low, high = math.tanh(z - reach), math.tanh(z + reach)
    return (
        (low, 1.0) if correlation > most else (-1.0, high) if correlation < -most else (low, high)
    )


def bootstrap(
    count: int,
    figures: Resampled,
    support: Mapping[str, int] | None = None,
    work: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals, widened for few images (Hesterberg 2015, "expanded percentiles").

    Args:
        count: N images.
        figures: computes them.
        support: of figures that are 0 to 1, how many images each says something of. Where all
            draws give the same, such a figure gets Wilson's interval on them: that none of few
            images differs is not a certainty.
        work: numbers that a draw goes through; N where it is not given.

    Returns NaN, NaN for a figure that no draw has.
    """
    support = support or {}
    drawn: dict[str, list[Floats]] = {}
    random = np.random.default_rng([count, 95])
    left = min(_DRAWS, max(_FEWEST_DRAWS, _WORK // max(work, count, 1))) if count else 0
    while left > 0:
        some = min(left, max(1, _IN_MEMORY // max(work, count)))
        rows = random.integers(count, size=(some, count)) + count * np.arange(some)[:, None]
        weights = np.bincount(rows.ravel(), minlength=some * count).reshape(some, count)
        for name, values in figures(weights.astype(np.float64)).items():
            drawn.setdefault(name, []).append(values)
        left -= some
    return {
        name: _percentiles(np.concatenate(parts), support.get(name), count)
        for name, parts in drawn.items()
    }


def _percentiles(values: Floats, support: int | None, count: int) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    images = count if support is None else support
    if support is not None and np.ptp(known) < _ROUNDING:
        return wilson(float(known[0]) * images, images)
    tail = (
        _NORMAL.cdf(-math.sqrt(images / (images - 1)) * _student(images - 1)) if images > 1 else 0
    )
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t: Cornish and Fisher's expansion, good from 3 degrees on."""
    if freedom < 3:
        return (12.706, 4.303)[freedom - 1]
    z = Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


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
