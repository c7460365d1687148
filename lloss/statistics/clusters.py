"""Images that are not independent, such as frames of one scene: intervals count clusters of them.

``clusters`` are int64 [N], the number of each image's cluster from 0 on; None where each image is a
cluster of its own. NumPy only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import Clusters, Floats, Interval, wilson


def clusters_of(names: Sequence[Hashable] | NDArray[np.int64]) -> Clusters:
    """Number the clusters that images [N] are named by; None where no two are in one."""
    _, numbers = np.unique(np.asarray(names), return_inverse=True)
    return None if len(numbers) == 0 or numbers.max() + 1 == len(numbers) else numbers


def among(clusters: Clusters, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Clusters:
    """Return the clusters of some images."""
    return None if clusters is None else clusters_of(clusters[rows])


def sums_by(clusters: Clusters, values: Floats) -> Floats:
    """Sum values [N, ...] over each cluster: float64 [G, ...]."""
    if clusters is None:
        return values
    sums = np.zeros((clusters.max() + 1, *values.shape[1:]))
    np.add.at(sums, clusters, values)
    return sums


def design_effect(influence: Floats, clusters: Clusters) -> float:
    """Divide a figure's variance by that which independent images would give it; 1 at least.

    Both are those of the infinitesimal jackknife: sums of squares of ``influence`` [N], the
    figure's derivatives by the images' weights, summed over each cluster first (Efron 1982, "The
    Jackknife, the Bootstrap and Other Resampling Plans", chapter 6; for clusters Obuchowski 1997,
    "Nonparametric analysis of clustered ROC curve data"). Where no image has an influence, the
    images of a cluster count as one.
    """
    if clusters is None:
        return 1.0
    count, groups = len(clusters), int(clusters.max()) + 1
    each = np.asarray(influence, np.float64)
    alone = float((each**2).sum()) * count / max(count - 1, 1)
    if groups < 2 or alone <= 1e-12:
        return float((np.bincount(clusters) ** 2).sum()) / count
    return max(1.0, float((sums_by(clusters, each) ** 2).sum()) * groups / (groups - 1) / alone)


def share_interval(hits: float, each: Floats, clusters: Clusters = None) -> Interval:
    """Compute Wilson's interval of a share: of the images [N] for which ``each`` is 1, not 0.

    ``hits`` is their number. Of clusters it is on as many independent images as have the share's
    variance (Rao and Scott 1992, "A simple method for the analysis of clustered binary data").
    """
    count = len(each)
    effect = design_effect(np.asarray(each, np.float64) - hits / max(count, 1), clusters)
    return wilson(hits / effect, count / effect)
