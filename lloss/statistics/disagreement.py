"""How much several outputs for one image disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mutual_information(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """BALD: the information that the class has about the network, in nats.

    The entropy of the mean of the probabilities minus the mean of their entropies (Houlsby et al.
    2011, https://arxiv.org/abs/1112.5745; by dropout: Gal et al. 2017,
    https://arxiv.org/abs/1703.02910).

    Args:
        probabilities: of T passes with dropout, float [T, N, C].

    Returns:
        float64 [N], 0 where all passes agree, at most log C.
    """
    each = np.asarray(probabilities, np.float64)
    shared: NDArray[np.float64] = _entropy(each.mean(0)) - _entropy(each).mean(0)
    return np.maximum(shared, 0.0)


def output_discrepancy(now: NDArray[Any], before: NDArray[Any]) -> NDArray[np.float64]:
    """TOD: Euclidean distance between the outputs of this cycle's network and the last one's.

    Temporal output discrepancy, a bound of the loss (Huang et al. 2021,
    https://arxiv.org/abs/2107.14153).

    Args:
        now: outputs, float [N, …].
        before: outputs for the same images, of the same shape.

    Returns:
        float64 [N].
    """
    change = np.asarray(now, np.float64) - np.asarray(before, np.float64)
    distance: NDArray[np.float64] = np.sqrt((change.reshape(len(change), -1) ** 2).sum(1))
    return distance


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """In nats over the last axis; a probability of 0 adds nothing."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropy: NDArray[np.float64] = -(probabilities * logs).sum(-1)
    return entropy
