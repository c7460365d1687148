"""How far two models agree on the classes of the same images. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Agreement beyond chance of two classes for each of N images, -1 to 1 (Cohen 1960).

    ``(a - e) / (1 - e)``, where ``a`` is the share of equal classes and ``e`` the share that is
    equal if both give their classes as often, but independently of each other. NaN for no images; 1
    where both give one class to all.
    """
    if not len(one):
        return float("nan")
    _, codes = np.unique(np.array([*one, *other], dtype=object).astype(str), return_inverse=True)
    first, second = codes[: len(one)], codes[len(one) :]
    agreed = int(np.count_nonzero(first == second))
    counts = [np.bincount(c, minlength=codes.max() + 1) for c in (first, second)]
    # Times N², in whole numbers: that all agree by chance is exactly that.
    chance, total = int(counts[0].astype(object) @ counts[1].astype(object)), len(one) ** 2
    return 1.0 if chance == total else (agreed * len(one) - chance) / (total - chance)
